"""Leaks: properties that distinguish real from generated files without looking at their content, and images in both classes.

facts = inspect(paths, generated)           one look at each file (facts.py)
leaks = find_leaks(facts)                   named findings, worst first

A leak makes any detector's accuracy meaningless, since it measures the leak.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fruitgan.data.groups import near_groups
from fruitgan.evaluate.facts import Facts
from fruitgan.measures.statistics import maximum_test

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
TREE_DEPTH = 3
FEWEST_IN_A_LEAF = 5
FOLDS = 5
MOST_KINDS = 50
"""With more values than this, such as names, a tree sees their ranks, not each by itself."""

Columns = NDArray[Any]


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


def find_leaks(
    facts: Sequence[Facts], groups: Sequence[str] | None = None, splits: Sequence[str] | None = None
) -> tuple[Leak, ...]:
    """The leaks among images of both classes, worst first.

    Args:
        groups: of each image, where it is known which were made of one source.
        splits: of each image, `train` or `test` as of the generator's training; empty where it is not known.
    """
    fakes, reals = sides = _sides(facts)
    found = [
        *_copies(fakes, reals),
        *_significant(_Suspects(facts, groups or [str(number) for number in range(len(facts))])),
        *(_shared_sources(facts, groups) if groups is not None else ()),
        *(_across_splits(facts, splits) if splits is not None else ()),
        *(leak for side, what in zip(sides, ("generated", "real"), strict=True) for leak in _duplicates(side, what)),
    ]
    return tuple(sorted(found, key=lambda leak: not leak.spoils_detector))


def _sides(facts: Sequence[Facts]) -> tuple[list[Facts], list[Facts]]:
    return [fact for fact in facts if fact.generated], [fact for fact in facts if not fact.generated]


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted so that any false alarm at all is as improbable as one of a single test (Holm 1979)."""
    order = np.argsort(p_values)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.maximum.accumulate(np.arange(len(p_values), 0, -1) * np.asarray(p_values)[order]).clip(max=1)
    return [float(value) for value in adjusted]


def _significant(suspects: _Suspects) -> Iterator[Leak]:
    """Those that differ between the classes beyond chance, of each kind once; the trees only where none of them explains it."""
    seen: dict[str, bool] = {}
    tested = list(suspects.all())
    for (suspect, columns), p_value in zip(tested, holm([suspect.p_value or 0.0 for suspect, _ in tested]), strict=True):
        kind = suspect.kind
        is_explained = kind in seen or (kind == "headers" and seen) or (kind == "combination" and any(seen.values()))
        if p_value >= SIGNIFICANT or is_explained:
            continue
        if kind == "jpeg-history" and "size" in seen:  # resizing leaves a grid of its own
            continue
        effect = suspects.accuracy(columns)
        seen[kind] = suspect.spoils_detector and (kind != "jpeg-history" or effect >= SPOILING_ACCURACY)
        told = f"{suspect.detail}; a classifier that sees this alone has an accuracy of {effect:.0%}"
        yield replace(suspect, detail=told, spoils_detector=seen[kind], effect=effect, p_value=p_value)


