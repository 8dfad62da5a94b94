"""A picture: a backdrop, a light, one to four fruits with their shadows, and what a camera adds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import numpy as np

from fruitgan import randomness
from fruitgan.demo.fruit.backdrop import Ground, paint_backdrop
from fruitgan.demo.fruit.body import Profile, seen
from fruitgan.demo.fruit.light import Light, drawn_light, shaded
from fruitgan.demo.fruit.paint import Canvas, Floats, Rng, blend, colour, pick, ramp, unit
from fruitgan.demo.fruit.parts import bent, paint_leaf, paint_stem
from fruitgan.demo.fruit.skin import Kind, apple_profile, apple_skin, orange_profile, orange_skin
from fruitgan.errors import UsageError
from fruitgan.images import Pixels, bytes_from_unit

KINDS: tuple[Kind, ...] = get_args(Kind)
MINIMUM_SIZE_PX = 16


@dataclass(frozen=True)
class Place:
    """Where a fruit is on the canvas, and its radius there."""

    x: float
    y: float
    radius: float


def draw(kind: Kind, size_px: int, seed: int, index: int) -> Pixels:
    """The picture number `index` of a seed's endless series of apples or oranges, uint8 [size_px, size_px, 3].

    The same scene at every size, but for the grain of the finest parts.

    Raises:
        UsageError: a kind that is neither, or a size below 16.
    """
    if kind not in KINDS:
        raise UsageError(f"no fruit named {kind!r}: known are {', '.join(KINDS)}")
    if size_px < MINIMUM_SIZE_PX:
        raise UsageError(f"fruit of {size_px} px cannot be seen: use {MINIMUM_SIZE_PX} px or more")
    rng = randomness.generator(seed, index, f"fruit/{kind}")
    finer = 2 if size_px >= 48 else 4
    canvas = Canvas(size_px * finer)
    ground = paint_backdrop(canvas, rng)
    light = drawn_light(rng, ground.bounce)
    places = _places(rng, ground)
    for place in places:
        _cast_shadow(canvas, place, ground, light)
        _paint_fruit(canvas, kind, place, ground, light, rng)
    return _photographed(_gathered(canvas.light, finer), rng)


def _places(rng: Rng, ground: Ground) -> list[Place]:
    """Fruits of about one size, the far ones first, that overlap little."""
    count = int(rng.choice([1, 1, 1, 1, 2, 2, 3, 4]))
    radius = pick(rng, 0.24, 0.40) if count == 1 else pick(rng, 0.17, 0.30 - 0.025 * count)
    places: list[Place] = []
    for _ in range(40):
        size = radius * pick(rng, 0.9, 1.1)
        margin = 0.7 * size
        x = pick(rng, margin, 1 - margin) if count > 1 else pick(rng, 0.4, 0.6)
        if 0 < ground.view < 1:
            # The foot stands on the ground, which begins at far_y.
            foot = pick(rng, max(ground.far_y, 0.62), 0.96)
            y = foot - 0.93 * size
        else:
            y = pick(rng, margin, 1 - margin) if count > 1 else pick(rng, 0.42, 0.58)
        apart = 1.75 if ground.view else 1.5
        if all(np.hypot(x - other.x, (y - other.y) / max(ground.view, 0.5)) > apart * radius for other in places):
            places.append(Place(x, y, size))
        if len(places) == count:
            break
    return sorted(places, key=lambda place: place.y + place.radius)


def _cast_shadow(canvas: Canvas, place: Place, ground: Ground, light: Light) -> None:
    """A wide soft shadow away from the lamp and a dark line where the fruit stands; falls on fruits behind as well."""
    if ground.view == 0:
        return
    lx, ly, lz = (float(part) for part in light.direction)
    r = place.radius
    if ground.view == 1:
        x, y = place.x - 0.75 * r * lx / lz, place.y + 0.75 * r * ly / lz
        wide, high, contact = 1.08 * r, 1.08 * r, (place.x, place.y, 1.1 * r, 1.1 * r)
    else:
        x, y = place.x - 0.8 * r * lx, place.y + 0.93 * r + 0.15 * r * ground.view
        wide, high = 1.15 * r, max(1.1 * r * ground.view, 0.2 * r)
        contact = (place.x, place.y + 0.92 * r, 0.62 * r, 0.62 * r * max(ground.view, 0.3))
    tint = light.sky * 0.3
    for px, py, a, b, dark, soft in ((x, y, wide, high, 0.55, 0.55), (*contact, 0.7, 0.5)):
        where = canvas.window(px, py, a * 1.6, b * 1.6)
        gx, gy = (canvas.x[:, where[1]] - px) / a, (canvas.y[where[0]] - py) / b
        canvas.darken(where, dark * ramp(np.sqrt(gx * gx + gy * gy), 1 + soft, 1 - soft), tint)


def _axis(rng: Rng, kind: Kind, ground: Ground) -> Floats:
    """Where the stem points: mostly up, tilted to the viewer; from above, anywhere in front; an orange as it rolled."""
    if ground.view == 1:
        tilt, around = pick(rng, 0.1, 1.0), pick(rng, 0, 2 * np.pi)
        return unit((float(np.cos(around)) * tilt, float(np.sin(around)) * tilt, 1.0))
    if kind == "orange" and rng.random() < 0.6:
        flip = -1.0 if rng.random() < 0.5 else 1.0
        return unit((pick(rng, -0.8, 0.8), pick(rng, -0.6, 0.8), flip * pick(rng, 0.3, 1.0)))
    if rng.random() < 0.1:
        return unit((pick(rng, -1, 1), pick(rng, -0.5, 0.5), -0.6))
    return unit((pick(rng, -0.35, 0.35), 1.0, pick(rng, 0.15, 0.85)))


def _paint_fruit(canvas: Canvas, kind: Kind, place: Place, ground: Ground, light: Light, rng: Rng) -> None:
    profile = apple_profile(rng) if kind == "apple" else orange_profile(rng)
    axis = _axis(rng, kind, ground)
    reach = place.radius * profile.reach
    where = canvas.window(place.x, place.y, reach, reach)
    x = (canvas.x[:, where[1]] - place.x) / place.radius
    y = -(canvas.y[where[0]] - place.y) / place.radius
    if x.size == 0 or y.size == 0:
        return
    samples = place.radius * canvas.side
    surface = seen(profile, axis, x, y, 1 / samples)
    if kind == "apple":
        skin = apple_skin(surface, profile, rng)
    else:
        skin = orange_skin(surface, profile, rng, samples)
    nx, ny, nz = surface.normal
    nx, ny = nx + skin.tilt[0], ny + skin.tilt[1]
    scale = 1 / np.sqrt(nx * nx + ny * ny + nz * nz)
    openness = skin.openness
    if 0 < ground.view < 1:
        openness = openness * (0.45 + 0.55 * ramp(y, -1.15, -0.35))
    painted = shaded((nx * scale, ny * scale, nz * scale), skin.albedo, openness, skin.gloss, skin.roughness, light)
    canvas.cover(where, painted, surface.share)
    depth = np.where(surface.share > 0.5, surface.depth * place.radius, -np.inf).astype(np.float32)
    _paint_top(canvas, kind, place, axis, profile, (where, depth), light, rng)


def _paint_top(
    canvas: Canvas,
    kind: Kind,
    place: Place,
    axis: Floats,
    profile: Profile,
    hidden: tuple[tuple[slice, slice], Floats],
    light: Light,
    rng: Rng,
) -> None:
    """The stem, where there is one, and at times a leaf or two on it."""
    has_stem = rng.random() < (0.92 if kind == "apple" else 0.12)
    has_leaf = rng.random() < (0.35 if kind == "apple" else 0.22)
    if axis[2] < -0.15:
        return
    flip = np.array((1, -1, 1), dtype=np.float32)
    root = float(profile.radius(np.array([1.0], dtype=np.float32))[0])
    centre = np.array((place.x, place.y, 0), dtype=np.float32)
    start = centre + axis * flip * (place.radius * root * 0.95)
    length = place.radius * (pick(rng, 0.45, 0.8) if kind == "apple" else pick(rng, 0.08, 0.25))
    bend = np.array((pick(rng, -0.5, 0.5), pick(rng, -0.15, 0.2), 0), dtype=np.float32)
    thick = place.radius * pick(rng, 0.032, 0.05)
    curve = bent(start, axis * flip, bend, length, (thick * 0.8, thick * 1.25))
    wood = blend(colour("#5a4024"), colour("#7d7a3a"), rng.random())
    if has_leaf:
        at = curve.points[3 if kind == "apple" else 0]
        angle = pick(rng, -0.2, 1.1) if rng.random() < 0.5 else np.pi - pick(rng, -0.2, 1.1)
        paint_leaf(canvas, rng, float(at[0]), float(at[1]), angle, place.radius * pick(rng, 0.75, 1.25), light)
    if has_stem:
        paint_stem(canvas, curve, wood, light, hidden)


def _gathered(light: Floats, finer: int) -> Floats:
    """The means of squares of finer x finer samples, in linear light as in a camera."""
    rows = sum(light[k::finer] for k in range(1, finer)) + light[::finer]
    return np.asarray((sum(rows[:, k::finer] for k in range(1, finer)) + rows[:, ::finer]) / finer**2, dtype=np.float32)


def _photographed(light: Floats, rng: Rng) -> Pixels:
    """Exposure, a darker rim, the film's shoulder, gamma and a little noise."""
    side = light.shape[0]
    centre = (np.arange(side, dtype=np.float32) + 0.5) / side - 0.5
    rim = 1 - pick(rng, 0, 0.6) * (centre[:, None] ** 2 + centre[None, :] ** 2)
    exposed = light * (rim * pick(rng, 0.85, 1.15))[..., None]
    shoulder = exposed * (1 + exposed * 0.12) / (1 + exposed * 0.42)
    shown = np.clip(shoulder * 1.25, 0, 1) ** np.float32(1 / 2.2)
    noise = rng.standard_normal(shown.shape, dtype=np.float32) * np.float32(pick(rng, 0.002, 0.012))
    return bytes_from_unit(shown + noise)
