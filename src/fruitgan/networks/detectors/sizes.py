"""Which sides the detectors here can be built for."""

from __future__ import annotations

from fruitgan.errors import UsageError

MULTIPLE_PX = 8
MINIMUM_PX = 16


def checked_size(name: str, image_size_px: int) -> int:
    """The side, if it can be halved three times and something is left.

    Raises:
        UsageError: it cannot.
    """
    if image_size_px < MINIMUM_PX or image_size_px % MULTIPLE_PX:
        near = max(MINIMUM_PX, round(image_size_px / MULTIPLE_PX) * MULTIPLE_PX)
        raise UsageError(
            f"detector {name}: {image_size_px} px is not {MINIMUM_PX} or more and a multiple of {MULTIPLE_PX}; "
            f"--image-size {near} would do"
        )
    return image_size_px
