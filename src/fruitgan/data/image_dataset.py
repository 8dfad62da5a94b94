"""The image dataset: every training image decoded once, at the size that training crops from, as flat bytes and shapes."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray
from PIL import Image

from fruitgan.data.decode import decode
from fruitgan.data.parallel import in_order
from fruitgan.errors import DataError, FruitganError, reason_of
from fruitgan.images import Pixels, resize
from fruitgan.progress import OnProgress, silent

Fit = Literal["squash", "cover"]


class ImageDataset:
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
        """Use `ImageDataset.build` or `cached_dataset`.

        `shapes` is int64 [N, 2], height and width of each, and `flat` their bytes in order.

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
        memory_map: Path | None = None,
        what: str = "decoding",
        tell: OnProgress = silent,
    ) -> ImageDataset:
        """Decode and resize every file.

        `squash` makes each image a square of `load_size_px`, `cover` makes its shorter side so long and keeps the aspect.
        With `memory_map` the bytes go to that file, which is then mapped, instead of into memory; it is overwritten, and
        belongs to the dataset for as long as that lives.

        Raises:
            DataError: no paths, or not one file could be decoded. Fewer broken files are listed in `broken`.
            FruitganError: the file for the memory map cannot be written.
        """
        if not paths:
            raise DataError("no images to load")

        def load(path: Path) -> Pixels | str:
            try:
                return fitted(decode(path).pixels, load_size_px, fit, resample)
            except DataError as error:
                return str(error).removeprefix(f"{path}: ")

        shapes: list[tuple[int, int]] = []
        names: list[Path] = []
        broken: list[tuple[Path, str]] = []
        try:
            with nullcontext(io.BytesIO()) if memory_map is None else memory_map.open("wb") as file:
                for path, result in in_order(load, paths, workers, what=what, tell=tell):
                    if isinstance(result, str):
                        broken.append((path, result))
                    else:
                        file.write(np.ascontiguousarray(result).data)
                        shapes.append((result.shape[0], result.shape[1]))
                        names.append(path)
        except OSError as error:
            raise FruitganError(f"{memory_map}: cannot be written ({reason_of(error)})") from error
        if not names:
            raise DataError(f"none of {len(paths)} files is an image that can be decoded; {broken[0][0]}: {broken[0][1]}")
        flat: NDArray[np.uint8]
        if isinstance(file, io.BytesIO):
            flat = np.frombuffer(file.getbuffer(), dtype=np.uint8)
        else:
            flat = np.memmap(str(memory_map), dtype=np.uint8, mode="r")
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
        """uint8 [H, W, 3] of one image, a view into the dataset."""
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
