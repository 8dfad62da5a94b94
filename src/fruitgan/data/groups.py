"""Which pictures are the same: by their pixels exactly, and by their look nearly."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from PIL import Image

from fruitgan.images import Pixels, to_pillow

NEAR_BITS = 4
"""Up to so many of the 64 bits may differ between near-duplicates; independent pictures differ in about 32."""
HASHED_SIDE_PX = 32
KEPT_SIDE = 8


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
    small = to_pillow(pixels).convert("L").resize((HASHED_SIDE_PX, HASHED_SIDE_PX), Image.Resampling.LANCZOS)
    spectrum = scipy.fft.dctn(np.asarray(small, dtype=np.float64), norm="ortho")[:KEPT_SIDE, :KEPT_SIDE].copy()
    spectrum[0, 0] = 0
    bits = np.rint(spectrum * 1e6) > np.rint(np.median(spectrum) * 1e6)  # rounded: no platform's last digit decides
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def near_groups(contents: Sequence[str], hashes: Sequence[int]) -> dict[str, str]:
    """The group of each picture, by content hash: the smallest content hash among its near-duplicates and theirs.

    `contents` and `hashes` are the two hashes of each picture; one content may stand there several times. A picture unlike
    all others is a group of its own.
    """
    pictures = dict(zip(contents, hashes, strict=True))
    names = sorted(pictures)
    codes = np.array([pictures[name] for name in names], dtype=np.uint64)
    leader = np.arange(len(names))
    for index in range(len(names)):  # a row at a time: all pairs of ten thousand pictures would be a gigabyte
        for other in _near(codes, index):
            first, second = _root(leader, index), _root(leader, int(other))
            leader[max(first, second)] = min(first, second)
    return {name: names[_root(leader, index)] for index, name in enumerate(names)}


def _near(codes: NDArray[np.uint64], index: int) -> NDArray[np.int64]:
    """The later pictures that are near this one."""
    distances = np.bitwise_count(codes[index + 1 :] ^ codes[index])
    return np.flatnonzero(distances <= NEAR_BITS) + index + 1


def _root(leader: NDArray[np.int64], index: int) -> int:
    while leader[index] != index:
        leader[index] = leader[leader[index]]
        index = int(leader[index])
    return index
