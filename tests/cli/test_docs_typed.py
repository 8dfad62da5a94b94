"""The commands of README.md and docs/quickstart.md, typed in their order, on drawn fruit and with few steps."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from picture_files import write_fruit_domains
from PIL import Image

from fruitgan.demo.fruit import draw

ROOT = Path(__file__).parents[2]
QUICK = {
    **{"FRUITGAN_BATCH_SIZE": "2", "FRUITGAN_MAX_TIME": "2s", "FRUITGAN_KEEP_EVERY": "1"},
    **{"FRUITGAN_QUICK": "1", "FRUITGAN_THREADS": "1", "FRUITGAN_FEATURES": "colour"},
}
"""For options that a command does not type. A training stops after seconds, so that there is something to resume."""
SMALLER = (
    (r"--max-time \w+", "--max-time 2s"),
    (r"--gpu 0", "--gpu none"),
    (r"--count \d+", "--count 12"),
    (r"train-detector", "train-detector --epochs 1"),
)
TRAINED = 'image-size = 48\ngenerator-option = ["base_channels=4", "blocks=1"]\ndiscriminator-option = ["base_channels=4"]\n'


def commands_of(page: str) -> list[str]:
    """The lines of a page's shell examples that begin with our command, or pipe a file into it."""
    text = (ROOT / page).read_text(encoding="utf-8")
    lines = [line for block in re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL) for line in block.splitlines()]
    return [line.partition("  #")[0].strip() for line in lines if line.startswith(("fruitgan ", "cat "))]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """What the examples speak of: pictures, a folder of them, two data sets, one of them in two places."""
    write_fruit_domains(tmp_path / "mydata", 12, 48, fruit_a="apple")
    for copy in ("elsewhere", "apple2orange"):
        shutil.copytree(tmp_path / "mydata", tmp_path / copy)
    for split, name in (("trainA", "apples"), ("trainB", "oranges")):
        shutil.copytree(tmp_path / "mydata" / split, tmp_path / "twofolders" / name)
    (tmp_path / "photos" / "more").mkdir(parents=True)
    for name in ("apple.jpg", "orange.jpg", "photo.jpg", "photos/one.jpg", "photos/more/two.jpg"):
        Image.fromarray(draw("apple", 64, 0, len(name))).save(tmp_path / name)
    (tmp_path / "small.toml").write_text(TRAINED)
    (tmp_path / "fruitgan").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m fruitgan "$@"\n')
    (tmp_path / "fruitgan").chmod(0o755)
    return tmp_path


def as_typed(line: str, here: Path) -> str:
    """The line with real names for those that stand for any run or step, and less to do."""
    runs = sorted((here / "runs/train-gan").glob("*/config.json"), key=lambda path: path.stat().st_mtime)
    if runs:
        newest = runs[-1].parent
        step = max((newest / "checkpoints").iterdir()).name.removeprefix("step-").lstrip("0")
        line = re.sub(r"\bRUN@\d+", f"{newest.name}@{step}", line)
        line = re.sub(r"\bRUN\b", newest.name, line)
        for named in re.findall(r"runs/train-gan/[\w-]+", line):
            if not (here / named).exists():
                shutil.copytree(newest, here / named)
    for pattern, smaller in SMALLER:
        line = re.sub(pattern, smaller, line)
    if "train-gan --data" in line:
        line += " --config small.toml"
    return line + (" --detector none" if "fruitgan evaluate" in line else "")


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md"])
def test_the_examples_of_a_page_run_in_their_order(page: str, here: Path) -> None:
    environment = os.environ | QUICK | {"PATH": f"{here}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    lines = commands_of(page)
    assert len(lines) > 5
    for line in lines:
        typed = as_typed(line, here)
        done = subprocess.run(
            ["sh", "-c", typed], cwd=here, env=environment, capture_output=True, text=True, errors="replace", timeout=900
        )
        assert done.returncode == 0, f"{page}: {typed}\n{done.stdout[-500:]}{done.stderr[-2000:]}"
