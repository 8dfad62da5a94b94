"""Features that were computed before, by the content of the image's file.

A folder for each backend, version, resize and kind of device; in it one safetensors file for every time that something new was
computed, with the files' sums, the rows, and a sum over both. A file that is torn, damaged or of another shape counts as
absent. The
folder may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from fruitgan.errors import DataError, FruitganError
from fruitgan.files import write_atomically
from fruitgan.machine import cache_folder
from fruitgan.measures.contracts import Features
from fruitgan.tensorfile import open_tensors

WIDEST_ROW = 4096
"""Numbers an image; wider rows would fill the disk for less than they save."""

Row = NDArray[np.float32]


class FeatureCache:
    """The rows of one backend on one kind of device."""

    def __init__(self, features: Features, device_type: str) -> None:
        named = f"{features.name}/{features.version}/{features.resize}/{features.dimensions}/{device_type}"
        slug = re.sub(r"[^A-Za-z0-9-]+", "-", features.name)[:40]
        self.dimensions = features.dimensions
        self.is_used = features.dimensions <= WIDEST_ROW
        self.folder = cache_folder() / "features" / f"{slug}-{hashlib.sha256(named.encode()).hexdigest()[:16]}"

    def rows(self) -> dict[bytes, Row]:
        """All rows that are here and sound, by the sha256 of the image's file."""
        found: dict[bytes, Row] = {}
        if self.is_used and self.folder.is_dir():
            for path in sorted(self.folder.glob("*.safetensors")):
                found.update(self._read(path))
        return found

    def keep(self, rows: Mapping[bytes, Row]) -> None:
        """Add rows; a cache that cannot be written is no reason to fail."""
        if not self.is_used or not rows:
            return
        keys = np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(len(rows), 32)
        values = np.stack(list(rows.values())).astype(np.float32)
        digest = _sum(keys, values)
        name = digest.tobytes().hex()[:32]
        data = save({"keys": keys.copy(), "values": values, "sum": digest})
        try:
            write_atomically(self.folder / f"{name}.safetensors", data)
        except FruitganError:
            return

    def _read(self, path: Path) -> dict[bytes, Row]:
        try:
            with open_tensors(path, "file of cached features") as file:
                arrays = file.arrays()
            keys, values, digest = arrays["keys"], arrays["values"], arrays["sum"]
        except (DataError, KeyError):
            return {}
        shapes_fit = keys.shape == (len(keys), 32) and values.shape == (len(keys), self.dimensions)
        kinds_fit = keys.dtype == np.uint8 and values.dtype == np.float32
        if not (shapes_fit and kinds_fit and digest.tobytes() == _sum(keys, values).tobytes()):
            return {}
        return {key.tobytes(): row for key, row in zip(keys, values, strict=True)}


def _sum(keys: NDArray[np.uint8], values: NDArray[np.float32]) -> NDArray[np.uint8]:
    digest = hashlib.sha256(keys.tobytes() + values.tobytes()).digest()
    return np.frombuffer(digest, dtype=np.uint8).copy()
