"""Protocols: how labelled images are split into train, val and test sets. One of the two leaks on purpose."""

from __future__ import annotations

import dataclasses
import hashlib
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
LEAST_PER_CLASS = 14
"""Of half of them, 7 and 7, one labelling in 3,432 has the largest AUC: of fewer none could be below the test's alpha."""
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

    @property
    def sha256(self) -> str:
        digest = hashlib.sha256()
        for part in dataclasses.astuple(self):
            digest.update(f"{len(part)} images\n".encode())
            digest.update(part.astype("<i8").tobytes())
        return digest.hexdigest()


def too_few(images: Sequence[LabelledImage]) -> str | None:
    """What is missing for a detector to be trained on these images; None if nothing is."""
    counts = Counter(image.generated for image in images)
    if min(counts[True], counts[False]) >= LEAST_PER_CLASS:
        return None
    return (
        f"too few images for a detector: {counts[True]} generated and {counts[False]} real ones, at least {LEAST_PER_CLASS} of "
        "each are needed (and 250 for an interval of about 10 points either way); export-dataset --count N makes more"
    )


def grouped_split(images: Sequence[LabelledImage], seed: int) -> Split:
    """Three sets in which the classes are balanced and no group is in two of them.

    The larger class is cut down to the smaller at random. Groups come in an order that the seed decides, large ones first, and
    each goes where most is missing, so that the shares hold for each class as well as the groups allow.

    Raises:
        DataError: too few images or groups.
    """
    _refuse_impossible(images)
    return _split(images, _dealt(images, _balanced(images, seed), SHARES, seed, "detector/groups"))


def grouped_folds(images: Sequence[LabelledImage], folds: int, seed: int) -> list[Split]:
    """As many splits as folds: each fold is the test set once, and of the rest 15% of the groups are val and the others train.

    The larger class is cut down to the smaller at random, and no group is on two sides of a split.

    Raises:
        DataError: a side would lack a class.
    """
    kept, found = _balanced(images, seed), []
    for number, test in enumerate(_dealt(images, kept, (1 / folds,) * folds, seed, "evaluate/folds")):
        rest = sorted(set(kept) - set(test))
        inner = _dealt(images, rest, (1 - INNER_SHARE, INNER_SHARE), seed, f"evaluate/inner/{number}")
        found.append(_split(images, [*inner, test]))
    return found


def half_split(images: Sequence[LabelledImage], seed: int) -> Split:
    """One half of the groups is test; of the other 15% are val and the rest train. Balanced as the folds are.

    Raises:
        DataError: a side would lack a class.
    """
    return _split(images, _dealt(images, _balanced(images, seed), HALVES, seed, "evaluate/halves"))


def _split(images: Sequence[LabelledImage], sets: Sequence[Sequence[int]]) -> Split:
    """Train, val and test as given, and what is in none of them. Raises: DataError if one lacks a class."""
    if any(len({images[index].generated for index in part}) < 2 for part in sets):
        groups = len({image.group for image in images})
        raise DataError(
            f"the {len(images)} images show only {groups} different things: train, val and test need some of each class, and "
            "what shows one thing (a source and its fake, near-duplicates) is not divided; more different images are needed"
        )
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
    _refuse_impossible(images)
    train: list[int] = []
    test: list[int] = []
    for label in (True, False):
        members = sorted((i for i, image in enumerate(images) if image.generated == label), key=lambda i: images[i].path.name)
        first = int(SEED_SHARE * len(members))
        test += members[:first]
        train += members[first:]
    return Split(_indices(train), _indices(test), _indices(test), _indices([]))


def _refuse_impossible(images: Sequence[LabelledImage]) -> None:
    if len(images) > MOST_IMAGES:
        raise DataError(f"{len(images):,} images, and a detector's card can list {MOST_IMAGES:,}; take fewer")
    if reason := too_few(images):
        raise DataError(reason)


def _indices(values: Iterable[int]) -> Indices:
    return np.array(sorted(values), dtype=np.int64)


def explained(protocol: str, images: Sequence[LabelledImage], split: Split) -> list[str]:
    """What to know about the protocol's accuracy, a sentence each, the first one about the protocol as such."""
    if protocol == "grouped":
        left_out = f"{len(split.left_out)} images of the larger class left out, so that the majority baseline is 50%"
        return [
            "grouped protocol: no source image is in two of train, val and test, the classes are balanced, and the test images "
            "chose neither weights nor when to stop",
            *([left_out] if len(split.left_out) else []),
        ]
    notes = [
        "seed protocol, the lab report's: its accuracy leaks and reads too high",
        f"the {len(split.test)} test images are also the validation images, so the best of many looks at them is reported",
        "they are the first fifth of each class by name, and neighbours in a folder are alike",
    ]
    trained = {images[i].group for i in split.train}
    if shared := sum(images[i].group in trained for i in split.test):
        notes.append(f"{shared} of them show what a training image shows (same source or a near-duplicate)")
    if seen := sum(images[i].generated and images[i].split == "train" for i in split.test):
        fakes = sum(images[i].generated for i in split.test)
        notes.append(f"{seen} of the {fakes} fakes among them were made from images that the generator was trained on")
    return notes


PROTOCOLS: Mapping[str, Callable[[Sequence[LabelledImage], int], Split]] = {"grouped": grouped_split, "seed": seed_split}
