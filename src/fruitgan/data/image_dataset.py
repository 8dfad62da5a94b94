"""The image dataset: every training image decoded once, as squares of the size that training crops from."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from PIL import Image

from fruitgan.data.parallel import in_order
from fruitgan.data.preprocessing import AS_USUAL, NOTHING, Preprocessing, Tally, Traits, traits
from fruitgan.errors import DataError, FruitganError, reason_of
from fruitgan.images import Pixels
from fruitgan.progress import OnProgress, silent


class ImageDataset:
    """Square images in one array; the order is that of the paths, whatever the threads do."""

    def __init__(
        self,
        pixels: Pixels,
        names: tuple[Path, ...],
        broken: tuple[tuple[Path, str], ...],
        tally: Tally = NOTHING,
        fingerprint: str | None = None,
    ) -> None:
        """Use `ImageDataset.build` or `cached_dataset`.

        `pixels` is uint8 [N, S, S, 3]; `broken` are the files that could not be decoded, with the reasons; `tally` is of the
        others; `fingerprint` where it is known already.
        """
        self.pixels = pixels
        self.names = names
        self.broken = broken
        self.tally = tally
        self._fingerprint = fingerprint

    @classmethod
    def build(
        cls,
        paths: Sequence[Path],
        *,
        load_size_px: int,
        how: Preprocessing = AS_USUAL,
        resample: Image.Resampling = Image.Resampling.BICUBIC,
        workers: int | None = None,
        memory_map: Path | None = None,
        what: str = "decoding",
        tell: OnProgress = silent,
    ) -> ImageDataset:
        """Decode every file and make it a square of `load_size_px`.

        With `memory_map` the bytes go to that file, which is then mapped, instead of into memory; it is overwritten, and
        belongs to the dataset for as long as that lives.

        Raises:
            DataError: no paths, or not one file could be decoded. Fewer broken files are listed in `broken`.
            FruitganError: the file for the memory map cannot be written.
        """
        if not paths:
            raise DataError("no images to load")

        def load(path: Path) -> tuple[Pixels, Traits] | str:
            try:
                picture = how.decode(path)
            except DataError as error:
                return str(error).removeprefix(f"{path}: ")
            return how.squared(picture.pixels, load_size_px, resample), traits(picture)

        names: list[Path] = []
        found: list[Traits] = []
        broken: list[tuple[Path, str]] = []
        try:
            with nullcontext(io.BytesIO()) if memory_map is None else memory_map.open("wb") as file:
                for path, result in in_order(load, paths, workers, what=what, tell=tell):
                    if isinstance(result, str):
                        broken.append((path, result))
                    else:
                        file.write(np.ascontiguousarray(result[0]).data)
                        found.append(result[1])
                        names.append(path)
        except OSError as error:
            raise FruitganError(f"{memory_map}: cannot be written ({reason_of(error)})") from error
        if not names:
            raise DataError(f"none of {len(paths)} files is an image that can be decoded; {broken[0][0]}: {broken[0][1]}")
        flat: Pixels
        if isinstance(file, io.BytesIO):
            flat = np.frombuffer(file.getbuffer(), dtype=np.uint8)
        else:
            flat = np.memmap(str(memory_map), dtype=np.uint8, mode="r")
        return cls(flat.reshape(len(names), load_size_px, load_size_px, 3), tuple(names), tuple(broken), Tally.of(found))

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def load_size_px(self) -> int:
        return self.pixels.shape[1]

    @property
    def fingerprint(self) -> str:
        """sha256, in hex, over the number of images, their sizes and their pixels; names do not matter."""
        if self._fingerprint is None:
            digest = hashlib.sha256(f"{len(self)} images\n".encode())
            digest.update(np.full((len(self), 2), self.load_size_px, dtype="<i8").tobytes())
            digest.update(self.pixels.data)
            self._fingerprint = digest.hexdigest()
        return self._fingerprint
