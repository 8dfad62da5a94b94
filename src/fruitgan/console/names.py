"""Names that options take: an unknown one is refused before anything heavy is imported, and the shell completes the known.

A job checks them again. What is here reads package metadata and folder names alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import fruitgan
from fruitgan.errors import UsageError
from fruitgan.registry import Registry, suggestion

SHIPPED = Path(fruitgan.__file__).parent / "weights"
FILES = {"": "config.json", "train-gan": "bundle.safetensors", "train-detector": "detector.safetensors"}
"""What a run of a kind has, by the folder that its kind's runs lie in; of any kind: a config."""


def registered(kind: str, *besides: str, several: bool = False) -> dict[str, Any]:
    """For an option that takes a registered name: its check and its completion, as keywords of `typer.Option`.

    Args:
        besides: words that are no names.
        several: the option takes several names with commas; it gives them one by one.
    """
    registry = Registry[Any](kind)

    def check(value: str | list[str] | None) -> str | list[str] | None:
        texts = [value] if isinstance(value, str) else value or []
        found = [name.strip() for text in texts for name in (text.split(",") if several else [text])]
        for name in found:
            if name not in besides and not _is_path(name):
                registry.owner(name)
        return found if several else value

    def complete(incomplete: str) -> list[str]:
        before, comma, begun = incomplete.rpartition(",") if several else ("", "", incomplete)
        return [f"{before}{comma}{name}" for name in _that_begin(begun, [*registry.names(), *besides])]

    return {"callback": check, "autocompletion": complete}


def one_of(what: str, *sources: Callable[[], Iterable[str]]) -> dict[str, Any]:
    """For an option that takes a name from these sources, a run's name, a path or an address: its check and its completion."""

    def check(value: str | None) -> str | None:
        if value and not _is_path(value) and not {":", "@"} & set(value) and not any(path.name == value for path in _runs("*")):
            known = sorted({name for source in sources for name in source()})
            if value not in known:
                raise UsageError(f"no {what} named {value!r}: {suggestion(value, known)}")
        return value

    return {"callback": check, **completed(*sources)}


def completed(*sources: Callable[[], Iterable[str]]) -> dict[str, Any]:
    """For an option that takes a name from these sources, or a path: its completion."""

    def complete(incomplete: str) -> list[str]:
        return _that_begin(incomplete, sorted({name for source in sources for name in source()}))

    return {"autocompletion": complete}


def sets() -> list[str]:
    """The named data sets."""
    return Registry[Any]("datasets").names()


def bundles() -> list[str]:
    """The bundles that ship."""
    return [path.stem for path in SHIPPED.glob("*.safetensors")]


def runs(kind: str = "") -> Callable[[], list[str]]:
    """The names of the runs here: of `train-gan` and so on, or of all kinds."""
    return lambda: [path.name for path in _runs(kind or "*") if (path / FILES[kind]).exists()]


def _runs(kind: str) -> Iterator[Path]:
    return Path("runs").glob(f"{kind}/*")


def _that_begin(begun: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(begun)]


def _is_path(name: str) -> bool:
    """Whether a name is a file's or a folder's where such may stand for it."""
    return os.sep in name or "/" in name or Path(name).suffix in (".toml", ".safetensors") or Path(name).exists()
