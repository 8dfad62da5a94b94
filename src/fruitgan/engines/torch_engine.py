"""PyTorch as the engine: builds the generator from its registered name, so every generator that can be trained can be run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fruitgan.device import Precision, autocast, choose_device
from fruitgan.engines.contracts import Engine, Images
from fruitgan.errors import DataError, FruitganError, UsageError
from fruitgan.images import signed_from_unit, unit_from_bytes, unit_from_signed
from fruitgan.models.catalog import generators
from fruitgan.models.contracts import Generator
from fruitgan.registry import Choice


class TorchEngine(Engine):
    """A generator in evaluation mode on one device; `auto` precision is fp32, since rounding to 8 bits shows bf16's steps."""

    def __init__(
        self,
        *,
        generator: Choice,
        weights: Mapping[str, NDArray[Any]],
        gpu: str | None = None,
        device: str | None = None,
        precision: Precision = "auto",
    ) -> None:
        self.device = choose_device(gpu, device)
        self.precision = precision
        with torch.random.fork_rng(devices=[]):  # the weights drawn at first are not kept, and the caller's draws are not ours
            self.network = _build(generator)
        load_arrays(self.network, weights, f"the generator {generator.name}")
        self.network.requires_grad_(False).eval().to(self.device)

    def translate(self, images: Images) -> Images:
        count, height, width = images.shape[:3]
        if not self.network.size_rule.accepts(height, width):
            raise DataError(f"{width} x {height} px do not fit the generator; the sizes on the bundle's card are wrong")
        try:
            return self._run(images)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            where = "memory" if self.device.type == "cpu" else f"memory on {self.device}"
            several = f"{count} images of " if count > 1 else ""
            message = f"not enough {where} for {several}{width} x {height} px; lower --scale (--scale auto, or --scale 256)"
        # Out here the failed call's frames are gone, and with them its tensors.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        raise FruitganError(message)

    @torch.inference_mode()
    def _run(self, images: Images) -> Images:
        pixels = torch.from_numpy(np.ascontiguousarray(images)).to(self.device)  # [N, H, W, 3]
        source = signed_from_unit(unit_from_bytes(pixels.permute(0, 3, 1, 2).contiguous().float()))  # [N, 3, H, W] in [-1, 1]
        with autocast(self.device, self.precision):
            output: Tensor = self.network(source)
        del source
        unit = unit_from_signed(output.float())
        if not bool(torch.isfinite(unit).all()):
            raise FruitganError("the generator gave numbers that are not finite; its weights or the precision are to blame")
        pixels = unit.clamp(0, 1).mul(255).round().to(torch.uint8)  # clipped, then rounded, as images.bytes_from_unit does
        result: Images = pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        return result


def _build(choice: Choice) -> Generator:
    try:
        network: Generator = generators.build(choice)
    except (UsageError, ValueError, TypeError, ArithmeticError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        reason = str(error).partition("\n")[0]
        raise DataError(f"the generator {choice.name} cannot be built with {dict(choice.options)}: {reason}") from error
    return network


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that no memory was left; on a CPU torch says so by a bare RuntimeError."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return "can't allocate memory" in str(error) or "not enough memory" in str(error) or "out of memory" in str(error)


def load_arrays(network: nn.Module, weights: Mapping[str, NDArray[Any]], what: str) -> None:
    """Put the weights, by parameter name, into the network; every tensor must be there in its shape, and no other.

    Raises:
        DataError: naming the first tensor that is missing, odd or of another shape.
    """
    expected = network.state_dict()
    problem = next((f"{name} is missing" for name in expected if name not in weights), None)
    problem = problem or next((f"{name} is unknown" for name in weights if name not in expected), None)
    for name, array in weights.items() if problem is None else ():
        if tuple(array.shape) != tuple(expected[name].shape):
            problem = f"{name} has the shape {list(array.shape)}, not {list(expected[name].shape)}"
            break
    if problem is not None:
        raise DataError(f"the weights are not those of {what} as installed here: {problem}")
    with torch.no_grad():
        for name, tensor in expected.items():
            tensor.copy_(torch.from_numpy(np.array(weights[name])))  # a copy: torch warns of arrays that cannot be written


def arrays_of(network: nn.Module) -> dict[str, NDArray[Any]]:
    """The network's weights by parameter name, as a bundle holds them."""
    tensors = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    return {name: (tensor.float() if tensor.is_floating_point() else tensor).numpy() for name, tensor in tensors.items()}
