"""Over a thousand steps memory does not grow, and the log of a killed run has no gap and no line twice."""

from __future__ import annotations

import ctypes
import json
import os
import random
import runpy
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow  # and for a quiet machine: beside other work the copy that is being saved counts as in use
BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "long_run.py"
GLIBC = ctypes.CDLL(None)
CONFIDENCE = 0.999
"""At 0.95 one run in twenty without a leak would be called one."""
LEAST_TENSOR_BYTES = 300
"""A tensor of one number takes 384 bytes of the memory in use, with its record (torch 2.14): none is kept at each step."""


@pytest.fixture(scope="module")
def found() -> Mapping[str, Any]:
    if not hasattr(GLIBC, "mallinfo2"):
        pytest.skip("asks glibc 2.33 or newer for the memory in use")
    process = subprocess.run(
        [sys.executable, str(BENCHMARK), "--steps=1100", "--kills=1", "--warm-up=500", f"--confidence={CONFIDENCE}"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    read: Mapping[str, Any] = json.loads(process.stdout)
    return read


def test_over_a_thousand_steps_the_slope_of_the_memory_in_use_is_zero(found: Mapping[str, Any]) -> None:
    assert found["steps"] == 1100
    low, high = found["in_use"]["interval"]
    assert low <= 0 <= high < LEAST_TENSOR_BYTES, found
    assert found["blocks"]["interval"][1] < 1, "an object of Python's is kept at each step"


def test_a_step_that_kept_one_of_its_images_would_be_seen() -> None:
    """By far: the slope of a memory that moves as the one above does, and gains an image of 16 x 16 px a step."""
    long_run = runpy.run_path(str(BENCHMARK))
    image_bytes = 3 * 16 * 16 * 4
    noise = random.Random(0)
    ends = [step * image_bytes + noise.randrange(8192) for step in range(500, 1001, long_run["STRETCH_STEPS"])]
    low, high = long_run["slope"]([ends], CONFIDENCE)["interval"]
    assert image_bytes / 2 < low <= image_bytes <= high


def test_the_log_of_a_killed_run_has_no_gap_and_no_line_twice(found: Mapping[str, Any]) -> None:
    assert len(found["killed_at_steps"]) == 1
    assert found["lines"] == 110
    assert found["missing"] == []
    assert found["twice_or_out_of_order"] == 0
