"""PyTorch as the engine: builds the generator from its registered name, so every generator that can be trained can be run."""

from __future__ import annotations

import copy
import functools
import threading
from typing import Any, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fruitgan.device import autocast, choose_device, freed_memory_returned, keep_freed_memory
from fruitgan.engines.contracts import LARGE_PIXELS, Engine, Images, Machine, Weights, checked, finite, out_of_memory
from fruitgan.engines.tiles import Reach, in_tiles, reach_of, tile_px
from fruitgan.errors import DataError, is_out_of_memory
from fruitgan.images import signed_from_unit, unit_from_signed
from fruitgan.machine import spare_memory_bytes
from fruitgan.networks.contracts import Generator, generators
from fruitgan.networks.weights import build_for
from fruitgan.registry import Choice
from fruitgan.settings import Precision

MEMORY_SHARE = 0.5
"""Of the spare memory: others need some too, and the picture itself is held several times."""


class TorchEngine(Engine):
    """A generator in evaluation mode on one device; `auto` precision is fp32, since rounding to 8 bits shows bf16's steps.

    On a CPU it is concurrent: two calls of one thread each are through sooner than one call after the other of two.
    """

    def __init__(self, *, generator: Choice, weights: Weights, **machine: Unpack[Machine]) -> None:
        self.device = choose_device(machine.get("gpu"), machine.get("device"))
        self.precision: Precision = machine.get("precision", "auto")
        self.network: Generator = build_for(generators, generator, weights)
        self.network.requires_grad_(False).eval().to(self.device)
        self._turn = threading.Lock()
        self._all_threads = torch.get_num_threads()
        # Elsewhere torch takes a number of threads for good, and warns of a second.
        self.concurrent = self.device.type == "cpu" and bool(torch.backends.openmp.is_available())  # type: ignore[no-untyped-call]
        self._threads = machine.get("threads") if self.concurrent else None
        if self._threads is not None:
            keep_freed_memory()

    def translate(self, images: Images) -> Images:
        count, height, width = checked(images).shape[:3]
        if not self.network.size_rule.accepts(height, width):
            rule = self.network.size_rule
            sizes = f"{rule.minimum_px} px or more, in multiples of {rule.multiple_of_px}"
            raise DataError(f"{width} x {height} px do not fit the generator: {sizes}")
        try:
            if not self.concurrent or count * height * width > LARGE_PIXELS:
                with self._turn:  # one at a time, for each may take all the room there is
                    return self._run_large(images) if count * height * width > LARGE_PIXELS else self._run(images)
            if self._threads is None:
                return self._run(images)
            # Torch counts threads for each thread that calls it; one that asks for the first time takes what any has set last.
            torch.get_num_threads()
            torch.set_num_threads(self._threads)
            try:
                return self._run(images)
            finally:
                torch.set_num_threads(self._all_threads)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Out here the failed call's frames are gone, and with them its tensors.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        raise out_of_memory(images, "memory" if self.device.type == "cpu" else f"memory on {self.device}")

    def _run_large(self, images: Images) -> Images:
        """Whole where the memory allows, else in tiles, which take several times as long; as `_run`."""
        room = self._room_bytes()
        if len(images) > 1 or self._reach.bytes(*images.shape[1:3]) <= room:
            return self._run(images)
        room -= images.nbytes  # the whole result's, beside what a tile takes
        side = tile_px(self._reach, room, self.network.size_rule.multiple_of_px)
        if side is None:  # it may yet suffice; if not, the error says so
            return self._run(images)
        # Tiles change how norms work: in modules of their own with the same tensors, as other calls may be at work.
        shared = {id(tensor): tensor for tensor in (*self.network.parameters(), *self.network.buffers())}
        network = copy.deepcopy(self.network, shared)
        with freed_memory_returned():
            return in_tiles(network, lambda part: self._run(part, network), images, tile_px=side, halo_px=self._reach.halo_px)

    @functools.cached_property
    def _reach(self) -> Reach:
        return reach_of(self.network)

    def _room_bytes(self) -> int:
        """How much memory one picture may take."""
        if self.device.type == "cuda":
            return int(torch.cuda.mem_get_info(self.device)[0] * MEMORY_SHARE)
        return int(spare_memory_bytes() * MEMORY_SHARE)

    @torch.inference_mode()
    def _run(self, images: Images, network: Generator | None = None) -> Images:
        unit = torch.from_numpy(np.ascontiguousarray(images)).to(self.device)  # [N, H, W, 3]
        source = signed_from_unit(unit.permute(0, 3, 1, 2).contiguous())  # [N, 3, H, W] in [-1, 1]
        with autocast(self.device, self.precision):
            output: Tensor = (network or self.network)(source)
        del source
        return finite(unit_from_signed(output.float()).permute(0, 2, 3, 1).contiguous().cpu().numpy())


def arrays_of(network: nn.Module) -> dict[str, NDArray[Any]]:
    """The network's weights by parameter name, as a bundle holds them."""
    tensors = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    return {name: (tensor.float() if tensor.is_floating_point() else tensor).numpy() for name, tensor in tensors.items()}
