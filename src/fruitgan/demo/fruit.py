"""Drawn fruit: apples and oranges from numbers alone, for demonstrations and tests without anybody's photographs.

Bodies have x to the right, y up and z towards the viewer, in radii of the fruit.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from fruitgan import randomness
from fruitgan.demo.backdrop import Canvas, Floats, Ground, Rng, blend, colour, one_of, paint_backdrop, pick, ramp
from fruitgan.errors import UsageError
from fruitgan.images import Pixels, bytes_from_unit

Kind = Literal["apple", "orange"]
KINDS: tuple[Kind, ...] = get_args(Kind)
MINIMUM_SIZE_PX = 16

STEPS = 20
"""Of a line of sight towards the body; those that look over a rim into the hollow need the most."""
TEXELS, DOTS = 512, 40
"""Samples and dots across a tile of peel, which covers a disc of radius 1.41: the seen half of a ball in equal areas."""
Place = tuple[float, float, float]
"""The centre of a fruit on the canvas, and its radius there."""
# Ground colour, blush colour, how much the blush covers (from, to), how much of it comes in streaks.
APPLES = (
    ("#b5a53c", "#9c1220", 0.35, 0.90, 0.50),  # red over yellow-green, the most common
    ("#b5a53c", "#9c1220", 0.35, 0.90, 0.50),
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
    light = _drawn_light(rng, ground.bounce)
    for place in _places(rng, ground):
        _cast_shadow(canvas, place, ground, light)
        _paint_fruit(canvas, kind, place, ground, light, rng)
    squares = canvas.light.reshape(size_px, finer, size_px, finer, 3)
    return _photographed(squares.mean(axis=(1, 3)), rng)


def _photographed(light: Floats, rng: Rng) -> Pixels:
    """Exposure, a darker rim, the film's shoulder, gamma and a little noise."""
    centre = (np.arange(len(light), dtype=np.float32) + 0.5) / len(light) - 0.5
    rim = 1 - pick(rng, 0, 0.6) * (centre[:, None] ** 2 + centre[None, :] ** 2)
    exposed = light * (rim * pick(rng, 0.85, 1.15))[..., None]
    shoulder = exposed * (1 + exposed * 0.12) / (1 + exposed * 0.42)
    shown = np.clip(shoulder * 1.25, 0, 1) ** np.float32(1 / 2.2)
    return bytes_from_unit(shown + rng.standard_normal(shown.shape, dtype=np.float32) * pick(rng, 0.002, 0.012))


def _places(rng: Rng, ground: Ground) -> list[Place]:
    """One to four fruits of about one size that overlap little, the far ones first."""
    count = int(rng.choice([1, 1, 1, 1, 2, 2, 3, 4]))
    radius = pick(rng, 0.24, 0.40) if count == 1 else pick(rng, 0.17, 0.30 - 0.025 * count)
    places: list[Place] = []
    for _ in range(40):
        size = radius * pick(rng, 0.9, 1.1)
        low = 0.7 * size if count > 1 else 0.41
        x, y = pick(rng, low, 1 - low), pick(rng, low, 1 - low)
        if 0 < ground.view < 1:  # it stands on the ground, which begins at far_y
            y = pick(rng, max(ground.far_y, 0.62), 0.96) - 0.93 * size
        apart = (1.75 if ground.view else 1.5) * radius
        if all(np.hypot(x - other[0], (y - other[1]) / max(ground.view, 0.5)) > apart for other in places):
            places.append((x, y, size))
        if len(places) == count:
            break
    return sorted(places, key=lambda place: place[1] + place[2])


class _Light(NamedTuple):
    """One large lamp, a sky and what the ground throws back."""

    direction: Floats  # [3], towards the lamp
    size: float  # of the lamp: how far from its direction it is still seen, as 1 minus a cosine
    softness: float  # how far the light reaches round a body, 0 to about 0.5
    key: Floats
    sky: Floats
    bounce: Floats


def _drawn_light(rng: Rng, bounce: Floats) -> _Light:
    """A lamp somewhere above and before the scene, warm or cool."""
    around, height, warmth = pick(rng, 0.15, 0.85) * np.pi, pick(rng, 0.5, 0.95), pick(rng, -0.08, 0.14)
    direction = _unit(_vector(np.cos(around) * height, 0.25 + np.sin(around) * height, pick(rng, 0.45, 0.95)))
    key = _vector(1 + warmth, 1, 1 - warmth) * pick(rng, 0.8, 1.15)
    sky = _vector(1 - warmth, 1, 1 + 1.5 * warmth) * pick(rng, 0.16, 0.34)
    return _Light(direction, pick(rng, 0.015, 0.06), pick(rng, 0.1, 0.4), key, sky, bounce * 0.3)


