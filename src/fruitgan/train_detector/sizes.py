"""How large the images are, and at which size they are looked at."""

from __future__ import annotations

import inspect
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from fruitgan.data.labelled import LabelledImage
from fruitgan.networks.catalog import detectors
from fruitgan.registry import Choice

OPTION = "image_size_px"
MULTIPLE_PX = 8
LEAST_PX = 32

Sizes = Mapping[bool, Counter[tuple[int, int]]]
"""By class (generated or not): how many images have which width and height."""


def sizes_of(images: Sequence[LabelledImage]) -> Sizes:
    """From the files' headers alone; a file that has none counts for nothing here and is named when it is decoded."""
    sizes: dict[bool, Counter[tuple[int, int]]] = {True: Counter(), False: Counter()}
    for image in images:
        if size := _header(image.path):
            sizes[image.generated][size] += 1
    return sizes


def _header(path: Path) -> tuple[int, int] | None:
    try:
        with Image.open(path) as image:
            return image.size
    except Exception:  # whatever is wrong with it is said where it is decoded
        return None


def choose_detector(name: str, options: Mapping[str, str], image_size: int | None, sizes: Sizes) -> Choice:
    """The detector at the size asked for, or else at its own, but no larger than the images are.

    Raises:
        UsageError: an unknown name or option, or a size that the detector does not take.
    """
    builder = detectors.get(name)
    has_size = OPTION in inspect.signature(builder).parameters
    given: dict[str, object] = dict(options)
    if image_size is not None:
        given[OPTION] = image_size  # where the detector has no such option, `choose` says so
    elif has_size and OPTION not in given:
        default = int(inspect.signature(builder).parameters[OPTION].default)
        given[OPTION] = min(default, max(LEAST_PX, _usual_side(sizes, default) // MULTIPLE_PX * MULTIPLE_PX))
    return detectors.choose(name, given)


def _usual_side(sizes: Sizes, default: int) -> int:
    sides = [min(size) for counter in sizes.values() for size in counter.elements()]
    return int(statistics.median_low(sides)) if sides else default


def size_notes(sizes: Sizes, size_px: int) -> tuple[str, ...]:
    """What resizing does to this judgement: it may give the classes away, or wipe out what tells them apart."""
    notes = []
    if set(sizes[True]) != set(sizes[False]) and sizes[True] and sizes[False]:
        notes.append(
            f"the classes differ in size ({_usual(sizes[True])} generated, {_usual(sizes[False])} real): all are resized "
            "alike, but the resizing itself can give them away; export-dataset makes both the same way"
        )
    elif len(sizes[True] | sizes[False]) > 1:
        notes.append(f"images of {len(sizes[True] | sizes[False])} sizes: all are resized alike to {size_px} x {size_px} px")
    if (side := _usual_side(sizes, size_px)) > size_px:
        larger = side // MULTIPLE_PX * MULTIPLE_PX
        notes.append(
            f"the images are shrunk from {side} to {size_px} px: the finest traces of generation are lost "
            f"(--image-size {larger} keeps them and takes {(larger / size_px) ** 2:.1f} times as long)"
        )
    return tuple(notes)


def _usual(counter: Counter[tuple[int, int]]) -> str:
    (width, height), count = counter.most_common(1)[0]
    return f"{'mostly ' if count < counter.total() else ''}{width} x {height} px"
