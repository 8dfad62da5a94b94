"""`fruitgan list`: what is registered, with a line on each, from metadata and source texts; nothing of it is imported."""

from __future__ import annotations

import shutil
import sys
import textwrap
from typing import Any

from fruitgan.console import Console, names, options
from fruitgan.registry import KINDS, OWN_PACKAGE, Registry, known_kind

LEAST_COLUMNS = 80


def list_registered(
    kind: str | None = options.argument("", "One kind alone: generators, recipes, ...", **names.completed(lambda: KINDS)),
    json: options.Json = False,
) -> None:
    """Show what is registered, with a line on each; `fruitgan show NAME` says more.

    Example: fruitgan list generators
    """
    console = Console(json=json)
    found = {name: Registry[Any](name).entries() for name in ([known_kind(kind)] if kind else KINDS)}
    if json:  # a summary is looked for in source text: once
        console.result({name: [{**vars(entry), "summary": entry.summary} for entry in it] for name, it in found.items()})
        return
    columns = max(LEAST_COLUMNS, shutil.get_terminal_size().columns) if sys.stdout.isatty() else LEAST_COLUMNS
    for name, entries in found.items():
        console.out(f"{name}:" if entries else f"no {name} are registered")
        width = max((len(entry.name) for entry in entries), default=0)
        for entry in entries:
            whose = "" if entry.package == OWN_PACKAGE else f"({entry.package} {entry.version}) "
            line = " ".join(f"{whose}{entry.summary}".split())
            short = textwrap.shorten(line, columns - width - 4, placeholder=" ...", break_on_hyphens=False)
            console.out(f"  {entry.name:{width}}  {short}".rstrip())
