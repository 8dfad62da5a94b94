"""`fruitgan push`: a bundle as a repository of the Hugging Face Hub."""

from __future__ import annotations

from typing import Annotated

import typer

from fruitgan.console import Console, options
from fruitgan.console.signals import stopped_at_once


def push(
    bundle: Annotated[str, typer.Argument(metavar=options.BUNDLE, help="What to push.")],
    repository: Annotated[str, typer.Argument(metavar="USER/NAME", help="Where to; it is made if there is none.")],
    public: Annotated[bool, typer.Option("--public", help="For everybody to see; else for you alone.")] = False,
    samples: Annotated[
        bool, typer.Option("--samples", help="Add the run's newest sample sheet, which shows pictures of the training data.")
    ] = False,
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
