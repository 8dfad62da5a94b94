"""A headless Chromium over two pipes, by the DevTools protocol: what it logs, what it requests, and what a page measures."""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
PATIENCE_SECONDS = 60.0
"""For one answer; only a browser that hangs takes so long."""
SWITCHES = (
    "--headless=new",
    "--no-sandbox",  # in a container there is none
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)
# The protocol is on file descriptors 3 and 4 of the browser.
BEGIN = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"


def executable() -> str | None:
    """Where Chromium is, if it is installed."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Chromium:
    """One page in one browser; `open` begins anew."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self.to_browser, self.from_browser = to_browser, from_browser
        self.number = 0
        self.rest = b""
        self.events: list[dict[str, Any]] = []
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self.session: str | None = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")

    session = None

    def __call__(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The browser's answer.

        Raises:
            RuntimeError: it refuses, or is gone.
        """
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session is not None:
            message["sessionId"] = self.session
        os.write(self.to_browser, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return dict(answer["result"])
            self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            ready, _, _ = select.select([self.from_browser], [], [], PATIENCE_SECONDS)
            piece = os.read(self.from_browser, 1 << 20) if ready else b""
            if not piece:
                raise RuntimeError("the browser is gone, or hangs")
            self.rest += piece
        message, _, self.rest = self.rest.partition(b"\0")
        return dict(json.loads(message))

    def open(self, page: Path, *, width_px: int = 1280, height_px: int = 900, dark: bool = False) -> None:
        """Load a file, wait for all of it, and for the pictures to be decoded."""
        self.events.clear()
        self("Emulation.setDeviceMetricsOverride", width=width_px, height=height_px, deviceScaleFactor=1, mobile=width_px < 600)
        scheme = "dark" if dark else "light"
        self("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self("Page.navigate", url=page.as_uri())
        while not self._told("Page.loadEventFired"):
            self.events.append(self._next())

    def value(self, expression: str) -> Any:
        """What a JavaScript expression gives; promises are waited for."""
        found = self("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(f"{expression}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def press_tab(self) -> None:
        for kind in ("rawKeyDown", "keyUp"):
            self("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)

    def complaints(self) -> list[str]:
        """Errors and warnings of the console, and exceptions."""
        entries = [told["entry"] for told in self._told("Log.entryAdded")]
        thrown = [*self._told("Runtime.exceptionThrown"), *self._told("Runtime.consoleAPICalled")]
        return [entry["text"] for entry in entries if entry["level"] in ("error", "warning")] + list(map(json.dumps, thrown))

    def requests(self) -> list[str]:
        """What was asked for, the page itself included; data within the page are none."""
        sent = [told["request"]["url"] for told in self._told("Network.requestWillBeSent")]
        return [address for address in sent if not address.startswith("data:")]

    def _told(self, method: str) -> list[dict[str, Any]]:
        """The parameters of these events of the open page."""
        return [event["params"] for event in self.events if event.get("method") == method]


@contextmanager
def browser(profile: Path) -> Iterator[Chromium]:
    """A browser with a new profile in that folder; gone at the end, with all its processes."""
    path = executable()
    assert path is not None
    pipes = [tuple(fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in os.pipe()) for _ in range(2)]
    (its_in, our_out), (our_in, its_out) = pipes
    os.set_inheritable(its_in, True)
    os.set_inheritable(its_out, True)
    process = subprocess.Popen(
        [sys.executable, "-c", BEGIN, str(its_in), str(its_out), path, *SWITCHES, f"--user-data-dir={profile}"],
        pass_fds=(its_in, its_out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(its_in)
    os.close(its_out)
    found = None
    try:
        found = Chromium(our_out, our_in)
        yield found
    finally:
        if found is not None:
            found.session = None
            with suppress(RuntimeError, OSError):
                found("Browser.close")
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, 9)
        process.wait()
        os.close(our_out)
        os.close(our_in)
