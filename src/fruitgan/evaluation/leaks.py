"""What tells real from generated images without looking at what they show: it makes any detector's accuracy meaningless."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fruitgan.data.decode import decode, open_regular
from fruitgan.data.likeness import content_sha256
from fruitgan.data.parallel import in_order
from fruitgan.errors import DataError

SIGNIFICANT = 1e-3
"""Below this p-value a difference between the classes is no chance; several are looked at, so not 0.05."""
SHARE_DIFFERENCE = 0.1
COPIES_SHARE = 0.05
"""With more copies than this among the smaller class a detector is asked the impossible."""
STRETCHED_SHARE = 0.98
THIN_VALUES = 8
THIN_SHARE = 2e-4
THIN_DIFFERENCE = 0.15
"""Of 133 photographs 77% reach both ends of the range, 21% of them thinly; stretched one by one, 100% and 44%."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What one file gives away."""

    path: Path
    generated: bool
    file_sha256: str
    content_sha256: str
    """Of the decoded pixels."""
    width_px: int
    height_px: int
    format: str
    mode: str
    full_range: bool
    """Whether its darkest value is 0 and its brightest 255."""
    thin_ends: bool
    """Whether it just reaches them, as after a stretch, while most pictures that reach both ends are clipped there."""


@dataclass(frozen=True, kw_only=True)
class Leak:
    """One thing that gives the classes away, or that they share and should not."""

    kind: str
    detail: str
    spoils_detector: bool
    """Whether a detector's accuracy says nothing any more."""


def inspect(paths: Sequence[Path], generated: Sequence[bool]) -> Iterator[Facts]:
    """The facts of each file, in order; one picture is in memory at a time and thread.

    Raises:
        DataError: an image cannot be read or decoded (named).
    """
    for (path, is_generated), facts in in_order(_facts, list(zip(paths, generated, strict=True))):
        assert (facts.path, facts.generated) == (path, is_generated)
        yield facts


def _facts(item: tuple[Path, bool]) -> Facts:
    path, generated = item
    try:
        with open_regular(path) as file:
            data = file.read()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({(error.strerror or str(error)).lower()})") from error
    try:
        picture = decode(data)
    except DataError as error:
        raise DataError(f"{path}: {str(error).removeprefix('the given data: ')}") from error
    height, width = picture.pixels.shape[:2]
    ends = min(int((picture.pixels == 0).sum()), int((picture.pixels == 255).sum()))
    return Facts(
        path=path,
        generated=generated,
        file_sha256=hashlib.sha256(data).hexdigest(),
        content_sha256=content_sha256(picture.pixels),
        width_px=width,
        height_px=height,
        format=picture.format,
        mode=picture.mode,
        full_range=ends > 0,
        thin_ends=0 < ends <= max(THIN_VALUES, THIN_SHARE * picture.pixels.size),
    )


def find_leaks(facts: Sequence[Facts]) -> tuple[Leak, ...]:
    """The leaks among images of both classes, worst first."""
    fakes = [fact for fact in facts if fact.generated]
    reals = [fact for fact in facts if not fact.generated]
    found = [
        *_copies(fakes, reals),
        _stretch(fakes, reals),
        _sizes(fakes, reals),
        _shares("format", fakes, reals, lambda fact: fact.format, "the traces of compression tell the classes apart"),
        _shares("mode", fakes, reals, lambda fact: fact.mode, "the colour mode of the files tells the classes apart"),
        *_repeats(fakes, "generated"),
        *_repeats(reals, "real"),
    ]
    return tuple(sorted((leak for leak in found if leak is not None), key=lambda leak: not leak.spoils_detector))


def _copies(fakes: Sequence[Facts], reals: Sequence[Facts]) -> Iterator[Leak]:
    """Generated images that are real ones."""
    files = {fact.file_sha256: fact.path for fact in reals}
    contents = {fact.content_sha256: fact.path for fact in reals}
    same_bytes = [fact for fact in fakes if fact.file_sha256 in files]
    same_pixels = [fact for fact in fakes if fact.content_sha256 in contents and fact.file_sha256 not in files]
    many = len(same_bytes) + len(same_pixels) > COPIES_SHARE * min(len(fakes), len(reals))
    for kind, what, copies in (
        ("identical-files", "the very same file as", same_bytes),
        ("identical-pixels", "pixel for pixel the same as", same_pixels),
    ):
        if copies:
            first, verb = copies[0], "is" if len(copies) == 1 else "are"
            detail = (
                f"{len(copies)} of {len(fakes)} generated images {verb} {what} a real one, such as {first.path.name} and "
                f"{contents[first.content_sha256].name}; distances come out too small"
            )
            yield Leak(kind=kind, detail=detail, spoils_detector=many)


