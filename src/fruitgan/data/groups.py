"""Groups of pictures that belong together: the same pixels, or nearly the same look. The one place that decides it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from fruitgan.images import Pixels

NEAR_BITS = 4
"""Up to so many of the 64 bits may differ between near-duplicates; independent pictures differ in about 32."""
HASHED_SIDE_PX = 32
KEPT_SIDE = 8
SAME_LEVELS = 10
"""Grey levels of 256 by which small versions of one picture may differ in the mean: a place by night is another picture."""


def content_sha256(pixels: Pixels) -> str:
    """A hash, in hex, of the size and the pixels, uint8 [H, W, 3]; the file that held them does not count."""
    height, width = pixels.shape[:2]
    return hashlib.sha256(f"{height} {width} ".encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def perceptual_hash(pixels: Pixels) -> int:
    """64 bits of how a picture looks; scaling, re-encoding and slight changes of colour leave nearly all of them.

    The DCT method (Zauner 2010, section 3.2.1): grey, 32 x 32, type-II cosine transform, of which the 8 x 8 lowest
    frequencies give a bit each: above their median or not. The constant term counts as 0: it says how bright the picture
    is, not what is on it. A mirrored or cropped picture has another hash.
    """
    from scipy.fft import dctn  # a third of a second of imports that most commands need not wait for

    small = Image.fromarray(pixels).convert("L").resize((HASHED_SIDE_PX, HASHED_SIDE_PX), Image.Resampling.LANCZOS)
    spectrum = dctn(np.asarray(small, dtype=np.float64), norm="ortho")[:KEPT_SIDE, :KEPT_SIDE].copy()
    spectrum[0, 0] = 0
    bits = np.rint(spectrum * 1e6) > np.rint(np.median(spectrum) * 1e6)  # rounded: no platform's last digit decides
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


class Look(NamedTuple):
    """What pictures are compared by."""

    content: str
    """`content_sha256`: the same pixels."""
    code: int
    """`perceptual_hash`: nearly the same look."""


def look_of(pixels: Pixels) -> Look:
    return Look(content_sha256(pixels), perceptual_hash(pixels))


def near_groups(looks: Iterable[tuple[str, int]]) -> dict[str, str]:
    """The group of each picture, by content hash: the smallest content hash among its near-duplicates and theirs.

    One content may stand there several times. A picture unlike all others is a group of its own.
    """
    pictures = dict(looks)
    names = sorted(pictures)
    codes = np.array([pictures[name] for name in names], dtype=np.uint64)
    joined = _Joined()
    for index, name in enumerate(names):  # a row at a time: all pairs of ten thousand pictures would be a gigabyte
        distances = np.bitwise_count(codes[index + 1 :] ^ codes[index])
        for later in np.flatnonzero(distances <= NEAR_BITS):
            joined.join(name, names[index + 1 + int(later)])
    return {name: joined.first_of(name) for name in names}


def held_out(looks: Sequence[tuple[str, int]], share: int, least: int) -> set[str]:
    """The contents of one picture in `share`, but at least `least`; near-duplicates are in it together or not at all.

    Groups are taken in an order of their own, a hash of their name (the name itself is the lower, the more pictures a group
    has); those that would make it too many are passed over.
    """
    groups: dict[str, list[str]] = {}
    for content, group in near_groups(looks).items():
        groups.setdefault(group, []).append(content)
    wanted, chosen = max(len(dict(looks)) // share, least), set[str]()
    for group in sorted(groups, key=lambda name: hashlib.sha256(name.encode()).digest()):
        if len(chosen) + len(groups[group]) <= wanted:
            chosen.update(groups[group])
    return chosen


def pairs_in_both(a: Iterable[Pixels], b: Iterable[Pixels]) -> list[tuple[int, int]]:
    """The numbers of pictures, uint8 [H, W, 3], of `a` that are among `b` too, and of one that each is there.

    The same picture is one of nearly the same look and nearly the same colours, however it was scaled or encoded.
    """
    codes = [np.array([perceptual_hash(pixels) for pixels in side], dtype=np.uint64) for side in (a, b)]
    small = [
        np.array([np.asarray(Image.fromarray(pixels).resize((KEPT_SIDE, KEPT_SIDE)), dtype=np.float64) for pixels in side])
        for side in (a, b)
    ]
    pairs = []
    for index, code in enumerate(codes[0]):
        near = np.flatnonzero(np.bitwise_count(codes[1] ^ code) <= NEAR_BITS)
        differences = np.abs(small[1][near] - small[0][index]).mean(axis=(1, 2, 3))
        if (differences <= SAME_LEVELS).any():
            pairs.append((index, int(near[differences.argmin()])))
    return pairs


def merged_groups(groups: Sequence[str], looks: Sequence[Look]) -> tuple[list[str], int]:
    """The group of each picture after near-duplicates were joined, and how many pictures are in groups that grew by it.

    Near-duplicates, and all that share a group with them, become one group, by the name that sorts first.
    """
    near = near_groups(looks)
    joined = _Joined()
    first: dict[str, str] = {}
    for look, group in zip(looks, groups, strict=True):
        joined.join(group, first.setdefault(near[look.content], group))
    merged = [joined.first_of(group) for group in groups]
    grown = {new for new, group in zip(merged, groups, strict=True) if new != group}
    return merged, sum(group in grown for group in merged)


class _Joined:
    """Names in disjoint sets, each known by the name in it that sorts first (union-find)."""

    def __init__(self) -> None:
        self._before: dict[str, str] = {}

    def first_of(self, name: str) -> str:
        while (before := self._before.get(name, name)) != name:
            self._before[name] = self._before.get(before, before)
            name = before
        return name

    def join(self, one: str, other: str) -> None:
        low, high = sorted((self.first_of(one), self.first_of(other)))
        self._before[high] = low
