"""What a command imports: heavy things wait until they are needed, counted in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from fruitgan.demo.fruit import draw

HEAVY = {
    *("torch", "torchvision", "kornia", "scipy", "sklearn", "matplotlib", "onnxruntime", "onnx", "numpy", "PIL", "rich"),
    *("jinja2", "requests", "safetensors", "pydantic"),
}
SPEAKING = ("--version", "lits", "list", "list engines --json", "--help")
RUN = """
import json, sys
from fruitgan.cli import main
found = []
for line in sys.argv[2:]:
    code = main(line.split())
    found.append([code, list(sys.modules)])
with open(sys.argv[1], "w") as file:
    json.dump(found, file)
"""


def imported(tmp_path: Path, *lines: str) -> list[tuple[int, set[str], list[str]]]:
    """Of commands, all run in one process: the exit code of each; the heavy packages, and all modules, imported by then."""
    report = tmp_path / "report.json"
    command = [sys.executable, "-c", RUN, str(report), *lines]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    return [(code, HEAVY & set(modules), modules) for code, modules in json.loads(report.read_text())]


@pytest.fixture
def photo(tmp_path: Path) -> str:
    Image.fromarray(draw("apple", 64, 0, 0)).save(tmp_path / "photo.jpg")
    return "photo.jpg"


def test_what_only_speaks_imports_nothing_heavy_and_no_room(tmp_path: Path) -> None:
    found = imported(tmp_path, *SPEAKING)
    for line, (code, packages, _) in zip(SPEAKING, found, strict=True):
        assert code == (2 if line == "lits" else 0)
        assert packages <= ({"rich"} if line == "--help" else set()), line  # the last, since what is imported stays
    _, _, modules = found[-1]
    own = [name.split(".") for name in modules if name.startswith("fruitgan.")]
    assert {name[1] for name in own if len(name) > 2} == {"console"}  # of the rooms no more than their empty __init__
    assert not {"bundle", "data", "engines", "networks", "runs", "measures", "report"} & {name[1] for name in own}
    assert len(modules) < 700


def test_a_picture_goes_through_onnx_without_torch_and_a_rerun_imports_no_engine(tmp_path: Path, photo: str) -> None:
    pytest.importorskip("onnxruntime", reason="fruitgan[onnx] is absent")
    line = f"translate {photo} --gpu none"
    ((code, packages, modules),) = imported(tmp_path, line)
    assert code == 0
    assert packages == {"numpy", "PIL", "onnxruntime", "safetensors"}
    assert (tmp_path / "translated" / "photo.png").exists()
    assert len(modules) < 700
    ((code, packages, _),) = imported(tmp_path, line)
    assert code == 0
    assert packages == {"numpy", "PIL", "safetensors"}


def test_a_picture_goes_through_torch_without_torchvision(tmp_path: Path, photo: str) -> None:
    ((code, packages, _),) = imported(tmp_path, f"translate {photo} --engine torch --gpu none")
    assert code == 0
    assert packages == {"numpy", "PIL", "torch", "safetensors"}
