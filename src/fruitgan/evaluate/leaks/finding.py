"""From the facts of many files to named findings, each with what it would do to a detector's accuracy if it were left in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fruitgan.evaluate.leaks.facts import Facts
from fruitgan.evaluate.leaks.rules import Rule, categories, holm, numbers, table

SIGNIFICANT = 0.01
"""Of the p-values after Holm's adjustment over all properties that are looked at."""
SHARE_DIFFERENCE = 0.1
COPIES_SHARE = 0.05
"""With more copies than this among the smaller class a detector is asked the impossible."""
STRETCHED_SHARE = 0.98
THIN_DIFFERENCE = 0.15
"""Of 133 photographs 77% reach both ends of the range, 21% of them thinly; stretched one by one, 100% and 44%."""
SPOILING_ACCURACY = 0.6
"""Of JPEG's blocks, which photographs have in any case and generators copy: from here on they are more than a trace."""


@dataclass(frozen=True, kw_only=True)
class Leak:
    """One thing that gives the classes away, or that they share and should not."""

    kind: str
    detail: str
    spoils_detector: bool
    """Whether a detector's accuracy says nothing any more."""
    effect: float | None = None
    """The accuracy of one who looks at this alone, where guessing gives 0.5; below 0.5 it misleads."""
    p_value: float | None = None
    """Adjusted for everything that is looked at; None where it is a count and no chance."""


@dataclass(frozen=True)
class Suspicion:
    """A property with its test, before it is known how many others were looked at."""

    kind: str
    detail: str
    spoils_detector: bool
    rule: Rule


def find_leaks(
    facts: Sequence[Facts], groups: Sequence[str] | None = None, splits: Sequence[str] | None = None
) -> tuple[Leak, ...]:
    """The leaks among images of both classes, worst first.

    Args:
        groups: of each image, where it is known which were made of one source.
        splits: of each image, `train` or `test` as of the generator's training; empty where it is not known.
    """
    fakes = [fact for fact in facts if fact.generated]
    reals = [fact for fact in facts if not fact.generated]
    found = [
        *_copies(fakes, reals),
        *_told_by_a_property(facts, fakes, reals),
        *_shared_sources(facts, groups),
        *_across_splits(facts, splits),
        *_repeats(fakes, "generated"),
        *_repeats(reals, "real"),
    ]
    return tuple(sorted(found, key=lambda leak: not leak.spoils_detector))


def _told_by_a_property(facts: Sequence[Facts], fakes: Sequence[Facts], reals: Sequence[Facts]) -> Iterator[Leak]:
    """What differs between the classes beyond chance, over everything that is looked at."""
    suspicions = [*_suspicions(facts, fakes, reals)]
    adjusted = holm([suspicion.rule.p_value for suspicion in suspicions])
    seen: set[str] = set()
    for suspicion, p_value in sorted(zip(suspicions, adjusted, strict=True), key=lambda pair: pair[0].kind == "headers"):
        if p_value >= SIGNIFICANT or suspicion.kind in seen or (suspicion.kind == "headers" and seen):
            continue
        if suspicion.kind == "jpeg-history" and "size" in seen:  # resizing leaves a grid of its own
            continue
        seen.add(suspicion.kind)
        accuracy = suspicion.rule.accuracy
        yield Leak(
            kind=suspicion.kind,
            detail=f"{suspicion.detail}; who looks at this alone tells {accuracy:.0%} right",
            spoils_detector=suspicion.spoils_detector,
            effect=accuracy,
            p_value=p_value,
        )


