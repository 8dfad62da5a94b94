"""A run that was stopped, killed or damaged goes on as if nothing had happened, bit for bit, or says why it cannot."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from picture_files import write_ramp_domains
from safetensors.torch import load_file
from training_events import is_saved, start_of, step_of, warnings_of
from trainings import assert_same_end, last_checkpoint, log_lines, stop_after

from fruitgan import bundle as bundles
from fruitgan import distributed
from fruitgan.errors import DataError, UsageError
from fruitgan.progress import Event, Note, OnProgress
from fruitgan.runs import checkpoint
from fruitgan.settings import to_json
from fruitgan.train_gan import recipes, segment
from fruitgan.train_gan.job import train_gan
from fruitgan.train_gan.recipe import Part, until
from fruitgan.train_gan.settings import TrainGanResult, TrainGanSettings

pytestmark = pytest.mark.usefixtures("no_report")

NARROW = {"generator_options": {"base_channels": "4"}, "discriminator_options": {"base_channels": "4"}}
LIGHT = {"recipe": "fast", "discriminator": "patch-70", "generator_options": {"base_channels": "4", "blocks": "2"}}
KINDS: dict[str, tuple[dict[str, Any], int, int]] = {
    # settings, steps in all, and the step after which it is stopped: between two log lines
    "fast": ({**LIGHT, "image_size": 24, "batch_size": 2}, 7, 5),
    # as on a CPU with bf16 instructions, where this recipe chooses it
    "fast in bf16": ({**LIGHT, "image_size": 24, "precision": "bf16"}, 5, 3),
    # masks, heads on a backbone, a replay buffer that is full, and swaps, before the stop
    "fruit": (
        {
            "recipe": "fruit",
            "image_size": 32,
            "batch_size": 2,
            "generator_options": {"base_channels": "4", "blocks": "1"},
            "objective_options": {"pool_size": "5"},
        },
        6,
        4,
    ),
    # with dropout, and an epoch that ends
    "seed-unet": ({"recipe": "seed-unet", "generator": "unet-128", "image_size": 128}, 5, 2),
    # one direction, positions that are drawn, and a network beside the generator
    "cut": (
        {"recipe": "cut", "image_size": 48, "batch_size": 2, "generator_options": {"base_channels": "4", "blocks": "1"}},
        5,
        2,
    ),
}
RARELY = 1000
OFTEN = {"log_every": 3, "save_every": RARELY, "sample_every": RARELY}


@pytest.fixture(scope="module", autouse=True)
def rich_fruit() -> Iterator[None]:
    """The recipe with what else an objective can keep, and a loss that ends halfway."""
    options = {**recipes.fruit.objective.options, "pool_size": 3}
    weights = {**recipes.fruit.weights, "identity": until(0.5, 5.0)}
    rich = dataclasses.replace(recipes.fruit, objective=Part(name="cyclegan", options=options), weights=weights)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipes, "fruit", rich)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ramp_domains(tmp_path_factory.mktemp("data") / "dark2light")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def settings(data: Path, out: Path, kind: str, name: str, **changes: Any) -> TrainGanSettings:
    asked, steps, _ = KINDS[kind]
    given = {"data": str(data), "out": out, "name": name, "steps": steps, "gpu": "none", "precision": "fp32", "seed": 3}
    return TrainGanSettings(**{**NARROW, **given, **OFTEN, **asked, **changes})


def to_resume(out: Path, wanted: str, **changes: Any) -> TrainGanSettings:
    return TrainGanSettings(resume=wanted, out=out, gpu="none", **{**OFTEN, **changes})


def resumed(out: Path, wanted: str, on_progress: OnProgress | None = None, **changes: Any) -> TrainGanResult:
    return train_gan(to_resume(out, wanted, **changes), on_progress)


@pytest.fixture(scope="module")
def whole(data: Path, out: Path) -> dict[str, TrainGanResult]:
    """One run of each kind without a break."""
    return {kind: train_gan(settings(data, out, kind, f"{kind}-whole")) for kind in KINDS}


IN_A_NEW_PROCESS = """
import json, os, signal, sys
from pathlib import Path
from fruitgan.settings import from_json
from fruitgan.train_gan.settings import TrainGanSettings
from fruitgan.train_gan.job import train_gan

