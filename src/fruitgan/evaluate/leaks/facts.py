"""Properties of one file beside its content, and how well a property distinguishes generated from real files."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fruitgan import randomness
from fruitgan.data.decode import decode
from fruitgan.data.groups import content_sha256, perceptual_hash
from fruitgan.data.parallel import in_order
from fruitgan.errors import DataError
from fruitgan.files import open_regular, reading
from fruitgan.images import Pixels, to_pillow
from fruitgan.measures.statistics import binomial_p

Truth = NDArray[np.bool_]
TREE_DEPTH = 3
FEWEST_IN_A_LEAF = 5
THIN_VALUES = 8
THIN_SHARE = 2e-4
BLOCK_PX = 8
LEAST_BLOCKS = 3
DIGITS = re.compile(r"\d+")
DULL = frozenset({"dpi", "jfif", "jfif_version", "jfif_unit", "jfif_density", "progression", "progressive", "transparency"})
"""Entries that Pillow gives for any file of its kind."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Properties of one file."""

    path: Path
    generated: bool
    file_sha256: str
    content_sha256: str
    """Of the decoded pixels."""
    look: int
    """Perceptual hash of 64 bits (data/groups.py)."""
    width_px: int
    height_px: int
    format: str
    mode: str
    quantisation: str
    """Of a JPEG: a hash of its quantisation tables and of how its colours are sampled; else empty."""
    metadata: tuple[str, ...]
    """Further entries of its header, such as `exif`, `icc_profile` or `Software=...`; sorted."""
    name: str
    """The file's name with each number in it as `0`, padded numbers as `00`, without its suffix."""
    suffix: str
    bytes_per_pixel: float
    recoding: float | None
    """Of a PNG: its size, over that of the same pixels in a PNG of usual settings; tells who encoded it, not what it shows."""
    blockiness: float
    """Log of how much larger steps are across the borders of JPEG's blocks of 8 px than elsewhere; 0 for no JPEG."""
    darkest: int
    brightest: int
    full_range: bool
    """Whether its darkest value is 0 and its brightest 255."""
    thin_ends: bool
    """Whether it just reaches them, as after a stretch, while most pictures that reach both ends are clipped there."""


def inspect(paths: Sequence[Path], generated: Sequence[bool]) -> Iterator[Facts]:
    """The facts of each file, in order; one picture is in memory at a time and thread.

    Raises:
        DataError: an image cannot be read or decoded (named).
    """
    for _, facts in in_order(_facts, list(zip(paths, generated, strict=True))):
        yield facts


def _facts(item: tuple[Path, bool]) -> Facts:
    path, generated = item
    with reading(path), open_regular(path) as file:
        data = file.read()
    try:
        picture = decode(data)
    except DataError as error:
        raise DataError(f"{path}: {str(error).removeprefix('the given data: ')}") from error
    pixels = picture.pixels
    height, width = pixels.shape[:2]
    ends = min(int((pixels == 0).sum()), int((pixels == 255).sum()))
    quantisation, metadata = _header(data)
    return Facts(
        path=path,
        generated=generated,
        file_sha256=hashlib.sha256(data).hexdigest(),
        content_sha256=content_sha256(pixels),
        look=perceptual_hash(pixels),
        width_px=width,
        height_px=height,
        format=picture.format,
        mode=picture.mode,
        quantisation=quantisation,
        metadata=metadata,
        name=DIGITS.sub(lambda found: "00" if found[0].startswith("0") and len(found[0]) > 1 else "0", path.stem),
        suffix=path.suffix,
        bytes_per_pixel=len(data) / (height * width),
        recoding=_recoding(data, pixels) if picture.format == "PNG" and picture.mode == "RGB" else None,
        blockiness=blockiness(pixels),
        darkest=int(pixels.min()),
        brightest=int(pixels.max()),
        full_range=ends > 0,
        thin_ends=0 < ends <= max(THIN_VALUES, THIN_SHARE * pixels.size),
    )


