"""Load weights into networks. A network built from a stranger's options is never larger than its weights."""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules import module as torch_modules
from torch.overrides import TorchFunctionMode

from fruitgan.errors import DataError, UsageError, reason_of, shown
from fruitgan.registry import Choice, Registry

N = TypeVar("N", bound=nn.Module)
Arrays = Mapping[str, NDArray[Any]]

SPARE_NUMBERS = 1 << 24
"""What a network may hold beside its weights, such as a window of 4096 x 4096."""
SPARE_PARTS = 1000
PARTS_PER_TENSOR = 20


DRAWING = frozenset({"normal_", "trunc_normal_", "kaiming_normal_", "xavier_normal_", "orthogonal_", "sparse_"})


_foreign: ContextVar[bool] = ContextVar("foreign", default=False)


class _TooLarge(Exception):
    """The network has more parts, or more numbers in them, than belong to the weights."""


def build_for(registry: Registry[Callable[..., N]], choice: Choice, weights: Arrays) -> N:
    """The network of the choice, for weights by parameter name and filled with them.

    It is first built on torch's meta device, where tensors take no memory and no time, and given up as soon as it outgrows the
    weights; only where every name and shape is right, it is built in earnest. A builder that cannot work there, since it reads
    numbers back from tensors, is still given up between two parts.

    Raises:
        DataError: the options cannot be built, or make another network than the weights are of.
        EnvironmentProblem: its package is not installed.
    """
    what = f"the {registry.noun} {choice.name}"
    network = sketch(registry, choice, weights, what)
    if network is not None:
        check_weights(network.state_dict(), weights, f"{what} as installed here")
    # What is drawn here is not kept, and the caller's draws are not ours. `devices=[]`: the network is built on the CPU.
    with torch.random.fork_rng(devices=[]), _no_larger_than(weights):
        built = _built(registry, choice, what, is_checked=network is not None)
    load_arrays(built, weights, what)
    return built


class _Undrawn(TorchFunctionMode):
    """Leaves out what draws normal numbers: on the meta device its first call imports half of torch's compiler, for nothing."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in DRAWING:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def sketch(registry: Registry[Callable[..., N]], choice: Choice, weights: Arrays, what: str) -> N | None:
    """The network without memory, never larger than the weights; None if its builder needs real numbers.

    Raises:
        DataError: as `build_for`, for the options.
    """
    with torch.device("meta"), _Undrawn(), _no_larger_than(weights), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of sides of 0, which the shapes show as well
        try:
            return _built(registry, choice, what)
        except DataError as error:
            if "meta" in str(error.__cause__):  # as torch says where numbers are read from tensors that have none
                return None
            raise


def _built(registry: Registry[Callable[..., N]], choice: Choice, what: str, is_checked: bool = False) -> N:
    try:
        network: N = registry.build(choice)
    except _TooLarge as error:
        raise DataError(f"{what} would be larger than the weights with {shown(dict(choice.options))}") from error
    except (UsageError, RuntimeError, MemoryError) as error:
        if is_checked and not isinstance(error, UsageError):  # nothing is wrong with the options: the memory may be full
            raise
        cause = error.__cause__ or error
        raise DataError(f"{what} cannot be built with {shown(dict(choice.options))}: {reason_of(cause)}") from cause
    return network


@contextmanager
def _no_larger_than(weights: Arrays) -> Iterator[None]:
    """While it lasts, a network under construction in this thread fails when it outgrows the weights (`_TooLarge`)."""
    most_parts = SPARE_PARTS + PARTS_PER_TENSOR * len(weights)
    most_numbers = SPARE_NUMBERS + 2 * sum(array.size for array in weights.values())
    thread = threading.get_ident()
    parts = numbers = 0

    def count(module: nn.Module, name: str, part: nn.Module | torch.Tensor | None) -> None:
        nonlocal parts, numbers
        if threading.get_ident() != thread or _foreign.get():
            return
        parts += 1
        numbers += math.prod(part.shape) if isinstance(part, torch.Tensor) else 0
        if parts > most_parts or numbers > most_numbers:
            raise _TooLarge

    with ExitStack() as stack:
        for register in (
            torch_modules.register_module_parameter_registration_hook,
            torch_modules.register_module_buffer_registration_hook,
            torch_modules.register_module_module_registration_hook,
        ):
            stack.callback(register(count).remove)
        yield


@contextmanager
def not_in_weights() -> Iterator[None]:
    """While it lasts, what is built is not held against the weights: a published network that a detector only looks through.

    Its size is that of the package that it comes from, and its own weights are no part of the file.
    """
    token = _foreign.set(True)
    try:
        yield
    finally:
        _foreign.reset(token)


def check_weights(expected: Mapping[str, torch.Tensor], weights: Arrays, what: str) -> None:
    """Raises: DataError, naming the first tensor that is missing, unknown, of another shape or another kind of number."""
    problems = [f"{name} is missing" for name in expected if name not in weights]
    problems += [f"{name} is unknown" for name in weights if name not in expected]
    for name, array in weights.items() if not problems else ():
        tensor = expected[name]
        if tuple(array.shape) != tuple(tensor.shape):
            problems.append(f"{name} has the shape {list(array.shape)}, not {list(tensor.shape)}")
        elif (array.dtype.kind == "f") != tensor.is_floating_point():
            problems.append(f"{name} is of {array.dtype.name}, not {str(tensor.dtype).removeprefix('torch.')}")
    if problems:
        raise DataError(f"the weights are not those of {what}: {problems[0]}")


def load_arrays(network: nn.Module, weights: Arrays, what: str) -> None:
    """Put the weights, by parameter name, into the network; every tensor must be there in its shape, and no other.

    Raises:
        DataError: naming the first tensor that is missing, unknown, of another shape or another kind of number.
    """
    check_weights(network.state_dict(), weights, f"{what} as installed here")
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            tensor.copy_(torch.from_numpy(np.array(weights[name])))  # a copy: torch warns of arrays that cannot be written
