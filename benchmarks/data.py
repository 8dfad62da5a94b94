"""What loading costs: decoding by workers, the second start, and the random access to a pair, up to a million images.

    python benchmarks/data.py --data apple2orange/trainA

The million images (of 32 px, and `--large` of 286 px) lie in a file of holes, which takes no room, mapped as a dataset is.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from fruitgan.data.decode import decode
from fruitgan.data.finder import image_files
from fruitgan.data.image_dataset import DecodeSettings, ImageDataset, cached_dataset
from fruitgan.data.loader import Sampler
from fruitgan.images import resize

LANCZOS = Image.Resampling.LANCZOS


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def sparse_dataset(folder: Path, n: int, size_px: int) -> ImageDataset:
    path = folder / f"{n}-{size_px}.bin"
    with path.open("wb") as file:
        file.truncate(n * size_px * size_px * 3)
    pixels = np.memmap(path, dtype=np.uint8, mode="r", shape=(n, size_px, size_px, 3))
    return ImageDataset(pixels, (path,) * n, ())


def pair_ms(dataset: ImageDataset, pairs: int = 400) -> tuple[float, float]:
    """Median and 95th percentile of drawing and gathering an image of each domain."""
    sampler = Sampler(len(dataset), len(dataset), 1, 0, "passes")
    sampler.indices(0)  # the order of a whole pass is drawn at its first step
    times = []
    for step in range(1, pairs):
        began = time.perf_counter()
        for indices in sampler.indices(step):
            dataset.pixels[indices]
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times), sorted(times)[int(0.95 * len(times))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--size", type=int, default=286)
    parser.add_argument("--workers", default="1,2,4")
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--large", type=int, default=8_000)
    given = parser.parse_args()
    paths = image_files(given.data)[: given.images]
    making = DecodeSettings(load_size_px=given.size, resample=LANCZOS)
    for path in paths:  # into the system's own cache
        path.read_bytes()
    for workers in map(int, given.workers.split(",")):
        decoding_all = partial(ImageDataset.build, paths, load_size_px=given.size, resample=LANCZOS, workers=workers)
        spent = timed(decoding_all)
        print(f"decoding {len(paths)} images to {given.size} px, {workers} workers: {len(paths) / spent:.0f} images/s")
    with tempfile.TemporaryDirectory() as name:
        os.environ["FRUITGAN_CACHE"] = name
        first, second = (timed(lambda: cached_dataset(paths, making)) for _ in range(2))
        print(f"first start {1000 * first:.0f} ms, second start {1000 * second:.0f} ms ({first / second:.0f} times as fast)")
        dataset, _ = cached_dataset(paths, making)
        decoding = [timed(lambda p=p: resize(decode(p).pixels, given.size, given.size, LANCZOS)) for p in paths[:100]]  # type: ignore[misc]
        median, late = pair_ms(dataset)
        print(f"a pair of {given.size} px: {2000 * statistics.median(decoding):.2f} ms by decoding, {median:.3f} ms decoded")
        for n, size_px in ((1_000, 32), (1_000_000, 32), (given.large, 286)):
            mapped = sparse_dataset(Path(name), n, size_px)
            cold, _ = pair_ms(mapped, 50)
            mapped.pixels.reshape(-1)[::4096].max()  # the system reads it all, as it does in a first epoch
            median, late = pair_ms(mapped)
            print(
                f"a pair out of {n:,} images of {size_px} px, mapped: {median:.3f} ms, one in twenty over {late:.3f} ms "
                f"({cold:.3f} ms before the system has read the file)"
            )


if __name__ == "__main__":
    main()