def _shaded(normal: Floats, albedo: Floats, openness: Floats, gloss: float, roughness: float, light: _Light) -> Floats:
    """Linear light [h, w, 3] of a surface with these normals and colours [h, w, 3].

    `openness` [h, w] is 1 where nothing near shuts light out; `gloss` is the strength of the mirror image of lamp and sky,
    `roughness` blurs it.
    """
    lit = np.clip((normal @ light.direction + light.softness) / (1 + light.softness), 0, 1) * (0.35 + 0.65 * openness)
    above = (0.5 + 0.5 * normal[..., 1]) * openness
    received = lit[..., None] * light.key + above[..., None] * light.sky + (openness - above)[..., None] * light.bounce
    # What the surface mirrors towards the viewer: the lamp with a glow around it, the sky at grazing angles.
    mirrored = 2 * normal[..., 2:] * normal - _vector(0, 0, 1)
    facing, blur = np.clip(mirrored @ light.direction, 0, 1), 0.01 + 0.08 * roughness
    lamp = ramp(facing, 1 - light.size - blur, 1 - light.size + blur)
    glow = facing ** (6 + 24 * (1 - roughness))
    sky = np.clip(0.3 + 0.7 * mirrored[..., 1], 0, 1) * light.sky.mean()
    grazing = 0.04 + 0.4 * (1 - np.clip(normal[..., 2], 0, 1)) ** 4
    shine = gloss * openness * grazing * (lamp * (9 - 6 * roughness) + glow * 2.2 + sky * 1.5)
    return np.asarray(albedo * received + shine[..., None] * light.key, dtype=np.float32)


def _cast_shadow(canvas: Canvas, place: Place, ground: Ground, light: _Light) -> None:
    """A wide soft shadow away from the lamp and a dark one where the fruit stands; they fall on fruits behind as well."""
    if ground.view == 0:
        return
    x, y, radius = place
    flat = 1.0 if ground.view == 1 else max(ground.view, 0.25)
    foot, lean = (y, 1 / float(light.direction[2])) if ground.view == 1 else (y + 0.93 * radius, 1.0)
    aside, down = -0.75 * radius * lean * light.direction[0], 0.75 * radius * lean * light.direction[1] * (ground.view == 1)
    wide, narrow = 1.1 * radius, (1.1 if ground.view == 1 else 0.62) * radius
    for place_x, place_y, half, dark, soft in ((x + aside, foot + down, wide, 0.55, 0.55), (x, foot, narrow, 0.7, 0.5)):
        where, right, below = canvas.window(place_x, place_y, half * 1.6, half * flat * 1.6)
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
    for _ in range(STEPS):
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
    normal = _unit(direction - slope[..., None] * (axis - c[..., None] * direction))
    first = _unit(np.cross(axis, _vector(0, 0, 1) if abs(axis[2]) < 0.8 else _vector(0, 1, 0)))
    turn = np.arctan2(direction @ np.cross(axis, first), direction @ first)
    # A line that meets the body comes to rest at its surface, at a distance of nearly 0.
    share = np.clip(1.25 - 1.5 * nearest / sample, 0, 1)
    return Surface(share, depth, direction, normal, c, turn)


def _vector(*parts: float) -> Floats:
    return np.array(parts, dtype=np.float32)


def _unit(vectors: Floats) -> Floats:
    """The vectors [..., n] scaled to length 1."""
    return np.asarray(vectors / np.sqrt(np.square(vectors).sum(axis=-1, keepdims=True)))


_Skin = tuple[Floats, Floats, Floats, float, float]
"""Albedo [h, w, 3], openness [h, w], what to add to the normals [h, w, 3], gloss and roughness: see `_shaded`."""


