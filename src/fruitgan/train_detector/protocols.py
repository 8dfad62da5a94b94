"""Protocols: how labelled images are split into train, val and test sets. One of the two leaks on purpose."""

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
"""Train, val and test of the grouped protocol: a fifth is test, and a fifth of the rest val."""
INNER_SHARE = 0.15
"""Val's share of the images that are not test, in a fold."""
HALVES = (0.5 * (1 - INNER_SHARE), 0.5 * INNER_SHARE, 0.5)
SEED_SHARE = 0.2
LEAST_PER_CLASS = 10
MOST_IMAGES = 80_000

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Numbers of images, ascending; `val` and `test` are the same images in the seed protocol."""

    train: Indices
    val: Indices
    test: Indices
    left_out: Indices
    """Surplus of the larger class."""


def grouped_split(images: Sequence[LabelledImage], seed: int) -> Split:
    """Three sets in which the classes are balanced and no group is in two of them.

    The larger class is cut down to the smaller at random. Groups come in an order that the seed decides, large ones first, and
    each goes where most is missing, so that the shares hold for each class as well as the groups allow.

    Raises:
        DataError: too few images or groups.
    """
    _need(images)
    kept = _balanced(images, seed)
    groups = len({images[index].group for index in kept})
    too_few = (
        f"train, val and test need images of both classes: the {len(kept)} images show only {groups} different things; "
        "at least three of each class are needed"
    )
    return _split(images, _dealt(images, kept, SHARES, seed, "detector/groups"), too_few)


def grouped_folds(images: Sequence[LabelledImage], folds: int, seed: int) -> list[Split]:
    """As many splits as folds: each fold is the test set once, and of the rest 15% of the groups are val and the others train.

    The larger class is cut down to the smaller at random, and no group is on two sides of a split.

    Raises:
        DataError: a side would lack a class.
    """
    kept = _balanced(images, seed)
    too_few = f"the images show too few different things for {folds} folds: at least {folds} groups of each class are needed"
    found = []
    for number, test in enumerate(_dealt(images, kept, (1 / folds,) * folds, seed, "evaluate/folds")):
        rest = sorted(set(kept) - set(test))
        inner = _dealt(images, rest, (1 - INNER_SHARE, INNER_SHARE), seed, f"evaluate/inner/{number}")
        found.append(_split(images, [*inner, test], too_few))
    return found


def half_split(images: Sequence[LabelledImage], seed: int) -> Split:
    """One half of the groups is test; of the other 15% are val and the rest train. Balanced as the folds are.

    Raises:
        DataError: a side would lack a class.
    """
    too_few = "the images show too few different things for two halves: at least four groups of each class are needed"
    return _split(images, _dealt(images, _balanced(images, seed), HALVES, seed, "evaluate/halves"), too_few)


def _split(images: Sequence[LabelledImage], sets: Sequence[Sequence[int]], too_few: str) -> Split:
    """Train, val and test as given, and what is in none of them. Raises: DataError if one lacks a class."""
    if any(len({images[index].generated for index in part}) < 2 for part in sets):
        raise DataError(too_few)
    used = {index for part in sets for index in part}
    return Split(*(_indices(part) for part in (*sets, set(range(len(images))) - used)))


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
    sets: list[list[int]] = [[] for _ in shares]
    for name in order:
        labels = Counter(images[index].generated for index in groups[name])
        lack = [
            sum(missing[p][label] / max(whole[p][label], 1e-9) * n for label, n in labels.items()) for p in range(len(shares))
        ]
        place = int(np.argmax(lack))
        sets[place] += groups[name]
        for label, n in labels.items():
            missing[place][label] -= n
    return sets


def _balanced(images: Sequence[LabelledImage], seed: int) -> list[int]:
    members = {label: [i for i, image in enumerate(images) if image.generated == label] for label in (True, False)}
    least = min(map(len, members.values()))
    kept = []
    for label, indices in members.items():
        chosen = randomness.permutation(seed, 0, len(indices), f"detector/balance/{label}")[:least]
        kept += [indices[i] for i in chosen]
    return sorted(kept)


def seed_split(images: Sequence[LabelledImage], seed: int = 0) -> Split:
    """As the lab report did: the first fifth of each class by name is val *and* test, all else train. The seed is ignored.

    Raises:
        DataError: too few images.
    """
    _need(images)
    train: list[int] = []
    test: list[int] = []
    for label in (True, False):
        members = sorted((i for i, image in enumerate(images) if image.generated == label), key=lambda i: images[i].path.name)
        first = int(SEED_SHARE * len(members))
        test += members[:first]
        train += members[first:]
    return Split(_indices(train), _indices(test), _indices(test), _indices([]))


def _need(images: Sequence[LabelledImage]) -> None:
    if len(images) > MOST_IMAGES:
        raise DataError(f"{len(images):,} images, and a detector's card can list {MOST_IMAGES:,}; take fewer")
    counts = Counter(image.generated for image in images)
    for label, what in ((True, "generated"), (False, "real")):
        if counts[label] < LEAST_PER_CLASS:
            raise DataError(
                f"too few images: {counts[label]} {what}, at least {LEAST_PER_CLASS} of each class are needed "
                "(and 250 of each for an interval of about 10 points either way); export-dataset --count N makes more"
            )


def _indices(values: Iterable[int]) -> Indices:
    return np.array(sorted(values), dtype=np.int64)


def explained(protocol: str, images: Sequence[LabelledImage], split: Split) -> list[str]:
    """What to know about the protocol's accuracy, a sentence each, the first one about the protocol as such."""
    if protocol == "seed":
        return _why_the_seed_protocol_leaks(images, split)
    notes = [
        "grouped protocol: no source image is in two of train, val and test, the classes are balanced, and the test images "
        "chose neither weights nor when to stop"
    ]
    if len(split.left_out):
        notes.append(f"{len(split.left_out)} images of the larger class left out, so that the majority baseline is 50%")
    return notes


def _why_the_seed_protocol_leaks(images: Sequence[LabelledImage], split: Split) -> list[str]:
    """With counts where there are any."""
    has_splits = any(image.split for image in images)
    neighbours = (
        "; in the report's folders neighbours are alike, the neutral names of this dataset make it a random part"
        if has_splits
        else ", not a random part: neighbours in a folder are alike"
    )
    notes = [
        "seed protocol, the lab report's: its accuracy leaks and reads too high",
        f"the {len(split.test)} test images are also the validation images, so the best of many looks at them is reported",
        f"they are the first fifth of each class by name{neighbours}",
    ]
    trained = {images[i].group for i in split.train}
    if shared := sum(images[i].group in trained for i in split.test):
        notes.append(f"{shared} of them show what a training image shows (same source or a near-duplicate)")
    if seen := sum(images[i].generated and images[i].split == "train" for i in split.test):
        fakes = sum(images[i].generated for i in split.test)
        notes.append(f"{seen} of the {fakes} fakes among them were made from images that the generator was trained on")
    elif not has_splits:
        notes.append("the report's fakes were made from images that the generator was trained on; of these it is not known")
    notes.append("the report's fakes were also stretched in brightness one by one as they were saved, the real images were not")
    return notes


PROTOCOLS: Mapping[str, Callable[[Sequence[LabelledImage], int], Split]] = {"grouped": grouped_split, "seed": seed_split}
