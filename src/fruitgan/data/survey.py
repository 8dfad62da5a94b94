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
from fruitgan.data.finder import Remark
from fruitgan.data.groups import content_sha256, perceptual_hash
from fruitgan.data.parallel import in_order
from fruitgan.data.preprocessing import Preprocessing, Traits, traits
from fruitgan.data.sources import Source
from fruitgan.errors import DataError
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


@dataclass(frozen=True)
class Split:
    """The files of one split of a domain, in their order."""

    pictures: Sequence[Picture]
    broken: Sequence[Remark]
    """What cannot be decoded, and why."""


Survey = Mapping[tuple[str, str], Split]
"""All files by domain and split (`train` or `test`)."""


def survey(source: Source, how: Preprocessing, tell: OnProgress = silent, cluster: Cluster | None = None) -> Survey:
    """Decode every file of both domains once, here or by the actors of a cluster.

    Raises:
        DataError: a file that was there is there no more.
    """
    found: dict[tuple[str, str], Split] = {}
    for split in ("train", "test"):
        for domain in (source.a, source.b):
            paths = domain.train if split == "train" else domain.test
            look = functools.partial(_look, how=how, domain=domain.name, split=split)
            what = f"looking at {split} {domain.name}"
            seen: list[Picture | Remark] = []
            if cluster is None:
                seen += (picture for _, picture in in_order(look, paths, what=what, tell=tell))
            else:
                for value in cluster.each(functools.partial(_looking, look), to_json(paths), on_gpus=False):
                    seen.append(from_json(cast(Any, Picture | Remark), value))
                    tell(Progress(what, len(seen), len(paths)))
            broken = [file for file in seen if isinstance(file, Remark)]
            found[domain.name, split] = Split([file for file in seen if isinstance(file, Picture)], broken)
    return found


def _looking(look: Callable[[Path], Picture | Remark], device: str) -> Callable[[str], Any]:
    """What an actor does for each path."""
    return lambda path: to_json(look(Path(path)))


def _look(path: Path, how: Preprocessing, domain: str, split: str) -> Picture | Remark:
    try:
        decoded = how.decode(path)
    except DataError as error:
        if not os.path.lexists(path):  # a drive that is gone must not become a smaller data set
            raise DataError(
                f"{path}: disappeared while the images were looked at; give the command again when it is back"
            ) from error
        return Remark(str(path), str(error).removeprefix(f"{path}: "))
    height, width = decoded.pixels.shape[:2]
    values = decoded.pixels.astype(np.int16)
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
        is_greyscale=float((values.max(axis=2) - values.min(axis=2)).mean()) <= GREY_DIFFERENCE,
    )
