"""Which images the generated ones were made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fruitgan.data.labelled import LabelledImage
from fruitgan.data.sources import image_files
from fruitgan.errors import DataError


@dataclass(frozen=True)
class Sources:
    """The source images."""

    paths: tuple[Path, ...]
    paired: bool
    """Whether source i is that of generated image i."""
    note: str | None
    """What to know about the choice."""


def find_sources(folder: Path, fakes: Sequence[LabelledImage], *others: Path) -> Sources:
    """The sources of the generated images, by the manifest or by name, else all images of the folder.

    `folder` is where the sources lie, or what the manifest's paths are relative to. `others` are the folders that it must not
    be.

    Raises:
        DataError: no such folder, no images in it, or it is one of the others.
    """
    if not folder.is_dir():
        raise DataError(f"--source-dir {folder}: {'not a folder' if folder.exists() else 'no such folder'}")
    if folder.resolve() in [other.resolve() for other in others]:
        raise DataError(f"--source-dir {folder}: is the folder of the real or of the generated images")
    files = image_files(folder)
    if not files:
        raise DataError(f"--source-dir {folder}: holds no images")
    if all(fake.source for fake in fakes):
        by_path = {path.relative_to(folder).as_posix(): path for path in files}
        by_name = _unique({path: path.name for path in files})
        found = [by_path.get(fake.source) or by_name.get(Path(fake.source).name) for fake in fakes]
    else:
        by_stem = _unique({path: path.stem for path in files})
        found = [by_stem.get(fake.path.stem) for fake in fakes]
    known = tuple(path for path in found if path is not None)
    if len(known) == len(fakes):
        return Sources(known, True, None)
    missing = f"of {len(fakes) - len(known)} of {len(fakes)} generated images the source is not known, so "
    return Sources(files, False, f"{missing}R takes all {len(files)} images of {folder} as sources, and its interval is wider")


def _unique(names: dict[Path, str]) -> dict[str, Path]:
    """By name, those that bear it alone."""
    found: dict[str, Path] = {}
    twice: set[str] = set()
    for path, name in names.items():
        if name in found:
            twice.add(name)
        found[name] = path
    return {name: path for name, path in found.items() if name not in twice}
