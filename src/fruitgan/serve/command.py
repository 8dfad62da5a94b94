"""`fruitgan serve`."""

from __future__ import annotations

import logging
import socket
import sys
from pathlib import Path

from fruitgan.console import Console, options
from fruitgan.console.options import option
from fruitgan.console.signals import stopped_at_once
from fruitgan.errors import FruitganError, needing, reason_of


def serve(
    bundle: list[str] | None = option(f"--bundle {options.BUNDLE}[@STEP]", "One more bundle to offer."),
    runs: Path = option("--runs DIR", "The folder of the run folders.", default=Path("runs/train-gan")),
    detectors: Path = option("--detectors DIR", "Where detectors are.", default=Path("runs/train-detector")),
    host: str = option("--host", "Where to listen; others than this machine need --auth.", default="127.0.0.1"),
    port: int = option("--port", "0 is any that is free.", default=8000, min=0, max=65535),
    auth: str | None = option(
        "--auth USER:PASSWORD", "What every request must give; FRUITGAN_AUTH keeps it out of the list of processes."
    ),
    config: options.Config = None,
    quiet: options.Quiet = False,
) -> None:
    """Serve pages on this machine: translate pictures, watch runs, ask detectors.

    Example: fruitgan serve --port 8080
    """
    given = locals()
    with needing("serve", "serve"):
        import uvicorn

        from fruitgan.serve.app import ServeSettings, make_app
    settings = options.settings_of(ServeSettings, given, bundles=tuple(bundle or ()))
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise FruitganError(f"--host {host} --port {port}: cannot listen there ({reason_of(error)})") from error
    console = Console(quiet=quiet)
    with stopped_at_once("stopped"), listening:
        app = make_app(settings)
        console.out(f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}")
        if not settings.is_loopback:
            console.warn("pictures and the password travel unencrypted; put a proxy with TLS before it")
        sys.stdout.flush()  # whoever started this reads the address, and it may be long before there is more
        quietly = uvicorn.Config(app, log_level="error", access_log=False, server_header=False, timeout_graceful_shutdown=2)
        server = uvicorn.Server(quietly)
        # Whom the stop cuts short is told so by the answer.
        logging.getLogger("uvicorn.error").addFilter(lambda record: not server.should_exit)
        server.run(sockets=[listening])
