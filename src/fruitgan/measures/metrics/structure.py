"""Metrics of pairs of source and translation: whether the structure stays, and whether the background is left alone."""

from __future__ import annotations

import functools

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fruitgan.images import Pixels, resize
from fruitgan.measures.contracts import PairMetric, squashing
from fruitgan.measures.features.fruit_embed import SIZE_PX, FruitEmbed
from fruitgan.measures.features.weightless import lab_of_srgb

Plane = NDArray[np.float64]

GRID_PX = 64
LIGHTEST_STEP = 2.0
"""Lab units between neighbours that cost nothing: grain and soft shading, which would add up over a long way."""
LEAST_BACKGROUND = 0.05
"""Of the picture; with less of it there is no background to speak of."""


class Structure(PairMetric):
    """Change of the self-similarity of 16 x 16 places on fruit-embed's maps (Tumanyan et al. 2022, equation 4); 0 to 4, 0 is
    none.
    """

    name = "structure"
    features = "fruit-embed maps"
    resize = f"{squashing(SIZE_PX)}, 16 x 16 places"

    @functools.cached_property
    def _features(self) -> FruitEmbed:
        return FruitEmbed()

    def of_pair(self, source: Pixels, fake: Pixels) -> float:
        squashed = np.stack([self._features.prepare(pixels) for pixels in (source, fake)])
        with torch.inference_mode():
            maps = self._features.network(torch.from_numpy(squashed).permute(0, 3, 1, 2).contiguous().float() / 255)[1]
        return structure_distance(*maps.cpu().double())


def structure_distance(source: Tensor, fake: Tensor) -> float:
    """Mean squared difference of the cosine self-similarities of two maps [C, h, w] (Tumanyan et al. 2022, equations 2 and
    4).
    """
    similar = [torch.nn.functional.normalize(x.flatten(1), dim=0) for x in (source, fake)]
    return float((similar[0].T @ similar[0] - similar[1].T @ similar[1]).square().mean())


class Background(PairMetric):
    """Mean colour change outside the object (CIE76, Lab units; the object by Wei et al. 2012, equation 1); 0 is untouched."""

    name = "background"
    features = "Lab colours outside the object"
    resize = squashing(GRID_PX)

    def of_pair(self, source: Pixels, fake: Pixels) -> float:
        before, after = _lab(source), _lab(fake)
        outside = background(before)
        if outside.mean() < LEAST_BACKGROUND:
            return float("nan")
        return float(np.linalg.norm(after - before, axis=-1)[outside].mean())


def _lab(pixels: Pixels) -> Plane:
    """[GRID_PX, GRID_PX, 3]."""
    small = torch.from_numpy(resize(pixels, GRID_PX, GRID_PX, Image.Resampling.LANCZOS)).permute(2, 0, 1)[None]
    lab: Plane = lab_of_srgb(small.double() / 255)[0].permute(1, 2, 0).numpy()
    return lab


def background(lab: Plane) -> NDArray[np.bool_]:
    """[H, W]: what can be reached from the picture's border without crossing much contrast.

    The way of least contrast from the border to each pixel (geodesic saliency: Wei et al. 2012, equation 1), small steps free;
    pixels nearer than Otsu's threshold (1979) are background.
    """
    ways = border_distances(lab)
    return ways <= otsu(ways)


def border_distances(lab: Plane) -> Plane:
    """[H, W]: the least sum of colour steps, each less what is free, on a way from outside the picture."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import dijkstra

    height, width = lab.shape[:2]
    number = np.arange(height * width).reshape(height, width)
    starts, ends, costs = [], [], []
    for here, there in ((number[1:], number[:-1]), (number[:, 1:], number[:, :-1])):
        step = np.linalg.norm(lab.reshape(-1, 3)[here] - lab.reshape(-1, 3)[there], axis=-1)
        starts.append(here.ravel())
        ends.append(there.ravel())
        costs.append(np.maximum(step - LIGHTEST_STEP, 0).ravel() + 1e-9)  # a sparse matrix has no edges of length 0
    border = np.unique(np.concatenate([number[0], number[-1], number[:, 0], number[:, -1]]))
    graph = coo_array((np.concatenate(costs), (np.concatenate(starts), np.concatenate(ends))), shape=(number.size,) * 2)
    ways: Plane = dijkstra(graph.tocsr(), directed=False, indices=border, min_only=True)
    return ways.reshape(height, width)


def otsu(values: Plane, bins: int = 128) -> float:
    """The threshold between two classes whose variance between them is greatest (Otsu 1979, equation 14)."""
    counts, edges = np.histogram(values, bins)
    share = np.cumsum(counts) / counts.sum()
    centres = (edges[:-1] + edges[1:]) / 2
    partial = np.cumsum(counts * centres) / counts.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (partial[-1] * share - partial) ** 2 / (share * (1 - share))
    return float(edges[1:][np.nanargmax(between[:-1])]) if counts.max() < counts.sum() else float(edges[-1])
