"""Every training image decoded once, at the size that training crops from: flat bytes with a shape for each image."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray
from PIL import Image

from fruitgan.data.decode import decode
from fruitgan.data.parallel import in_order
from fruitgan.errors import DataError, FruitganError, UsageError, reason_of
from fruitgan.images import Pixels, resize

Fit = Literal["squash", "cover"]


@dataclass(frozen=True)
class _Failure:
    path: Path
    reason: str


class Bank:
    """Images in one flat uint8 array; the order is that of the paths, whatever the threads do."""

    def __init__(
        self,
        flat: NDArray[np.uint8],
        shapes: NDArray[np.int64],
        names: tuple[Path, ...],
        broken: tuple[tuple[Path, str], ...],
        load_size_px: int,
        fingerprint: str | None = None,
    ) -> None:
        """Use `Bank.build` or `bank_cache`; `shapes` is int64 [N, 2], height and width of each, `flat` their bytes in order.

        `fingerprint` where it is known already.
        """
        self.flat = flat
        self.heights, self.widths = shapes[:, 0], shapes[:, 1]
        self.offsets = np.concatenate([[0], np.cumsum(self.heights * self.widths * 3)])[:-1].astype(np.int64)
        self.names = names
        self.broken = broken
        self.load_size_px = load_size_px
        self._is_square = bool((shapes == load_size_px).all())
        self._fingerprint = fingerprint

    @classmethod
    def build(
        cls,
        paths: Sequence[Path],
        *,
        load_size_px: int,
        fit: Fit = "squash",
        resample: Image.Resampling = Image.Resampling.BICUBIC,
        workers: int | None = None,
        on_progress: Callable[[int, int], None] | None = None,
        memory_map: Path | None = None,
    ) -> Bank:
        """Decode and resize every file.

        `squash` makes each image a square of `load_size_px`, `cover` makes its shorter side so long and keeps the aspect.
        With `memory_map` the bytes go to that file, which is then mapped, instead of into memory; it is overwritten, and
        belongs to the bank for as long as that lives.

        Raises:
            UsageError: a size below 1 or an unknown fit.
            DataError: no paths, or not one file could be decoded. Fewer broken files are listed in `broken`.
            FruitganError: the file for the memory map cannot be written.
        """
        if load_size_px < 1:
            raise UsageError(f"a load size of {load_size_px} px is too small: use 1 or more")
        if fit not in ("squash", "cover"):
            raise UsageError(f"no fit named {fit!r}: known are squash, cover")
        if not paths:
            raise DataError("no images to load")

        def load(path: Path) -> Pixels | _Failure:
            try:
                return fitted(decode(path).pixels, load_size_px, fit, resample)
            except DataError as error:
                return _Failure(path, str(error).removeprefix(f"{path}: "))

        shapes: list[tuple[int, int]] = []
        names: list[Path] = []
        broken: list[tuple[Path, str]] = []
        with _Store(memory_map, expected_bytes=len(paths) * load_size_px**2 * 3) as store:
            for done, (path, result) in enumerate(in_order(load, paths, workers), start=1):
                if isinstance(result, _Failure):
                    broken.append((result.path, result.reason))
                else:
                    store.append(result)
                    shapes.append((result.shape[0], result.shape[1]))
                    names.append(path)
                if on_progress is not None:
                    on_progress(done, len(paths))
        flat = store.stored()
        if not names:
            raise DataError(f"none of {len(paths)} files is an image that can be decoded; {broken[0][0]}: {broken[0][1]}")
        return cls(flat, np.array(shapes, dtype=np.int64), tuple(names), tuple(broken), load_size_px)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def fingerprint(self) -> str:
        """sha256, in hex, over the number of images, their sizes and their pixels; names do not matter."""
        if self._fingerprint is None:
            digest = hashlib.sha256()
            shapes = np.stack([self.heights, self.widths], axis=1)
            digest.update(f"{len(self)} images\n".encode())
            digest.update(shapes.astype("<i8").tobytes())
            digest.update(self.flat.data)
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def image(self, index: int) -> Pixels:
        """uint8 [H, W, 3] of one image, a view into the bank."""
        height, width = int(self.heights[index]), int(self.widths[index])
        start = int(self.offsets[index])
        return self.flat[start : start + height * width * 3].reshape(height, width, 3)

    def gather(self, indices: NDArray[np.int64], window: NDArray[np.float64]) -> Pixels:
        """Squares of the load size, uint8 [N, S, S, 3], of the images with the given numbers.

        `window` is [N, 2] in [0, 1): where along the height and the width, of the places that there are, a longer image's
        square begins. Square images have one place and ignore it.
        """
        size = self.load_size_px
        if self._is_square:
            return self.flat.reshape(len(self), size, size, 3)[indices]
        batch = np.empty((len(indices), size, size, 3), dtype=np.uint8)
        for n, (first, step) in enumerate(self.places(indices, window)):
            batch[n] = as_strided(self.flat[first:], (size, size, 3), (int(step), 3, 1))
        return batch

    def places(self, indices: NDArray[np.int64], window: NDArray[np.float64]) -> NDArray[np.int64]:
        """Where those squares lie, int64 [N, 2]: their first byte, and how many bytes lie between the starts of two rows."""
        height, width, size = self.heights[indices], self.widths[indices], self.load_size_px
        top = (window[:, 0] * (height - size + 1)).astype(np.int64)
        left = (window[:, 1] * (width - size + 1)).astype(np.int64)
        return np.stack([self.offsets[indices] + (top * width + left) * 3, width * 3], axis=1)


def fitted(pixels: Pixels, load_size_px: int, fit: Fit, resample: Image.Resampling) -> Pixels:
    """[H, W, 3] to the size that the fit asks for; Pillow's resampling filters widen with the scale, so that shrinking
    does not alias (but for NEAREST, which a reference recipe wants)."""
    height, width = pixels.shape[:2]
    if fit == "squash":
        return resize(pixels, load_size_px, load_size_px, resample)
    shorter = min(height, width)
    # Rounded in integers, half up, so that no platform's floats decide.
    height_px, width_px = ((2 * side * load_size_px + shorter) // (2 * shorter) for side in (height, width))
    return resize(pixels, height_px, width_px, resample)


class _Store:
    """Grows a flat array of bytes, in memory or in a file."""

    def __init__(self, memory_map: Path | None, expected_bytes: int) -> None:
        self.path = memory_map
        self.used = 0
        self.expected_bytes = expected_bytes
        self.memory = np.empty(expected_bytes if memory_map is None else 0, dtype=np.uint8)
        try:
            self.file = memory_map.open("wb") if memory_map is not None else None
        except OSError as error:
            raise FruitganError(f"{memory_map}: cannot be written ({reason_of(error)})") from error

    def append(self, pixels: Pixels) -> None:
        size = pixels.size
        if self.file is not None:
            try:
                self.file.write(np.ascontiguousarray(pixels).data)
            except OSError as error:
                raise FruitganError(f"{self.path}: cannot be written ({reason_of(error)})") from error
        else:
            if self.used + size > len(self.memory):
                # Only `cover` gets here; half as much again each time keeps the copying linear.
                grown = np.empty((self.used + size) * 3 // 2, dtype=np.uint8)
                grown[: self.used] = self.memory[: self.used]
                self.memory = grown
            self.memory[self.used : self.used + size] = pixels.reshape(-1)
        self.used += size

    def __enter__(self) -> _Store:
        return self

    def __exit__(self, *_: object) -> None:
        if self.file is not None:
            try:
                self.file.close()
            except OSError as error:
                raise FruitganError(f"{self.path}: cannot be written ({reason_of(error)})") from error

    def stored(self) -> NDArray[np.uint8]:
        """What was appended; call it behind the `with`."""
        if self.path is None:
            return self.memory[: self.used]
        if self.used == 0:
            return self.memory
        return np.memmap(self.path, dtype=np.uint8, mode="r", shape=(self.used,))