def _suspicions(facts: Sequence[Facts], fakes: Sequence[Facts], reals: Sequence[Facts]) -> Iterator[Suspicion]:
    generated = np.array([fact.generated for fact in facts])

    def usual(of: Callable[[Facts], Hashable]) -> str:
        return f"generated images are {_most_common(fakes, of)}, real ones {_most_common(reals, of)}"

    def shares(kind: str, of: Callable[[Facts], Hashable], detail: str, spoils: bool) -> Iterator[Suspicion]:
        if _difference(fakes, reals, of) > SHARE_DIFFERENCE:
            yield Suspicion(kind, detail, spoils, categories([of(fact) for fact in facts], generated))
        else:  # looked at all the same, and so counted
            yield Suspicion(kind, detail, spoils, Rule(p_value=1.0, accuracy=0.5))

    is_one_format = len({fact.format for fact in facts}) == 1
    form = usual(lambda fact: fact.format)
    yield from shares("format", lambda fact: fact.format, f"{form}: the traces of compression tell the classes apart", True)
    mode = usual(lambda fact: fact.mode)
    yield from shares("mode", lambda fact: fact.mode, f"{mode}: the colour mode of the files tells the classes apart", True)
    size = usual(lambda fact: f"{fact.width_px} x {fact.height_px} px")
    detail = f"{size}: size and the traces of resizing tell the classes apart"
    for values in zip(*((fact.width_px, fact.height_px, fact.width_px / fact.height_px) for fact in facts), strict=True):
        yield Suspicion("size", detail, True, numbers(values, generated))
    if is_one_format:
        tables = "the classes were compressed with different quantisation tables (another quality, or another program)"
        yield from shares("quantisation", lambda fact: fact.quantisation, tables, True)
        metadata = f"the headers hold different things (generated: {_held(fakes)}; real: {_held(reals)})"
        yield from shares("metadata", lambda fact: fact.metadata, metadata, False)
    names = f"{usual(lambda fact: repr(fact.name))}, each number as 0: the names tell the classes apart"
    yield from shares("names", lambda fact: fact.name, names, False)
    yield from _encoders(fakes, reals)
    yield _blocks(facts, generated, fakes, reals)
    yield _stretch(facts, generated, fakes, reals)
    yield Suspicion(
        "headers",
        "sizes, metadata and names of the files together tell the classes apart, though none does so alone",
        False,
        table(_columns(facts), generated),
    )


def _encoders(fakes: Sequence[Facts], reals: Sequence[Facts]) -> Iterator[Suspicion]:
    """PNG files of one content differ in size by who made them."""
    both = [[fact for fact in side if fact.recoding is not None] for side in (fakes, reals)]
    if not all(both):
        return
    sizes = [float(np.median([fact.recoding or 0.0 for fact in side])) for side in both]
    detail = (
        f"the PNG files were written by different programs or settings: generated ones are {sizes[0]:.3g} times as large as "
        f"the same pixels in a usual file, real ones {sizes[1]:.3g} times"
    )
    mixed = [fact for side in both for fact in side]
    truth = np.array([fact.generated for fact in mixed])
    if abs(sizes[0] / sizes[1] - 1) < 0.01:  # a few bytes of header weigh more in smaller files
        yield Suspicion("file-size", detail, False, Rule(p_value=1.0, accuracy=0.5))
    else:
        yield Suspicion("file-size", detail, False, numbers([fact.recoding or 0.0 for fact in mixed], truth))


def _blocks(facts: Sequence[Facts], generated: np.ndarray, fakes: Sequence[Facts], reals: Sequence[Facts]) -> Suspicion:
    rule = numbers([fact.blockiness for fact in facts], generated)
    means = [100 * (np.exp(np.mean([fact.blockiness for fact in side])) - 1) for side in (fakes, reals)]
    detail = (
        f"steps across the borders of JPEG's blocks of 8 px are {means[0]:.0f}% larger than elsewhere in generated images and "
        f"{means[1]:.0f}% in real ones: the classes were compressed differently before they were stored"
    )
    return Suspicion("jpeg-history", detail, rule.accuracy >= SPOILING_ACCURACY, rule)


def _stretch(facts: Sequence[Facts], generated: np.ndarray, fakes: Sequence[Facts], reals: Sequence[Facts]) -> Suspicion:
    """One class brought to the full range of brightness image by image, the other not (as Keras' `save_img` does)."""
    shares = [sum(fact.full_range for fact in side) / len(side) for side in (fakes, reals)]
    thin = [sum(fact.thin_ends for fact in side) / len(side) for side in (fakes, reals)]
    stretched, difference = ("generated", thin[0] - thin[1]) if shares[0] > shares[1] else ("real", thin[1] - thin[0])
    detail = (
        f"{max(shares):.0%} of the {stretched} images reach from 0 to 255 exactly, {min(shares):.0%} of the "
        f"{'real' if stretched == 'generated' else 'generated'} ones: the {stretched} ones seem to have been stretched in "
        "brightness one by one as they were saved"
    )
    rule = Rule(p_value=1.0, accuracy=0.5)
    if (
        max(shares) >= STRETCHED_SHARE and difference >= THIN_DIFFERENCE
    ):  # a generator may well make all full of black and white
        rule = categories([fact.full_range for fact in facts], generated)
        ends = [(fact.darkest, fact.brightest, fact.thin_ends) for fact in facts]
        rule = replace(rule, accuracy=max(rule.accuracy, table(np.array(ends, dtype=np.float64), generated).accuracy))
    return Suspicion("stretch", detail, True, rule)


