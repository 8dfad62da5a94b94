"""`fruitgan plum`."""

from __future__ import annotations

from typing import Annotated

import typer

from fruitgan.console import Console, options
from fruitgan.errors import DataError


def plum(
    stones: Annotated[int, typer.Option(min=0, help="How many stones the plum has.")] = 1,
    json: options.Json = False,
    config: options.Config = None,
) -> None:
    """Describe a plum."""
    if stones > 1:
        raise DataError(f"a plum with {stones} stones is no plum")
    console = Console(json=json)
    console.result({"stones": stones})
    console.out(f"a plum with {stones or 'no'} stone")
