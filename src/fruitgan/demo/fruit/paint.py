"""The canvas and the little mathematics that all of the drawing shares.

Positions on the canvas are in [0, 1], x to the right and y down, whatever its size in pixels; colours are linear light.
Directions have x to the right, y up and z towards the viewer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
"""float32 in fact; numpy's types widen at every mixed operation, its arrays do not."""
Rng = np.random.Generator
Colour = Floats
"""[3], linear light, 1 is white."""


def colour(text: str) -> Colour:
    """`#rrggbb` to linear light."""
    values = np.array([int(text[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return (values**2.2).astype(np.float32)


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


def unit(vector: tuple[float, float, float]) -> Floats:
    array = np.array(vector, dtype=np.float32)
    scaled: Floats = array / np.sqrt((array * array).sum())
    return scaled


class Canvas:
    """A square of linear light, `side` samples wide."""

    def __init__(self, side: int) -> None:
        self.side = side
        self.light: Floats = np.zeros((side, side, 3), dtype=np.float32)
        centres = (np.arange(side, dtype=np.float32) + 0.5) / side
        self.x = centres[None, :]
        self.y = centres[:, None]

    def window(self, x: float, y: float, reach_x: float, reach_y: float) -> tuple[slice, slice]:
        """The rows and columns within reach of a point; may be empty."""
        rows = slice(*(int(np.clip(np.floor((y + sign * reach_y) * self.side), 0, self.side)) for sign in (-1, 1)))
        columns = slice(*(int(np.clip(np.floor((x + sign * reach_x) * self.side), 0, self.side)) for sign in (-1, 1)))
        return rows, columns

    def cover(self, where: tuple[slice, slice], light: Any, share: Floats) -> None:
        """Lay colour over a window: `share` is [h, w] in [0, 1]."""
        part = self.light[where]
        part += (light - part) * share[..., None]

    def darken(self, where: tuple[slice, slice], share: Floats, tint: Colour) -> None:
        """Multiply a window by 1 - share, a little less in the colours of the tint."""
        self.light[where] *= 1 - share[..., None] * (1 - tint)


def field(rng: Rng, rows: int, columns: int, height: int, width: int) -> Floats:
    """Smooth noise [height, width] in [-1, 1] with so many bumps down and across, the same at every resolution."""
    grid = rng.uniform(-1, 1, (rows + 1, columns + 1)).astype(np.float32)
    return _stretch(rows + 1, height) @ grid @ _stretch(columns + 1, width).T


def _stretch(knots: int, samples: int) -> Floats:
    """[samples, knots]: smooth interpolation between evenly spread knots."""
    places = (np.arange(samples) + 0.5) / samples * (knots - 1)
    left = np.minimum(places.astype(np.int64), knots - 2)
    share = places - left
    share = share * share * (3 - 2 * share)
    weights = np.zeros((samples, knots), dtype=np.float32)
    weights[np.arange(samples), left] = 1 - share
    weights[np.arange(samples), left + 1] = share
    return weights
