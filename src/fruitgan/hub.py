"""`fruitgan push`: a bundle as a repository of the Hugging Face Hub."""

from __future__ import annotations

from fruitgan.console import Console, options
from fruitgan.console.options import argument, option
from fruitgan.console.signals import stopped_at_once


def push(
    bundle: str = argument(options.BUNDLE, "What to push.", default=...),
    repository: str = argument("USER/NAME", "Where to; it is made if there is none.", default=...),
    public: bool = option("--public", "For everybody to see; else for you alone.", default=False),
    samples: bool = option(
        "--samples", "Add the run's newest sample sheet, which shows pictures of the training data.", default=False
    ),
    config: options.Config = None,
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Push a bundle and its model card to the Hugging Face Hub.

    Example: fruitgan push apple2orange USER/apple2orange
    """
    given = locals()
    from fruitgan.hub_job import PushSettings
    from fruitgan.hub_job import push as run

    console = Console(json=json, quiet=quiet)
    settings = options.settings_of(PushSettings, given)
    with stopped_at_once("stopped; the same command goes on"), console.events() as on_progress:
        result = run(settings, on_progress)
    console.result(result)
    console.out(result.address)
    console.say(f"{result.url} ({'private' if result.private else 'public'}): {', '.join(result.files)}")
