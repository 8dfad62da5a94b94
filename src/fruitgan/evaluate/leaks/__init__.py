"""Leaks: properties that distinguish real from generated files without looking at their content, and images in both classes.

facts = list(inspect(paths, generated))     one look at each file
leaks = find_leaks(facts)                   named findings, worst first

A leak makes any detector's accuracy meaningless, since it measures the leak.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from fruitgan.data.groups import near_groups
from fruitgan.evaluate.leaks.facts import Facts, Rule, Truth, categories, holm, inspect, numbers, table

__all__ = ["Facts", "Leak", "find_leaks", "inspect"]

SIGNIFICANT = 0.01
"""Of the p-values after Holm's adjustment over all properties that are tested."""
SHARE_DIFFERENCE = 0.1
COPIES_SHARE = 0.05
"""With more copies than this among the smaller class a detector is asked the impossible."""
STRETCHED_SHARE = 0.98
THIN_DIFFERENCE = 0.15
"""Of 133 photographs 77% reach both ends of the range, 21% of them thinly; stretched one by one, 100% and 44%."""
SPOILING_ACCURACY = 0.6
"""Of JPEG's blocks, which photographs have in any case and generators copy: from here on they are more than a trace."""

Property = Callable[[Facts], Hashable]


@dataclass(frozen=True, kw_only=True)
class Leak:
    """One property that distinguishes the classes, or that they share and should not."""

    kind: str
    detail: str
    spoils_detector: bool
    """Whether it makes a detector's accuracy meaningless."""
    effect: float | None = None
    """Accuracy of a classifier that sees this alone; 0.5 is guessing, and below 0.5 it misleads."""
    p_value: float | None = None
    """Adjusted for all properties that are tested; None for a count, which is no chance."""


@dataclass(frozen=True)
class Suspicion:
    """A property with its test, before it is known how many others were tested."""

    kind: str
    detail: str
    spoils_detector: bool
    rule: Rule


@dataclass(frozen=True)
class _Classes:
    """The files of both classes."""

    facts: Sequence[Facts]

    @cached_property
    def generated(self) -> Truth:
        return np.array([fact.generated for fact in self.facts])

    @cached_property
    def fakes(self) -> list[Facts]:
        return [fact for fact in self.facts if fact.generated]

    @cached_property
    def reals(self) -> list[Facts]:
        return [fact for fact in self.facts if not fact.generated]

    def usual(self, of: Property) -> str:
        """The most common value of each class, in words."""
        return f"generated images are {_most_common(self.fakes, of)}, real ones {_most_common(self.reals, of)}"

    def difference(self, of: Property) -> float:
        """How large a share of one class would have to change for the classes to have the property equally often."""
        fakes, reals = (Counter(of(fact) for fact in side) for side in (self.fakes, self.reals))
        return sum(abs(fakes[v] / len(self.fakes) - reals[v] / len(self.reals)) for v in fakes.keys() | reals.keys()) / 2


def find_leaks(
    facts: Sequence[Facts], groups: Sequence[str] | None = None, splits: Sequence[str] | None = None
) -> tuple[Leak, ...]:
    """The leaks among images of both classes, worst first.

    Args:
        groups: of each image, where it is known which were made of one source.
        splits: of each image, `train` or `test` as of the generator's training; empty where it is not known.
    """
    both = _Classes(facts)
    found = [
        *_copies(both.fakes, both.reals),
        *_properties(both),
        *(_shared_sources(facts, groups) if groups is not None else ()),
        *(_across_splits(facts, splits) if splits is not None else ()),
        *_duplicates(both.fakes, "generated"),
        *_duplicates(both.reals, "real"),
    ]
    return tuple(sorted(found, key=lambda leak: not leak.spoils_detector))


def _properties(both: _Classes) -> Iterator[Leak]:
    """Properties that differ between the classes beyond chance, over all that are tested."""
    suspicions = [*_headers(both), *_encoders(both), _blocks(both), _stretch(both), _all_headers(both)]
    adjusted = holm([suspicion.rule.p_value for suspicion in suspicions])
    seen: set[str] = set()
    for suspicion, p_value in zip(suspicions, adjusted, strict=True):
        if p_value >= SIGNIFICANT or suspicion.kind in seen or (suspicion.kind == "headers" and seen):
            continue
        if suspicion.kind == "jpeg-history" and "size" in seen:  # resizing leaves a grid of its own
            continue
        seen.add(suspicion.kind)
        accuracy = suspicion.rule.accuracy
        yield Leak(
            kind=suspicion.kind,
            detail=f"{suspicion.detail}; a classifier that sees this alone has an accuracy of {accuracy:.0%}",
            spoils_detector=suspicion.spoils_detector,
            effect=accuracy,
            p_value=p_value,
        )


