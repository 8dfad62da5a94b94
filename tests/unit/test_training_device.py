"""Where tensors live and in which precision."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from fruitgan import device
from fruitgan.device import at_least_fp32, autocast, choose_device, has_fast_bf16, has_room_for
from fruitgan.errors import EnvironmentProblem, UsageError
from fruitgan.runs.resume import environment


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, bool], None]:
    """Let there be so many of CUDA's, and perhaps Apple's."""

    def pretend(count: int, apple: bool) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: apple)

    return pretend


def test_the_device_is_the_one_asked_for_or_the_best_there_is(gpus: Callable[[int, bool], None]) -> None:
    gpus(0, False)
    assert choose_device() == choose_device("none") == choose_device(device="cpu") == torch.device("cpu")
    for asked in ({"gpu": "0"}, {"device": "cuda"}, {"device": "mps"}):
        with pytest.raises(EnvironmentProblem, match="use --"):
            choose_device(**asked)
    gpus(2, False)
    assert choose_device() == torch.device("cuda", 0)
    assert choose_device("1") == choose_device(device="cuda:1") == torch.device("cuda", 1)
    assert choose_device("none") == torch.device("cpu")
    with pytest.raises(EnvironmentProblem, match="GPU 2: 2 found"):
        choose_device("2")
    gpus(0, True)
    assert choose_device() == choose_device("0") == choose_device(device="mps") == torch.device("mps")
    with pytest.raises(EnvironmentProblem):
        choose_device("1")


def test_what_names_no_device_or_two_is_refused() -> None:
    for asked in ({"gpu": "one"}, {"gpu": "-1"}, {"device": "gpu"}, {"device": "cpu:0"}, {"device": "cuda:x"}):
        with pytest.raises(UsageError, match="expected"):
            choose_device(**asked)
    with pytest.raises(UsageError, match="give one of them"):
        choose_device("none", "cpu")


def test_autocast_multiplies_in_the_precision_asked_for() -> None:
    x, cpu = torch.ones(2, 2), torch.device("cpu")
    with autocast(cpu, "fp32"):
        assert (x @ x).dtype == torch.float32
    with autocast(cpu, "bf16"):
        assert (x @ x).dtype == torch.bfloat16
    assert isinstance(has_fast_bf16(cpu), bool)


def test_full_precision_raises_what_is_less_and_leaves_the_rest() -> None:
    kinds = {torch.bfloat16: torch.float32, torch.float16: torch.float32, torch.float32: torch.float32}
    kinds[torch.float64] = torch.float64
    for given, expected in kinds.items():
        assert at_least_fp32(torch.ones(1, dtype=given)).dtype == expected


def test_data_go_to_a_gpu_that_has_room_for_them_and_to_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1000, 5000))
    gpu = torch.device("cuda", 0)
    assert has_room_for(gpu, 399)
    assert not has_room_for(gpu, 400)
    assert not has_room_for(torch.device("cpu"), 1)
    assert not has_room_for(torch.device("mps"), 1)


def test_a_c_library_that_takes_no_high_threshold_keeps_its_own_highest(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[int, int]] = []

    class Older:
        def mallopt(self, parameter: int, value: int) -> int:
            said.append((parameter, value))
            return int(parameter != -3 or value <= 32 << 20)

    monkeypatch.setattr(device.sys, "platform", "linux")
    monkeypatch.setattr(device.ctypes, "CDLL", lambda _: Older())
    monkeypatch.setattr(device, "_largest_kept_bytes", 32 << 20)
    device.keep_freed_memory()
    assert said[-2:] == [(-3, 32 << 20), (-1, (1 << 31) - 1)]
    with device.freed_memory_returned():
        pass
    assert said[-1] == (-3, 32 << 20)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_that_is_kept_need_not_be_cleared_again_and_goes_back_while_that_is_asked_for() -> None:
    count = """
import json, os, resource
from pathlib import Path
import numpy as np
from fruitgan.device import freed_memory_returned, keep_freed_memory

def cleared_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        np.ones(64 << 20, dtype=np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def left_mib():
    resident = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    before = resident()
    np.ones(64 << 20, dtype=np.uint8)
    return (resident() - before) >> 20

given_back = cleared_pages()
keep_freed_memory()
with freed_memory_returned():
    returned = left_mib()
kept = left_mib()
print(json.dumps([given_back, cleared_pages(), returned, kept]))
"""
    environment = {**os.environ, "NUMPY_MADVISE_HUGEPAGE": "0"}
    done = subprocess.run([sys.executable, "-c", count], env=environment, capture_output=True, text=True, check=True)
    pages_given_back, pages_kept, mib_returned, mib_kept = json.loads(done.stdout)
    assert pages_given_back >= 4 * 32  # the largest of which has 2 MiB
    assert pages_kept < pages_given_back / 10
    assert mib_returned < 8
    assert mib_kept > 56


@pytest.mark.parametrize(
    ("capability", "precision", "expected"), [((8, 0), "tf32", "tf32"), ((7, 5), "tf32", "fp32"), ((9, 0), "ieee", "fp32")]
)
def test_the_environment_says_what_a_gpus_convolutions_compute_in(
    capability: tuple[int, int], precision: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert environment(torch.device("cpu"))["fp32_convolutions"] is None
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.backends.cudnn, "conv", SimpleNamespace(fp32_precision=precision))
    assert environment(torch.device("cuda"))["fp32_convolutions"] == expected
