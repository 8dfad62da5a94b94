"""The shape of a fruit: a star-shaped solid of revolution, seen from the front, with its depth and normals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fruitgan.demo.fruit.paint import Floats

FIRST_STEPS, LATE_STEPS = 9, 24


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The distance of the surface from the centre, by the cosine c of the angle from the axis (1 at the stem)."""

    hollow_depth: float
    """How far the surface sinks at the stem; the radius is about 1."""
    hollow_width: float
    base_depth: float
    base_width: float
    taper: float
    """How much wider the half with the stem is."""
    stretch: float
    """How much longer than wide; negative is flat."""
    lobes: float
    """How far five ridges stand out around the base."""

    def radius(self, c: Floats) -> Floats:
        hollow = self.hollow_depth * np.exp((c - 1) / self.hollow_width)
        base = self.base_depth * np.exp((-c - 1) / self.base_width)
        radius: Floats = 1 - hollow - base + c * (1 - c * c) * self.taper + c * c * self.stretch
        return radius

    def slope(self, c: Floats) -> Floats:
        """The derivative of `radius` by c."""
        hollow = self.hollow_depth / self.hollow_width * np.exp((c - 1) / self.hollow_width)
        base = self.base_depth / self.base_width * np.exp((-c - 1) / self.base_width)
        slope: Floats = base - hollow + (1 - 3 * c * c) * self.taper + c * (2 * self.stretch)
        return slope

    @property
    def reach(self) -> float:
        """A radius that encloses the whole body."""
        return float(self.radius(np.linspace(-1, 1, 201, dtype=np.float32)).max()) + 0.01


@dataclass(frozen=True)
class Surface:
    """What is seen of a body in a window of h x w samples; the arrays are [h, w], the directions three of them."""

    share: Floats
    """How much of the sample the body covers."""
    depth: Floats
    """z of the surface, in radii."""
    direction: tuple[Floats, Floats, Floats]
    """From the centre to the surface, unit length."""
    normal: tuple[Floats, Floats, Floats]
    c: Floats
    """The cosine of the angle from the axis."""
    turn: Floats
    """The angle around the axis."""


def seen(profile: Profile, axis: Floats, x: Floats, y: Floats, sample: float) -> Surface:
    """Look at the body from the front: x is [1, w] and y [h, 1], in radii, y up; `sample` is their spacing.

    Each line of sight steps towards the surface by its distance, which cannot overshoot much on so round a body.
    """
    aside = x * x + y * y
    z = np.sqrt(np.maximum(profile.reach**2 - aside, 0)).astype(np.float32)
    along_plane = x * axis[0] + y * axis[1]
    z, nearest, gap = _marched(profile, axis, aside, along_plane, z, FIRST_STEPS)
    # Lines that graze the body, or look over its rim into the hollow, take longer; they are few.
    late = (gap > 0.2 * sample) & (aside < profile.reach**2)
    z[late], nearest[late], _ = _marched(profile, axis, aside[late], along_plane[late], z[late], LATE_STEPS)
    distance = np.sqrt(aside + z * z)
    dx, dy, dz = x / distance, y / distance, z / distance
    c = np.clip(dx * axis[0] + dy * axis[1] + dz * axis[2], -1, 1)
    # A line that meets the body comes to rest at its surface, at a distance of nearly 0.
    share = np.clip(1.25 - 1.5 * nearest / sample, 0, 1)
    turn = _turn(axis, dx, dy, dz)
    return Surface(share, z, (dx, dy, dz), _normal(profile, axis, (dx, dy, dz), c, distance, turn), c, turn)


def _marched(
    profile: Profile, axis: Floats, aside: Floats, along_plane: Floats, z: Floats, steps: int
) -> tuple[Floats, Floats, Floats]:
    """The depths of closest approach, the gaps there and the last gaps after so many steps along the lines of sight.

    A line that misses the body runs on behind it; what it shows of the body is where it came closest.
    """
    closest, nearest = z, np.full(aside.shape, np.inf, dtype=np.float32)
    for _ in range(steps):
        distance = np.sqrt(aside + z * z)
        gap = distance - profile.radius((along_plane + z * axis[2]) / distance)
        closest = np.where(gap < nearest, z, closest)
        nearest = np.minimum(nearest, gap)
        z = z - gap * 0.9
    return closest, nearest, gap


def frame(axis: Floats) -> tuple[Floats, Floats]:
    """Two unit vectors across the axis and each other."""
    helper = np.array((0, 0, 1) if abs(axis[2]) < 0.8 else (0, 1, 0), dtype=np.float32)
    first = np.cross(axis, helper).astype(np.float32)
    first /= np.sqrt((first * first).sum())
    return first, np.cross(axis, first).astype(np.float32)


def _turn(axis: Floats, dx: Floats, dy: Floats, dz: Floats) -> Floats:
    first, second = frame(axis)
    across = dx * first[0] + dy * first[1] + dz * first[2]
    up = dx * second[0] + dy * second[1] + dz * second[2]
    turn: Floats = np.arctan2(up, across)
    return turn


def _normal(
    profile: Profile, axis: Floats, d: tuple[Floats, Floats, Floats], c: Floats, distance: Floats, turn: Floats
) -> tuple[Floats, Floats, Floats]:
    """The gradient of |p| - radius(c), with the lobes as a tilt around the axis, scaled to length 1."""
    slope = profile.slope(c) / distance
    parts = [d[i] - slope * (axis[i] - c * d[i]) for i in range(3)]
    if profile.lobes:
        first, second = frame(axis)
        # The ridges fade out towards the stem's half.
        tilt = 5 * profile.lobes * np.clip(0.3 - c, 0, 1) * np.sin(5 * turn)
        sine, cosine = np.sin(turn), np.cos(turn)
        parts = [part + tilt * (second[i] * cosine - first[i] * sine) for i, part in enumerate(parts)]
    scale = 1 / np.sqrt(parts[0] ** 2 + parts[1] ** 2 + parts[2] ** 2)
    return parts[0] * scale, parts[1] * scale, parts[2] * scale
