"""Skins: an apple's blends, streaks and specks, an orange's pores, as colour and as tilt of the surface."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fruitgan.demo.fruit.body import Profile, Surface
from fruitgan.demo.fruit.paint import Colour, Floats, Rng, blend, colour, pick, ramp, unit

Kind = Literal["apple", "orange"]

TEXELS = 512
CELLS = 40
"""Dots across a texture tile; the tile covers a disc of radius 1.41, the seen half of a ball in equal areas."""


@dataclass(frozen=True)
class Skin:
    """What covers a body."""

    albedo: Floats
    """[h, w, 3]."""
    openness: Floats
    """[h, w]: 1, and less in hollows."""
    tilt: tuple[Floats, Floats]
    """What to add to the normal's x and y, [h, w] each."""
    gloss: float
    roughness: float


@functools.cache
def _dots(share: float, low: float, high: float) -> Floats:
    """A tile [TEXELS, TEXELS] of round dots, 1 in their middle and 0 outside, one for each cell with the given chance.

    The radii lie between `low` and `high` cells. Every fruit takes its own turn and place on the tile, which is the same
    in every process.
    """
    rng = np.random.default_rng(20)
    shift_x, shift_y = rng.uniform(-0.32, 0.32, (2, CELLS, CELLS))
    radius = rng.uniform(low, high, (CELLS, CELLS)) * (rng.random((CELLS, CELLS)) < share) + 1e-6
    place = (np.arange(TEXELS) + 0.5) / TEXELS * CELLS
    row = np.floor(place).astype(np.int64)[:, None]
    tile = np.zeros((TEXELS, TEXELS))
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            cell_y = (row + down) % CELLS
            # Every other row is moved by half a cell, against the look of a grid.
            offset = 0.5 * (cell_y % 2)
            column = np.floor(place[None, :] - offset).astype(np.int64) + right
            cell = (cell_y, column % CELLS)
            gap_y = place[:, None] - (row + down + 0.5 + shift_y[cell])
            gap_x = place[None, :] - (column + 0.5 + offset + shift_x[cell])
            tile = np.maximum(tile, 1 - np.hypot(gap_x, gap_y) / radius[cell])
    soft = np.clip(tile, 0, 1)
    return (soft * soft * (3 - 2 * soft)).astype(np.float32)


@functools.cache
def _pores() -> tuple[Floats, Floats, Floats]:
    """Dots close together as pits: their depth, and how it changes along x and y."""
    pits = _dots(0.92, 0.34, 0.52)
    slope_x = (np.roll(pits, -1, 1) - np.roll(pits, 1, 1)) * (TEXELS / CELLS / 4)
    slope_y = (np.roll(pits, -1, 0) - np.roll(pits, 1, 0)) * (TEXELS / CELLS / 4)
    return pits, slope_x, slope_y