def _headers(both: _Classes) -> Iterator[Suspicion]:
    """Format, colour mode, size, quantisation, metadata and name, each for itself."""

    def shares(kind: str, of: Property, detail: str, spoils: bool) -> Suspicion:
        differs = both.difference(of) > SHARE_DIFFERENCE  # else it still counts as tested
        return Suspicion(kind, detail, spoils, categories([of(f) for f in both.facts], both.generated) if differs else Rule())

    form = both.usual(lambda fact: fact.format)
    yield shares("format", lambda fact: fact.format, f"{form}: the traces of compression distinguish the classes", True)
    mode = both.usual(lambda fact: fact.mode)
    yield shares("mode", lambda fact: fact.mode, f"{mode}: the colour mode of the files distinguishes the classes", True)
    size = both.usual(lambda fact: f"{fact.width_px} x {fact.height_px} px")
    detail = f"{size}: size and the traces of resizing distinguish the classes"
    for values in zip(*((fact.width_px, fact.height_px, fact.width_px / fact.height_px) for fact in both.facts), strict=True):
        yield Suspicion("size", detail, True, numbers(values, both.generated))
    if len({fact.format for fact in both.facts}) == 1:
        tables = "the classes were compressed with different quantisation tables (another quality, or another program)"
        yield shares("quantisation", lambda fact: fact.quantisation, tables, True)
        held = [_most_common(side, lambda fact: ", ".join(fact.metadata) or "nothing") for side in (both.fakes, both.reals)]
        metadata = f"the headers hold different entries (generated: {held[0]}; real: {held[1]})"
        yield shares("metadata", lambda fact: fact.metadata, metadata, False)
    names = f"{both.usual(lambda fact: repr(fact.name))}, each number as 0: the names distinguish the classes"
    yield shares("names", lambda fact: fact.name, names, False)


def _encoders(both: _Classes) -> Iterator[Suspicion]:
    """PNG files of one content differ in size by who made them."""
    sides = [[fact.recoding for fact in side if fact.recoding is not None] for side in (both.fakes, both.reals)]
    if not all(sides):
        return
    fake_size, real_size = (float(np.median(side)) for side in sides)
    detail = (
        f"the PNG files were written by different programs or settings: generated ones are {fake_size:.3g} times as large as "
        f"the same pixels in a usual file, real ones {real_size:.3g} times"
    )
    truth = np.repeat([True, False], [len(side) for side in sides])
    is_alike = abs(fake_size / real_size - 1) < 0.01  # a few bytes of header weigh more in smaller files
    yield Suspicion("file-size", detail, False, Rule() if is_alike else numbers([*sides[0], *sides[1]], truth))


def _blocks(both: _Classes) -> Suspicion:
    rule = numbers([fact.blockiness for fact in both.facts], both.generated)
    means = [100 * (np.exp(np.mean([fact.blockiness for fact in side])) - 1) for side in (both.fakes, both.reals)]
    detail = (
        f"steps across the borders of JPEG's blocks of 8 px are {means[0]:.0f}% larger than elsewhere in generated images and "
        f"{means[1]:.0f}% in real ones: the classes were compressed differently before they were stored"
    )
    return Suspicion("jpeg-history", detail, rule.accuracy >= SPOILING_ACCURACY, rule)


def _stretch(both: _Classes) -> Suspicion:
    """One class brought to the full range of brightness image by image, the other not (as Keras' `save_img` does)."""
    shares, thin = (
        [sum(getattr(fact, name) for fact in side) / len(side) for side in (both.fakes, both.reals)]
        for name in ("full_range", "thin_ends")
    )
    kinds = ("generated", "real") if shares[0] > shares[1] else ("real", "generated")
    difference = thin[0] - thin[1] if shares[0] > shares[1] else thin[1] - thin[0]
    detail = (
        f"{max(shares):.0%} of the {kinds[0]} images reach from 0 to 255 exactly, {min(shares):.0%} of the {kinds[1]} ones: "
        f"the {kinds[0]} ones seem to have been stretched in brightness one by one as they were saved"
    )
    rule = Rule()
    # A generator may well make all of its images full of black and white; but thinly so?
    if max(shares) >= STRETCHED_SHARE and difference >= THIN_DIFFERENCE:
        rule = categories([fact.full_range for fact in both.facts], both.generated)
        ends = np.array([(fact.darkest, fact.brightest, fact.thin_ends) for fact in both.facts], dtype=np.float64)
        rule = replace(rule, accuracy=max(rule.accuracy, table(ends, both.generated).accuracy))
    return Suspicion("stretch", detail, True, rule)