@functools.cache
def _peel() -> tuple[Floats, Floats]:
    """A tile [TEXELS, TEXELS] of round bumps of one size, and the slopes [TEXELS, TEXELS, 3] of pits in their places.

    It is noise of one frequency, with deviation 1.
    """
    white = np.random.default_rng(20).standard_normal((TEXELS, TEXELS))
    along = np.fft.fftfreq(TEXELS, 1 / TEXELS)
    ring = np.exp(-(((np.hypot(along[:, None], along) - DOTS) / (0.3 * DOTS)) ** 2))
    tile = np.fft.ifft2(np.fft.fft2(white) * ring).real
    bumps = np.asarray(tile / tile.std(), dtype=np.float32)
    down, right = np.gradient(ramp(bumps, 0.1, 1.5), DOTS * 2 / TEXELS)
    return bumps, np.stack([right, down, 0 * down], axis=-1)


def _texels(direction: Floats, rng: Rng, scale: float) -> tuple[Any, Any]:
    """Rows and columns of a tile under each sample, from a random place on."""
    spread = np.sqrt(2 / np.maximum(1 + direction[..., 2:], 0.2)) * (scale * TEXELS / 2.83)
    places = (direction[..., :2] * spread + rng.uniform(0, TEXELS, 2)).astype(np.int64) % TEXELS
    return places[..., 1], places[..., 0]


def _waves(direction: Floats, rng: Rng, count: int, finest: float) -> Floats:
    """Smooth solid noise [h, w] over the body, about [-1, 1]: plane waves in random directions."""
    ways = [_unit(_vector(*rng.normal(size=3))) * pick(rng, 0.3 * finest, finest) for _ in range(count)]
    return np.asarray(sum(np.sin(direction @ way + pick(rng, 0, 2 * np.pi)) for way in ways) / count**0.5)


def _apple(surface: Surface, shape: Shape, rng: Rng) -> _Skin:
    """A ground colour and a blush on the side that saw the sun, in streaks from pole to pole, with pale specks."""
    ground, blush, low, high, streaked = APPLES[int(rng.integers(len(APPLES)))]
    direction, c, turn = surface.direction, surface.c, surface.turn
    streaks = np.zeros_like(c)
    for waves in rng.integers(7, 80, 8):
        # Each comes and goes on its way from pole to pole, so that no two lie side by side for long.
        broken = 0.35 + np.sin(c * pick(rng, 2, 7) + turn + pick(rng, 0, 6.3))
        streaks += broken * np.sin(turn * float(waves) + pick(rng, 0, 6.3) + c * pick(rng, -1.5, 1.5))
    cheek = direction @ _unit(_vector(rng.normal(), 0.6, rng.normal() + 0.4))
    amount = 0.6 * cheek + 0.35 * _waves(direction, rng, 4, 5) + streaked * 0.26 * streaks + pick(rng, low, high)
    blushing = ramp(amount, -0.6, 0.9)[..., None]
    tint = (1 + 0.10 * _waves(direction, rng, 3, 9))[..., None]
    albedo = blend(one_of(rng, (ground,)) * tint, one_of(rng, (blush,)) * (1 - 0.08 * streaks)[..., None], blushing)
    # The hollow is greenish, then russet; the calyx at the other pole is dark.
    hollow = np.exp((c - 1) / (shape.hollow_width * 1.1))
    russet = ramp(hollow + 0.08 * streaks, 0.45, 0.95) * pick(rng, 0.3, 0.9)
    calyx = ramp(c + 0.008 * np.sin(5 * turn) + 0.006 * streaks, -0.965, -0.992)
    specks = (
        ramp(_peel()[0][_texels(direction, rng, pick(rng, 0.9, 1.3))], 1.8, 2.8) * pick(rng, 0.25, 0.7) * (1 - 0.8 * hollow)
    )
    for share, text in ((0.75 * hollow, "#a8a048"), (russet, "#7d5a2c"), (calyx, "#2e2012"), (specks, "#e2cf92")):
        albedo = blend(albedo, colour(text), share[..., None])
    openness = np.clip(1 - 0.75 * hollow - 0.6 * np.exp((-1 - c) / (shape.base_width * 1.4)), 0.1, 1)
    bumps = 0.025 * _waves(direction, rng, 3, 14)[..., None] * _vector(1, 0.5, 0)
    return albedo, openness, bumps, pick(rng, 0.6, 1.1), pick(rng, 0.0, 0.45)


