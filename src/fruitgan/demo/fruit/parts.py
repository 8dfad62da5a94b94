"""Stems and leaves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fruitgan.demo.fruit.light import Light, shaded
from fruitgan.demo.fruit.paint import Canvas, Colour, Floats, Rng, blend, colour, pick, ramp


@dataclass(frozen=True)
class Curve:
    """A bent line with depth: points [n, 3] in canvas units (x right, y down, z towards the viewer), radii [n]."""

    points: Floats
    radii: Floats


def bent(start: Floats, way: Floats, bend: Floats, length: float, radii: tuple[float, float]) -> Curve:
    """From `start` along the unit vector `way`, leaving it by `bend` towards the end."""
    t = np.linspace(0, 1, 9, dtype=np.float32)[:, None]
    points = start + way * (length * t) + bend * (length * t * t)
    return Curve(points.astype(np.float32), blend(radii[0], radii[1], t[:, 0]).astype(np.float32))


def paint_stem(
    canvas: Canvas, curve: Curve, base: Colour, light: Light, hidden: tuple[tuple[slice, slice], Floats] | None
) -> None:
    """A round twig along the curve. `hidden` is a window with the depth [h, w] in front of which the stem must be."""
    low, high = curve.points.min(axis=0), curve.points.max(axis=0)
    middle, reach = (low + high) / 2, (high - low) / 2 + curve.radii.max() * 1.5
    where = canvas.window(float(middle[0]), float(middle[1]), float(reach[0]), float(reach[1]))
    x, y = canvas.x[:, where[1]], canvas.y[where[0]]
    if x.size == 0 or y.size == 0:
        return
    best = np.full((y.size, x.size), np.inf, dtype=np.float32)
    side = np.zeros_like(best)
    depth = np.zeros_like(best)
    across = np.zeros((*best.shape, 2), dtype=np.float32)
    for first, second, r0, r1 in zip(curve.points, curve.points[1:], curve.radii, curve.radii[1:], strict=False):
        sx, sy, sz = second - first
        span = max(float(sx * sx + sy * sy), 1e-12)
        t = np.clip(((x - first[0]) * sx + (y - first[1]) * sy) / span, 0, 1)
        gap_x, gap_y = x - first[0] - t * sx, y - first[1] - t * sy
        radius = r0 + t * (r1 - r0)
        relative = np.sqrt(gap_x * gap_x + gap_y * gap_y) / radius
        nearer = relative < best
        best = np.where(nearer, relative, best)
        side = np.where(nearer, radius, side)
        depth = np.where(nearer, first[2] + t * sz, depth)
        across[nearer] = np.stack([gap_x / radius, gap_y / radius], axis=-1)[nearer]
    share = np.clip((1 - best) * side * canvas.side + 0.5, 0, 1)
    if hidden is not None:
        share = share * _before(canvas, where, depth, hidden)
    nz = np.sqrt(np.clip(1 - best * best, 0.05, 1))
    ones = np.ones_like(best)
    grain = 1 + 0.15 * np.sin(best * 9 + depth * 300)
    albedo = base * grain[..., None]
    canvas.cover(where, shaded((across[..., 0], -across[..., 1], nz), albedo, ones, 0.3, 0.8, light), share)


def _before(canvas: Canvas, where: tuple[slice, slice], depth: Floats, hidden: tuple[tuple[slice, slice], Floats]) -> Floats:
    """1 where `depth` lies before the hiding surface, 0 behind it."""
    wall = np.full((canvas.side, canvas.side), -np.inf, dtype=np.float32)
    wall[hidden[0]] = hidden[1]
    return ramp(depth - wall[where], -2.5 / canvas.side, 0.5 / canvas.side)


def paint_leaf(canvas: Canvas, rng: Rng, x: float, y: float, angle: float, length: float, light: Light) -> None:
    """A leaf from its stalk at (x, y) towards `angle` (counterclockwise from the right), with veins and a shadow below."""
    width = length * pick(rng, 0.22, 0.34)
    bend = pick(rng, -0.35, 0.35)
    lean = pick(rng, -0.5, 0.5)
    green = blend(colour("#2f5a1c"), colour("#6d9a2e"), rng.random())
    phase = pick(rng, 0, 6)
    drop = light.direction * (0.05 * length)
    for shadow in (True, False):
        px = x - (float(drop[0]) * 1.5 if shadow else 0.0)
        py = y + (float(drop[1]) * 1.5 + 0.02 * length if shadow else 0.0)
        where = canvas.window(px, py, length * 1.15, length * 1.15)
        gx, gy = canvas.x[:, where[1]] - px, -(canvas.y[where[0]] - py)
        if gx.size == 0 or gy.size == 0:
            return
        cosine, sine = float(np.cos(angle)), float(np.sin(angle))
        s = ((gx * cosine + gy * sine) / length).astype(np.float32)
        off = ((gy * cosine - gx * sine) / length).astype(np.float32) - bend * s * (1 - s)
        inside = np.clip(s, 0, 1)
        half = (width / length) * 2.1 * np.sqrt(inside) * (1 - inside) ** 0.75 * (1 + 0.03 * np.sin(40 * inside))
        room = (half - np.abs(off)) * length * canvas.side
        if shadow:
            share = np.clip(room / (0.06 * length * canvas.side) + 0.3, 0, 1) * ((s > 0) & (s < 1))
            canvas.darken(where, 0.45 * share.astype(np.float32), np.zeros(3, dtype=np.float32))
            continue
        share = np.clip(room + 0.5, 0, 1) * ((s > 0) & (s < 1))
        across = off / np.maximum(half, 1e-3)
        vein = np.clip(1 - np.abs(off) / (0.018 * (1.2 - inside)), 0, 1)
        ribs = np.sin((s - 0.55 * np.abs(off) / max(width / length, 1e-3) * 0.5) * 42 + phase)
        fold = np.where(off > 0, 0.35, -0.35)
        up_x, up_y = -sine, cosine
        tilt = fold + 0.25 * across + 0.10 * ribs
        nx = (tilt * up_x + lean * cosine * (inside - 0.5)).astype(np.float32)
        ny = (tilt * up_y + lean * sine * (inside - 0.5) + 0.2).astype(np.float32)
        scale = 1 / np.sqrt(nx * nx + ny * ny + 0.8)
        albedo = green * (1 + 0.12 * ribs)[..., None] + vein[..., None] * colour("#9fb566") * 0.5
        normal = (nx * scale, ny * scale, np.sqrt(np.float32(0.8)) * scale)
        light_of = shaded(normal, albedo.astype(np.float32), np.ones_like(nx), 0.5, 0.9, light)
        canvas.cover(where, light_of, share.astype(np.float32))
