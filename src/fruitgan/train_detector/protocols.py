"""Which images train, which choose when to stop, and which judge; two protocols, one of them leaky on purpose."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fruitgan import randomness
from fruitgan.data.labelled import LabelledImage
from fruitgan.errors import DataError

SHARES = (0.64, 0.16, 0.2)
"""Of the grouped protocol: train, choose, judge. A fifth judges, and a fifth of the rest chooses."""
INNER_SHARE = 0.15
"""Of the images that do not judge in a fold."""
HALVES = (0.5 * (1 - INNER_SHARE), 0.5 * INNER_SHARE, 0.5)
SEED_SHARE = 0.2
LEAST_PER_CLASS = 10

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Numbers of images, ascending; `choose` and `judge` are the same images in the seed protocol."""

    train: Indices
    val: Indices
    test: Indices
    left_out: Indices
    """Surplus of the larger class."""


@dataclass(frozen=True)
class Protocol:
    """A way to split, and what to know about its number."""

    split: Callable[[Sequence[LabelledImage], int], Split]
    explained: Callable[[Sequence[LabelledImage], Split], tuple[str, ...]]
    """Sentences for people, the first one about the protocol as such."""


def grouped_split(images: Sequence[LabelledImage], seed: int) -> Split:
    """Three parts in which the classes are balanced and no group is on two sides.

    The larger class is cut down to the smaller at random. Groups come in an order that the seed decides, large ones first, and
    each goes where most is missing, so that the shares hold for each class as well as the groups allow.

    Raises:
        DataError: too few images or groups.
    """
    _need(images)
    kept = _balanced(images, seed)
    parts = _dealt(images, kept, SHARES, seed, "detector/groups")
    for part, what in zip(parts, ("train", "choose when to stop", "judge"), strict=True):
        if len({images[index].generated for index in part}) < 2:
            groups = len({images[index].group for index in kept})
            raise DataError(
                f"no image of one class is left to {what}: the {len(kept)} images show only {groups} different things; "
                "at least three of each class are needed"
            )
    left_out = sorted(set(range(len(images))) - set(kept))
    return Split(*(_indices(part) for part in (*parts, left_out)))


def grouped_folds(images: Sequence[LabelledImage], folds: int, seed: int) -> list[Split]:
    """As many splits as folds: each fold judges once, and of the rest 15% of the groups choose and the others train.

    The larger class is cut down to the smaller at random, and no group is on two sides of a split.

    Raises:
        DataError: a side would lack a class.
    """
    kept = _balanced(images, seed)
    dealt = _dealt(images, kept, (1 / folds,) * folds, seed, "evaluate/folds")
    left_out = _indices(set(range(len(images))) - set(kept))
    found = []
    for number, judge in enumerate(dealt):
        rest = sorted(set(kept) - set(judge))
        train, choose = _dealt(images, rest, (1 - INNER_SHARE, INNER_SHARE), seed, f"evaluate/inner/{number}")
        found.append(Split(_indices(train), _indices(choose), _indices(judge), left_out))
    if not all(_has_both(images, part) for parts in found for part in (parts.train, parts.val, parts.test)):
        raise DataError(
            f"the images show too few different things for {folds} folds: at least {folds} groups of each class are needed"
        )
    return found


def half_split(images: Sequence[LabelledImage], seed: int) -> Split:
    """One half of the groups judges; of the other 15% choose and the rest train. Balanced as the folds are.

    Raises:
        DataError: a side would lack a class.
    """
    kept = _balanced(images, seed)
    train, choose, judge = _dealt(images, kept, HALVES, seed, "evaluate/halves")
    parts = Split(*(_indices(part) for part in (train, choose, judge, set(range(len(images))) - set(kept))))
    if not all(_has_both(images, part) for part in (parts.train, parts.val, parts.test)):
        raise DataError(
            "the images show too few different things for two halves: at least four groups of each class are needed"
        )
    return parts


def _has_both(images: Sequence[LabelledImage], part: Indices) -> bool:
    return len({images[index].generated for index in part}) == 2


