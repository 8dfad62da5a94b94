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
RUN = """
import json, sys
from fruitgan.cli import main
code = main(sys.argv[2:])
with open(sys.argv[1], "w") as file:
    json.dump([code, list(sys.modules)], file)
"""


def imported(tmp_path: Path, *arguments: str, code: int = 0) -> tuple[set[str], list[str]]:
    """Which of the heavy packages the command imported, and all modules."""
    report = tmp_path / "report.json"
    subprocess.run(
        [sys.executable, "-c", RUN, str(report), *arguments],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        timeout=120,
    )
    found, modules = json.loads(report.read_text())
    assert found == code
    return HEAVY & set(modules), modules


@pytest.fixture
def photo(tmp_path: Path) -> str:
    Image.fromarray(draw("apple", 64, 0, 0)).save(tmp_path / "photo.jpg")
    return "photo.jpg"


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["list"], ["list", "engines", "--json"], ["lits"]])
def test_what_only_speaks_imports_nothing_heavy_and_no_room(tmp_path: Path, arguments: list[str]) -> None:
    packages, modules = imported(tmp_path, *arguments, code=2 * (arguments == ["lits"]))
    assert packages <= ({"rich"} if "--help" in arguments else set())
    own = [name.split(".") for name in modules if name.startswith("fruitgan.")]
    assert {name[1] for name in own if len(name) > 2} == {"console"}  # of the rooms no more than their empty __init__
    assert not {"bundle", "data", "engines", "networks", "runs", "measures", "report"} & {name[1] for name in own}
    assert len(modules) < 700


@pytest.mark.parametrize(
    "typo",
    [
        "translate a --bundle aple2orange",
        "detect a --detector mine",
        "distill --teacher aple2orange",
        "export-dataset --data dmeo",
    ],
)
def test_a_misspelt_name_imports_nothing_heavy(tmp_path: Path, typo: str) -> None:
    assert imported(tmp_path, *typo.split(), code=2)[0] == set()


def test_a_picture_goes_through_onnx_without_torch(tmp_path: Path, photo: str) -> None:
    pytest.importorskip("onnxruntime", reason="fruitgan[onnx] is absent")
    packages, modules = imported(tmp_path, "translate", photo, "--gpu", "none")
    assert packages == {"numpy", "PIL", "onnxruntime", "safetensors"}
    assert (tmp_path / "translated" / "photo.png").exists()
    assert len(modules) < 700


def test_a_picture_goes_through_torch_without_torchvision(tmp_path: Path, photo: str) -> None:
    packages, _ = imported(tmp_path, "translate", photo, "--engine", "torch", "--gpu", "none")
    assert packages == {"numpy", "PIL", "torch", "safetensors"}


def test_a_rerun_imports_no_engine(tmp_path: Path, photo: str) -> None:
    imported(tmp_path, "translate", photo, "--gpu", "none")
    packages, _ = imported(tmp_path, "translate", photo, "--gpu", "none")
    assert packages == {"numpy", "PIL", "safetensors"}