def kill_at_five(event):
    if getattr(event, "details", {}).get("losses", 0) != 0 and event.done == 5:
        os.kill(os.getpid(), signal.SIGKILL)

work = json.loads(sys.argv[1])
for job in work["resume"]:
    train_gan(from_json(TrainGanSettings, job))
train_gan(from_json(TrainGanSettings, work["kill"]), kill_at_five)
"""


@pytest.fixture(scope="module")
def new_process(data: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Stop a run of each kind here and let another process finish it; that one ends in a kill of its own first run."""
    resume = []
    for kind, (_, _, stop) in KINDS.items():
        result = train_gan(settings(data, out, kind, f"{kind}-stopped"), stop_after(stop))
        assert (result.step, result.finished) == (stop, False)
        resume.append(to_json(to_resume(out, result.run.name)))
    kill = to_json(settings(data, out, "fast", "killed", save_every=2))
    return subprocess.run(
        [sys.executable, "-c", IN_A_NEW_PROCESS, json.dumps({"resume": resume, "kill": kill})],
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_stopped_run_goes_on_bit_for_bit_in_a_new_process(
    kind: str, whole: Mapping[str, TrainGanResult], out: Path, new_process: subprocess.CompletedProcess[str]
) -> None:
    assert (out / f"{kind}-stopped" / "result.json").is_file(), new_process.stderr
    assert_same_end(out / f"{kind}-stopped", whole[kind].run)


def test_the_checkpoints_compared_hold_every_part_that_moves(whole: Mapping[str, TrainGanResult]) -> None:
    networks = {
        f"network.{role}_{end}" for role, ends in (("generator", ("ab", "ba")), ("discriminator", "ab")) for end in ends
    }
    always = networks | {"optimizer.generators", "optimizer.discriminators", "trainer"}
    more = {
        "fast": {"ema"},
        "fruit": {"ema", "extra.pool_a", "extra.pool_b"},
        "seed-unet": set(),
    }
    for kind, parts in more.items():
        tensors, document = last_checkpoint(whole[kind].run)
        assert set(document["parts"]) == always | parts
        assert {key.split("/")[0] for key in tensors} == (always | parts) - {"trainer"}
    _, document = last_checkpoint(whole["fruit"].run)
    assert document["values"]["extra.pool_a/count"] == 5


def test_a_killed_run_goes_on_bit_for_bit(
    whole: Mapping[str, TrainGanResult], out: Path, new_process: subprocess.CompletedProcess[str]
) -> None:
    assert new_process.returncode == -signal.SIGKILL, new_process.stderr
    assert not (out / "killed" / "result.json").exists()
    events: list[Event] = []
    result = resumed(out, "killed", events.append)
    assert [start_of(event) for event in events if start_of(event) >= 0] == [4]
    assert warnings_of(events) == ["goes on with --save-every 1000 instead of 2"]
    assert result.finished
    assert_same_end(result.run, whole["fast"].run)


def test_a_run_stopped_before_its_first_checkpoint_starts_at_0_again(
    whole: Mapping[str, TrainGanResult], data: Path, out: Path
) -> None:
    def interrupt(event: Event) -> None:
        if step_of(event) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_gan(settings(data, out, "fast", "interrupted"), interrupt)
    assert not (out / "interrupted" / "checkpoints").exists()
    assert [line["step"] for line in log_lines(out / "interrupted")] == [3]
    result = resumed(out, "interrupted")
    assert_same_end(result.run, whole["fast"].run)


def test_a_damaged_newest_checkpoint_is_passed_over_said_and_made_anew(
    whole: Mapping[str, TrainGanResult], data: Path, out: Path
) -> None:
    first = train_gan(settings(data, out, "fast", "damaged", save_every=2), stop_after(4))
    newest = first.run / "checkpoints" / "step-00000004"
    tensors = newest / "state.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-1])
    notes: list[str] = []

    def keep_notes(event: Event) -> None:
        notes.extend(warnings_of([event]))
        assert start_of(event) in (-1, 2)

    result = resumed(out, "damaged", keep_notes, save_every=2, keep=9)
    assert len(notes) == 2
    assert "step-00000004" in notes[0]
    assert "damaged; passed over for the checkpoint of step 2" in notes[0]
    assert notes[1] == "goes on with --keep 9 instead of 2"
    assert_same_end(result.run, whole["fast"].run)
    load_file(newest / "state.safetensors")


def test_other_images_are_refused_and_nothing_is_changed(data: Path, out: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(data, mine)
    first = train_gan(settings(mine, out, "fast", "other-images"), stop_after(2))
    before = {path: path.read_bytes() for path in first.run.rglob("*") if path.is_file()}
    shutil.rmtree(mine)
    write_ramp_domains(mine, seed=2)
    with pytest.raises(DataError, match="the training images are not those of the run") as error:
        resumed(out, "other-images", steps=9)
    assert error.value.exit_code == 3
    assert {path: path.read_bytes() for path in first.run.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "change",
    [
        *({"recipe": "cyclegan"}, {"generator": "resnet-6"}, {"generator_options": {"base_channels": "8", "blocks": "2"}}),
        *({"discriminator": "patch-70-affine"}, {"discriminator_options": {"scales": "3"}}, {"objective": "other"}),
        *({"augment": "none"}, {"image_size": 64}, {"batch_size": 4}, {"precision": "bf16"}, {"seed": 4}, {"seed": 0}),
        *({"domains": ("x", "y")}, {"init_from": "apple2orange"}),
    ],
    ids=str,
)
def test_what_decides_the_mathematics_cannot_change(
    change: dict[str, Any], whole: Mapping[str, TrainGanResult], out: Path
) -> None:
    (option,) = change
    with pytest.raises(UsageError, match=f"--{option.replace('_', '-')} cannot change in a resumed run"):
        resumed(out, whole["fast"].run.name, **change)


def test_a_finished_run_gives_its_result_again_and_touches_nothing(
    whole: Mapping[str, TrainGanResult], data: Path, out: Path
) -> None:
    run = whole["fast"].run
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    events: list[Event] = []
    assert resumed(out, run.name, events.append) == whole["fast"]
    again: dict[str, Any] = {**NARROW, **KINDS["fast"][0], "steps": KINDS["fast"][1], "seed": 3, "precision": "fp32"}
    assert resumed(out, str(run), **again, data=str(data)) == whole["fast"]  # saying again what it has
    assert events == []
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_more_steps_extend_a_finished_run(data: Path, out: Path) -> None:
    first = train_gan(settings(data, out, "fast", "extended", steps=4, log_every=2))
    result = resumed(out, "extended", steps=6, log_every=2)
    assert (first.step, first.finished, result.step, result.finished) == (4, True, 6, True)
    assert result.weights_sha256 != first.weights_sha256
    assert [line["step"] for line in log_lines(result.run)] == [2, 4, 6]
    config = json.loads((result.run / "config.json").read_text())
    assert (config["total_steps"], config["settings"]["steps"], config["plan"]["recipe"]["steps"]) == (6, 6, 6)
    assert resumed(out, "extended", log_every=2) == result  # and the new length is kept


def test_a_finished_run_refuses_what_it_cannot_do_and_gives_its_result_for_what_it_has(data: Path, out: Path) -> None:
    first = train_gan(settings(data, out, "fast", "done", steps=None, epochs=2))
    assert first.step == 6  # five images and two of them a step
    before = {path: path.stat().st_mtime_ns for path in first.run.rglob("*")}
    for same in (
        {"epochs": 2},
        {"steps": 6},
        {"data": str(data)},
        {"log_every": 3},
        {"recipe_changes": {"ema_decay": "0.999"}},
    ):
        assert resumed(out, "done", **same) == first
    refused: list[tuple[dict[str, Any], str]] = [
        ({"epochs": 1}, "is finished, at step 6, and 3 are fewer; --resume done@STEP --name NEW begins"),
        ({"steps": 5}, "and 5 are fewer"),
        ({"recipe_changes": {"weights.cycle": "1"}}, "--set weights.cycle would change nothing; give more --steps"),
        ({"learning_rate": 1e-5}, "--set optimizers.generators.learning_rate would change nothing"),
        ({"keep": 9}, "--keep 9 instead of 2 would change nothing"),
        ({"recipe_changes": {"batch_size": "3"}}, "--set batch_size cannot change"),
        ({"batch_size": 3}, "--batch-size cannot change"),
    ]
    for asked, said in refused:
        with pytest.raises(UsageError, match=said):
            resumed(out, "done", **asked)
    assert {path: path.stat().st_mtime_ns for path in first.run.rglob("*")} == before


def test_a_run_goes_on_where_its_images_lie_now_and_whatever_they_are_called(
    whole: Mapping[str, TrainGanResult], data: Path, out: Path, tmp_path: Path
) -> None:
    first = train_gan(settings(shutil.copytree(data, tmp_path / data.name), out, "fast", "moved"), stop_after(2))
    (tmp_path / data.name).rename(tmp_path / "other")
    for path in (tmp_path / "other" / "trainA").iterdir():
        path.rename(path.with_name(f"renamed-{path.name}"))
    with pytest.raises(DataError, match="where the images lie elsewhere by now: --resume moved --data DIR"):
        resumed(out, "moved")
    events: list[Event] = []
    assert_same_end(resumed(out, "moved", events.append, data=str(tmp_path / "other")).run, whole["fast"].run)
    told = [event.text for event in events if isinstance(event, Note)]
    assert f"{first.run}: the images are found elsewhere, and are the same by content" in told
    assert bundles.load_card(first.bundle).domains == ("dark", "light")
    assert resumed(out, "moved", steps=KINDS["fast"][1] + 1).finished  # and the place is kept


def test_an_earlier_checkpoint_is_a_bundle_and_the_beginning_of_another_run(
    whole: Mapping[str, TrainGanResult], data: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train_gan(settings(data, out, "fast", "kept", save_every=1, keep=1, keep_every=2))
    steps = KINDS["fast"][1]
    kept = sorted({*range(2, steps + 1, 2), steps})
    assert [path.name for path in sorted((first.run / "checkpoints").iterdir())] == [f"step-{step:08d}" for step in kept]
    assert bundles.load_card(bundles.locate(f"{first.run}@2")).steps == 2
    assert bundles.locate("kept@2", out).is_file()
    last = bundles.load(bundles.locate(f"{first.run}@{steps}"))
    assert bundles.weights_sha256(last) == first.weights_sha256
    with pytest.raises(UsageError, match=f"@3: no checkpoint of that step has a bundle; those that do: 2, .*{steps}"):
        bundles.locate(f"{first.run}@3")
    with pytest.raises(UsageError, match="give it a name with --name"):
        resumed(out, "kept@2")
    with pytest.raises(UsageError, match="has no checkpoint of step 3; there are: 2, "):
        resumed(out, "kept@3", name="again")
    with pytest.raises(UsageError, match="--batch-size cannot change"):
        resumed(out, "kept@2", name="again", batch_size=9)
    assert not (out / "again").exists()
    again = resumed(out, "kept@2", name="again")
    assert (again.run, again.finished) == (out / "again", True)
    assert_same_end(again.run, whole["fast"].run)
    with pytest.raises(UsageError, match="again exists"):
        resumed(out, "kept@2", name="again")


def test_loose_folders_and_options_as_numbers_can_be_resumed_from_another_folder(
    data: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data)
    options = {"base_channels": 4, "blocks": 1}
    asked = settings(data, out, "fast", "loose", generator_options=options)
    train_gan(dataclasses.replace(asked, data=None, data_a=Path("trainA"), data_b=Path("trainB")), stop_after(1))
    again: dict[str, Any] = {"data_a": Path("trainA"), "generator_options": options, "steps": 2}
    assert resumed(out, "loose", **again).step == 2
    monkeypatch.chdir(tmp_path)
    assert resumed(out, "loose", steps=3).step == 3


def test_time_counts_from_the_first_start_of_processes_that_are_started_anew(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranks = distributed.Ranks()
    ranks.launch = "one"
    monkeypatch.setattr(distributed, "_ranks", ranks)
    asked = settings(data, tmp_path, "fast", "again", max_seconds=3600.0)
    run = train_gan(asked, stop_after(2)).run
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"launch_began": config["launch_began"] - 3600}))
    ranks.restarts = 1
    assert train_gan(asked).step == 3
    ranks.launch, ranks.restarts = "another", 0
    assert resumed(tmp_path, "again", max_seconds=3600.0).finished


def test_a_bundle_that_a_kill_left_behind_its_checkpoint_is_made_anew(
    whole: Mapping[str, TrainGanResult], data: Path, out: Path
) -> None:
    older: list[bytes] = []

    def keep_bundle(event: Event) -> None:
        if is_saved(event) and not older:
            older.append((out / "behind" / bundles.FILE_NAME).read_bytes())

    first = train_gan(settings(data, out, "fast", "behind", save_every=3), keep_bundle)
    first.bundle.write_bytes(older[0])
    (first.run / "result.json").unlink()
    result = resumed(out, "behind")
    assert bundles.weights_sha256(bundles.load(result.bundle)) == result.weights_sha256 == whole["fast"].weights_sha256


def test_time_between_the_last_line_of_the_log_and_the_checkpoint_is_counted(data: Path, out: Path) -> None:
    first = train_gan(settings(data, out, "fast", "timed", log_every=RARELY), stop_after(2))
    assert log_lines(first.run) == []
    _, document = last_checkpoint(first.run)
    assert first.seconds == document["about"]["seconds"] > 0  # what the next segment goes on from
    second = resumed(out, "timed", stop_after(3), log_every=RARELY)
    assert second.seconds > first.seconds
    third = resumed(out, "timed", stop_after(4), log_every=1)
    logged = json.loads((first.run / "log.jsonl").read_text())["seconds"]
    assert second.seconds <= logged <= third.seconds
    file = first.run / "checkpoints" / "step-00000004" / "state.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "about": {"seconds": "a while"}}))  # which nothing relies on
    assert resumed(out, "timed", stop_after(5), log_every=RARELY).step == 5


def test_without_an_interval_a_run_saves_and_tells_by_time(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Event] = []
    written: list[object] = []
    monkeypatch.setattr(segment, "training_report", lambda *given: written.append(given[-1]) or "")
    train_gan(settings(data, tmp_path, "fast", "seldom", save_every=None), events.append)
    assert sum(is_saved(event) for event in events) == 1  # at the end, which comes within a minute
    assert written == [None]
    events.clear()
    written.clear()
    monkeypatch.setattr(checkpoint, "MOST_TIME_SHARE", 1e9)
    monkeypatch.setattr(segment, "SaveClock", lambda: checkpoint.SaveClock(0.0))
    train_gan(settings(data, tmp_path, "fast", "often", save_every=None), events.append)
    assert sum(is_saved(event) for event in events) == KINDS["fast"][1]
    assert [moment is None for moment in written] == [False] * KINDS["fast"][1] + [True]  # the report too, which then ends
