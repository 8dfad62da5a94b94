"""The canvas of a drawn picture, its light, and what lies behind and under the fruit.

Positions on the canvas are in [0, 1], x to the right and y down, whatever its size in pixels; colours are linear light, 1 is
white. Noise is drawn on coarse grids, so that a scene is the same at every size.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.floating[Any]]  # float32 in fact; numpy's types widen at every mixed operation, its arrays do not
Rng = np.random.Generator

SOFT = ("#e9e4da", "#d8dee4", "#c9d3c0", "#e6d3c3", "#b9c7d6", "#f2f0ee", "#8fa3b5", "#a7b59b", "#d9b99b", "#5d6b78")
DARK = ("#1c1a1a", "#20262c", "#2c211a", "#1d2620", "#33302e")
WOODS = ("#8a5a33", "#b98a56", "#6b4226", "#c9a57a", "#4f3524", "#a3764a")
CLOTHS = ("#b8c4d6", "#d9cfc0", "#8b2f33", "#3f5a7a", "#e7e2d8", "#5f7355", "#c9a86a", "#7a7f88")


def colour(text: str) -> Floats:
    """`#rrggbb` to linear light [3]."""
    return np.array([(int(text[i : i + 2], 16) / 255) ** 2.2 for i in (1, 3, 5)], dtype=np.float32)


def one_of(rng: Rng, texts: tuple[str, ...]) -> Floats:
    """One of the colours, a little lighter or darker and a little off."""
    chosen = colour(texts[int(rng.integers(len(texts)))])
    return np.asarray(chosen * rng.uniform(0.85, 1.1) * rng.uniform(0.95, 1.05, 3), np.float32)


def blend(first: Any, second: Any, share: Any) -> Any:
    """`first` where the share is 0, `second` where it is 1."""
    return first + (second - first) * share


def ramp(values: Floats, low: float, high: float) -> Floats:
    """0 below `low`, 1 above `high`, smooth between; a `low` above `high` turns it round."""
    share = np.clip((values - low) / (high - low), 0, 1)
    smooth: Floats = share * share * (3 - 2 * share)
    return smooth


def vector(*parts: float) -> Floats:
    return np.array(parts, dtype=np.float32)


def unit(vectors: Floats) -> Floats:
    """The vectors [..., n] scaled to length 1."""
    return np.asarray(vectors / np.sqrt(np.square(vectors).sum(axis=-1, keepdims=True)))


class Canvas:
    """A square of linear light, `side` samples wide, with the places of its samples."""

    def __init__(self, side: int) -> None:
        self.side = side
        self.light: Floats = np.zeros((side, side, 3), dtype=np.float32)
        centres = (np.arange(side, dtype=np.float32) + 0.5) / side
        self.x, self.y = centres[None, :], centres[:, None]

    def window(self, x: float, y: float, reach_x: float, reach_y: float) -> tuple[tuple[slice, slice], Floats, Floats]:
        """Rows and columns within reach of a point, and how far right [1, w] and below [h, 1] of it they lie; may be empty."""
        ends = [(place + sign * reach) * self.side for place, reach in ((y, reach_y), (x, reach_x)) for sign in (-1, 1)]
        top, bottom, left, right = (int(np.clip(np.floor(end), 0, self.side)) for end in ends)
        return (slice(top, bottom), slice(left, right)), self.x[:, left:right] - x, self.y[top:bottom] - y

    def cover(self, where: Any, light: Any, share: Floats) -> None:
        """Lay colour over some rows and columns: `share` is [h, w] in [0, 1]."""
        part = self.light[where]
        part += (light - part) * share[..., None]

    def noise(self, rng: Rng, rows: int, columns: int) -> Floats:
        """Smooth noise [side, side] in about [-1, 1] with so many bumps down and across."""
        grid = rng.uniform(-1, 1, (rows + 1, columns + 1)).astype(np.float32)
        return np.asarray(Image.fromarray(grid).resize((self.side, self.side), Image.Resampling.BICUBIC))


class Light(NamedTuple):
    """One large lamp, a sky and what the ground throws back."""

    direction: Floats  # [3], towards the lamp
    softness: float  # how far the light reaches round a body, 0 to about 0.5
    key: Floats
    sky: Floats
    bounce: Floats


def drawn_light(rng: Rng, bounce: Floats) -> Light:
    """A lamp somewhere above and before the scene, warm or cool."""
    around, height, warmth = rng.uniform(0.15, 0.85) * np.pi, rng.uniform(0.5, 0.95), rng.uniform(-0.08, 0.14)
    direction = unit(vector(np.cos(around) * height, 0.25 + np.sin(around) * height, rng.uniform(0.45, 0.95)))
    key = vector(1 + warmth, 1, 1 - warmth) * rng.uniform(0.8, 1.15)
    sky = vector(1 - warmth, 1, 1 + 1.5 * warmth) * rng.uniform(0.16, 0.34)
    return Light(direction, rng.uniform(0.1, 0.4), key, sky, bounce * 0.3)


def shaded(normal: Floats, albedo: Floats, openness: Any, gloss: float, roughness: float, light: Light) -> Floats:
    """Linear light [h, w, 3] of a surface with these normals and colours [h, w, 3].

    `openness` [h, w] is 1 where nothing near shuts light out; `gloss` is the strength of the mirror image of lamp and sky,
    `roughness` blurs it.
    """
    lit = np.clip((normal @ light.direction + light.softness) / (1 + light.softness), 0, 1) * (0.35 + 0.65 * openness)
    above = (0.5 + 0.5 * normal[..., 1]) * openness
    received = lit[..., None] * light.key + above[..., None] * light.sky + (openness - above)[..., None] * light.bounce
    # What the surface mirrors towards the viewer: the lamp with a glow around it, the sky at grazing angles.
    mirrored = 2 * normal[..., 2:] * normal - vector(0, 0, 1)
    facing, blur = np.clip(mirrored @ light.direction, 0, 1), 0.01 + 0.08 * roughness
    lamp = ramp(facing, 0.965 - blur, 0.965 + blur)
    glow = facing ** (6 + 24 * (1 - roughness))
    sky = np.clip(0.3 + 0.7 * mirrored[..., 1], 0, 1) * light.sky.mean()
    grazing = 0.04 + 0.4 * (1 - np.clip(normal[..., 2], 0, 1)) ** 4
    shine = gloss * openness * grazing * (lamp * (9 - 6 * roughness) + glow * 2.2 + sky * 1.5)
    return np.asarray(albedo * received + shine[..., None] * light.key, dtype=np.float32)


class Ground(NamedTuple):
    """Where fruit lies on a backdrop, and how its shadow falls."""

    view: float  # the sine of the angle from which the ground is seen: 1 is from straight above
    far_y: float  # the farthest place, as y on the canvas, where fruit may touch the ground
    bounce: Floats  # the colour that the ground throws back


def paint_backdrop(canvas: Canvas, rng: Rng) -> Ground:
    """Fill the canvas with one of the backdrops, drawn at random."""
    kinds = (_studio, _table, _table, _cloth, _cloth)
    return kinds[int(rng.integers(len(kinds)))](canvas, rng)


def _studio(canvas: Canvas, rng: Rng) -> Ground:
    """A sweep of paper, light or dark: no horizon, a pool of light."""
    paper = one_of(rng, DARK if rng.random() < 0.25 else SOFT)
    pool = np.exp(-((canvas.x - rng.uniform(0.3, 0.7)) ** 2 + (canvas.y - rng.uniform(0.3, 0.8)) ** 2) / rng.uniform(0.15, 0.6))
    canvas.light[:] = paper * ((0.55 + 0.5 * pool) * (1 + 0.04 * canvas.noise(rng, 3, 3)))[..., None]
    return Ground(rng.uniform(0.3, 0.6), 0.45, paper)


def _table(canvas: Canvas, rng: Rng) -> Ground:
    """A table top before a wall and things on it that are out of focus."""
    horizon = rng.uniform(0.3, 0.52)
    wall = one_of(rng, SOFT if rng.random() < 0.75 else DARK)
    shade = 1 + rng.uniform(-0.5, 0.5) * (canvas.x - 0.5) + 0.22 * canvas.noise(rng, 2, 3)
    canvas.light[:] = wall * (0.8 * shade)[..., None]
    for _ in range(int(rng.integers(0, 4))):
        half, top, blur = rng.uniform(0.04, 0.16), horizon - rng.uniform(0.1, 0.5), rng.uniform(0.03, 0.08)
        share = ramp(np.abs(canvas.x - rng.random()), half + blur, half - blur) * ramp(canvas.y - top, -blur, blur)
        canvas.cover(slice(None), one_of(rng, SOFT + WOODS + CLOTHS) * 0.8, 0.75 * share)
    is_wood = rng.random() < 0.6
    top_colour = one_of(rng, WOODS if is_wood else SOFT)
    tone = 1 + 0.05 * canvas.noise(rng, 5, 5)
    if is_wood:  # its grain goes from left to right
        bow = canvas.noise(rng, 3, 2) * 0.05 + canvas.noise(rng, 7, 3) * 0.012
        lines = np.sin((canvas.y + bow) * rng.uniform(140, 310) + 3 * canvas.noise(rng, 4, 2))
        tone = tone + 0.10 * lines + 0.10 * canvas.noise(rng, 90, 9) + 0.12 * canvas.noise(rng, 4, 4)
    table = top_colour * ((0.75 + 0.4 * ramp(canvas.y, 1.0, horizon)) * tone)[..., None]
    canvas.light[:] = blend(canvas.light, table, ramp(canvas.y, horizon - 0.012, horizon + 0.012)[..., None])
    return Ground(rng.uniform(0.25, 0.4), horizon + 0.12, top_colour)


def _cloth(canvas: Canvas, rng: Rng) -> Ground:
    """A table cloth from above: plain, striped or checked, with folds."""
    base, second = one_of(rng, CLOTHS), one_of(rng, SOFT)
    angle, stripes = rng.uniform(-0.6, 0.6), rng.uniform(18, 45)
    u = canvas.x * np.cos(angle) + canvas.y * np.sin(angle) + 0.02 * canvas.noise(rng, 3, 3)
    v = canvas.y * np.cos(angle) - canvas.x * np.sin(angle) + 0.02 * canvas.noise(rng, 3, 3)
    bars = [ramp(np.sin(way * stripes), -0.15, 0.15) for way in (u, v)]
    share = (0 * bars[0], bars[0], (bars[0] + bars[1]) / 2, (bars[0] + bars[1]) / 2)[int(rng.integers(4))]
    folds = 1 + 0.16 * canvas.noise(rng, 3, 4) + 0.08 * canvas.noise(rng, 7, 7) + 0.05 * np.sin(u * 400) * np.sin(v * 400)
    canvas.light[:] = blend(base, second, share[..., None]) * (0.9 * folds)[..., None]
    return Ground(1.0, 0.15, base)
