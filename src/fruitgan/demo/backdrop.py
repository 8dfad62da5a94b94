"""The canvas of a drawn picture, and what lies behind and under the fruit.

Positions on the canvas are in [0, 1], x to the right and y down, whatever its size in pixels; colours are linear light, 1 is
white. Noise is drawn on coarse grids, so that a scene is the same at every size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.floating[Any]]
"""float32 in fact; numpy's types widen at every mixed operation, its arrays do not."""
Rng = np.random.Generator
Window = tuple[slice, slice]
"""Rows and columns of a canvas."""

SOFT = ("#e9e4da", "#d8dee4", "#c9d3c0", "#e6d3c3", "#b9c7d6", "#f2f0ee", "#8fa3b5", "#a7b59b", "#d9b99b", "#5d6b78")
DARK = ("#1c1a1a", "#20262c", "#2c211a", "#1d2620", "#33302e")
WOODS = ("#8a5a33", "#b98a56", "#6b4226", "#c9a57a", "#4f3524", "#a3764a")
CLOTHS = ("#b8c4d6", "#d9cfc0", "#8b2f33", "#3f5a7a", "#e7e2d8", "#5f7355", "#c9a86a", "#7a7f88")


def colour(text: str) -> Floats:
    """`#rrggbb` to linear light [3]."""
    return np.array([(int(text[i : i + 2], 16) / 255) ** 2.2 for i in (1, 3, 5)], dtype=np.float32)


def one_of(rng: Rng, texts: tuple[str, ...]) -> Floats:
    """One of the colours, a little lighter or darker and a little off."""
    return np.asarray(
        colour(texts[int(rng.integers(len(texts)))]) * rng.uniform(0.85, 1.1) * rng.uniform(0.95, 1.05, 3), np.float32
    )


def blend(first: Any, second: Any, share: Any) -> Any:
    """`first` where the share is 0, `second` where it is 1."""
    return first + (second - first) * share