def _texels(surface: Surface, rng: Rng, scale: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Rows and columns of a tile under each sample, and the angle by which the tile is turned."""
    dx, dy, dz = surface.direction
    spread = np.sqrt(2 / np.maximum(1 + dz, 0.2)) * (scale * TEXELS / 2.83)
    angle = pick(rng, 0, 2 * np.pi)
    cosine, sine = float(np.cos(angle)), float(np.sin(angle))
    u = (dx * cosine - dy * sine) * spread + pick(rng, 0, TEXELS)
    v = (dx * sine + dy * cosine) * spread + pick(rng, 0, TEXELS)
    return v.astype(np.int64) & (TEXELS - 1), u.astype(np.int64) & (TEXELS - 1), angle


def _waves(surface: Surface, rng: Rng, count: int, finest: float) -> Floats:
    """Smooth solid noise over the body, about [-1, 1]: plane waves in random directions."""
    dx, dy, dz = surface.direction
    total: Floats = np.zeros_like(dx)
    for _ in range(count):
        way = unit((float(rng.normal()), float(rng.normal()), float(rng.normal()))) * pick(rng, 0.3 * finest, finest)
        total += np.sin(dx * way[0] + dy * way[1] + dz * way[2] + pick(rng, 0, 2 * np.pi))
    total /= count**0.5
    return total


# Ground colour, blush colour, how much of it the blush covers (-1 to 1), how much of that comes in streaks.
APPLES: tuple[tuple[float, str, str, float, float, float], ...] = (
    (0.30, "#b5a53c", "#9c1220", 0.35, 0.90, 0.50),  # red over yellow-green
    (0.22, "#a33030", "#7c0a1a", 0.40, 1.00, 0.30),  # deep red all over
    (0.20, "#d6c04a", "#c2301f", -0.35, 0.30, 0.75),  # yellow with a streaked cheek
    (0.16, "#86a932", "#a8b43e", -0.60, 0.20, 0.20),  # green
    (0.12, "#dcc655", "#d98a45", -0.60, 0.00, 0.20),  # golden
)


def apple_profile(rng: Rng) -> Profile:
    return Profile(
        hollow_depth=pick(rng, 0.42, 0.58),
        hollow_width=pick(rng, 0.075, 0.12),
        base_depth=pick(rng, 0.16, 0.32),
        base_width=pick(rng, 0.03, 0.06),
        taper=pick(rng, 0.0, 0.26),
        stretch=pick(rng, -0.06, 0.12),
        lobes=pick(rng, 0.0, 0.05),
    )


def orange_profile(rng: Rng) -> Profile:
    return Profile(
        hollow_depth=pick(rng, 0.03, 0.08),
        hollow_width=pick(rng, 0.01, 0.03),
        base_depth=pick(rng, 0.02, 0.06),
        base_width=pick(rng, 0.01, 0.02),
        taper=pick(rng, -0.05, 0.06),
        stretch=pick(rng, -0.07, 0.04),
        lobes=0.0,
    )


def apple_skin(surface: Surface, profile: Profile, rng: Rng) -> Skin:
    """A ground colour and a blush on the side that saw the sun, in streaks from pole to pole, with pale specks."""
    kinds = np.cumsum([entry[0] for entry in APPLES])
    _, ground, blush, low, high, streaked = APPLES[int(np.searchsorted(kinds, rng.random() * kinds[-1]))]
    c, turn = surface.c, surface.turn
    dx, dy, dz = surface.direction
    sun = unit((float(rng.normal()), 0.6, float(rng.normal()) + 0.4))
    cheek = dx * sun[0] + dy * sun[1] + dz * sun[2]
    streaks = np.zeros_like(c)
    for waves in rng.integers(7, 80, 8):
        # Each comes and goes on its way from pole to pole, so that no two lie side by side for long.
        broken = 0.35 + np.sin(c * pick(rng, 2, 7) + turn + pick(rng, 0, 6.3))
        streaks += broken * np.sin(turn * float(waves) + pick(rng, 0, 6.3) + c * pick(rng, -1.5, 1.5))
    cloud = _waves(surface, rng, 4, 5)
    amount = 0.6 * cheek + 0.35 * cloud + streaked * 0.26 * streaks + pick(rng, low, high)
    share = ramp(amount, -0.6, 0.9)[..., None]
    tint = (1 + 0.10 * _waves(surface, rng, 3, 9))[..., None]
    base = _varied(rng, colour(ground)) * tint
    deep = _varied(rng, colour(blush)) * (1 - 0.25 * np.clip(streaks * 0.3, -1, 1))[..., None]
    albedo = blend(base, deep, share)

    # The hollow is greenish, then russet.
    hollow = np.exp((c - 1) / (profile.hollow_width * 1.1))
    jagged = np.clip(hollow * (1.25 + 0.35 * np.sin(5 * turn + pick(rng, 0, 6)) * streaked + 0.1 * streaks), 0, 1)
    albedo = blend(albedo, colour("#a8a048") * tint, (0.75 * jagged)[..., None])
    russet = ramp(hollow + 0.08 * streaks, 0.45, 0.95) * pick(rng, 0.3, 0.9)
    albedo = blend(albedo, colour("#7d5a2c"), russet[..., None])
    calyx = ramp(c + 0.008 * np.sin(5 * turn) + 0.006 * streaks, -0.965, -0.992)
    albedo = blend(albedo, colour("#2e2012"), calyx[..., None])

    row, column, _ = _texels(surface, rng, pick(rng, 0.75, 1.1))
    specks = _dots(0.5, 0.08, 0.24)[row, column] * (pick(rng, 0.25, 0.7) * (1 - 0.8 * hollow))
    albedo = blend(albedo, colour("#e2cf92"), (specks * blend(0.5, 1.0, share[..., 0]))[..., None])

    openness = 1 - 0.75 * hollow - 0.6 * np.exp((-1 - c) / (profile.base_width * 1.4))
    bumps = 0.025 * _waves(surface, rng, 3, 14)
    return Skin(albedo, np.clip(openness, 0.1, 1), (bumps, bumps * 0.5), pick(rng, 0.6, 1.1), pick(rng, 0.0, 0.45))


def orange_skin(surface: Surface, profile: Profile, rng: Rng, samples_in_radius: float) -> Skin:
    """One colour that drifts a little, pits everywhere, a green button at one pole and perhaps a navel at the other."""
    c, turn = surface.c, surface.turn
    deep, pale = (_varied(rng, colour(text)) for text in ("#d9620a", "#f0961c"))
    drift = np.clip(0.5 + 0.4 * _waves(surface, rng, 4, 3) + pick(rng, -0.4, 0.4), 0, 1)
    albedo = blend(deep, pale, drift[..., None])
    if rng.random() < 0.25:
        green = ramp(c + 0.12 * _waves(surface, rng, 3, 6), 0.55, 1.1) * pick(rng, 0.2, 0.6)
        albedo = blend(albedo, colour("#8d9a2a"), green[..., None])

    scale = pick(rng, 0.8, 1.4)
    row, column, angle = _texels(surface, rng, scale)
    pits, slope_x, slope_y = (tile[row, column] for tile in _pores())
    # Pits finer than the samples would only be noise.
    sharp = min(1.0, 2.83 * samples_in_radius / (CELLS * scale) / 3.0)
    albedo = albedo * (1 - (0.22 * sharp) * pits)[..., None]
    strength = pick(rng, 0.12, 0.26) * sharp
    cosine, sine = float(np.cos(angle)), float(np.sin(angle))
    coarse = 0.035 * _waves(surface, rng, 4, 18)
    tilt_x = strength * (slope_x * cosine + slope_y * sine) + coarse
    tilt_y = strength * (slope_y * cosine - slope_x * sine) + coarse * 0.6

    # The button: a small star of dried green, a lighter furrowed ring around it.
    furrows = np.sin(turn * 9 + pick(rng, 0, 6)) + 0.5 * np.sin(turn * 16)
    ring = ramp(c, 0.93, 0.985)
    albedo = albedo * (1 + 0.10 * ring * furrows)[..., None]
    button = ramp(c + 0.0025 * np.sin(5 * turn), 0.988, 0.994)
    albedo = blend(albedo, blend(colour("#6f7a35"), colour("#8a6f42"), rng.random()), button[..., None])
    openness = 1 - 0.35 * ramp(c, 0.95, 0.99) * (1 - button)
    if rng.random() < 0.6:
        size = pick(rng, 0.955, 0.99)
        hole = ramp(-c + 0.006 * np.sin(3 * turn), size, blend(size, 1.0, 0.4))
        inner = ramp(-c, blend(size, 1.0, 0.55), blend(size, 1.0, 0.8))
        albedo = albedo * (1 - 0.35 * hole * (1 - 0.8 * inner))[..., None]
        openness = openness - 0.4 * hole * (1 - 0.8 * inner)
    return Skin(albedo, np.clip(openness, 0.1, 1), (tilt_x, tilt_y), pick(rng, 0.45, 0.8), pick(rng, 0.45, 0.9))


def _varied(rng: Rng, base: Colour) -> Colour:
    """The colour, a little lighter or darker and a little off."""
    return np.asarray(base * pick(rng, 0.82, 1.15) * rng.uniform(0.94, 1.06, 3), dtype=np.float32)