def _dealt(
    images: Sequence[LabelledImage], kept: Sequence[int], shares: Sequence[float], seed: int, stream: str
) -> list[list[int]]:
    """The kept images by these shares: groups whole and in random order, large ones first, each where most is missing."""
    groups: dict[str, list[int]] = defaultdict(list)
    for index in kept:
        groups[images[index].group].append(index)
    names = sorted(groups)
    order = [names[i] for i in randomness.permutation(seed, 0, len(names), stream)]
    order.sort(key=lambda name: -len(groups[name]))  # stable: the random order stays among equals
    counts = Counter(images[index].generated for index in kept)
    missing = [{label: share * counts[label] for label in (True, False)} for share in shares]
    whole = [dict(part) for part in missing]
    parts: list[list[int]] = [[] for _ in shares]
    for name in order:
        labels = Counter(images[index].generated for index in groups[name])
        lack = [
            sum(missing[p][label] / max(whole[p][label], 1e-9) * n for label, n in labels.items()) for p in range(len(shares))
        ]
        place = int(np.argmax(lack))
        parts[place] += groups[name]
        for label, n in labels.items():
            missing[place][label] -= n
    return parts


def _balanced(images: Sequence[LabelledImage], seed: int) -> list[int]:
    members = {label: [i for i, image in enumerate(images) if image.generated == label] for label in (True, False)}
    least = min(map(len, members.values()))
    kept = []
    for label, indices in members.items():
        chosen = randomness.permutation(seed, 0, len(indices), f"detector/balance/{label}")[:least]
        kept += [indices[i] for i in chosen]
    return sorted(kept)


def seed_split(images: Sequence[LabelledImage], seed: int = 0) -> Split:
    """As the lab report did: the first fifth of each class by name chooses *and* judges, all else trains. The seed is ignored.

    Raises:
        DataError: too few images.
    """
    _need(images)
    train: list[int] = []
    judge: list[int] = []
    for label in (True, False):
        members = sorted((i for i, image in enumerate(images) if image.generated == label), key=lambda i: images[i].path.name)
        first = int(SEED_SHARE * len(members))
        judge += members[:first]
        train += members[first:]
    return Split(_indices(train), _indices(judge), _indices(judge), _indices([]))


def _need(images: Sequence[LabelledImage]) -> None:
    counts = Counter(image.generated for image in images)
    for label, what in ((True, "generated"), (False, "real")):
        if counts[label] < LEAST_PER_CLASS:
            raise DataError(
                f"too few images: {counts[label]} {what}, at least {LEAST_PER_CLASS} of each class are needed "
                "(and 250 of each for an interval of about 10 points either way); export-dataset --count N makes more"
            )


def _indices(values: Iterable[int]) -> Indices:
    return np.array(sorted(values), dtype=np.int64)


def shared_groups(images: Sequence[LabelledImage], a: Indices, b: Indices) -> int:
    """How many images of `b` show the same thing as one of `a`."""
    groups = {images[i].group for i in a}
    return sum(images[i].group in groups for i in b)


def _explain_grouped(images: Sequence[LabelledImage], parts: Split) -> tuple[str, ...]:
    notes = [
        "grouped protocol: no source image is on two sides, the classes are balanced, and the judged images chose nothing, "
        "neither weights nor when to stop"
    ]
    if len(parts.left_out):
        notes.append(f"{len(parts.left_out)} images of the larger class left out, so that a guess is right half the time")
    return tuple(notes)


def _explain_seed(images: Sequence[LabelledImage], parts: Split) -> tuple[str, ...]:
    """Why the number is too high, with counts where there are any."""
    judged = len(parts.test)
    notes = [
        "seed protocol, the lab report's: its number leaks and reads too high",
        f"the {judged} images that are reported also chose when to stop, so the best of many looks at them is reported",
        "they are the first fifth of each class by name"
        + (
            "; in the report's folders neighbours are alike, the neutral names of this dataset make it a random part"
            if any(image.split for image in images)
            else ", not a random part: neighbours in a folder are alike"
        ),
    ]
    if shared := shared_groups(images, parts.train, parts.test):
        notes.append(f"{shared} of them show what a training image shows (same source or a near-duplicate)")
    if seen := sum(images[i].generated and images[i].split == "train" for i in parts.test):
        fakes = sum(images[i].generated for i in parts.test)
        notes.append(f"{seen} of the {fakes} judged fakes were made from images that the generator was trained on")
    elif not any(image.split for image in images):
        notes.append("the report's fakes were made from images that the generator was trained on; of these it is not known")
    notes.append("the report's fakes were also stretched in brightness one by one as they were saved, the real images were not")
    return tuple(notes)


PROTOCOLS: Mapping[str, Protocol] = {
    "grouped": Protocol(grouped_split, _explain_grouped),
    "seed": Protocol(seed_split, _explain_seed),
}
