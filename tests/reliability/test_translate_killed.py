"""A translation that dies, or cannot write, leaves whole pictures alone; the same command does the rest, and nothing twice."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from answering_scripts import answer
from PIL import Image
from toy_bundles import Negative, save_toy

from fruitgan.cli import main
from fruitgan.engines.contracts import engines
from fruitgan.files import PART_PREFIX
from fruitgan.progress import Event, Progress
from fruitgan.translate.job import TranslateSettings, translate

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, and reads /proc")

# Few enough to be worked on one after the other, so that every run makes the same changes.
NAMES = ("a.png", "b.jpg", "c.webp", "sub/a.png", "sub/b.gif", "sub/deep/a.bmp", "sub/deep/b.png")
COPIES = 24
BYTES_OF_A_FILE = 6_000
"""What the names and the plan of one file may take; its 64 x 64 pixels alone would be 12,288."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures in a tree, and a bundle."""
    root = tmp_path_factory.mktemp("translations")
    save_toy(root / "toy.safetensors", directions=("a2b",))
    y, x = np.mgrid[:64, :64]
    for number, name in enumerate(NAMES):
        (root / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.stack([x * 4, y * 4, x + y + number], axis=-1).astype(np.uint8)
        Image.fromarray(pixels).save(root / "in" / name)
    return root


def tried(folder: Path, orders: Sequence[dict[str, Any]]) -> list[list[Any]]:
    found: list[list[Any]] = answer(Path(__file__).with_name("forked_translations.py"), orders, folder)
    return found


ORDERS: dict[str, dict[str, Any]] = {
    "die": {"at": "die_at", "told": {}, "every": 1},
    "power-cut": {"at": "die_at", "told": {"power_cut": True}, "every": 2},
    "full": {"at": "fail_from", "told": {}, "every": 4},
    "at once": {"deaths": 10, "copies": COPIES},
    "few": {"files": 300},
    "more": {"files": 1_500},
}


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, list[Any]]:
    """The cases of every order, and of the run that nothing happened to."""
    return dict(zip(["whole", *ORDERS], tried(folder, list(ORDERS.values())), strict=True))


@pytest.fixture(scope="module")
def whole(found: dict[str, list[Any]]) -> Any:
    return found["whole"][0]


def test_a_run_that_nothing_happens_to_makes_everything_and_the_next_nothing(whole: Any) -> None:
    assert whole["first"]["said"] == whole["again"]["said"] == [0, ""]
    assert (whole["first"]["translated"], whole["again"]["translated"]) == (7, 0)
    assert sorted(whole["left"]) == sorted(name.rsplit(".", 1)[0] + ".png" for name in NAMES)
    assert whole["left"] == whole["ended"]
    changes = whole["first"]["changes"]
    assert set(changes) == {"os.mkdir", "open", "write", "fsync", "os.rename"}
    assert changes.count("open") == changes.count("write") == changes.count("os.rename") == 7
    assert changes.count("os.mkdir") == 3


def assert_finished_by_the_next(case: Any, whole: Any) -> None:
    contents = {name: digest for name, (digest, *_) in whole["ended"].items()}
    left = {name: about for name, about in case["left"].items() if not Path(name).name.startswith(PART_PREFIX)}
    assert {name: digest for name, (digest, *_) in left.items()}.items() <= contents.items()  # whole or absent
    assert case["again"]["said"] == [0, ""]
    assert case["again"]["translated"] == 7 - len(left)
    assert {name: digest for name, (digest, *_) in case["ended"].items()} == contents  # and no unfinished file
    assert {name: case["ended"][name] for name in left} == left  # nothing that was whole was touched


@pytest.mark.parametrize("how", ["die", "power-cut"])
def test_dead_at_any_change_to_the_disk_a_run_is_finished_by_the_next(
    how: str, found: dict[str, list[Any]], whole: Any
) -> None:
    cases = found[how]
    assert len(cases) * ORDERS[how]["every"] >= len(whole["first"]["changes"]) > 40
    for case in cases:
        assert case["first"]["code"] == -signal.SIGKILL
        assert_finished_by_the_next(case, whole)
    assert any(len(case["left"]) not in (0, 7) for case in cases)
    assert how == "power-cut" or any(Path(name).name.startswith(PART_PREFIX) for case in cases for name in case["left"])


def test_dead_while_many_pictures_are_worked_on_a_run_is_finished_by_the_next(found: dict[str, list[Any]]) -> None:
    for case in found["at once"]:
        assert case["first"]["code"] == -signal.SIGKILL
        left = {name: about for name, about in case["left"].items() if not name.startswith(PART_PREFIX)}
        assert case["again"]["said"] == [0, ""]
        assert case["again"]["translated"] == COPIES - len(left)
        assert sorted(case["ended"]) == [f"{number:05}.png" for number in range(COPIES)]
        assert {name: case["ended"][name] for name in left} == left
    digests = {digest for case in found["at once"] for digest, *_ in case["ended"].values()}
    assert len(digests) == 1
    assert any(0 < len(case["left"]) < COPIES for case in found["at once"])


def test_on_a_full_disk_a_run_ends_in_one_line_and_is_finished_when_there_is_room(
    found: dict[str, list[Any]], whole: Any
) -> None:
    for case in found["full"]:
        code, line = case["first"]["said"]
        assert (case["first"]["code"], code) == (0, 1)
        assert re.fullmatch(r"\S+/out/\S+: cannot be written \(no space left on device\)", line)
        assert not any(Path(name).name.startswith(PART_PREFIX) for name in case["left"])
        assert_finished_by_the_next(case, whole)


def test_memory_does_not_grow_with_the_number_of_pictures(found: dict[str, list[Any]]) -> None:
    (few,), (more,) = found["few"], found["more"]
    assert (few["translated"], few["outputs"]) == (300, 300)
    assert (more["translated"], more["outputs"]) == (1_500, 1_500)
    assert more["grown"] - few["grown"] < 1_200 * BYTES_OF_A_FILE


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


@pytest.mark.parametrize("what", ["removed", "a pipe", "a folder", "emptied", "a text", "a dead link"])
def test_a_source_that_goes_away_or_becomes_something_else_is_a_reason_and_stops_no_other(what: str, here: Path) -> None:
    def on_progress(progress: Event) -> None:
        source = Path("in/b.png")
        if isinstance(progress, Progress) and progress.done == 1:
            source.unlink()
            match what:
                case "a pipe":
                    os.mkfifo(source)
                case "a folder":
                    source.mkdir()
                case "emptied":
                    source.touch()
                case "a text":
                    source.write_text("nothing to see")
                case "a dead link":
                    source.symlink_to("nowhere")

    result = translate(settings(), on_progress)
    assert sorted(path.name for path in Path("translated").iterdir()) == ["a.png", "c.png"]
    (remark,) = (*result.skipped, *result.failed)
    assert remark.path == "in/b.png"
    expected = {
        "removed": "cannot be read (no such file or directory)",
        "a dead link": "cannot be read (no such file or directory)",
        "a pipe": "not a regular file",
        "a folder": "not a regular file",
        "emptied": "is empty",
        "a text": "not an image",
    }
    assert remark.reason.endswith(expected[what])
    assert result.exit_code == (3 if what in ("removed", "a dead link") else 0)


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
    assert re.fullmatch(r"error: \S+: cannot be written \([a-z ]+\)\n", err)
    assert sorted(here.rglob("*")) == before