def _stretch(fakes: Sequence[Facts], reals: Sequence[Facts]) -> Leak | None:
    """One class brought to the full range of brightness image by image, the other not (as Keras' `save_img` does)."""
    from scipy.stats import fisher_exact

    counts = [sum(fact.full_range for fact in side) for side in (fakes, reals)]
    sizes = [len(fakes), len(reals)]
    table = [[count, size - count] for count, size in zip(counts, sizes, strict=True)]
    shares = [count / size for count, size in zip(counts, sizes, strict=True)]
    stretched, other = ("generated", "real") if shares[0] > shares[1] else ("real", "generated")
    thin = [sum(fact.thin_ends for fact in side) / len(side) for side in (fakes, reals)]
    difference = thin[0] - thin[1] if stretched == "generated" else thin[1] - thin[0]
    is_all = max(shares) >= STRETCHED_SHARE and float(fisher_exact(table).pvalue) < SIGNIFICANT
    if not is_all or difference < THIN_DIFFERENCE:  # a generator may well make all its pictures full of black and white
        return None
    return Leak(
        kind="stretch",
        detail=(
            f"{max(shares):.0%} of the {stretched} images reach from 0 to 255 exactly, {min(shares):.0%} of the {other} ones: "
            f"the {stretched} ones seem to have been stretched in brightness one by one as they were saved"
        ),
        spoils_detector=True,
    )


def _sizes(fakes: Sequence[Facts], reals: Sequence[Facts]) -> Leak | None:
    from scipy.stats import ks_2samp

    measures: tuple[Callable[[Facts], float], ...] = (
        lambda fact: fact.width_px,
        lambda fact: fact.height_px,
        lambda fact: fact.width_px / fact.height_px,
    )
    tests = [ks_2samp([of(fact) for fact in fakes], [of(fact) for fact in reals], method="auto") for of in measures]
    if min(float(test.pvalue) for test in tests) >= SIGNIFICANT:
        return None
    sizes = [_most_common(side, lambda fact: f"{fact.width_px} x {fact.height_px} px") for side in (fakes, reals)]
    return Leak(
        kind="size",
        detail=f"generated images are {sizes[0]}, real ones {sizes[1]}: size and the traces of resizing tell the classes apart",
        spoils_detector=True,
    )


def _shares(
    kind: str, fakes: Sequence[Facts], reals: Sequence[Facts], of: Callable[[Facts], str], consequence: str
) -> Leak | None:
    """A property that one class has more often than the other."""
    counts = [Counter(of(fact) for fact in side) for side in (fakes, reals)]
    names = counts[0].keys() | counts[1].keys()
    if sum(abs(counts[0][name] / len(fakes) - counts[1][name] / len(reals)) for name in names) / 2 <= SHARE_DIFFERENCE:
        return None
    usual = [_most_common(side, of) for side in (fakes, reals)]
    return Leak(kind=kind, detail=f"generated images are {usual[0]}, real ones {usual[1]}: {consequence}", spoils_detector=True)


def _repeats(side: Sequence[Facts], what: str) -> Iterator[Leak]:
    repeated = sum(count - 1 for count in Counter(fact.content_sha256 for fact in side).values())
    if repeated:
        verb = "repeats" if repeated == 1 else "repeat"
        detail = f"{repeated} of {len(side)} {what} images {verb} another one; intervals come out too narrow"
        yield Leak(kind="repeated-images", detail=detail, spoils_detector=False)


def _most_common(side: Sequence[Facts], of: Callable[[Facts], Hashable]) -> str:
    ((value, count),) = Counter(of(fact) for fact in side).most_common(1)
    return f"{value}" if count == len(side) else f"{value} ({count} of {len(side)})"
