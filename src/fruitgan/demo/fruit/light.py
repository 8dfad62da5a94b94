"""One large lamp, a sky and what the ground throws back; how a skin answers them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fruitgan.demo.fruit.body import frame
from fruitgan.demo.fruit.paint import Colour, Floats, Rng, pick, unit

Normal = tuple[Floats, Floats, Floats]


@dataclass(frozen=True)
class Light:
    """What lights a scene; the colours are linear light."""

    direction: Floats
    """[3], towards the lamp."""
    key: Colour
    sky: Colour
    bounce: Colour
    softness: float
    """How far the light reaches round a body, 0 to about 0.5."""
    window: tuple[float, float]
    """Half the size of the lamp's mirror image, as the sine of an angle, across and along."""
    edge: float
    """How sharply the mirror image ends."""


def drawn_light(rng: Rng, bounce: Colour) -> Light:
    """A lamp somewhere above and before the scene, warm or cool."""
    around = pick(rng, 0.15, 0.85) * np.pi
    height = pick(rng, 0.5, 0.95)
    direction = unit((float(np.cos(around)) * height, 0.25 + float(np.sin(around)) * height, pick(rng, 0.45, 0.95)))
    warmth = pick(rng, -0.08, 0.14)
    strength = pick(rng, 0.8, 1.15)
    key = np.array((1 + warmth, 1, 1 - warmth), dtype=np.float32) * strength
    sky = np.array((1 - warmth, 1, 1 + 1.5 * warmth), dtype=np.float32) * pick(rng, 0.16, 0.34)
    window = (pick(rng, 0.16, 0.34), pick(rng, 0.16, 0.34))
    return Light(direction, key, sky, bounce * 0.3, pick(rng, 0.1, 0.4), window, pick(rng, 2, 9))


def shaded(normal: Normal, albedo: Floats, openness: Floats, gloss: float, roughness: float, light: Light) -> Floats:
    """Linear light [h, w, 3] of a skin: `albedo` [h, w, 3], `openness` [h, w] is 1 where nothing near shuts light out.

    `gloss` is the strength of the mirror image of lamp and sky, `roughness` blurs it.
    """
    nx, ny, nz = normal
    lx, ly, lz = (float(part) for part in light.direction)
    facing = nx * lx + ny * ly + nz * lz
    lit = np.clip((facing + light.softness) / (1 + light.softness), 0, 1) * (0.35 + 0.65 * openness)
    above = (0.5 + 0.5 * ny) * openness
    below = (0.5 - 0.5 * ny) * openness
    received = lit[..., None] * light.key + above[..., None] * light.sky + below[..., None] * light.bounce
    result: Floats = albedo * received
    result += (gloss * _mirrored(normal, light, roughness) * openness)[..., None] * light.key
    return result


def _mirrored(normal: Normal, light: Light, roughness: float) -> Floats:
    """What the skin mirrors towards the viewer: the lamp as a soft rectangle with a glow, and the sky at grazing angles."""
    nx, ny, nz = normal
    ahead = np.maximum(nz, 0)
    rx, ry, rz = 2 * nz * nx, 2 * nz * ny, 2 * nz * nz - 1
    grazing = 0.04 + 0.4 * (1 - ahead) ** 4
    lx, ly, lz = (float(part) for part in light.direction)
    facing = rx * lx + ry * ly + rz * lz
    across, along = frame(light.direction)
    edge = light.edge / (1 + 8 * roughness)
    width, height = (side * (1 + roughness) for side in light.window)
    a = np.abs(rx * across[0] + ry * across[1] + rz * across[2]) / width
    b = np.abs(rx * along[0] + ry * along[1] + rz * along[2]) / height
    lamp = np.clip((1 - a) * edge + 0.5, 0, 1) * np.clip((1 - b) * edge + 0.5, 0, 1) * (facing > 0)
    glow = np.clip(facing, 0, 1) ** (6 + 24 * (1 - roughness))
    sky = np.clip(0.3 + 0.7 * ry, 0, 1) * float(light.sky.mean())
    mirrored: Floats = grazing * (lamp * (9 - 6 * roughness) + glow * 2.2 + sky * 1.5)
    return mirrored