def _all_headers(both: _Classes) -> Suspicion:
    """All header properties together, and nothing of the pixels; those without order as the rank of their values."""
    described: list[tuple[Hashable, ...]] = [
        (fact.format, fact.mode, fact.quantisation, fact.metadata, fact.name, fact.suffix) for fact in both.facts
    ]
    ranks = [sorted(set(column), key=repr) for column in zip(*described, strict=True)]
    rows = [
        [fact.width_px, fact.height_px, *(kinds.index(value) for kinds, value in zip(ranks, row, strict=True))]
        for fact, row in zip(both.facts, described, strict=True)
    ]
    detail = "sizes, metadata and names of the files together distinguish the classes, though none does so alone"
    return Suspicion("headers", detail, False, table(np.array(rows, dtype=np.float64), both.generated))


def _copies(fakes: Sequence[Facts], reals: Sequence[Facts]) -> Iterator[Leak]:
    """Generated images that are real ones."""
    files = {fact.file_sha256 for fact in reals}
    contents = {fact.content_sha256: fact.path for fact in reals}
    copies = [fact for fact in fakes if fact.content_sha256 in contents]
    least = min(len(fakes), len(reals))
    for kind, what, is_same_file in (
        ("identical-files", "the very same file as", True),
        ("identical-pixels", "pixel for pixel the same as", False),
    ):
        found = [fact for fact in copies if (fact.file_sha256 in files) == is_same_file]
        if found:
            detail = (
                f"{len(found)} of {len(fakes)} generated images {_is(found)} {what} a real one, such as {found[0].path.name} "
                f"and {contents[found[0].content_sha256].name}; distances come out too small"
            )
            spoils = len(copies) > COPIES_SHARE * least
            yield Leak(kind=kind, detail=detail, spoils_detector=spoils, effect=0.5 * (1 - min(1, len(found) / least)))


def _shared_sources(facts: Sequence[Facts], groups: Sequence[str]) -> Iterator[Leak]:
    """Generated images whose source, or a near-duplicate of it, is among the real ones."""
    reals = {group for fact, group in zip(facts, groups, strict=True) if not fact.generated}
    contents = {fact.content_sha256 for fact in facts if not fact.generated}
    fakes = [(fact, group) for fact, group in zip(facts, groups, strict=True) if fact.generated]
    shared = sum(group in reals and fact.content_sha256 not in contents for fact, group in fakes)
    if shared:
        detail = (
            f"of {shared} of {len(fakes)} generated images the source, or its near-duplicate, is among the real ones: the "
            "classes show the same things, and a split that did not keep them on one side would reward memory"
        )
        yield Leak(kind="shared-sources", detail=detail, spoils_detector=False, effect=0.5 * (1 - shared / len(fakes)))


def _across_splits(facts: Sequence[Facts], splits: Sequence[str]) -> Iterator[Leak]:
    """Images of the generator's test split that are near-duplicates of its training split."""
    near = near_groups([fact.content_sha256 for fact in facts], [fact.look for fact in facts])
    for is_generated, what in ((True, "generated"), (False, "real")):
        mine = [(near[f.content_sha256], split) for f, split in zip(facts, splits, strict=True) if f.generated == is_generated]
        trained = {group for group, split in mine if split == "train"}
        tested = [group for group, split in mine if split == "test"]
        straddling = [group for group in tested if group in trained]
        if straddling:
            detail = (
                f"{len(straddling)} of {len(tested)} {what} images of the test split {_is(straddling)} nearly one of the "
                "training split: they count as unseen and were seen"
            )
            effect = 0.5 + 0.5 * len(straddling) / len(tested)
            yield Leak(kind="near-duplicates", detail=detail, spoils_detector=False, effect=effect)


def _duplicates(side: Sequence[Facts], what: str) -> Iterator[Leak]:
    count = len(side) - len({fact.content_sha256 for fact in side})
    if count:
        detail = f"{count} duplicate{'s' if count > 1 else ''} among {len(side)} {what} images; intervals come out too narrow"
        yield Leak(kind="duplicate-images", detail=detail, spoils_detector=False, effect=0.5 + 0.5 * count / len(side))


def _is(found: Sequence[object]) -> str:
    return "is" if len(found) == 1 else "are"


def _most_common(side: Sequence[Facts], of: Property) -> str:
    ((value, count),) = Counter(of(fact) for fact in side).most_common(1)
    return f"{value}" if count == len(side) else f"{value} ({count} of {len(side)})"
