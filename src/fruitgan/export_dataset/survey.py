"""Every picture of the data, looked at once: what it holds, what it resembles, and whether it may be used."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fruitgan.data.decode import decode
from fruitgan.data.groups import content_sha256, near_groups, perceptual_hash
from fruitgan.data.parallel import in_order
from fruitgan.data.sources import Domain, Source
from fruitgan.errors import DataError
from fruitgan.export_dataset.settings import LeftOut, OnProgress
from fruitgan.translate.picture_files import Remark


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A file that can be decoded, without its pixels."""

    path: Path
    name: str
    """Relative to the folder that holds all of the data, with `/`."""
    split: str
    """`train` or `test`."""
    content: str
    """The hash of its pixels."""
    look: int
    """64 bits of how it looks."""
    shorter_px: int
    format: str


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What the data hold."""

    pictures: Mapping[str, Mapping[str, tuple[Picture, ...]]]
    """Those that may be used, by domain and split, each content once in each."""
    groups: Mapping[str, str]
    """The group of every content, near-duplicates having one in common; also of what may not be used."""
    trained_groups: frozenset[str]
    """The groups that a training picture is in."""
    left_out: LeftOut


def survey(source: Source, on_progress: OnProgress | None = None) -> Survey:
    """Decode every image of both domains and splits once.

    A picture that the training split of either domain shares with the test split of either is left out of both: it would count
    as unseen and is not.

    Raises:
        DataError: a file that was there is there no more.
    """
    root = _root(source)
    found: dict[tuple[str, str], list[Picture]] = {}
    unreadable: list[Remark] = []
    for domain in (source.a, source.b):
        for split, files in (("train", domain.train), ("test", domain.test)):
            pictures = found.setdefault((domain.name, split), [])
            for done, (path, seen) in enumerate(in_order(_look, files), start=1):
                if isinstance(seen, str):
                    unreadable.append(Remark(str(path), seen))
                else:
                    content, look, shorter_px, form = seen
                    name = Path(os.path.abspath(path)).relative_to(root).as_posix()
                    pictures.append(
                        Picture(
                            path=path,
                            name=name,
                            split=split,
                            content=content,
                            look=look,
                            shorter_px=shorter_px,
                            format=form,
                        )
                    )
                if on_progress is not None:
                    on_progress(f"looking at {split} {domain.name}", done, len(files))
    return _sorted_out(source, found, tuple(unreadable))


def _look(path: Path) -> tuple[str, int, int, str] | str:
    try:
        decoded = decode(path)
    except DataError as error:
        if not os.path.lexists(path):  # a drive that is gone must not become a smaller dataset
            raise DataError(
                f"{path}: disappeared while the images were looked at; give the command again when it is back"
            ) from error
        return str(error).removeprefix(f"{path}: ")
    pixels = decoded.pixels
    return content_sha256(pixels), perceptual_hash(pixels), min(pixels.shape[:2]), decoded.format


def _root(source: Source) -> Path:
    """The folder that holds all of the data: for a folder in the CycleGAN layout it is that folder."""
    files = [path for domain in (source.a, source.b) for path in (*domain.train, *domain.test)]
    return Path(os.path.commonpath([os.path.abspath(path.parent) for path in files]))


def _sorted_out(source: Source, found: Mapping[tuple[str, str], Sequence[Picture]], unreadable: tuple[Remark, ...]) -> Survey:
    contents = {
        split: {picture.content for (_, place), pictures in found.items() if place == split for picture in pictures}
        for split in ("train", "test")
    }
    shared = contents["train"] & contents["test"]
    in_both_splits = repeated = 0
    kept: dict[str, dict[str, tuple[Picture, ...]]] = {source.a.name: {}, source.b.name: {}}
    for (domain, split), pictures in found.items():
        usable: dict[str, Picture] = {}
        for picture in pictures:
            if picture.content in shared:
                in_both_splits += 1
            elif picture.content in usable:
                repeated += 1
            else:
                usable[picture.content] = picture
        kept[domain][split] = tuple(usable.values())
    everything = [picture for pictures in found.values() for picture in pictures]
    groups = near_groups([picture.content for picture in everything], [picture.look for picture in everything])
    return Survey(
        pictures=kept,
        groups=groups,
        trained_groups=frozenset(groups[content] for content in contents["train"]),
        left_out=LeftOut(unreadable=unreadable, in_both_splits=in_both_splits, repeated=repeated),
    )


def oriented(source: Source, domains: tuple[str, str], direction: str) -> tuple[Domain, Domain, str | None]:
    """The domain to translate from, the one to arrive at, and what is odd about them.

    `domains` are the bundle's. Where the data call theirs the same they are matched by name, else a with a.
    """
    ours = (source.a, source.b)
    odd = None
    if (source.b.name, source.a.name) == domains:
        ours = (source.b, source.a)
    elif (source.a.name, source.b.name) != domains:
        odd = (
            f"the bundle knows {domains[0]} and {domains[1]}, the data hold {source.a.name} and {source.b.name}: "
            f"taking {source.a.name} for {domains[0]} and {source.b.name} for {domains[1]}"
        )
    return (*ours, odd) if direction == "a2b" else (ours[1], ours[0], odd)