def _orange(surface: Surface, rng: Rng, samples_in_radius: float) -> _Skin:
    """One colour that drifts a little, pits everywhere, a green button at one pole and perhaps a navel at the other."""
    direction, c, turn = surface.direction, surface.c, surface.turn
    drift = np.clip(0.5 + 0.4 * _waves(direction, rng, 4, 3) + pick(rng, -0.4, 0.4), 0, 1)
    albedo = blend(one_of(rng, ("#d9620a",)), one_of(rng, ("#f0961c",)), drift[..., None])
    unripe = ramp(c + 0.12 * _waves(direction, rng, 3, 6), 0.55, 1.1) * max(0, pick(rng, -1, 0.6))
    scale = pick(rng, 0.8, 1.4)
    where = _texels(direction, rng, scale)
    bumps, slopes = (tile[where] for tile in _peel())
    sharp = min(1.0, 2.83 * samples_in_radius / (DOTS * scale) / 3)  # pits finer than the samples would only be noise
    tilt = pick(rng, 0.12, 0.26) * sharp * slopes + 0.035 * _waves(direction, rng, 4, 18)[..., None] * _vector(1, 0.6, 0)
    button = ramp(c + 0.0025 * np.sin(5 * turn), 0.988, 0.994)
    navel = ramp(-c + 0.006 * np.sin(3 * turn), 0.975, 0.985) * ramp(-c, 0.998, 0.988) * (rng.random() < 0.6)
    dark = 0.22 * sharp * ramp(bumps, 0.1, 1.5) + 0.35 * navel + 0.05 * ramp(c, 0.93, 0.985) * np.sin(turn * 9)
    albedo = blend(albedo, colour("#8d9a2a"), unripe[..., None]) * (1 - dark)[..., None]
    albedo = blend(albedo, colour("#757642"), button[..., None])
    openness = 1 - 0.35 * ramp(c, 0.95, 0.99) * (1 - button) - 0.4 * navel
    return albedo, openness, tilt, pick(rng, 0.45, 0.8), pick(rng, 0.45, 0.9)


def _axis(rng: Rng, is_apple: bool, ground: Ground) -> Floats:
    """Where the stem points: mostly up, tilted to the viewer; from above, anywhere in front; an orange as it rolled."""
    if ground.view == 1:
        tilt, around = pick(rng, 0.1, 1.0), pick(rng, 0, 2 * np.pi)
        return _unit(_vector(np.cos(around) * tilt, np.sin(around) * tilt, 1))
    if rng.random() < (0.1 if is_apple else 0.6):
        return _unit(_vector(pick(rng, -0.8, 0.8), pick(rng, -0.6, 0.8), pick(rng, -1, 1)))
    return _unit(_vector(pick(rng, -0.35, 0.35), 1, pick(rng, 0.15, 0.85)))


def _paint_fruit(canvas: Canvas, kind: Kind, place: Place, ground: Ground, light: _Light, rng: Rng) -> None:
    """The body with its skin, then its leaf and its stem, where it has them."""
    x, y, radius = place
    is_apple = kind == "apple"
    axis = _axis(rng, is_apple, ground)
    shape = Shape(*(float(value) for value in rng.uniform(*SHAPES[kind])))
    where, right, down = canvas.window(x, y, 1.2 * radius, 1.2 * radius)
    samples = radius * canvas.side
    surface = seen(shape, axis, right / radius, -down / radius, 1 / samples)
    albedo, openness, tilt, gloss, roughness = _apple(surface, shape, rng) if is_apple else _orange(surface, rng, samples)
    if 0 < ground.view < 1:  # less light comes to where it stands
        openness = openness * (0.45 + 0.55 * ramp(-down / radius, -1.15, -0.35))
    canvas.cover(where, _shaded(_unit(surface.normal + tilt), albedo, openness, gloss, roughness, light), surface.share)
    has_stem, has_leaf = rng.random(2) < ((0.92, 0.35) if is_apple else (0.12, 0.22))
    if axis[2] < -0.15:
        return
    wall = np.full((canvas.side, canvas.side), -np.inf, dtype=np.float32)
    wall[where] = np.where(surface.share > 0.5, surface.depth * radius, -np.inf)
    up = axis * (1, -1, 1)
    start = (x, y, 0) + up * (0.95 * radius * float(shape.radius(np.ones(1))[0]))
    way = up * radius * (pick(rng, 0.45, 0.8) if is_apple else pick(rng, 0.08, 0.25))
    if has_leaf:
        _paint_leaf(canvas, rng, start + way * (0.4 * is_apple), radius * pick(rng, 0.75, 1.25), light)
    if has_stem:
        _paint_stem(canvas, rng, start, way, radius * pick(rng, 0.03, 0.045), light, wall)


