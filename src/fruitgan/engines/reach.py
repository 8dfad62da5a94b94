"""How much memory a generator takes for a pixel, and how far it sees: whether a picture is cut, and into which tiles.

Both are read off one run on torch's meta device, where tensors have shapes and no numbers.
"""

from __future__ import annotations

import copy
import math
import weakref
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fruitgan.networks.contracts import Generator

# fmt: off
LOCAL = frozenset((
    "_to_copy", "_unsafe_view", "add", "add_", "atanh", "avg_pool2d", "cat", "clamp", "clone", "convolution", "copy_",
    "detach", "div", "empty_like", "expand", "leaky_relu", "lerp", "mul", "mul_", "native_group_norm", "permute",
    "pixel_shuffle", "pixel_unshuffle", "promote_types", "reflection_pad2d", "relu", "relu_", "sigmoid", "slice",
    "sub", "t", "tanh", "transpose", "unsqueeze", "view", "zeros_like",
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


class _Watching(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the tensors that live and how far the operations look; `side_px` is the width of the picture."""

    def __init__(self, side_px: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.side_px = side_px
        self.live = self.peak = 0
        self.reach = 0.0
        self.seen: set[str] = set()
        self._uses: Counter[int] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        self.seen.add(name)
        if name == "convolution":
            self._convolution(args, out)
        elif name == "avg_pool2d":
            self.reach += max(args[1]) // 2 * self.side_px / out.shape[-1]
        for tensor in out if isinstance(out, tuple) else (out,):
            if isinstance(tensor, Tensor):
                self._hold(tensor)
        return out

    def _convolution(self, args: tuple[Any, ...], out: Tensor) -> None:
        weight, stride, dilation, transposed = args[1], args[3], args[5], args[6]
        # A kernel's steps are those of the finer of its two maps, whose own size may be padded.
        cells = out.shape[-1] * (1 if transposed else stride[-1])
        self.reach += weight.shape[-1] // 2 * dilation[-1] * self.side_px / cells

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        self._uses[key] += 1
        if self._uses[key] == 1:
            self.live += size
            self.peak = max(self.peak, self.live)
        weakref.finalize(tensor, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._uses[key] -= 1
        if self._uses[key] == 0:
            self.live -= size


@torch.no_grad()  # not inference mode, in which operations arrive undivided
def reach_of(network: Generator) -> Reach:
    """Watches the network at a small size; what it takes grows with the pixels."""
    multiple = network.size_rule.multiple_of_px
    side = network.size_rule.padded(max(64, 2 * multiple))
    sketch = copy.deepcopy(network).to("meta")
    picture = torch.empty((1, 3, side, side), device="meta")
    with _Watching(side) as watching:
        sketch(picture)
    halo = -(-int(watching.reach + 1) // multiple) * multiple + multiple
    return Reach(bytes_per_pixel=ROOM * (watching.peak / side**2 + AROUND_BYTES), halo_px=halo, is_local=watching.seen <= LOCAL)


def tile_px(reach: Reach, room_bytes: int, multiple_px: int) -> int | None:
    """The side of the largest tiles that fit into so much memory with what they see around; None if there are none."""
    seen = math.isqrt(int(room_bytes / reach.bytes_per_pixel))
    side = (seen - 2 * reach.halo_px) // multiple_px * multiple_px
    return side if reach.is_local and side > 0 else None
