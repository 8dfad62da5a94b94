"""What a command imports: heavy things wait until they are needed, counted in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from fruitgan.demo.fruit import draw

HEAVY = (
    "torch",
    "torchvision",
    "kornia",
    "scipy",
    "sklearn",
    "matplotlib",
    "onnxruntime",
    "onnx",
    "numpy",
    "PIL",
    "rich",
)
RUN = """
import json, sys
from fruitgan.cli import main
code = main(sys.argv[2:])
with open(sys.argv[1], "w") as file:
    json.dump([code, sorted({name.partition(".")[0] for name in sys.modules}), len(sys.modules)], file)
"""


def imported(tmp_path: Path, *arguments: str, **environment: str) -> tuple[set[str], int]:
    """Which of the heavy packages the command imported, and how many modules in all."""
    report = tmp_path / "report.json"
    subprocess.run(
        [sys.executable, "-c", RUN, str(report), *arguments],
        cwd=tmp_path,
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
        timeout=120,
    )
    code, packages, count = json.loads(report.read_text())
    assert code == 0
    return set(HEAVY) & set(packages), count


@pytest.fixture
def photo(tmp_path: Path) -> str:
    Image.fromarray(draw("apple", 64, 0, 0)).save(tmp_path / "photo.jpg")
    return "photo.jpg"


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["list"], ["list", "engines"]])
def test_what_only_speaks_imports_nothing_heavy(tmp_path: Path, arguments: list[str]) -> None:
    packages, count = imported(tmp_path, *arguments)
    assert packages <= ({"rich"} if "--help" in arguments else set())
    assert count < 700


def test_a_picture_goes_through_onnx_without_torch(tmp_path: Path, photo: str) -> None:
    pytest.importorskip("onnxruntime", reason="fruitgan[onnx] is absent")
    packages, count = imported(tmp_path, "translate", photo, "--gpu", "none")
    assert packages == {"numpy", "PIL", "onnxruntime"}
    assert (tmp_path / "translated" / "photo.png").exists()
    assert count < 700


def test_a_picture_goes_through_torch_without_torchvision(tmp_path: Path, photo: str) -> None:
    packages, _ = imported(tmp_path, "translate", photo, "--engine", "torch", "--gpu", "none")
    assert packages == {"numpy", "PIL", "torch"}


def test_a_rerun_imports_no_engine(tmp_path: Path, photo: str) -> None:
    imported(tmp_path, "translate", photo, "--gpu", "none")
    packages, _ = imported(tmp_path, "translate", photo, "--gpu", "none")
    assert packages == {"numpy", "PIL"}
