"""A picture too large for the memory, through a torch generator in tiles that share their statistics.

Instance norm looks at a whole picture: tiles with statistics of their own would differ in colour along their edges. Here every
norm uses the moments of the picture as a whole. They are found one norm after another, each by a pass over the tiles that goes
as far as that norm, since its input depends on all before it: exact, in bounded memory, for about half as many passes as there
are norms.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fruitgan.engines.contracts import Images
from fruitgan.networks.layers import InstanceNorm

Norm = InstanceNorm | nn.InstanceNorm2d


@dataclass(frozen=True)
class Tile:
    """A part of a picture along one axis: seen from `start` to `stop`, of which `keep_from` to `keep_to` is its own."""

    start: int
    stop: int
    keep_from: int
    keep_to: int


def cut(side_px: int, tile_px: int, halo_px: int) -> list[Tile]:
    """Tiles of at most `tile_px` that see `halo_px` more on each side where the picture goes on; their own parts cover it once.

    All of `side_px`, `tile_px` and `halo_px` are multiples of the generator's; so are all borders.
    """
    if side_px <= tile_px + 2 * halo_px:
        return [Tile(0, side_px, 0, side_px)]
    borders = [*range(0, side_px - halo_px, tile_px), side_px]
    return [Tile(max(0, a - halo_px), min(side_px, b + halo_px), a, b) for a, b in itertools.pairwise(borders)]


class _Moments:
    """Sums over positions of each channel of one norm's input, [C] in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.total: Tensor | float = 0.0
        self.squares: Tensor | float = 0.0

    def add(self, x: Tensor) -> None:
        self.count += x[0, 0].numel()
        # Channel by channel: in float64 all of them would take more memory than the network.
        sums = torch.stack([torch.stack([own.sum(), own.square().sum()]) for own in (channel.double() for channel in x[0])])
        self.total = self.total + sums[:, 0]
        self.squares = self.squares + sums[:, 1]

    def mean_and_variance(self) -> tuple[Tensor, Tensor]:
        mean = torch.as_tensor(self.total) / self.count
        return mean, (torch.as_tensor(self.squares) / self.count - mean.square()).clamp(min=0)


class _FarEnough(Exception):
    """The norm whose moments are wanted was reached; what comes after it is not needed."""


class SharedNorms:
    """While it is entered, a network's instance norms use the moments found so far, and the first without any gathers its own.

    Calls are told apart by their order, so that a norm may be called several times.
    """

    def __init__(self, network: nn.Module) -> None:
        self.norms = [module for module in network.modules() if isinstance(module, (InstanceNorm, nn.InstanceNorm2d))]
        self._found: list[tuple[Tensor, Tensor]] = []
        self._gathering: _Moments | None = None
        self._call = 0
        self._tile: tuple[Tile, Tile] | None = None

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        for norm in self.norms:
            norm.forward = functools.partial(self._normalised, norm)  # type: ignore[method-assign]
        try:
            yield
        finally:
            for norm in self.norms:
                del norm.forward

    def begin_tile(self, rows: Tile, columns: Tile) -> None:
        self._call = 0
        self._tile = rows, columns

    def find_next(self) -> bool:
        """Take over what the pass before gathered; whether there was a norm left that gathered."""
        if self._gathering is None:
            return False
        self._found.append(self._gathering.mean_and_variance())
        self._gathering = None
        return True

    def _normalised(self, norm: Norm, x: Tensor) -> Tensor:
        call, self._call = self._call, self._call + 1
        if call == len(self._found):
            self._gathering = self._gathering or _Moments()
            rows, columns = self._own_part(x)
            self._gathering.add(x[..., rows, columns])
            raise _FarEnough
        mean, variance = (moment.to(x.dtype).view(-1, 1, 1) for moment in self._found[call])
        out = (x - mean) * torch.rsqrt(variance + norm.eps)
        if norm.weight is None or norm.bias is None:
            return out
        return out * norm.weight.view(-1, 1, 1) + norm.bias.view(-1, 1, 1)

    def _own_part(self, x: Tensor) -> list[slice]:
        """Where in the map [N, C, h, w] of a tile its own part lies, which no other tile counts."""
        assert self._tile is not None
        parts = []
        for tile, side in zip(self._tile, x.shape[-2:], strict=True):
            seen = tile.stop - tile.start
            parts.append(slice((tile.keep_from - tile.start) * side // seen, (tile.keep_to - tile.start) * side // seen))
        return parts


@torch.inference_mode()
def in_tiles(network: nn.Module, run: Callable[[Images], Images], image: Images, *, tile_px: int, halo_px: int) -> Images:
    """uint8 [1, H, W, 3] to the same shape by `run`, which puts a part of the picture through the network.

    Memory is that of a part of `tile_px` and twice `halo_px`; a halo as wide as the network sees leaves no seam. All of H, W,
    `tile_px` and `halo_px` are multiples of what the network halves its maps to.
    """
    rows, columns = (cut(side, tile_px, halo_px) for side in image.shape[1:3])
    if len(rows) == len(columns) == 1:
        return run(image)
    tiles = list(itertools.product(rows, columns))
    norms = SharedNorms(network)

    def part(row: Tile, column: Tile) -> Images:
        norms.begin_tile(row, column)
        return run(np.ascontiguousarray(image[:, row.start : row.stop, column.start : column.stop]))

    with norms.entered():
        while True:
            result = np.empty_like(image)
            for row, column in tiles:
                with contextlib.suppress(_FarEnough):
                    own = (
                        slice(row.keep_from - row.start, row.keep_to - row.start),
                        slice(column.keep_from - column.start, column.keep_to - column.start),
                    )
                    result[:, row.keep_from : row.keep_to, column.keep_from : column.keep_to] = part(row, column)[:, *own]
            if not norms.find_next():
                return result
