"""Where tensors live and in which precision they are multiplied."""

from __future__ import annotations

import contextlib
import re
from typing import Literal

import torch
from torch import Tensor

from fruitgan.errors import EnvironmentProblem, UsageError

Precision = Literal["auto", "fp32", "bf16"]


def choose_device(gpu: str | None = None, device: str | None = None) -> torch.device:
    """The device that `--gpu auto|none|N` or `--device cpu|mps|cuda[:N]` asks for; without either the best there is.

    Raises:
        UsageError: both, or neither form.
        EnvironmentProblem: this machine has no such device.
    """
    if gpu is not None and device is not None:
        raise UsageError("--gpu and --device say the same thing; give one of them")
    if device is None:
        device = _device_of_gpu(gpu or "auto")
    kind, _, index = device.partition(":")
    if kind not in ("cpu", "mps", "cuda") or (index and not (kind == "cuda" and index.isdigit())):
        raise UsageError(f"--device {device}: expected cpu, mps, cuda or cuda:N")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise EnvironmentProblem("--device mps: torch finds no Apple GPU here; use --device cpu")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(index or 0) >= count:
            found = f"{count} found" if count else "no CUDA GPU found"
            raise EnvironmentProblem(f"GPU {index or 0}: {found}; use --gpu none, or see fruitgan doctor")
        return torch.device("cuda", int(index or 0))
    return torch.device(kind)


def _device_of_gpu(gpu: str) -> str:
    if gpu == "none":
        return "cpu"
    if gpu == "auto":
        if torch.cuda.is_available():
            return "cuda:0"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    if not re.fullmatch(r"\d+", gpu):
        raise UsageError(f"--gpu {gpu}: expected auto, none or the number of a GPU, such as 0")
    if not torch.cuda.is_available() and torch.backends.mps.is_available() and gpu == "0":
        return "mps"
    return f"cuda:{gpu}"


def autocast(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager[None]:
    """The context in which networks are called: bf16 multiplications, or nothing changed."""
    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


def at_least_fp32(x: Tensor) -> Tensor:
    """The same numbers in float32, or in float64 where they are that already (tests compute in it)."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bf16 multiplications have instructions of their own there."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return (
            bool(torch.backends.cpu.get_cpu_capability().startswith("AVX512")) and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        )
    return False
