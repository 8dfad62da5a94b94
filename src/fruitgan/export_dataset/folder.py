"""The dataset folder: what is there, whether it may be gone on with, and how it is finished.

At every moment there is either no manifest, or one that agrees with the pictures. While an export is at work a file says so,
and says which; the same export goes on from there, and no other does. A lock keeps others out meanwhile.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from fruitgan.data.finder import image_files
from fruitgan.data.labelled import LABELS, MANIFEST, ORIGINS, PREDICTED, UNFINISHED, ManifestRow, manifest_bytes, read_manifest
from fruitgan.errors import DataError, UsageError, writing
from fruitgan.export_dataset.selection import Item
from fruitgan.files import file_sha256, remove_abandoned, remove_file, write_atomically
from fruitgan.images import SUFFIXES
from fruitgan.parallel import in_order
from fruitgan.runs.run import locked

CARD = "dataset.json"
FORMAT = 1
OWN_NAME = re.compile(r"\d{6,}\.(png|webp|jpg)")
WHAT_TO_DO = "--overwrite replaces, --out writes elsewhere"
STRANGE = "is in the way, and export-dataset did not make it; remove it or give another --out"
SAME_TIME = 315532800
"""1980-01-01 in seconds: when the pictures were made says nothing of how; a zip file holds no older time."""


class DatasetFolder:
    """The folder of one export."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest, self.card, self.unfinished = path / MANIFEST, path / CARD, path / UNFINISHED

    @contextmanager
    def taken(self, alone: bool = True) -> Iterator[None]:
        """Have the folder, which is made, to oneself, cleared of what dead processes left half-written in it.

        The parts of one export make files of their own, and share it; whoever finishes it has it `alone`.

        Raises:
            RunInUse: another process has it; nothing was changed.
            FruitganError: it cannot be written to.
        """
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        with locked(self.path) if alone else nullcontext():
            remove_abandoned(self.path, deep=True)
            yield

    def made_of(self) -> Mapping[str, Any] | None:
        """What made the folder, or is making it; None if it was not exported or is half cleared."""
        for file in (self.unfinished, self.card):
            if file.is_file():
                try:
                    table = json.loads(file.read_bytes())
                except (OSError, ValueError, RecursionError):
                    return None
                made_of = table.get("made_of") if isinstance(table, dict) and table.get("format") == FORMAT else None
                return made_of if isinstance(made_of, dict) else None
        return None

    def refuse_others(self, made_of: Mapping[str, Any]) -> None:
        """Let through only what this export itself has left there; `made_of` may be a part of all that makes it.

        Raises:
            UsageError: something else is there.
        """
        there = self.made_of()
        if there is None:
            pictures = sorted(path.name for path in self.path.glob("*") if path.suffix.lower() in SUFFIXES)
            if pictures:
                raise UsageError(f"{self.path}: holds other pictures, such as {pictures[0]}; give another folder with --out")
            files = [path for folder in self._folders for path in folder.iterdir()]
            if any(os.path.lexists(path) for path in (*files, self.manifest, self.card, self.unfinished)):
                raise UsageError(f"{self.path}: is in the way (not a dataset of export-dataset): {WHAT_TO_DO}")
            return
        other = next((key for key, value in made_of.items() if there.get(key) != value), None)
        if other is not None:
            what = other.removesuffix("_px").replace("_", " ")
            raise UsageError(f"{self.path}: is in the way (not the same {what}): {WHAT_TO_DO}")

    def refuse_file(self) -> None:
        """Raises: UsageError if a file is where the folder should be."""
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"{self.path}: is in the way and is no folder; give another with --out")

    def clear(self) -> None:
        """Take away what an export left, and nothing else.

        Raises:
            UsageError: what is there was not exported, or images of others lie among it; nothing is taken away.
        """
        if self.unfinished.exists() or self.made_of() is not None:
            own = [path for folder in self._folders for path in folder.iterdir() if OWN_NAME.fullmatch(path.name)]
            self.refuse_strangers(own)
            self._mark(None)  # so that the rest of a clearing that was killed is not taken for a dataset
            for file in (self.card, self.manifest, *own, self.unfinished):
                remove_file(file)
        else:
            self.refuse_strangers(())
            for file in (self.manifest, self.card):
                if os.path.lexists(file):
                    raise UsageError(f"{file}: {STRANGE}")

    @property
    def _folders(self) -> list[Path]:
        """Those of the pictures, as far as they are there."""
        return [self.path / name for name in (PREDICTED, ORIGINS) if (self.path / name).is_dir()]

    def refuse_strangers(self, known: Collection[Path]) -> None:
        """Raises UsageError if there are images in the folders of the pictures that are not known."""
        for path in (path for folder in self._folders for path in image_files(folder)):
            if path not in known:
                raise UsageError(f"{path}: {STRANGE}")

    def missing(self, items: Sequence[Item]) -> list[Item]:
        """The items to make: absent, or not the file that the manifest speaks of."""
        known: dict[str, str] = {}
        with suppress(DataError):  # a manifest that cannot be read is written anew
            known = {row.file: row.sha256 for row in read_manifest(self.manifest)}

        def is_missing(item: Item) -> bool:
            path = self.path / item.file
            return not path.is_file() or (item.file in known and known[item.file] != file_sha256(path))

        return [item for item, missing in in_order(is_missing, items) if missing]

    def is_finished(self, items: Sequence[Item]) -> bool:
        """Whether the manifest and the card are there and speak of these items; their pictures were seen to be there."""
        if self.unfinished.exists() or not self.card.is_file():
            return False
        try:
            return {row.file for row in read_manifest(self.manifest)} == {item.file for item in items}
        except DataError:
            return False

    def begin(self, made_of: Mapping[str, Any], todo: Sequence[Item]) -> None:
        """From here on the folder is unfinished.

        What is there and must be made again goes before the manifest, which alone knows that it is not what it was.
        """
        self._mark(made_of)
        for item in todo:
            remove_file(self.path / item.file)
        remove_file(self.card)  # before the manifest, without which it speaks of nothing
        remove_file(self.manifest)

    def _mark(self, made_of: Mapping[str, Any] | None) -> None:
        write_atomically(self.unfinished, _json({"format": FORMAT, "made_of": made_of}))

    def finish(self, items: Sequence[Item], weights_sha256: str, card: Mapping[str, Any]) -> None:
        """Write the manifest and then the card; the dataset is whole.

        Raises:
            FruitganError: they cannot be written.
        """
        rows = []
        ordered = sorted(items, key=lambda item: item.file)
        for item, digest in in_order(lambda item: file_sha256(self.path / item.file), ordered):
            with suppress(OSError):  # some mounted drives keep no times
                os.utime(self.path / item.file, (SAME_TIME, SAME_TIME))
            label, bundle = LABELS[item.generated], weights_sha256 if item.generated else ""
            rows.append(ManifestRow(item.file, label, item.source, item.picture.split, item.group, digest, bundle))
        write_atomically(self.manifest, manifest_bytes(rows))
        write_atomically(self.card, _json(card))
        remove_file(self.unfinished)


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()
