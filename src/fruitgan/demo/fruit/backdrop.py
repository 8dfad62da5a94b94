"""What lies behind and under the fruit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fruitgan.demo.fruit.paint import Canvas, Colour, Floats, Rng, blend, colour, field, pick, ramp


@dataclass(frozen=True)
class Ground:
    """Where fruit lies on a backdrop, and how its shadow falls."""

    view: float
    """The sine of the angle from which the ground is seen: 1 from straight above, 0 where there is no ground."""
    far_y: float
    """The farthest place, as y on the canvas, where fruit may touch the ground."""
    bounce: Colour
    """What the ground throws back."""


SOFT = ("#e9e4da", "#d8dee4", "#c9d3c0", "#e6d3c3", "#b9c7d6", "#f2f0ee", "#8fa3b5", "#a7b59b", "#d9b99b", "#5d6b78")
DARK = ("#1c1a1a", "#20262c", "#2c211a", "#1d2620", "#33302e")
WOODS = ("#8a5a33", "#b98a56", "#6b4226", "#c9a57a", "#4f3524", "#a3764a")
CLOTHS = ("#b8c4d6", "#d9cfc0", "#8b2f33", "#3f5a7a", "#e7e2d8", "#5f7355", "#c9a86a", "#7a7f88")


def paint_backdrop(canvas: Canvas, rng: Rng) -> Ground:
    """Fill the canvas with one of the backdrops, drawn at random."""
    kinds: tuple[Callable[[Canvas, Rng], Ground], ...] = (_studio, _table, _table, _planks, _cloth, _foliage)
    return kinds[int(rng.integers(len(kinds)))](canvas, rng)


def _any(rng: Rng, texts: tuple[str, ...]) -> Colour:
    base = colour(texts[int(rng.integers(len(texts)))])
    return np.asarray(base * rng.uniform(0.85, 1.1) * rng.uniform(0.95, 1.05, 3), dtype=np.float32)


def _studio(canvas: Canvas, rng: Rng) -> Ground:
    """A paper sweep, light or dark: no horizon, a pool of light."""
    paper = _any(rng, DARK if rng.random() < 0.25 else SOFT)
    x, y = pick(rng, 0.3, 0.7), pick(rng, 0.3, 0.8)
    pool = np.exp(-((canvas.x - x) ** 2 + (canvas.y - y) ** 2) / pick(rng, 0.15, 0.6))
    falloff = 1 + pick(rng, -0.3, 0.3) * (canvas.y - 0.5)
    cloud = 1 + 0.04 * field(rng, 3, 3, canvas.side, canvas.side)
    canvas.light[:] = paper * ((0.55 + 0.5 * pool) * falloff * cloud)[..., None]
    return Ground(pick(rng, 0.3, 0.6), 0.45, paper)


def _table(canvas: Canvas, rng: Rng) -> Ground:
    """A table top before an out-of-focus wall."""
    horizon = pick(rng, 0.3, 0.52)
    side = canvas.side
    wall = _any(rng, SOFT if rng.random() < 0.75 else DARK)
    cloud = 1 + 0.22 * field(rng, 2, 3, side, side)
    shade = 1 + pick(rng, -0.5, 0.5) * (canvas.x - 0.5) + pick(rng, 0, 0.6) * (canvas.y - horizon)
    light = wall * (cloud * shade * 0.8)[..., None]
    for _ in range(int(rng.integers(0, 4))):
        _blurred_thing(canvas, rng, light, horizon)
    if rng.random() < 0.6:
        table, mean = _grain(canvas, rng, _any(rng, WOODS), squeeze=0.35)
    else:
        mean = _any(rng, SOFT)
        table = mean * (1 + 0.05 * field(rng, 5, 5, side, side))[..., None]
    sheen = 0.75 + 0.5 * ramp(np.broadcast_to(canvas.y, (side, side)), 1.0, horizon) * pick(rng, 0.2, 1.0)
    edge = ramp(np.broadcast_to(canvas.y, (side, side)), horizon - 0.012, horizon + 0.012)
    canvas.light[:] = blend(light, table * sheen[..., None], edge[..., None])
    return Ground(pick(rng, 0.25, 0.4), horizon + 0.12, mean)


def _blurred_thing(canvas: Canvas, rng: Rng, light: Floats, horizon: float) -> None:
    """A jar, a book or a door frame, far out of focus, standing on the horizon."""
    x, half, top = pick(rng, 0, 1), pick(rng, 0.04, 0.16), horizon - pick(rng, 0.1, 0.5)
    blur = pick(rng, 0.03, 0.08)
    share = ramp(np.abs(canvas.x - x), half + blur, half - blur) * ramp(canvas.y - top, -blur, blur)
    body = _any(rng, SOFT + WOODS + CLOTHS) * 0.8
    light += (body - light) * (0.75 * share)[..., None]


def _grain(canvas: Canvas, rng: Rng, wood: Colour, squeeze: float) -> tuple[Floats, Colour]:
    """Wood [side, side, 3] with its grain from left to right."""
    side = canvas.side
    bow = field(rng, 3, 2, side, side) * 0.05 + field(rng, 7, 3, side, side) * 0.012
    across = (canvas.y + bow) / squeeze
    lines = np.sin(across * pick(rng, 50, 110) + 3 * field(rng, 4, 2, side, side))
    pores = field(rng, 90, 9, side, side)
    tone = 1 + 0.13 * lines * (0.6 + 0.4 * field(rng, 6, 3, side, side)) + 0.10 * pores + 0.12 * field(rng, 4, 4, side, side)
    return wood * tone[..., None], wood


def _planks(canvas: Canvas, rng: Rng) -> Ground:
    """Boards from above, in either direction."""
    wood = _any(rng, WOODS)
    light, mean = _grain(canvas, rng, wood, squeeze=1.0)
    count = int(rng.integers(3, 7))
    place = canvas.y * count + pick(rng, 0, 1)
    board = np.floor(place).astype(np.int64)[:, 0]
    tones = rng.uniform(0.72, 1.18, count + 2).astype(np.float32)
    gap = ramp(np.abs(place - np.floor(place) - 0.5), 0.49, 0.475)
    light *= (tones[board][:, None] * (0.25 + 0.75 * gap))[..., None]
    # Each board is cut from another place: move its grain sideways.
    shifts = rng.integers(0, 1024, count + 2) / 1024
    for number in np.unique(board):
        rows = board == number
        light[rows] = np.roll(light[rows], int(shifts[number] * canvas.side), axis=1)
    canvas.light[:] = light.transpose(1, 0, 2) if rng.random() < 0.5 else light
    return Ground(1.0, 0.15, mean)


def _cloth(canvas: Canvas, rng: Rng) -> Ground:
    """A table cloth from above: plain, striped or checked, with folds and a weave."""
    side = canvas.side
    base, second = _any(rng, CLOTHS), _any(rng, SOFT)
    angle = pick(rng, -0.6, 0.6)
    warp = 0.02 * field(rng, 3, 3, side, side)
    cosine, sine = float(np.cos(angle)), float(np.sin(angle))
    u = canvas.x * cosine + canvas.y * sine + warp
    v = canvas.y * cosine - canvas.x * sine + warp.T
    stripes = pick(rng, 18, 45)
    bars_u = ramp(np.sin(u * stripes), -0.15, 0.15)
    bars_v = ramp(np.sin(v * stripes), -0.15, 0.15)
    kind = rng.random()
    share = np.zeros((side, side), dtype=np.float32) if kind < 0.35 else bars_u if kind < 0.6 else (bars_u + bars_v) / 2
    light = blend(base, second, share[..., None].astype(np.float32))
    weave = 1 + 0.05 * np.sin(u * 400) * np.sin(v * 400)
    folds = 1 + 0.16 * field(rng, 3, 4, side, side) + 0.08 * field(rng, 7, 7, side, side)
    canvas.light[:] = light * (folds * weave)[..., None] * 0.9
    return Ground(1.0, 0.15, base)


def _foliage(canvas: Canvas, rng: Rng) -> Ground:
    """Leaves far out of focus, with discs of light between them; the fruit hangs."""
    side = canvas.side
    dark, bright = colour("#16250f"), blend(colour("#5f8a35"), colour("#a5b86a"), rng.random())
    tone = 0.42 + 0.32 * field(rng, 4, 4, side, side) + 0.22 * field(rng, 9, 9, side, side)
    tone = tone + pick(rng, -0.3, 0.4) * (0.5 - canvas.y)
    light = blend(dark, bright, np.clip(tone, 0, 1.3)[..., None])
    canvas.light[:] = light
    for _ in range(int(rng.integers(6, 26))):
        x, y, radius = pick(rng, 0, 1), pick(rng, 0, 1), pick(rng, 0.02, 0.09)
        where = canvas.window(x, y, radius * 1.2, radius * 1.2)
        gap = np.hypot(canvas.x[:, where[1]] - x, canvas.y[where[0]] - y) / radius
        glow = blend(colour("#8fae57"), colour("#e8efc4"), rng.random())
        canvas.cover(where, glow, ramp(gap, 1.05, 0.9) * pick(rng, 0.15, 0.6))
    return Ground(0.0, 0.0, np.asarray(bright, dtype=np.float32))
