"""Pixels of any mode and depth as uint8 sRGB: colour profiles, deep greys, transparency, orientation.

The one place that decides how transparent and deep pixels become bytes: transparent ones lie on a background, white if nothing
else is asked for; grey values of more than 8 bits are mapped from a range that the caller has for all files.
"""

from __future__ import annotations

import functools
import io
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from fruitgan.images import Pixels

Range = tuple[float, float]
Colour = tuple[int, int, int]
HARDLY_MOVED = 8
"""Of 255: profiles of sRGB differ in rounding and in how they end in black."""
WHITE: Colour = (255, 255, 255)
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation to what turns the picture upright."""
SIDEWAYS = frozenset(turn for orientation, turn in TURNS.items() if orientation >= 5)
"""Those that make columns of rows."""
STRETCHED = {"L;2": 85, "L;4": 17}
"""How a PNG packs grey of few bits, in Pillow's words, and by what Pillow multiplies it."""
SWAPPED = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L", "LA;16B": "RGBA"}
"""How a PNG of 16 bits packs its pixels, in Pillow's words, and the words that give what Pillow would leave out."""


def is_deep(image: Image.Image) -> bool:
    """Whether it is a grey picture of more than 8 bits."""
    return image.mode == "F" or image.mode.startswith("I")


def stretch_key(image: Image.Image, packed: str) -> None:
    """Have the transparent grey of a PNG of 2 or 4 bits stretched as its pixels will be, which Pillow leaves as it is."""
    key = image.info.get("transparency")
    if packed in STRETCHED and isinstance(key, int):
        image.info["transparency"] = key * STRETCHED[packed]


def alpha_of(image: Image.Image) -> Image.Image | None:
    """Mode L, where the picture has an alpha band, a transparent colour or a palette with transparency."""
    if not image.has_transparency_data:
        return None
    if image.mode in ("I", "I;16", "I;16B", "I;16L", "I;16N"):
        opaque = np.asarray(image) != image.info["transparency"]
        return Image.fromarray(np.where(opaque, 255, 0).astype(np.uint8))
    return image.convert("RGBA").getchannel("A")


def composited(pixels: Pixels, alpha: NDArray[np.uint8], background: Colour) -> Pixels:
    """uint8 [H, W, 3] with the opacity [H, W] on a colour: (alpha pixels + (255 - alpha) background) / 255, rounded."""
    opacity = alpha[..., np.newaxis].astype(np.uint16)
    mixed = opacity * pixels + (255 - opacity) * np.array(background, dtype=np.uint16) + np.uint16(128)
    # Blinn 1995: exact up to 255 * 255, and everything fits into 16 bits.
    return ((mixed + (mixed >> 8)) >> 8).astype(np.uint8)


def turned(values: NDArray[Any], turn: Image.Transpose) -> NDArray[Any]:
    """[H, W, ...] as Pillow would turn it, which has no modes for most depths."""
    height, width = values.shape[:2]
    places = Image.fromarray(np.arange(height * width, dtype=np.int32).reshape(height, width)).transpose(turn)
    upright: NDArray[Any] = values.reshape(height * width, *values.shape[2:])[np.asarray(places)]
    return upright


def sixteen_bits(image: Image.Image, data: bytes, packed: str) -> NDArray[np.uint16]:
    """The values of a PNG of 16 bits a colour [H, W, 3], or of grey with alpha [H, W].

    Pillow keeps the higher byte of each. Told that the bytes stand the other way round, it keeps the lower one; told that grey
    and alpha are four colours, it gives all their bytes.
    """
    with Image.open(io.BytesIO(data), formats=["PNG"]) as other:
        other.tile = [other.tile[0]._replace(args=SWAPPED[packed])]
        low = np.asarray(other).astype(np.uint16)
    if packed.startswith("LA"):
        return low[..., 0] * np.uint16(256) + low[..., 1]
    return np.asarray(image)[..., :3].astype(np.uint16) * np.uint16(256) + low[..., :3]


def usual_range(kind: np.dtype[Any], held: Range | None) -> Range:
    """The values that become 0 and 255 where nobody says which."""
    return 0.0, 65535.0 if kind.kind in "iu" else 1.0 if held is None or held[1] <= 1 else 255.0


def eight_bit_grey(values: NDArray[np.generic], value_range: Range | None) -> tuple[NDArray[np.uint8], Range | None, bool]:
    """[H, W] of any depth to 0..255, the lowest and the highest finite value, if it has one, and whether all are finite."""
    with np.errstate(invalid="ignore"):  # a signalling NaN
        grey = values.astype(np.float64)
    finite = np.isfinite(grey)
    held = (float(grey[finite].min()), float(grey[finite].max())) if finite.any() else None
    low, high = value_range or usual_range(values.dtype, held)
    unit = np.clip((np.where(finite, grey, low) - low) / (high - low), 0, 1)
    return np.rint(unit * 255).astype(np.uint8), held, bool(finite.all())


@functools.lru_cache(maxsize=32)
def is_srgb(embedded: bytes) -> bool:
    """Whether a profile calls itself sRGB and hardly moves a colour: a linear one may be called so, too.

    Raises:
        Whatever littleCMS does on a broken one.
    """
    profile = ImageCms.ImageCmsProfile(io.BytesIO(embedded))
    if "sRGB" not in (profile.profile.profile_description or "") or profile.profile.xcolor_space.strip() != "RGB":
        return False
    ramp = np.zeros((4, 16, 3), dtype=np.uint8)
    for row, channels in enumerate(((0, 1, 2), (0,), (1,), (2,))):
        ramp[row][:, channels] = np.linspace(0, 255, 16).astype(np.uint8)[:, None]
    moved = np.asarray(_transformed(Image.fromarray(ramp), profile)).astype(int) - ramp
    return bool(np.abs(moved).max() <= HARDLY_MOVED)


def to_srgb(image: Image.Image, is_transparent: bool) -> Image.Image:
    """Mode RGB; an embedded profile is applied if it fits the picture and can be used, else ignored."""
    flat = _eight_bit(image, is_transparent)
    if flat.mode == "LAB":
        return _transformed(flat, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")))
    if embedded := image.info.get("icc_profile"):
        with suppress(ImageCms.PyCMSError, OSError, ValueError, TypeError):
            profile = ImageCms.ImageCmsProfile(io.BytesIO(embedded))
            space = profile.profile.xcolor_space.strip()
            if space == "RGB" and flat.mode in ("RGB", "L") and not is_srgb(embedded):  # of sRGB it would only add rounding
                return _transformed(flat.convert("RGB"), profile)
            if (space, flat.mode) in (("GRAY", "L"), ("CMYK", "CMYK")):
                return _transformed(flat, profile)
    return flat.convert("RGB")


def _eight_bit(image: Image.Image, is_transparent: bool) -> Image.Image:
    """The picture in mode L, RGB, CMYK or LAB, without its alpha."""
    if image.mode in ("L", "RGB", "CMYK", "LAB"):
        return image
    if image.mode in ("LA", "La"):
        return image.convert("LA").getchannel("L")
    if image.mode == "1":
        return image.convert("L")
    if is_transparent:  # at once, Pillow would ask for a colour that stands for the transparent ones
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


def _transformed(image: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image:
    result = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    if result is None:
        raise ValueError("no transform")
    return result
