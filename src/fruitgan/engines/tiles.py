"""A picture too large for the memory, through a torch generator in tiles that give what the whole picture would.

How much memory a generator takes for a pixel, and how far it sees, is read off one run on torch's meta device, where tensors
have shapes and no numbers. Instance norm looks at a whole picture: tiles with statistics of their own would differ in colour
along their edges. So every norm uses the moments of the whole picture. They are found one norm after another, each by a pass
over the tiles that goes as far as that norm, since its input depends on all before it: exact, in bounded memory, for as many
passes as there are norms, which together are the work of about half as many whole ones.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fruitgan.device import LivingTensors
from fruitgan.engines.contracts import Images
from fruitgan.networks.contracts import Generator
from fruitgan.networks.layers import InstanceNorm

Norm = InstanceNorm | nn.InstanceNorm2d
# fmt: off
LOCAL = frozenset((
    "_to_copy", "_unsafe_view", "add", "add_", "atanh", "avg_pool2d", "cat", "clamp", "clone", "convolution", "copy_",
    "detach", "div", "empty_like", "expand", "leaky_relu", "lerp", "mul", "mul_", "native_group_norm", "permute",
    "pixel_shuffle", "pixel_unshuffle", "promote_types", "reflection_pad2d", "relu", "relu_", "rsqrt", "sigmoid", "slice",
    "sub", "t", "tanh", "transpose", "unsqueeze", "upsample_bilinear2d", "view", "zeros_like",
))
# fmt: on
"""Operations whose every output hangs on its neighbourhood alone, or, as a norm's, on moments that tiles can share."""
ROOM = 1.5
"""Times what the tensors take: kernels need space of their own, and freed blocks are not always the right ones."""
AROUND_BYTES = 72
"""A pixel outside the network: three floats, read, scaled and shifted, on the way in and out."""


@dataclass(frozen=True)
class Reach:
    """What a network needs for a picture."""

    bytes_per_pixel: float
    halo_px: int
    """Nothing further away than this changes a pixel, the moments of the norms aside."""
    is_local: bool
    """Whether that is sure: every operation is known to look at a neighbourhood."""

    def bytes(self, height_px: int, width_px: int) -> int:
        """An estimate, meant to be too high rather than too low."""
        return round(self.bytes_per_pixel * height_px * width_px)


class _Tracing(LivingTensors):  # type: ignore[no-untyped-call, unused-ignore]
    """Adds up how far the operations look; `side_px` is the width of the picture."""

    def __init__(self, side_px: int) -> None:
        super().__init__()
        self.side_px = side_px
        self.reach = 0.0
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = super().__torch_dispatch__(func, types, args, kwargs)
        name = func.overloadpacket.__name__
        self.seen.add(name)
        if name == "convolution":
            weight, stride, dilation, transposed = args[1], args[3], args[5], args[6]
            # A kernel's steps are those of the finer of its two maps, whose own size may be padded.
            cells = out.shape[-1] * (1 if transposed else stride[-1])
            self.reach += weight.shape[-1] // 2 * dilation[-1] * self.side_px / cells
        elif name == "avg_pool2d":
            self.reach += max(args[1]) // 2 * self.side_px / out.shape[-1]
        elif name == "upsample_bilinear2d":
            self.reach += self.side_px / args[0].shape[-1]
        return out


