"""Look at every picture of a data set once: its hashes, size, format and colours."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from fruitgan.cluster import Cluster
from fruitgan.data.groups import content_sha256, perceptual_hash
from fruitgan.data.parallel import in_order
from fruitgan.data.preprocessing import Preprocessing, Traits, traits
from fruitgan.data.sources import Source
from fruitgan.errors import DataError
from fruitgan.images import Pixels
from fruitgan.progress import OnProgress, Progress, silent
from fruitgan.settings import from_json, to_json

GREY_DIFFERENCE = 3.0
"""Mean difference of the colour channels, of 255, up to which a picture is greyscale (JPEG adds about 1)."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What is kept of a decoded file."""

    path: Path
    domain: str
    split: str
    """`train` or `test`."""
    content: str
    """The hash of its size and pixels."""
    look: int
    """64 bits of how it looks."""
    width_px: int
    height_px: int
    """Both of the upright picture."""
    format: str
    mode: str
    """The file's colour mode in Pillow's words."""
    traits: Traits
    is_greyscale: bool


@dataclass(frozen=True, kw_only=True)
class BrokenFile:
    """A file that cannot be decoded."""

    path: Path
    reason: str


Survey = Mapping[tuple[str, str], Sequence[Picture | BrokenFile]]
"""All files by domain and split (`train` or `test`), in their order."""


def survey(source: Source, how: Preprocessing, tell: OnProgress = silent, cluster: Cluster | None = None) -> Survey:
    """Decode every file of both domains once, here or by the actors of a cluster.

    Raises:
        DataError: a file that was there is there no more.
    """
    found: dict[tuple[str, str], list[Picture | BrokenFile]] = {}
    for split in ("train", "test"):
        for domain in (source.a, source.b):
            paths = domain.train if split == "train" else domain.test
            look = functools.partial(_look, how=how, domain=domain.name, split=split)
            what = f"looking at {split} {domain.name}"
            if cluster is None:
                found[domain.name, split] = [picture for _, picture in in_order(look, paths, what=what, tell=tell)]
                continue
            found[domain.name, split] = seen = []
            for value in cluster.each(functools.partial(_looking, look), to_json(paths), on_gpus=False):
                seen.append(from_json(cast(Any, Picture | BrokenFile), value))
                tell(Progress(what, len(seen), len(paths)))
    return found


def pictures_of(files: Sequence[Picture | BrokenFile]) -> list[Picture]:
    """Those that can be decoded."""
    return [file for file in files if isinstance(file, Picture)]


def _looking(look: Callable[[Path], Picture | BrokenFile], device: str) -> Callable[[str], Any]:
    """What an actor does for each path."""
    return lambda path: to_json(look(Path(path)))


def _look(path: Path, how: Preprocessing, domain: str, split: str) -> Picture | BrokenFile:
    try:
        decoded = how.decode(path)
    except DataError as error:
        if not os.path.lexists(path):  # a drive that is gone must not become a smaller data set
            raise DataError(
                f"{path}: disappeared while the images were looked at; give the command again when it is back"
            ) from error
        return BrokenFile(path=path, reason=str(error).removeprefix(f"{path}: "))
    height, width = decoded.pixels.shape[:2]
    return Picture(
        path=path,
        domain=domain,
        split=split,
        content=content_sha256(decoded.pixels),
        look=perceptual_hash(decoded.pixels),
        width_px=width,
        height_px=height,
        format=decoded.format,
        mode=decoded.mode,
        traits=traits(decoded),
        is_greyscale=_is_greyscale(decoded.pixels),
    )


def _is_greyscale(pixels: Pixels) -> bool:
    values = pixels.astype(np.int16)
    return float((values.max(axis=2) - values.min(axis=2)).mean()) <= GREY_DIFFERENCE
