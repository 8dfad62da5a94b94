"""Apple's GPUs have no float64: a tensor goes to the CPU before it becomes one."""

from __future__ import annotations

import re
from pathlib import Path

import fruitgan

SOURCES = sorted(Path(fruitgan.__file__).parent.rglob("*.py"))


def test_no_tensor_becomes_float64_before_it_goes_to_the_cpu() -> None:
    wrong = re.compile(r"\.(double\(\)|to\(torch\.float64\))[^\n]*\.cpu\(\)")
    assert len(SOURCES) > 100
    assert [f"{path}: {found[0]}" for path in SOURCES for found in wrong.finditer(path.read_text(encoding="utf-8"))] == []
