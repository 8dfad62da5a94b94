"""Networks through torch's compiler: kernels of their own, fused, for this machine."""

from __future__ import annotations

import torch
from torch import nn

from fruitgan.errors import EnvironmentProblem


def compile_networks(networks: nn.Module, device: torch.device) -> None:
    """Compile what each of the networks in a ModuleDict computes, at its first call; parameters and their names stay.

    Raises:
        EnvironmentProblem: torch's compiler does not work here, found out on a sum of two numbers.
    """
    _try_out(device)
    for network in networks.children():
        network.compile(dynamic=False)  # a step calls with two sizes of batch at most


def _try_out(device: torch.device) -> None:
    numbers = torch.ones(8, device=device)
    try:
        torch.compile(lambda x: x + x * x, dynamic=False)(numbers)
    except Exception as error:  # the compiler's own errors, and those of what it calls, have no base of theirs
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        needed = "triton" if device.type == "cuda" else "a C++ compiler, such as g++ (apt install g++)"
        raise EnvironmentProblem(
            f"--compile: torch cannot compile for {device} here ({lines[0] if lines else type(error).__name__}); "
            f"it needs {needed}; or leave --compile out"
        ) from error