def _paint_stem(canvas: Canvas, rng: Rng, start: Floats, way: Floats, radius: float, light: _Light, wall: Floats) -> None:
    """A bent round twig where it is nearer to the viewer than the wall, the depth of the body."""
    t = np.linspace(0, 1, 28, dtype=np.float32)
    bend = _vector(pick(rng, -0.5, 0.5), pick(rng, -0.15, 0.2), 0) * np.sqrt((way * way).sum())
    points, ways, thick = (
        start + np.outer(t, way) + np.outer(t * t, bend),
        way + 2 * np.outer(t, bend),
        radius * (0.85 + 0.5 * t),
    )
    middle, reach = (points[0] + points[-1]) / 2, np.abs(way).max() + 2 * radius
    where, right, down = canvas.window(middle[0], middle[1], reach, reach)
    aside = (
        np.stack(np.broadcast_arrays(right[..., None], down[..., None]), axis=-1) + (middle - points)[:, :2]
    )  # [h, w, 28, 2]
    nearest = (np.square(aside).sum(axis=-1) / thick**2).argmin(axis=-1)
    aside = np.take_along_axis(aside, nearest[..., None, None], axis=2)[:, :, 0] / thick[nearest][..., None]
    share = np.clip((1 - np.sqrt(np.square(aside).sum(axis=-1))) * thick[nearest] * canvas.side + 0.5, 0, 1)
    share = share * ramp(points[nearest, 2] - wall[where], -2.5 / canvas.side, 0.5 / canvas.side)
    # A twig's normals stand across it: what lies along it is taken away.
    along = (ways / np.sqrt(np.square(ways).sum(axis=-1, keepdims=True)))[nearest, :2]
    aside = (aside - (aside * along).sum(axis=-1, keepdims=True) * along) * (1, -1)
    front = np.sqrt(np.clip(1 - np.square(aside).sum(axis=-1, keepdims=True), 0.05, 1))
    wood = blend(colour("#5a4024"), colour("#7d7a3a"), rng.random())
    canvas.cover(where, _shaded(np.concatenate([aside, front], axis=-1), wood, np.ones_like(share), 0.3, 0.8, light), share)


def _paint_leaf(canvas: Canvas, rng: Rng, start: Floats, length: float, light: _Light) -> None:
    """A leaf from its stalk on, to the left or right, with veins and a shadow below."""
    width, bend, angle = pick(rng, 0.22, 0.34), pick(rng, -0.35, 0.35), pick(rng, -0.2, 1.1)
    way = _vector(np.cos(angle) * rng.choice([-1, 1]), np.sin(angle))
    up = _vector(-way[1], way[0])
    for drop in (0.075 * length, 0.0):  # the shadow, then the leaf
        x, y = start[0] - drop * light.direction[0], start[1] + drop * (0.25 + light.direction[1])
        where, right, down = canvas.window(x, y, length * 1.15, length * 1.15)
        along = (right * way[0] - down * way[1]) / length
        off = (right * up[0] - down * up[1]) / length - bend * along * (1 - along)
        inside = np.clip(along, 0, 1)
        half = width * 2.1 * np.sqrt(inside) * (1 - inside) ** 0.75 * (1 + 0.03 * np.sin(40 * inside))
        room = (half - np.abs(off)) * length
        if drop:
            canvas.light[where] *= 1 - 0.45 * ((along > 0) * np.clip(room / (0.06 * length) + 0.3, 0, 1))[..., None]
            continue
        vein = np.clip(1 - np.abs(off) / (0.018 * (1.2 - inside)), 0, 1)
        ribs = np.sin((along - 0.275 * np.abs(off) / width) * 42)
        tilt = np.where(off > 0, 0.35, -0.35) + 0.25 * off / np.maximum(half, 1e-3) + 0.10 * ribs
        normal = _unit(np.concatenate([tilt[..., None] * up + _vector(0, 0.2), np.full((*tilt.shape, 1), 0.9)], axis=-1))
        green = blend(colour("#2f5a1c"), colour("#6d9a2e"), rng.random())
        albedo = green * (1 + 0.12 * ribs)[..., None] + 0.5 * vein[..., None] * colour("#9fb566")
        painted = _shaded(normal, albedo, np.ones_like(tilt), 0.5, 0.9, light)
        canvas.cover(where, painted, np.clip(room * canvas.side + 0.5, 0, 1) * (along > 0))