@torch.no_grad()  # not inference mode, in which operations arrive undivided
def reach_of(network: Generator) -> Reach:
    """Runs the network at a small size without numbers; what it takes grows with the pixels."""
    multiple = network.size_rule.multiple_of_px
    side = network.size_rule.padded(max(64, 2 * multiple))
    sketch = copy.deepcopy(network).to("meta")
    picture = torch.empty((1, 3, side, side), device="meta")
    with _Tracing(side) as traced:
        sketch(picture)
    halo = -(-int(traced.reach + 1) // multiple) * multiple + multiple
    return Reach(
        bytes_per_pixel=ROOM * (traced.peak_bytes / side**2 + AROUND_BYTES), halo_px=halo, is_local=traced.seen <= LOCAL
    )


def tile_px(reach: Reach, room_bytes: int, multiple_px: int) -> int | None:
    """The side of the largest tiles that fit into so much memory with what they see around; None if there are none."""
    seen = math.isqrt(int(room_bytes / reach.bytes_per_pixel))
    side = (seen - 2 * reach.halo_px) // multiple_px * multiple_px
    return side if reach.is_local and side > 0 else None


@dataclass(frozen=True)
class Tile:
    """A part of a picture along one axis: the places that it sees, and those of them that are its own."""

    seen: slice
    kept: slice

    def own(self, side: int) -> slice:
        """Where its own part, which no other tile has, lies in a map of what it sees with this side."""
        begin, width = self.seen.start, self.seen.stop - self.seen.start
        return slice((self.kept.start - begin) * side // width, (self.kept.stop - begin) * side // width)


def cut(side_px: int, tile_px: int, halo_px: int) -> list[Tile]:
    """Tiles of at most `tile_px` that see `halo_px` more on each side where the picture goes on; their own parts cover it once.

    All of `side_px`, `tile_px` and `halo_px` are multiples of the generator's; so are all borders.
    """
    if side_px <= tile_px + 2 * halo_px:
        return [Tile(slice(0, side_px), slice(0, side_px))]
    borders = [*range(0, side_px - halo_px, tile_px), side_px]
    return [Tile(slice(max(0, a - halo_px), min(side_px, b + halo_px)), slice(a, b)) for a, b in itertools.pairwise(borders)]


def in_float64(x: Tensor) -> Tensor:
    """The same numbers in float64; an Apple GPU has none, so that they go to the CPU first."""
    return (x.cpu() if x.device.type == "mps" else x).double()


class _FarEnough(Exception):
    """The norm whose moments are wanted was reached; what comes after it is not needed."""


class SharedNorms:
    """From now on a network's instance norms use the moments found so far, and the first without any gathers its own.

    Calls are counted, so that a norm may be called several times.
    """

    def __init__(self, network: nn.Module) -> None:
        for module in network.modules():
            if isinstance(module, Norm):
                module.forward = functools.partial(self._normalised, module)  # type: ignore[method-assign]
        self._found: list[tuple[Tensor, Tensor]] = []
        """Mean and variance [C] in float64 of the norms' inputs, in the order of their calls."""
        self._count = 0
        self._sums: Tensor | float = 0.0
        """Of the norm that gathers: how many positions, and [C, 2] in float64 of values and of their squares over them."""
        self._call = 0
        self._tile: tuple[Tile, Tile] | None = None

    def begin_tile(self, rows: Tile, columns: Tile) -> None:
        self._call = 0
        self._tile = rows, columns

    def find_next(self) -> bool:
        """Take over what the pass before gathered; whether there was a norm left that gathered."""
        if isinstance(self._sums, float):
            return False
        mean, squares = (self._sums / self._count).unbind(1)
        self._found.append((mean, (squares - mean.square()).clamp(min=0)))
        self._count, self._sums = 0, 0.0
        return True

    def _normalised(self, norm: Norm, x: Tensor) -> Tensor:
        call, self._call = self._call, self._call + 1
        if call == len(self._found):
            assert self._tile is not None
            rows, columns = self._tile
            own = x[0, :, rows.own(x.shape[2]), columns.own(x.shape[3])]
            # Channel by channel: in float64 all of them would take more memory than the network.
            sums = [torch.stack([channel.sum(), channel.square().sum()]) for channel in map(in_float64, own)]
            self._count += own[0].numel()
            self._sums = self._sums + torch.stack(sums)
            raise _FarEnough
        mean, variance = (moment.to(x.dtype).to(x.device).view(-1, 1, 1) for moment in self._found[call])
        out = (x - mean) * torch.rsqrt(variance + norm.eps)
        if norm.weight is None or norm.bias is None:
            return out
        return out * norm.weight.view(-1, 1, 1) + norm.bias.view(-1, 1, 1)


@torch.inference_mode()
def in_tiles(network: nn.Module, run: Callable[[Images], Images], image: Images, *, tile_px: int, halo_px: int) -> Images:
    """[1, H, W, 3] in [0, 1] to the same shape by `run`, which puts a part of the picture through the network.

    Memory is that of a part of `tile_px` and twice `halo_px`; a halo as wide as the network sees leaves no seam. All of H, W,
    `tile_px` and `halo_px` are multiples of what the network halves its maps to. The network is another one afterwards: give
    one that nobody else needs.
    """
    rows, columns = (cut(side, tile_px, halo_px) for side in image.shape[1:3])
    if len(rows) == len(columns) == 1:
        return run(image)
    tiles = list(itertools.product(rows, columns))
    norms = SharedNorms(network)
    while True:
        result = np.empty_like(image)
        for row, column in tiles:
            norms.begin_tile(row, column)
            with contextlib.suppress(_FarEnough):
                made = run(np.ascontiguousarray(image[:, row.seen, column.seen]))
                result[:, row.kept, column.kept] = made[:, row.own(made.shape[1]), column.own(made.shape[2])]
        if not norms.find_next():
            return result
