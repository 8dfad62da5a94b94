"""Drawn fruit: apples and oranges from numbers alone, for demonstrations and tests without anybody's photographs.

Bodies have x to the right, y up and z towards the viewer, in radii of the fruit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

import numpy as np

from fruitgan import randomness
from fruitgan.demo.fruit_scene import (
    Canvas,
    Floats,
    Ground,
    Light,
    Rng,
    blend,
    colour,
    drawn_light,
    one_of,
    paint_backdrop,
    ramp,
    shaded,
    unit,
    vector,
)
from fruitgan.images import Pixels, bytes_from_unit

Kind = Literal["apple", "orange"]
KINDS: tuple[Kind, ...] = get_args(Kind)
MINIMUM_SIZE_PX = 16

PEEL = 90.0  # radians that the waves of an orange's pits make in a radius of the fruit
# Ground colour, blush colour, how much the blush covers (from, to), how much of it comes in streaks.
APPLES = (
    ("#b5a53c", "#9c1220", 0.35, 0.90, 0.50),  # red over yellow-green, the most common
    ("#a33030", "#7c0a1a", 0.40, 1.00, 0.30),  # deep red all over
    ("#d6c04a", "#c2301f", -0.35, 0.30, 0.75),  # yellow with a streaked cheek
    ("#86a932", "#a8b43e", -0.60, 0.20, 0.20),  # green
    ("#dcc655", "#d98a45", -0.60, 0.00, 0.20),  # golden
)
SHAPES: Mapping[Kind, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "apple": ((0.42, 0.075, 0.16, 0.03, 0.0, -0.06), (0.58, 0.12, 0.32, 0.06, 0.26, 0.12)),
    "orange": ((0.03, 0.01, 0.02, 0.01, -0.05, -0.07), (0.08, 0.03, 0.06, 0.02, 0.06, 0.04)),
}
"""The least and the largest of each number of a `Shape`."""


def draw(kind: Kind, size_px: int, seed: int, index: int) -> Pixels:
    """The picture number `index` of a seed's endless series of apples or oranges, uint8 [size_px, size_px, 3].

    The same scene at every size, but for the grain of the finest parts. `size_px` is 16 or more.
    """
    rng = randomness.generator(seed, index, f"fruit/{kind}")
    finer = 2 if size_px >= 48 else 4
    canvas = Canvas(size_px * finer)
    ground = paint_backdrop(canvas, rng)
    lamp = drawn_light(rng, ground.bounce)
    for place in _places(rng, ground):
        _cast_shadow(canvas, place, ground, lamp)
        _paint_fruit(canvas, kind, place, ground, lamp, rng)
    light = canvas.light.reshape(size_px, finer, size_px, finer, 3).mean(axis=(1, 3))
    # Exposure, a darker rim, the film's shoulder, gamma and a little noise.
    centre = (np.arange(size_px, dtype=np.float32) + 0.5) / size_px - 0.5
    rim = 1 - rng.uniform(0, 0.6) * (centre[:, None] ** 2 + centre[None, :] ** 2)
    exposed = light * (rim * rng.uniform(0.85, 1.15))[..., None]
    shoulder = exposed * (1 + exposed * 0.12) / (1 + exposed * 0.42)
    shown = np.clip(shoulder * 1.25, 0, 1) ** np.float32(1 / 2.2)
    return bytes_from_unit(shown + rng.standard_normal(shown.shape, dtype=np.float32) * rng.uniform(0.002, 0.012))


def _places(rng: Rng, ground: Ground) -> list[tuple[float, float, float]]:
    """Centre and radius of one to four fruits of about one size that overlap little, the far ones first."""
    count = int(rng.choice([1, 1, 1, 1, 2, 2, 3, 4]))
    radius = rng.uniform(0.24, 0.40) if count == 1 else rng.uniform(0.17, 0.30 - 0.025 * count)
    places: list[tuple[float, float, float]] = []
    for _ in range(40):
        size = radius * rng.uniform(0.9, 1.1)
        low = 0.7 * size if count > 1 else 0.41
        x, y = rng.uniform(low, 1 - low), rng.uniform(low, 1 - low)
        if ground.view < 1:  # it stands on the ground, which begins at far_y
            y = rng.uniform(max(ground.far_y, 0.62), 0.96) - 0.93 * size
        apart = [np.hypot(x - other[0], (y - other[1]) / max(ground.view, 0.5)) for other in places]
        if len(places) < count and all(distance > 1.75 * radius for distance in apart):
            places.append((x, y, size))
    return sorted(places, key=lambda place: place[1] + place[2])


def _cast_shadow(canvas: Canvas, place: tuple[float, float, float], ground: Ground, light: Light) -> None:
    """A wide soft shadow away from the lamp and a dark one where the fruit stands; they fall on fruits behind as well."""
    x, y, radius = place
    from_above = ground.view == 1
    flat = max(ground.view, 0.25)
    foot, lean = (y, 1 / float(light.direction[2])) if from_above else (y + 0.93 * radius, 1.0)
    off = 0.75 * radius * lean * light.direction * (-1, from_above, 0)
    wide, narrow = 1.1 * radius, (1.1 if from_above else 0.62) * radius
    for move, half, dark, soft in ((off, wide, 0.55, 0.55), (0 * off, narrow, 0.7, 0.5)):
        where, right, below = canvas.window(x + move[0], foot + move[1], half * 1.6, half * flat * 1.6)
        shade = dark * ramp(np.hypot(right / half, below / (half * flat)), 1 + soft, 1 - soft)
        canvas.light[where] *= 1 - shade[..., None] * (1 - 0.3 * light.sky)


class Shape(NamedTuple):
    """A solid of revolution: the distance of its surface from its centre by the cosine c of the angle from the axis."""

    hollow_depth: float  # at the stem, where c is 1; the radius is about 1
    hollow_width: float
    base_depth: float
    base_width: float
    taper: float  # how much wider the half with the stem is
    stretch: float  # how much longer than wide; negative is flat

    def radius(self, c: Floats) -> Floats:
        hollow = self.hollow_depth * np.exp((c - 1) / self.hollow_width)
        base = self.base_depth * np.exp((-c - 1) / self.base_width)
        return np.asarray(1 - hollow - base + c * (1 - c * c) * self.taper + c * c * self.stretch)


class Surface(NamedTuple):
    """What is seen of a body in a window of h x w samples."""

    share: Floats  # [h, w]: how much of the sample the body covers
    depth: Floats  # [h, w]: z of the surface
    direction: Floats  # [h, w, 3]: from the centre to the surface, unit length
    normal: Floats  # [h, w, 3]
    c: Floats  # [h, w]: the cosine of the angle from the axis
    turn: Floats  # [h, w]: the angle around the axis


def seen(shape: Shape, axis: Floats, x: Floats, y: Floats, sample: float) -> Surface:
    """Look at the body from the front: x is [1, w] and y [h, 1], y up; `sample` is their spacing.

    Each line of sight steps towards the surface by its distance, which cannot overshoot much on so round a body.
    """
    aside = x * x + y * y
    reach = float(shape.radius(np.linspace(-1, 1, 201)).max()) + 0.01
    z = np.sqrt(np.maximum(reach**2 - aside, 0)).astype(np.float32)
    depth, nearest = z, np.full_like(z, np.inf)
    for _ in range(20):  # lines that look over a rim into the hollow need the most
        distance = np.sqrt(aside + z * z)
        gap = distance - shape.radius((x * axis[0] + y * axis[1] + z * axis[2]) / distance)
        depth = np.where(gap < nearest, z, depth)  # a line that misses the body shows where it came closest
        nearest = np.minimum(nearest, gap)
        z = z - gap * np.float32(0.9)
    distance = np.sqrt(aside + depth * depth)
    direction = np.stack(np.broadcast_arrays(x, y, depth), axis=-1) / distance[..., None]
    c = np.clip(direction @ axis, -1, 1)
    # The normal is the gradient of |p| - radius(c).
    slope = (shape.radius(c + 1e-3) - shape.radius(c - 1e-3)) / 2e-3 / distance
    normal = unit(direction - slope[..., None] * (axis - c[..., None] * direction))
    first = unit(np.cross(axis, vector(0, 0, 1) if abs(axis[2]) < 0.8 else vector(0, 1, 0)))
    turn = np.arctan2(direction @ np.cross(axis, first), direction @ first)
    # A line that meets the body comes to rest at its surface, at a distance of nearly 0.
    return Surface(np.clip(1.25 - 1.5 * nearest / sample, 0, 1), depth, direction, normal, c, turn)


def _waves(direction: Floats, rng: Rng, count: int, coarsest: float, finest: float) -> tuple[Floats, Floats]:
    """Smooth solid noise over the body, about [-1, 1], and its slope [h, w, 3] a wave: plane waves in random directions."""
    noise, slope = np.zeros_like(direction[..., 0]), np.zeros_like(direction)
    for _ in range(count):
        way = unit(vector(*rng.normal(size=3)))
        phase = direction @ way * rng.uniform(coarsest, finest) + rng.uniform(0, 2 * np.pi)
        noise += np.sin(phase) / count**0.5
        slope += np.cos(phase)[..., None] * way / count**0.5
    return noise, slope


def _apple(surface: Surface, shape: Shape, rng: Rng) -> tuple[Floats, Floats, Floats]:
    """Albedo [h, w, 3], openness [h, w] and a tilt of the normals [h, w, 3]: a ground colour, a blush in streaks, specks."""
    ground, blush, low, high, streaked = APPLES[int(rng.integers(len(APPLES)))]
    direction, c, turn = surface.direction, surface.c, surface.turn
    streaks = np.zeros_like(c)
    for waves in rng.integers(7, 80, 8):
        # Each comes and goes on its way from pole to pole, so that no two lie side by side for long.
        broken = 0.35 + np.sin(c * rng.uniform(2, 7) + turn + rng.uniform(0, 6.3))
        streaks += broken * np.sin(turn * float(waves) + rng.uniform(0, 6.3) + c * rng.uniform(-1.5, 1.5))
    cheek = direction @ unit(vector(rng.normal(), 0.6, rng.normal() + 0.4))  # the side that saw the sun
    amount = 0.6 * cheek + 0.35 * _waves(direction, rng, 4, 1.5, 5)[0] + streaked * 0.26 * streaks + rng.uniform(low, high)
    blushed = one_of(rng, (blush,)) * (1 - 0.08 * streaks)[..., None]
    albedo = blend(one_of(rng, (ground,)), blushed, ramp(amount, -0.6, 0.9)[..., None])
    # The hollow is greenish; the calyx at the other pole is dark.
    hollow = np.exp((c - 1) / (shape.hollow_width * 1.1))
    calyx = ramp(c + 0.008 * np.sin(5 * turn) + 0.006 * streaks, -0.965, -0.992)
    specks = ramp(_waves(direction, rng, 16, 0.8 * PEEL, PEEL)[0], 1.3, 2.0) * rng.uniform(0.25, 0.7) * (1 - 0.8 * hollow)
    for share, text in ((0.75 * hollow, "#a8a048"), (calyx, "#2e2012"), (specks, "#e2cf92")):
        albedo = blend(albedo, colour(text), share[..., None])
    openness = np.clip(1 - 0.75 * hollow - 0.6 * np.exp((-1 - c) / (shape.base_width * 1.4)), 0.1, 1)
    return albedo, openness, 0.025 * _waves(direction, rng, 3, 4.2, 14)[0][..., None] * vector(1, 0.5, 0)


def _orange(surface: Surface, rng: Rng, samples_in_radius: float) -> tuple[Floats, Floats, Floats]:
    """As `_apple`: one colour that drifts a little, pits everywhere, a button at one pole and perhaps a navel at the other."""
    direction, c, turn = surface.direction, surface.c, surface.turn
    drift = np.clip(0.5 + 0.4 * _waves(direction, rng, 4, 0.9, 3)[0] + rng.uniform(-0.4, 0.4), 0, 1)
    albedo = blend(one_of(rng, ("#d9620a",)), one_of(rng, ("#f0961c",)), drift[..., None])
    finest = PEEL * rng.uniform(0.8, 1.4)
    noise, slope = _waves(direction, rng, 20, 0.8 * finest, finest)
    pits = ramp(noise, 0.1, 1.1)
    sharp = min(1.0, 2 * samples_in_radius / finest)  # pits finer than the samples would only be noise
    uneven = _waves(direction, rng, 4, 5.4, 18)[0][..., None] * vector(1, 0.6, 0)
    tilt = rng.uniform(1.6, 3.2) * sharp * (pits * (1 - pits))[..., None] * slope + 0.035 * uneven
    button = ramp(c + 0.0025 * np.sin(5 * turn), 0.988, 0.994)
    navel = ramp(-c + 0.006 * np.sin(3 * turn), 0.975, 0.985) * ramp(-c, 0.998, 0.988) * (rng.random() < 0.6)
    dark = 0.22 * sharp * pits + 0.35 * navel + 0.05 * ramp(c, 0.93, 0.985) * np.sin(turn * 9)
    albedo = blend(albedo * (1 - dark)[..., None], colour("#757642"), button[..., None])
    return albedo, 1 - 0.35 * ramp(c, 0.95, 0.99) * (1 - button) - 0.4 * navel, tilt


def _paint_fruit(canvas: Canvas, kind: Kind, place: tuple[float, float, float], ground: Ground, light: Light, rng: Rng) -> None:
    """The body with its skin, then its leaf and its stem, where it has them."""
    x, y, radius = place
    is_apple = kind == "apple"
    # The stem points mostly up, tilted to the viewer; seen from above, or on an orange that rolled, anywhere in front.
    rolled = ground.view == 1 or rng.random() < (0.1 if is_apple else 0.6)
    low, high = ((-0.8, -0.8, 0.4), (0.8, 0.8, 1.0)) if rolled else ((-0.35, 1, 0.15), (0.35, 1, 0.85))
    axis = unit(vector(*rng.uniform(low, high)))
    shape = Shape(*(float(value) for value in rng.uniform(*SHAPES[kind])))
    where, right, down = canvas.window(x, y, 1.2 * radius, 1.2 * radius)
    samples = radius * canvas.side
    surface = seen(shape, axis, right / radius, -down / radius, 1 / samples)
    albedo, openness, tilt = _apple(surface, shape, rng) if is_apple else _orange(surface, rng, samples)
    gloss, roughness = rng.uniform(*(((0.6, 0.0), (1.1, 0.45)) if is_apple else ((0.45, 0.45), (0.8, 0.9))))
    if ground.view < 1:  # less light comes to where it stands
        openness = openness * (0.45 + 0.55 * ramp(-down / radius, -1.15, -0.35))
    canvas.cover(where, shaded(unit(surface.normal + tilt), albedo, openness, gloss, roughness, light), surface.share)
    has_stem, has_leaf = rng.random(2) < ((0.92, 0.35) if is_apple else (0.12, 0.22))
    up = axis * (1, -1, 1)
    start = (x, y, 0) + up * (0.95 * radius * float(shape.radius(np.ones(1))[0]))
    way = up * radius * (rng.uniform(0.45, 0.8) if is_apple else rng.uniform(0.08, 0.25))
    if has_leaf:
        _paint_leaf(canvas, rng, start + way * (0.4 * is_apple), radius * rng.uniform(0.75, 1.25), light)
    if has_stem:
        body = np.full((canvas.side, canvas.side), -np.inf, dtype=np.float32)
        body[where] = np.where(surface.share > 0.5, surface.depth * radius, -np.inf)
        _paint_stem(canvas, rng, start, way, radius * rng.uniform(0.03, 0.045), light, body)


def _paint_stem(canvas: Canvas, rng: Rng, start: Floats, way: Floats, radius: float, light: Light, body: Floats) -> None:
    """A bent twig of small balls where it is nearer to the viewer than the body, whose depth [side, side] is given."""
    bend = vector(rng.uniform(-0.5, 0.5), rng.uniform(-0.15, 0.2), 0) * np.sqrt((way * way).sum())
    wood = blend(colour("#5a4024"), colour("#7d7a3a"), rng.random())
    for t in np.linspace(0, 1, 48):
        x, y, depth = start + t * way + t * t * bend
        thick = radius * (0.85 + 0.5 * t)
        where, right, down = canvas.window(x, y, 2 * thick, 2 * thick)
        sideways = np.stack(np.broadcast_arrays(right, -down), axis=-1) / thick
        off = np.square(sideways).sum(axis=-1)
        normal = np.concatenate([sideways, np.sqrt(np.clip(1 - off, 0.05, 1))[..., None]], axis=-1)
        share = np.clip((1 - np.sqrt(off)) * thick * canvas.side + 0.5, 0, 1)
        share = share * ramp(depth - body[where], -2.5 / canvas.side, 0.5 / canvas.side)
        canvas.cover(where, shaded(unit(normal), wood, np.ones_like(share), 0.3, 0.8, light), share)


def _paint_leaf(canvas: Canvas, rng: Rng, start: Floats, length: float, light: Light) -> None:
    """A leaf from its stalk on, to the left or right, with veins."""
    width, bend, angle = rng.uniform(0.22, 0.34), rng.uniform(-0.35, 0.35), rng.uniform(-0.2, 1.1)
    way = vector(np.cos(angle) * rng.choice([-1, 1]), np.sin(angle))
    up = vector(-way[1], way[0])
    where, right, down = canvas.window(start[0], start[1], length * 1.15, length * 1.15)
    along = (right * way[0] - down * way[1]) / length
    off = (right * up[0] - down * up[1]) / length - bend * along * (1 - along)
    inside = np.clip(along, 0, 1)
    half = width * 2.1 * np.sqrt(inside) * (1 - inside) ** 0.75 * (1 + 0.03 * np.sin(40 * inside))
    room = (half - np.abs(off)) * length
    vein = np.clip(1 - np.abs(off) / (0.018 * (1.2 - inside)), 0, 1)
    ribs = np.sin((along - 0.275 * np.abs(off) / width) * 42)
    tilt = np.where(off > 0, 0.35, -0.35) + 0.25 * off / np.maximum(half, 1e-3) + 0.10 * ribs
    normal = unit(np.concatenate([tilt[..., None] * up + vector(0, 0.2), np.full((*tilt.shape, 1), 0.9)], axis=-1))
    green = blend(colour("#2f5a1c"), colour("#6d9a2e"), rng.random())
    albedo = green * (1 + 0.12 * ribs)[..., None] + 0.5 * vein[..., None] * colour("#9fb566")
    share = np.clip(room * canvas.side + 0.5, 0, 1) * (along > 0)
    canvas.cover(where, shaded(normal, albedo, np.ones_like(tilt), 0.5, 0.9, light), share)
