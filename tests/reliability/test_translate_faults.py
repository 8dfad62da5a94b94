"""What may happen while pictures are translated: sources and folders go away or cannot be written; memory does not grow."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from toy_bundles import Negative, save_toy

from fruitgan.cli import main
from fruitgan.engines.contracts import engines
from fruitgan.progress import Event, Progress
from fruitgan.translate.job import TranslateSettings, translate

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, and reads /proc")

BYTES_OF_A_FILE = 6_000
"""What the names and the plan of one file may take; its 64 x 64 pixels alone would be 12,288."""
GROWN = """
import os, resource, sys
from fruitgan.engines.contracts import Engine, engines
from fruitgan.translate.job import TranslateSettings, translate
class Negative(Engine):  # that of toy_bundles would bring torch with it
    def __init__(self, **options):
        pass
    def translate(self, images):
        return 1 - images
engines.get = lambda name: Negative
os.fsync = lambda descriptor: None  # it costs time and no memory
asked = {"bundle": "toy.safetensors", "engine": "torch", "gpu": "none"}
peaks = []
for number in sys.argv[1:]:
    translate(TranslateSettings(sources=(f"in-{number}",), output=f"out-{number}", **asked))
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
print(*peaks)
"""


def grown_bytes(folder: Path, *counts: int) -> list[int]:
    """The largest memory of one process that translates so many pictures, then so many, and so on: fewest first."""
    save_toy(folder / "toy.safetensors", directions=("a2b",))
    Image.new("RGB", (64, 64), 77).save(folder / "a.png")
    for count in counts:
        (folder / f"in-{count}").mkdir()
        for number in range(count):
            (folder / f"in-{count}" / f"{number:05}.png").write_bytes((folder / "a.png").read_bytes())
    words = [sys.executable, "-c", GROWN, *map(str, counts)]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True)
    assert [len(list((folder / f"out-{count}").iterdir())) for count in counts] == list(counts)
    return [int(word) for word in done.stdout.split()]


@pytest.mark.parametrize(("few", "more"), [(200, 1_000), pytest.param(500, 10_000, marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_the_number_of_pictures(few: int, more: int, tmp_path: Path) -> None:
    least, most = grown_bytes(tmp_path, few, more)
    assert most - least < (more - few) * BYTES_OF_A_FILE


# What else may happen while it runs


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with three pictures and a bundle."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(engines, "get", lambda name: Negative)
    save_toy(tmp_path / "toy.safetensors", directions=("a2b",))
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png", "c.png"):
        Image.new("RGB", (8, 8), 77).save(tmp_path / "in" / name)
    return tmp_path


def settings(**more: Any) -> TranslateSettings:
    return TranslateSettings(**{"sources": ("in",), "bundle": "toy.safetensors", "engine": "torch", **more})


@pytest.mark.parametrize(
    ("become", "reason", "code"),
    [
        (lambda source: None, "cannot be read (no such file or directory)", 3),
        (lambda source: source.symlink_to("nowhere"), "cannot be read (no such file or directory)", 3),
        (os.mkfifo, "not a regular file", 0),
        (Path.mkdir, "not a regular file", 0),
        (Path.touch, "is empty", 0),
        (lambda source: source.write_text("nothing to see"), "not an image", 0),
    ],
    ids=["nothing", "a dead link", "a pipe", "a folder", "an empty file", "a text"],
)
def test_a_source_that_goes_away_or_becomes_something_else_is_a_reason_and_stops_no_other(
    become: Callable[[Path], Any], reason: str, code: int, here: Path
) -> None:
    def on_progress(progress: Event) -> None:
        if isinstance(progress, Progress) and progress.done == 1:
            Path("in/b.png").unlink()
            become(Path("in/b.png"))

    result = translate(settings(), on_progress)
    assert sorted(path.name for path in Path("translated").iterdir()) == ["a.png", "c.png"]
    (remark,) = (*result.skipped, *result.failed)
    assert remark.path == "in/b.png"
    assert remark.reason.endswith(reason)
    assert result.exit_code == code


def test_results_whose_folder_goes_away_are_made_in_a_new_one(here: Path) -> None:
    def on_progress(progress: Event) -> None:
        if isinstance(progress, Progress) and progress.done == 1:
            Path("translated").rename("elsewhere")

    assert translate(settings(), on_progress).translated == 3
    assert sorted(path.name for path in Path("translated").iterdir()) == ["b.png", "c.png"]
    assert translate(settings()).translated == 1


@pytest.mark.parametrize("output", ["/proc/fruitgan", "toy.safetensors/", "in/a.png/"])
def test_a_folder_that_cannot_be_written_is_one_line_and_exit_code_1(
    output: str, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = sorted(here.rglob("*"))
    code = main(["translate", "in", "--bundle", "toy.safetensors", "--engine", "torch", "-o", output])
    out, err = capfd.readouterr()
    assert (code, out) == (1, "")
    assert re.fullmatch(r"error: \S+: cannot be written \([a-z ]+\)", err.splitlines()[-1])
    assert sorted(here.rglob("*")) == before