class _Suspects:
    """Every property that is tested: as a leak with its p-value before the adjustment, and the property as columns [n, D].

    Of a group one image of each class counts.
    """

    def __init__(self, facts: Sequence[Facts], groups: Sequence[str]) -> None:
        first: dict[tuple[str, bool], int] = {}
        for number, (fact, group) in enumerate(zip(facts, groups, strict=True)):
            first.setdefault((group, fact.generated), number)
        self.facts, self.groups = [facts[number] for number in first.values()], [groups[number] for number in first.values()]
        self.fakes, self.reals = _sides(self.facts)
        self.generated = np.array([fact.generated for fact in self.facts])
        self.least = min(len(self.fakes), len(self.reals))

    def all(self) -> Iterator[tuple[Leak, Columns]]:
        """Format, mode, size, quantisation, metadata and name, each for itself; traces in pixels; and all headers at once."""
        yield self.kinds("format", f"{self.usual('format')}: traces of compression distinguish the classes")
        yield self.kinds("mode", f"{self.usual('mode')}: the files' colour mode distinguishes the classes")
        size = f"generated images are {_sizes(self.fakes)}, real ones {_sizes(self.reals)}"
        for of in (lambda fact: fact.width_px, lambda fact: fact.height_px, lambda fact: fact.width_px / fact.height_px):
            yield self.numbers("size", of, f"{size}: size and the traces of resizing distinguish the classes")
        if len({fact.format for fact in self.facts}) == 1:
            tables = "the classes were compressed with different quantisation tables (another quality, or another program)"
            yield self.kinds("quantisation", tables)
            held = [", ".join(_most_common(side, "metadata")[0]) or "nothing" for side in (self.fakes, self.reals)]
            metadata = f"the headers hold different entries (generated, mostly: {held[0]}; real: {held[1]})"
            yield self.kinds("metadata", metadata, spoils=False)
        names = f"{self.usual('name')}, each number as 0: the names distinguish the classes"
        yield self.kinds("names", names, "name", spoils=False)
        means = [100 * (np.exp(np.mean([fact.blockiness for fact in side])) - 1) for side in (self.fakes, self.reals)]
        blocks = (
            f"steps across the borders of JPEG's blocks of 8 px are {means[0]:.0f}% larger than elsewhere in generated images "
            f"and {means[1]:.0f}% in real ones: the classes were compressed differently before they were stored"
        )
        leak, columns = self.numbers("jpeg-history", lambda fact: fact.blockiness, blocks)
        yield replace(leak, p_value=max(leak.p_value or 0.0, self.compressed())), columns
        yield self.stretch()
        seen = ("format", "mode", "quantisation")
        told = "together distinguish the classes, though none does so alone"
        yield self.tree("combination", seen, f"size, format, colour mode and compression of the files {told}")
        everything = (*seen, "metadata", "name", "suffix")
        yield self.tree("headers", everything, f"sizes, metadata and names of the files {told}", spoils=False)

    def compressed(self) -> float:
        """p of the more blocky class having no traces of compression: a generator's grid makes steps at the borders smaller."""
        from scipy.stats import ttest_1samp

        side = max((self.fakes, self.reals), key=lambda side: np.mean([fact.blockiness for fact in side]))
        values = [fact.blockiness for fact in side]
        return float(ttest_1samp(values, 0.0, alternative="greater").pvalue) if np.ptp(values) else float(values[0] <= 0)

    def usual(self, name: str) -> str:
        """The most common value of each class, in words."""
        words = []
        for side in (self.fakes, self.reals):
            value, count = _most_common(side, name)
            words.append(f"{value}" if count == len(side) else f"{value} ({count} of {len(side)})")
        return f"generated images are {words[0]}, real ones {words[1]}"

    def kinds(self, kind: str, detail: str, name: str = "", spoils: bool = True) -> tuple[Leak, Columns]:
        """A property without order: Fisher's exact test of its most telling value, times the number of values."""
        from scipy.stats import fisher_exact

        fakes, reals = (Counter(getattr(fact, name or kind) for fact in side) for side in (self.fakes, self.reals))
        values = sorted(fakes.keys() | reals.keys(), key=repr)
        differences = [fakes[value] / len(self.fakes) - reals[value] / len(self.reals) for value in values]
        p_value = 1.0
        if np.abs(differences).sum() / 2 > SHARE_DIFFERENCE:  # else it still counts as tested
            telling = values[int(np.argmax(np.abs(differences)))]
            table = [[side[telling], side.total() - side[telling]] for side in (fakes, reals)]
            p_value = min(1.0, float(fisher_exact(table).pvalue) * len(values))
        codes = self.ranks(name or kind)[:, None]
        leak = Leak(kind=kind, detail=detail, spoils_detector=spoils, p_value=p_value)
        return leak, codes == np.arange(len(values)) if len(values) <= MOST_KINDS else codes

    def numbers(self, kind: str, of: Callable[[Facts], float], detail: str) -> tuple[Leak, Columns]:
        """A property with order: whether its whole distribution is one in both classes (Kolmogorov and Smirnov)."""
        from scipy.stats import ks_2samp

        column = np.array([of(fact) for fact in self.facts], dtype=np.float64)
        p_value = float(ks_2samp(column[self.generated], column[~self.generated]).pvalue)  # equal values make it conservative
        return Leak(kind=kind, detail=detail, spoils_detector=True, p_value=p_value), column[:, None]

    def tree(self, kind: str, names: Sequence[str], detail: str, spoils: bool = True) -> tuple[Leak, Columns]:
        """Sizes and these properties together: a small tree learns from a half of the groups and is tested on the other one.

        p is by permutation of the other half's labels, group by group.
        """
        columns = [[fact.width_px for fact in self.facts], [fact.height_px for fact in self.facts]]
        rows, p_value = np.array([*columns, *map(self.ranks, names)], dtype=np.float64).T, 1.0
        if self.least >= 4 * FEWEST_IN_A_LEAF:
            learn, test = self.folds(2)[0]
            scores = _tree().fit(rows[learn], self.generated[learn]).predict_proba(rows[test])[:, 1]
            p_value = maximum_test(scores[None], self.generated[test], [self.groups[number] for number in test]).p_value
        return Leak(kind=kind, detail=detail, spoils_detector=spoils, p_value=p_value), rows

    def ranks(self, name: str) -> NDArray[np.int64]:
        """A property without order as the rank of its value."""
        values = [getattr(fact, name) for fact in self.facts]
        ranks = {value: rank for rank, value in enumerate(sorted(set(values), key=repr))}
        return np.array([ranks[value] for value in values])

    def folds(self, count: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """What is learnt from and what is tested, in each fold."""
        from sklearn.model_selection import StratifiedGroupKFold

        splitter = StratifiedGroupKFold(count, shuffle=True, random_state=0)
        return list(splitter.split(self.generated, self.generated, self.groups))

    def accuracy(self, columns: Columns) -> float:
        """Balanced accuracy of a small tree on [n, D], cross-validated by groups; a class of one group proves none."""
        from sklearn.metrics import balanced_accuracy_score
        from sklearn.model_selection import cross_val_predict

        if self.least < 2:
            return 0.5
        said = cross_val_predict(_tree(), columns, self.generated, cv=self.folds(min(FOLDS, self.least)))
        return float(balanced_accuracy_score(self.generated, said))

    def stretch(self) -> tuple[Leak, Columns]:
        """One class brought to the full range of brightness image by image, the other not (as Keras' `save_img` does)."""
        shares, thin = (
            [sum(getattr(fact, name) for fact in side) / len(side) for side in (self.fakes, self.reals)]
            for name in ("full_range", "thin_ends")
        )
        kinds, (more, less) = (("generated", "real"), thin) if shares[0] > shares[1] else (("real", "generated"), thin[::-1])
        detail = (
            f"{max(shares):.0%} of the {kinds[0]} images reach from 0 to 255 exactly, {min(shares):.0%} of the {kinds[1]}: "
            f"the {kinds[0]} ones seem to have been stretched in brightness one by one as they were saved"
        )
        leak, _ = self.kinds("stretch", detail, "full_range")
        # A generator may well make all of its images full of black and white; but thinly so?
        is_stretched = max(shares) >= STRETCHED_SHARE and more - less >= THIN_DIFFERENCE
        ends = np.array([(fact.darkest, fact.brightest, fact.thin_ends) for fact in self.facts], dtype=np.float64)
        return leak if is_stretched else replace(leak, p_value=1.0), ends


def _tree() -> Any:
    from sklearn.tree import DecisionTreeClassifier

    return DecisionTreeClassifier(
        max_depth=TREE_DEPTH, min_samples_leaf=FEWEST_IN_A_LEAF, class_weight="balanced", random_state=0
    )


def _copies(fakes: Sequence[Facts], reals: Sequence[Facts]) -> Iterator[Leak]:
    """Generated images that are real ones."""
    files = {fact.file_sha256 for fact in reals}
    contents = {fact.look.content: fact.path for fact in reals}
    copies = [fact for fact in fakes if fact.look.content in contents]
    least = min(len(fakes), len(reals))
    for kind, what in (("identical-files", "the very same file as"), ("identical-pixels", "pixel for pixel the same as")):
        found = [fact for fact in copies if (fact.file_sha256 in files) == (kind == "identical-files")]
        if found:
            detail = (
                f"{len(found)} of {len(fakes)} generated images {_is(found)} {what} a real one, such as {found[0].path.name} "
                f"and {contents[found[0].look.content].name}; distances come out too small"
            )
            spoils = len(copies) > COPIES_SHARE * least
            yield Leak(kind=kind, detail=detail, spoils_detector=spoils, effect=0.5 * (1 - min(1, len(found) / least)))


def _shared_sources(facts: Sequence[Facts], groups: Sequence[str]) -> Iterator[Leak]:
    """Generated images whose source, or a near-duplicate of it, is among the real ones."""
    reals = {group for fact, group in zip(facts, groups, strict=True) if not fact.generated}
    contents = {fact.look.content for fact in facts if not fact.generated}
    fakes = [(fact, group) for fact, group in zip(facts, groups, strict=True) if fact.generated]
    shared = sum(group in reals and fact.look.content not in contents for fact, group in fakes)
    if shared:
        detail = (
            f"of {shared} of {len(fakes)} generated images the source, or its near-duplicate, is among the real ones: the "
            "classes show the same things, and a split that did not keep them on one side would reward memory"
        )
        yield Leak(kind="shared-sources", detail=detail, spoils_detector=False, effect=0.5 * (1 - shared / len(fakes)))


def _across_splits(facts: Sequence[Facts], splits: Sequence[str]) -> Iterator[Leak]:
    """Images of the generator's test split that are near-duplicates of its training split."""
    near = near_groups(fact.look for fact in facts)
    for is_generated, what in ((True, "generated"), (False, "real")):
        mine = [(near[f.look.content], split) for f, split in zip(facts, splits, strict=True) if f.generated == is_generated]
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
    count = len(side) - len({fact.look.content for fact in side})
    if count:
        detail = f"{count} duplicate{'s' if count > 1 else ''} among {len(side)} {what} images; intervals come out too narrow"
        yield Leak(kind="duplicate-images", detail=detail, spoils_detector=False, effect=0.5 + 0.5 * count / len(side))


def _is(found: Sequence[object]) -> str:
    return "is" if len(found) == 1 else "are"


def _sizes(side: Sequence[Facts]) -> str:
    """`160 x 160 px`, or from the smallest to the largest area."""
    sizes = sorted({(fact.width_px * fact.height_px, f"{fact.width_px} x {fact.height_px}") for fact in side})
    return f"{sizes[0][1]} px" if len(sizes) == 1 else f"from {sizes[0][1]} to {sizes[-1][1]} px"


def _most_common(side: Sequence[Facts], name: str) -> tuple[Any, int]:
    """The most common value of a property, and in how many files it is."""
    ((value, count),) = Counter(getattr(fact, name) for fact in side).most_common(1)
    return value, count
