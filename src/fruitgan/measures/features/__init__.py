"""Feature backends, and the features of image files: computed in batches, and cached by the files' contents."""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save

from fruitgan.cache import make_room
from fruitgan.data.preprocessing import AS_USUAL, Preprocessing
from fruitgan.device import choose_device
from fruitgan.errors import DataError, FruitganError
from fruitgan.files import file_sha256, write_atomically
from fruitgan.images import Pixels, unit_from_bytes
from fruitgan.machine import cache_folder
from fruitgan.measures.contracts import Features, FeatureSet
from fruitgan.parallel import Cluster, in_order
from fruitgan.progress import OnProgress, Progress, silent
from fruitgan.tensorfile import open_tensors

CPU = torch.device("cpu")
BATCH_IMAGES = 16
KEPT_BYTES = 256 << 20
"""Of decoded pictures: some 1,300 of 256 px, each of which several backends look at."""

Row = NDArray[np.float32]
Item = TypeVar("Item")


class Pictures:
    """Files to pixels; what was decoded is kept for the next backend while there is room.

    A rectangle is cropped or padded to a square if that is asked for; whoever wants a size squashes what is left of it.
    """

    def __init__(self, how: Preprocessing = AS_USUAL) -> None:
        self.how = how
        self._kept: dict[Path, Pixels] = {}
        self._room_bytes = KEPT_BYTES

    def __call__(self, path: Path) -> Pixels:
        """uint8 [H, W, 3], not to be written to; Raises: DataError if it cannot be decoded."""
        found = self._kept.get(path)
        if found is None:
            found = self.how.decode(path).pixels
            if self.how.fit != "squash":
                sides = found.shape[:2]
                found = self.how.squared(found, min(sides) if self.how.fit == "crop" else max(sides))
            if found.nbytes <= self._room_bytes:
                self._room_bytes -= found.nbytes
                self._kept[path] = found
        return found


def extract(
    features: Features,
    paths: Sequence[Path | str],
    device: torch.device = CPU,
    *,
    what: str = "",
    tell: OnProgress = silent,
    read: Pictures | None = None,
    cluster: Cluster | None = None,
) -> FeatureSet:
    """The features [N, D] of the images, in the order of the paths; those that were computed before come from the cache.

    `read` gives the pixels of a file; with a `cluster` its actors do, and compute the same batches.

    Raises:
        DataError: an image cannot be read or decoded (named).
    """
    read, files = read or Pictures(), [*map(Path, paths)]
    cache = FeatureCache(features, device.type, read.how)
    keys = [bytes.fromhex(key) for _, key in in_order(file_sha256, files)]
    found, new = cache.rows(), dict[bytes, Row]()
    missing = {key: path for key, path in zip(keys, files, strict=True) if key not in found}
    todo = list(missing.values())
    computed = _computed_by(cluster, features, todo, read.how) if cluster else rows(features, todo, device, BATCH_IMAGES, read)
    for done, (key, row) in enumerate(zip(missing, computed, strict=True), len(files) - len(missing) + 1):
        new[key] = row
        tell(Progress(what, done, len(files)))
    tell(Progress(what, len(files), len(files)))
    cache.keep(new)
    found |= new
    values = np.stack([found[key] for key in keys]).astype(np.float64) if keys else np.zeros((0, features.dimensions))
    return FeatureSet(values, features.name, features.resize)


def rows(
    features: Features, items: Sequence[Item], device: torch.device, batch_images: int, read: Callable[[Item], Pixels]
) -> Iterator[Row]:
    """The features [D] of what `read` makes of each item, in float32; computed in batches of neighbours of one size."""
    if items:
        features = features.to(device).eval()
    prepared = (pixels for _, pixels in in_order(lambda item: features.prepare(read(item)), items))
    for _, alike in itertools.groupby(prepared, key=np.shape):
        while batch := list(itertools.islice(alike, batch_images)):
            with torch.inference_mode():
                images = torch.from_numpy(np.stack(batch)).to(device).permute(0, 3, 1, 2).contiguous().float()
                values = features(unit_from_bytes(images)).float().cpu().numpy()
            yield from values


def _computed_by(cluster: Cluster, features: Features, paths: Sequence[Path], how: Preprocessing) -> Iterator[Row]:
    """As `rows`, by actors; a batch is an item, so that its neighbours are the same."""
    batches = [[str(path) for path in paths[start : start + BATCH_IMAGES]] for start in range(0, len(paths), BATCH_IMAGES)]
    for made in cluster.each(functools.partial(_describer, features.to("cpu"), how), batches, at_once=4):
        yield from np.array(made, dtype=np.float32)


def _describer(features: Features, how: Preprocessing, device: str) -> Callable[[list[str]], list[list[float]]]:
    """What an actor does for a batch of paths."""

    def describe(paths: list[str]) -> list[list[float]]:
        on = choose_device(device)
        return [row.tolist() for row in rows(features, list(map(Path, paths)), on, len(paths), Pictures(how))]

    return describe


class FeatureCache:
    """Features that were computed before, by the sha256 of the image's file: the rows of one backend on one kind of device.

    A folder for each backend, version, resize and kind of device; in it one safetensors file for every time that something new
    was computed, with the sums of the images' files and the rows. It is named after its own sum, so that a damaged one is known
    and counts as absent. Those that were not used for longest make room for new ones; all may be deleted at any time.
    """

    def __init__(self, features: Features, device_type: str, how: Preprocessing) -> None:
        named = f"{features.name}/{features.version}/{features.resize}/{features.dimensions}/{device_type}/{how}"
        slug = re.sub(r"[^A-Za-z0-9-]+", "-", features.name)[:40]
        self.folder = cache_folder() / "features" / f"{slug}-{hashlib.sha256(named.encode()).hexdigest()[:16]}"

    def rows(self) -> dict[bytes, Row]:
        """All rows that are here and sound, by the sha256 of the image's file."""
        found: dict[bytes, Row] = {}
        for path in sorted(self.folder.glob("*.safetensors")):
            with suppress(DataError):
                if file_sha256(path) == path.stem:
                    arrays = open_tensors(path, "file of cached features").arrays()
                    found |= {key.tobytes(): row for key, row in zip(arrays["keys"], arrays["values"], strict=True)}
                    with suppress(OSError):  # a cache that can only be read is one all the same
                        os.utime(path)
        return found

    def keep(self, rows: Mapping[bytes, Row]) -> None:
        """Add rows; a cache that cannot be written is no reason to fail."""
        if not rows:
            return
        keys = np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(len(rows), 32)
        data = save({"keys": keys.copy(), "values": np.stack(list(rows.values())).astype(np.float32)})
        newest = self.folder / f"{hashlib.sha256(data).hexdigest()}.safetensors"
        with suppress(FruitganError):
            write_atomically(newest, data)
            make_room(newest)