def _columns(facts: Sequence[Facts]) -> np.ndarray:
    """[n, D]: what stands in headers, and nothing of the pixels; properties without order as the rank of their names."""
    described: list[tuple[Hashable, ...]] = [
        (fact.format, fact.mode, fact.quantisation, fact.metadata, fact.name, fact.suffix) for fact in facts
    ]
    ranks = [sorted({row[place] for row in described}, key=repr) for place in range(len(described[0]))]
    return np.array(
        [
            [fact.width_px, fact.height_px, *(kinds.index(value) for kinds, value in zip(ranks, row, strict=True))]
            for fact, row in zip(facts, described, strict=True)
        ],
        dtype=np.float64,
    )


def _copies(fakes: Sequence[Facts], reals: Sequence[Facts]) -> Iterator[Leak]:
    """Generated images that are real ones."""
    files = {fact.file_sha256: fact.path for fact in reals}
    contents = {fact.content_sha256: fact.path for fact in reals}
    same_bytes = [fact for fact in fakes if fact.file_sha256 in files]
    same_pixels = [fact for fact in fakes if fact.content_sha256 in contents and fact.file_sha256 not in files]
    least = min(len(fakes), len(reals))
    many = len(same_bytes) + len(same_pixels) > COPIES_SHARE * least
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
            yield Leak(kind=kind, detail=detail, spoils_detector=many, effect=0.5 * (1 - min(1, len(copies) / least)))


def _shared_sources(facts: Sequence[Facts], groups: Sequence[str] | None) -> Iterator[Leak]:
    """Generated images whose source, or a picture that nearly is it, stands among the real ones."""
    if groups is None:
        return
    reals = {group for fact, group in zip(facts, groups, strict=True) if not fact.generated}
    contents = {fact.content_sha256 for fact in facts if not fact.generated}
    shared = sum(
        fact.generated and group in reals and fact.content_sha256 not in contents
        for fact, group in zip(facts, groups, strict=True)
    )
    if shared:
        fakes = sum(fact.generated for fact in facts)
        detail = (
            f"of {shared} of {fakes} generated images the source, or its near-duplicate, is among the real ones: the classes "
            "show the same things, and a split that did not keep them on one side would be told by memory"
        )
        yield Leak(kind="shared-sources", detail=detail, spoils_detector=False, effect=0.5 * (1 - shared / fakes))


def _across_splits(facts: Sequence[Facts], splits: Sequence[str] | None) -> Iterator[Leak]:
    """Images of the generator's test split that nearly are images of its training split."""
    if splits is None:
        return
    from fruitgan.data.groups import near_groups

    near = near_groups([fact.content_sha256 for fact in facts], [fact.look for fact in facts])
    for is_generated, what in ((True, "generated"), (False, "real")):
        mine = [(near[f.content_sha256], split) for f, split in zip(facts, splits, strict=True) if f.generated == is_generated]
        trained = {group for group, split in mine if split == "train"}
        tested = [group for group, split in mine if split == "test"]
        straddling = sum(group in trained for group in tested)
        if straddling:
            verb = "is" if straddling == 1 else "are"
            detail = (
                f"{straddling} of {len(tested)} {what} images of the test split {verb} nearly one of the training split: "
                "they count as unseen and were seen"
            )
            effect = 0.5 + 0.5 * straddling / len(tested)
            yield Leak(kind="near-duplicates", detail=detail, spoils_detector=False, effect=effect)


def _repeats(side: Sequence[Facts], what: str) -> Iterator[Leak]:
    repeated = sum(count - 1 for count in Counter(fact.content_sha256 for fact in side).values())
    if repeated:
        verb = "repeats" if repeated == 1 else "repeat"
        detail = f"{repeated} of {len(side)} {what} images {verb} another one; intervals come out too narrow"
        effect = 0.5 + 0.5 * repeated / len(side)
        yield Leak(kind="repeated-images", detail=detail, spoils_detector=False, effect=effect)


def _difference(fakes: Sequence[Facts], reals: Sequence[Facts], of: Callable[[Facts], Hashable]) -> float:
    """How large a share of one class would have to change for the classes to have the property equally often."""
    counts = [Counter(of(fact) for fact in side) for side in (fakes, reals)]
    names = counts[0].keys() | counts[1].keys()
    return sum(abs(counts[0][name] / len(fakes) - counts[1][name] / len(reals)) for name in names) / 2


def _held(side: Sequence[Facts]) -> str:
    ((metadata, _),) = Counter(fact.metadata for fact in side).most_common(1)
    return ", ".join(metadata) or "nothing"


def _most_common(side: Sequence[Facts], of: Callable[[Facts], Hashable]) -> str:
    ((value, count),) = Counter(of(fact) for fact in side).most_common(1)
    return f"{value}" if count == len(side) else f"{value} ({count} of {len(side)})"
