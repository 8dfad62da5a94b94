"""Names typed at the terminal: unknown ones are refused before torch is imported, known ones completed, shown and listed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_bundles import save_toy

from fruitgan.bundle import FILE_NAME
from fruitgan.cli import main
from fruitgan.registry import KINDS, OWN_PACKAGE, Registry
from fruitgan.runs.run import Run, locked

Captured = pytest.CaptureFixture[str]
SLOW = "torch torchvision kornia sklearn matplotlib scipy jinja2"
TYPED = f"""
import sys
from fruitgan.cli import main
for line in sys.stdin.read().splitlines():
    print(main(line.split()), *[name for name in {SLOW.split()} if name in sys.modules])
"""
TYPOS = """train-gan --data aple2orange
train-gan --data missing/folder
train-gan --data demo --recipe fsat
train-gan --data demo --generator resnet9
train-gan --data demo --discriminator patch70
train-gan --data demo --objective cyclegun
train-gan --data demo --augment miror
train-gan --data demo --set wieghts.cycle=3
train-gan --resume
train-gan --resume nothing
translate in --bundle aple2orange
translate in --engine onx
translate in --to bananna
export-dataset --data aple2orange
train-detector --data missing
train-detector --data in --detector smal-cnn
train-detector --data in --augment miror
train-detector --resume
detect in --detector missing
evaluate --fake-dir missing
evaluate --fake-dir in --real-dir in --features randm
evaluate --fake-dir in --real-dir in --metrics kidd
evaluate --fake-dir in --real-dir in --attackers spectrun
evaluate --compare one two --data demo
distill --teacher aple2orange
distill --teacher apple2orange --data dmeo
distill --resume
export aple2orange
show aple2orange
show recipe fsat
list recipies
runs missing
data fetch aple2orange
data check aple2orange
demo --sed 3
doctor --jsn"""


def test_no_typo_waits_for_torch_and_its_like(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save(tmp_path / "in" / "a.png")
    found = subprocess.run(
        [sys.executable, "-c", TYPED], input=TYPOS, capture_output=True, text=True, check=True, cwd=tmp_path, timeout=120
    )
    assert dict(zip(TYPOS.splitlines(), found.stdout.splitlines(), strict=True)) == {
        line: "3" if {"missing/folder", "missing"} & set(line.split()) and not line.startswith(("detect ", "runs")) else "2"
        for line in TYPOS.splitlines()
    }


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("train-gan --recipe f", ["fast", "fruit"]),
        ("train-gan --data app", ["apple2orange"]),
        ("train-gan --resume m", ["mine"]),
        ("translate a.jpg --bundle ", ["apple2orange", "mine"]),
        ("evaluate --metrics kid,cov", ["kid,coverage"]),
        ("evaluate --detector no", ["none"]),
        ("show seed", ["seed-cnn", "seed-unet"]),
        ("runs ", ["mine", "other"]),
        ("list gen", ["generators"]),
        ("train-gan --precision b", ["bf16"]),
    ],
)
def test_the_shell_completes_values(
    tmp_path: Path, words: str, completed: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    for folder in ("train-gan/mine", "train-detector/other"):
        Run.create(tmp_path / "runs" / folder, {}, {})
    (tmp_path / "runs/train-gan/mine" / FILE_NAME).touch()
    monkeypatch.chdir(tmp_path)
    asked = {"_FRUITGAN_COMPLETE": "complete_bash", "COMP_WORDS": f"fruitgan {words}", "COMP_CWORD": str(len(words.split(" ")))}
    for name, value in asked.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        main([])
    assert capsys.readouterr().out.split() == completed


def test_a_list_fits_a_terminal_and_says_what_each_thing_is(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["list"]) == 0
    assert " ...\n" not in capsys.readouterr().out  # for programs and files it is whole
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    names = {name for kind in KINDS for name in Registry[object](kind).names()}
    assert {line.split()[0] for line in lines if line.startswith("  ")} == names
    assert all(len(line.split()) > 2 for line in lines if line.startswith("  "))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "recipes"])
def test_every_registered_name_can_be_shown(kind: str, capsys: Captured) -> None:
    for entry in Registry[object](kind).entries():
        if entry.package == OWN_PACKAGE:
            assert main(["show", kind.removesuffix("s"), entry.name, "--json"]) == 0
            assert json.loads(capsys.readouterr().out)["about"]


def test_a_name_alone_is_shown_with_its_options(capsys: Captured) -> None:
    assert main(["show", "resnet-9"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("generator resnet-9")
    assert "base_channels  64" in said


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    monkeypatch.chdir(tmp_path)

    def make(kind: str, name: str, /, **config: object) -> Path:
        run = Run.create(Path("runs") / kind / name, config, {})
        (run.path / "checkpoints" / "step-00000040").mkdir(parents=True)
        run.log({"step": 50, "seconds": 75.0, "losses": {}, "learning_rate": 0.1})
        return run.path

    return make


def test_runs_are_listed_with_their_state_and_how_to_go_on(here: Callable[..., Path], capsys: Captured) -> None:
    stopped, done = here("train-gan", "stopped", total_steps=100), here("train-gan", "done", total_steps=50)
    busy, detector = here("distill", "busy", total_steps=9), here("train-detector", "judge", kind="train-detector")
    (done / "result.json").write_text('{"step": 50, "seconds": 80.0}')
    command = [sys.executable, "-c", "from fruitgan.cli import main; main(['runs', '--json'])"]
    with locked(busy):  # a lock of this process is none to itself
        found = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=120).stdout)["runs"]
    by_name = {Path(run["run"]).name: run for run in found}
    assert {name: run["state"] for name, run in by_name.items()} == {
        "stopped": "stopped",
        "done": "finished",
        "busy": "running",
        "judge": "stopped",
    }
    assert (by_name["stopped"]["step"], by_name["stopped"]["total_steps"], by_name["stopped"]["seconds"]) == (40, 100, 75.0)
    assert (by_name["done"]["step"], by_name["done"]["seconds"]) == (50, 80.0)
    assert by_name["stopped"]["go_on"] == "fruitgan train-gan --resume stopped"
    assert by_name["judge"]["go_on"] == "fruitgan train-detector --resume judge"
    assert by_name["busy"]["go_on"] is None
    assert by_name["stopped"]["bytes"] == sum(path.stat().st_size for path in stopped.rglob("*") if path.is_file())
    assert main(["runs", str(detector)]) == 0
    assert "judge" in (said := capsys.readouterr().out)
    assert "done" not in said


def test_a_run_in_a_folder_of_any_name_is_known_by_its_config(here: Callable[..., Path], capsys: Captured) -> None:
    here("mine", "plain", total_steps=100, settings={"teacher": None})
    here("mine", "student", total_steps=100, settings={"teacher": "teacher.safetensors"})
    here("mine", "judge", kind="train-detector")
    here("mine", "odd", kind="../odd/")
    (here("mine", "judged", kind="train-detector") / "metrics.json").write_text('{"seconds": 9.5}')
    assert main(["runs", "--json"]) == 0
    found = {Path(run["run"]).name: run for run in json.loads(capsys.readouterr().out)["runs"]}
    assert {name: run["go_on"] for name, run in found.items()} == {
        "plain": "fruitgan train-gan --resume runs/mine/plain",
        "student": "fruitgan distill --resume runs/mine/student",
        "judge": "fruitgan train-detector --resume runs/mine/judge",
        "judged": None,
        "odd": "fruitgan odd --resume runs/mine/odd",
    }
    assert (found["judged"]["state"], found["judged"]["kind"]) == ("finished", "train-detector")


def test_a_run_is_removed_only_after_a_yes(
    here: Callable[..., Path], capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = here("train-gan", "one"), here("train-gan", "other")
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    assert main(["runs", "one", "--remove"]) == 2
    assert main(["runs", "--remove", "--yes"]) == 2
    assert "--yes" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.confirm", lambda *_, **__: False)
    assert main(["runs", "one", "--remove"]) == 1
    assert one.is_dir()
    monkeypatch.setattr("typer.confirm", lambda *_, **__: True)
    assert main(["runs", "one", "--remove"]) == 0
    assert main(["runs", "missing", "--remove", "--yes"]) == 2
    assert (one.exists(), other.is_dir()) == (False, True)
    assert main(["runs", "other", "--remove", "--yes"]) == 0
    assert not other.exists()


def test_of_a_linked_run_the_link_is_removed(here: Callable[..., Path], tmp_path: Path) -> None:
    run = here("train-gan", "one")
    elsewhere = run.rename(tmp_path / "elsewhere")
    run.symlink_to(elsewhere)
    assert main(["runs", "one", "--remove", "--yes"]) == 0
    assert not run.is_symlink()
    assert (elsewhere / "config.json").is_file()


def test_a_result_of_a_stranger_without_sense_tells_no_step(here: Callable[..., Path], capsys: Captured) -> None:
    (here("train-gan", "odd") / "result.json").write_text('{"step": "many", "seconds": []}')
    assert main(["runs", "odd", "--json"]) == 0
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert (run["state"], run["step"], run["seconds"]) == ("finished", 40, 75.0)


def test_a_place_of_runs_that_is_no_folder_is_named(here: Callable[..., Path], capsys: Captured) -> None:
    assert main(["runs"]) == 0  # none yet
    Path("file").touch()
    here("train-gan", "one")
    for command in (["runs", "--out", "file"], ["runs", "--out", "nowhere"], ["show", "one", "--out", "file"]):
        capsys.readouterr()
        assert main(command) == 3
        assert capsys.readouterr().err.startswith(f"error: {command[-1]}: no")


def test_a_damaged_run_hides_no_other(here: Callable[..., Path], capsys: Captured) -> None:
    broken = here("train-gan", "broken")
    for name in ("config.json", "log.jsonl"):
        (broken / name).write_text("{")
    here("train-gan", "whole", total_steps=3)
    assert main(["runs", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["runs"]
    assert [(Path(run["run"]).name, run["total_steps"]) for run in found] == [("broken", None), ("whole", 3)]


def test_a_checkpoint_and_what_is_in_it_can_be_shown(here: Callable[..., Path], capsys: Captured) -> None:
    checkpoint = here("train-gan", "one") / "checkpoints" / "step-00000040"
    (checkpoint / "state.json").write_text('{"step": 40, "torch": "2.15", "parts": ["trainer"]}')
    save_toy(checkpoint / FILE_NAME)
    assert main(["show", str(checkpoint), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["step"] == 40
    assert main(["show", str(checkpoint)]) == 0
    assert str(checkpoint / FILE_NAME) in capsys.readouterr().out