def pick(rng: Rng, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


def ramp(values: Floats, low: float, high: float) -> Floats:
    """0 below `low`, 1 above `high`, smooth between; a `low` above `high` turns it round."""
    share = np.clip((values - low) / (high - low), 0, 1)
    smooth: Floats = share * share * (3 - 2 * share)
    return smooth


class Canvas:
    """A square of linear light, `side` samples wide, with the places of its samples."""

    def __init__(self, side: int) -> None:
        self.side = side
        self.light: Floats = np.zeros((side, side, 3), dtype=np.float32)
        centres = (np.arange(side, dtype=np.float32) + 0.5) / side
        self.x, self.y = centres[None, :], centres[:, None]

    def window(self, x: float, y: float, reach_x: float, reach_y: float) -> tuple[Window, Floats, Floats]:
        """What is within reach of a point, and how far its samples lie right of it [1, w] and below it [h, 1]; may be empty."""
        ends = [(place + sign * reach) * self.side for place, reach in ((y, reach_y), (x, reach_x)) for sign in (-1, 1)]
        top, bottom, left, right = (int(np.clip(np.floor(end), 0, self.side)) for end in ends)
        return (slice(top, bottom), slice(left, right)), self.x[:, left:right] - x, self.y[top:bottom] - y

    def cover(self, where: Window, light: Any, share: Floats) -> None:
        """Lay colour over a window: `share` is [h, w] in [0, 1]."""
        part = self.light[where]
        part += (light - part) * share[..., None]

    def noise(self, rng: Rng, rows: int, columns: int) -> Floats:
        """Smooth noise [side, side] in about [-1, 1] with so many bumps down and across."""
        grid = rng.uniform(-1, 1, (rows + 1, columns + 1)).astype(np.float32)
        return np.asarray(Image.fromarray(grid).resize((self.side, self.side), Image.Resampling.BICUBIC))


@dataclass(frozen=True)
class Ground:
    """Where fruit lies on a backdrop, and how its shadow falls."""

    view: float
    """The sine of the angle from which the ground is seen: 1 from straight above, 0 where there is no ground."""
    far_y: float
    """The farthest place, as y on the canvas, where fruit may touch the ground."""
    bounce: Floats
    """The colour that the ground throws back."""


def paint_backdrop(canvas: Canvas, rng: Rng) -> Ground:
    """Fill the canvas with one of the backdrops, drawn at random."""
    kinds: tuple[Callable[[Canvas, Rng], Ground], ...] = (_studio, _table, _table, _planks, _cloth, _foliage)
    return kinds[int(rng.integers(len(kinds)))](canvas, rng)


def _studio(canvas: Canvas, rng: Rng) -> Ground:
    """A sweep of paper, light or dark: no horizon, a pool of light."""
    paper = one_of(rng, DARK if rng.random() < 0.25 else SOFT)
    pool = np.exp(-((canvas.x - pick(rng, 0.3, 0.7)) ** 2 + (canvas.y - pick(rng, 0.3, 0.8)) ** 2) / pick(rng, 0.15, 0.6))
    canvas.light[:] = paper * ((0.55 + 0.5 * pool) * (1 + 0.04 * canvas.noise(rng, 3, 3)))[..., None]
    return Ground(pick(rng, 0.3, 0.6), 0.45, paper)


def _table(canvas: Canvas, rng: Rng) -> Ground:
    """A table top before a wall and things on it that are out of focus."""
    horizon = pick(rng, 0.3, 0.52)
    wall = one_of(rng, SOFT if rng.random() < 0.75 else DARK)
    shade = 1 + pick(rng, -0.5, 0.5) * (canvas.x - 0.5) + 0.22 * canvas.noise(rng, 2, 3)
    canvas.light[:] = wall * (0.8 * shade)[..., None]
    for _ in range(int(rng.integers(0, 4))):
        half, top, blur = pick(rng, 0.04, 0.16), horizon - pick(rng, 0.1, 0.5), pick(rng, 0.03, 0.08)
        share = ramp(np.abs(canvas.x - rng.random()), half + blur, half - blur) * ramp(canvas.y - top, -blur, blur)
        canvas.cover((slice(None), slice(None)), one_of(rng, SOFT + WOODS + CLOTHS) * 0.8, 0.75 * share)
    is_wood = rng.random() < 0.6
    top_colour = one_of(rng, WOODS if is_wood else SOFT)
    tone = _grain(canvas, rng, squeeze=0.35) if is_wood else 1 + 0.05 * canvas.noise(rng, 5, 5)
    table = top_colour * ((0.75 + 0.4 * ramp(canvas.y, 1.0, horizon)) * tone)[..., None]
    canvas.light[:] = blend(canvas.light, table, ramp(canvas.y, horizon - 0.012, horizon + 0.012)[..., None])
    return Ground(pick(rng, 0.25, 0.4), horizon + 0.12, top_colour)


def _grain(canvas: Canvas, rng: Rng, squeeze: float) -> Floats:
    """The tone [side, side] of wood with its grain from left to right, about 1."""
    bow = canvas.noise(rng, 3, 2) * 0.05 + canvas.noise(rng, 7, 3) * 0.012
    lines = np.sin((canvas.y + bow) / squeeze * pick(rng, 50, 110) + 3 * canvas.noise(rng, 4, 2))
    tone: Floats = 1 + 0.10 * lines + 0.10 * canvas.noise(rng, 90, 9) + 0.12 * canvas.noise(rng, 4, 4)
    return tone


def _planks(canvas: Canvas, rng: Rng) -> Ground:
    """Boards from above, in either direction."""
    wood = one_of(rng, WOODS)
    count = int(rng.integers(3, 7))
    place = canvas.y * count + rng.random()
    tone = _grain(canvas, rng, squeeze=1.0) * (0.25 + 0.75 * ramp(np.abs(place % 1 - 0.5), 0.49, 0.475))
    for board in range(count + 1):  # each is cut from another place: its grain is moved sideways
        rows = place[:, 0].astype(int) == board
        tone[rows] = np.roll(tone[rows], int(rng.random() * canvas.side), axis=1) * pick(rng, 0.72, 1.18)
    canvas.light[:] = wood * (tone.T if rng.random() < 0.5 else tone)[..., None]
    return Ground(1.0, 0.15, wood)


def _cloth(canvas: Canvas, rng: Rng) -> Ground:
    """A table cloth from above: plain, striped or checked, with folds."""
    base, second = one_of(rng, CLOTHS), one_of(rng, SOFT)
    angle, stripes = pick(rng, -0.6, 0.6), pick(rng, 18, 45)
    u = canvas.x * np.cos(angle) + canvas.y * np.sin(angle) + 0.02 * canvas.noise(rng, 3, 3)
    v = canvas.y * np.cos(angle) - canvas.x * np.sin(angle) + 0.02 * canvas.noise(rng, 3, 3)
    bars = [ramp(np.sin(way * stripes), -0.15, 0.15) for way in (u, v)]
    share = (0 * bars[0], bars[0], (bars[0] + bars[1]) / 2, (bars[0] + bars[1]) / 2)[int(rng.integers(4))]
    folds = 1 + 0.16 * canvas.noise(rng, 3, 4) + 0.08 * canvas.noise(rng, 7, 7) + 0.05 * np.sin(u * 400) * np.sin(v * 400)
    canvas.light[:] = blend(base, second, share[..., None]) * (0.9 * folds)[..., None]
    return Ground(1.0, 0.15, base)


def _foliage(canvas: Canvas, rng: Rng) -> Ground:
    """Leaves far out of focus, with discs of light between them; the fruit hangs."""
    bright = blend(colour("#5f8a35"), colour("#a5b86a"), rng.random())
    tone = 0.45 + 0.3 * canvas.noise(rng, 4, 4) + 0.2 * canvas.noise(rng, 9, 9) + pick(rng, -0.3, 0.4) * (0.5 - canvas.y)
    canvas.light[:] = blend(colour("#16250f"), bright, np.clip(tone, 0, 1.3)[..., None])
    for _ in range(int(rng.integers(6, 26))):
        radius = pick(rng, 0.02, 0.09)
        where, right, down = canvas.window(rng.random(), rng.random(), radius * 1.2, radius * 1.2)
        glow = blend(colour("#8fae57"), colour("#e8efc4"), rng.random())
        canvas.cover(where, glow, ramp(np.hypot(right, down) / radius, 1.05, 0.9) * pick(rng, 0.15, 0.6))
    return Ground(0.0, 0.0, bright)