def _header(data: bytes) -> tuple[str, tuple[str, ...]]:
    """The quantisation of a JPEG and the metadata of any file; a header that cannot be read has neither."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            tables = getattr(image, "quantization", None) or {}
            layers = getattr(image, "layer", None) or []
            found = {key for key in map(str, image.info) if key.lower() not in DULL}
            if software := image.info.get("Software"):
                found = found - {"Software"} | {f"Software={software}"}
            if image.info.get("progressive"):
                found.add("progressive")
    except Exception:  # odd metadata are no reason to lose the picture, which could be decoded
        return "", ()
    if not tables:
        return "", tuple(sorted(found))
    text = repr(([(number, list(table)) for number, table in sorted(tables.items())], [tuple(layer) for layer in layers]))
    return hashlib.sha256(text.encode()).hexdigest()[:12], tuple(sorted(found))


def _recoding(data: bytes, pixels: Pixels) -> float:
    file = io.BytesIO()
    to_pillow(pixels).save(file, "PNG", compress_level=6)
    return len(data) / len(file.getvalue())


def blockiness(pixels: Pixels) -> float:
    """How far steps across the borders of aligned blocks of 8 x 8 px outdo those elsewhere, as a log; 0 for small pictures.

    A step is what the difference of two neighbours has beyond the mean of the differences beside it (after Fan and de Queiroz
    2003), in brightness. Of the eight places that a grid of 8 px may have, the file's own is held against the median of the
    others.
    """
    luma = np.asarray(to_pillow(pixels).convert("L"), dtype=np.float64)
    if min(luma.shape) < LEAST_BLOCKS * BLOCK_PX:
        return 0.0
    steps = _steps(luma) + _steps(luma.T)  # [8]
    floor = 1e-3  # of a grey level: a flat picture has no steps at all
    return float(np.log((steps[0] + floor) / (np.median(steps[1:]) + floor)))


def _steps(luma: NDArray[np.float64]) -> NDArray[np.float64]:
    """[8]: the mean size of the steps between column j - 1 and j, by j mod 8."""
    difference = np.diff(luma, axis=1)
    step = np.abs(difference[:, 1:-1] - (difference[:, :-2] + difference[:, 2:]) / 2).mean(axis=0)
    places = np.arange(2, 2 + len(step)) % BLOCK_PX
    return np.array([step[places == place].mean() for place in range(BLOCK_PX)])


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A statistical test of one property, and its accuracy as a classifier."""

    p_value: float = 1.0
    accuracy: float = 0.5
    """Balanced accuracy on images that the classifier did not learn from."""


def categories(values: Sequence[Hashable], generated: Truth) -> Rule:
    """A property without order: Fisher's exact test of its most telling value, times the number of values."""
    from scipy.stats import fisher_exact

    kinds = sorted(set(values), key=repr)
    if len(kinds) < 2:
        return Rule()
    codes = np.array([kinds.index(value) for value in values])
    counts = np.array([np.bincount(codes[side], minlength=len(kinds)) for side in (generated, ~generated)])
    totals = counts.sum(axis=1)
    place = int(np.argmax(np.abs(counts[0] / totals[0] - counts[1] / totals[1])))
    table = np.stack([counts[:, place], totals - counts[:, place]], axis=1)
    p_value = min(1.0, float(fisher_exact(table).pvalue) * len(kinds))
    return Rule(p_value=p_value, accuracy=_cross_validated(codes[:, None] == np.arange(len(kinds)), generated))


def numbers(values: Sequence[float], generated: Truth) -> Rule:
    """A property with order: Mann and Whitney's test."""
    from scipy.stats import mannwhitneyu

    column = np.asarray(values, dtype=np.float64)
    if np.ptp(column) == 0:
        return Rule()
    p_value = float(mannwhitneyu(column[generated], column[~generated]).pvalue)
    return Rule(p_value=p_value, accuracy=_cross_validated(column[:, None], generated))


def table(columns: NDArray[np.float64], generated: Truth, seed: int = 0) -> Rule:
    """Many properties together, [n, D]: a small tree learns from one half, and classifies the other half."""
    order = randomness.permutation(seed, 0, len(generated), "leaks/halves")
    learn, test = _balanced(order[: len(order) // 2], generated), _balanced(order[len(order) // 2 :], generated)
    if min(len(learn), len(test)) < 2 * FEWEST_IN_A_LEAF:
        return Rule()
    right = _model().fit(columns[learn], generated[learn]).predict(columns[test]) == generated[test]
    return Rule(p_value=binomial_p(int(right.sum()), len(test)), accuracy=float(right.mean()))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted so that any false alarm at all is as improbable as one of a single test (Holm 1979)."""
    order = np.argsort(p_values)
    adjusted = np.empty(len(p_values))
    highest = 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return [float(value) for value in adjusted]


def _balanced(indices: NDArray[np.int64], generated: Truth) -> NDArray[np.int64]:
    """As many of each kind, in their order."""
    sides = [indices[generated[indices]], indices[~generated[indices]]]
    least = min(map(len, sides))
    return np.concatenate([side[:least] for side in sides])


def _cross_validated(columns: NDArray[np.generic], generated: Truth) -> float:
    """Balanced accuracy of a small tree in five folds."""
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    least = int(min(generated.sum(), (~generated).sum()))
    if least < 2:
        return 0.5
    folds = StratifiedKFold(min(5, least), shuffle=True, random_state=0)
    said = cross_val_predict(_model(), columns, generated, cv=folds)
    return float(balanced_accuracy_score(generated, said))


def _model() -> Any:
    from sklearn.tree import DecisionTreeClassifier

    return DecisionTreeClassifier(
        max_depth=TREE_DEPTH, min_samples_leaf=FEWEST_IN_A_LEAF, class_weight="balanced", random_state=0
    )
