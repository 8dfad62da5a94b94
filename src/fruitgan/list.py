"""`fruitgan list`: what is registered and by whom, from the packages' metadata; nothing of it is imported."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fruitgan.console import Console, options
from fruitgan.errors import UsageError
from fruitgan.registry import KINDS, Registry, suggestion


def list_registered(
    kind: Annotated[str | None, typer.Argument(help="One kind alone: generators, recipes, ...", show_default=False)] = None,
    json: options.Json = False,
) -> None:
    """Show what is registered, and by which package."""
    console = Console(json=json)
    found = {name: Registry[Any](name).entries() for name in ([_known(kind)] if kind else KINDS)}
    console.result(found)
    rows = [(name, entry.name, entry.package, entry.version) for name, entries in found.items() for entry in entries]
    if rows:
        console.table("", ("kind", "name", "package", "version"), rows)
    for name, entries in found.items():
        if not entries:
            console.out(f"no {name} are registered")


def _known(kind: str) -> str:
    """The kind's name; the singular will do.

    Raises:
        UsageError: no such kind.
    """
    for known in KINDS:
        if kind in (known, known.removesuffix("s")):
            return known
    raise UsageError(f"no kind {kind!r}: {suggestion(kind, KINDS)}")
