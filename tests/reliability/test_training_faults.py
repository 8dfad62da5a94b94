"""What goes wrong while a training runs: numbers, memory, the data, the clock. Nothing that was saved is lost by it."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from picture_files import write_ramp_domains
from training_events import is_saved, start_of, step_of, warnings_of
from trainings import assert_same_end, last_checkpoint, log_lines, stop_after

from fruitgan import randomness
from fruitgan.cli import main
from fruitgan.data.loader import Batch, BatchLoader
from fruitgan.errors import FruitganError, is_out_of_memory
from fruitgan.progress import Event, OnProgress
from fruitgan.runs.checkpoint import Checkpoints, Snapshot
from fruitgan.runs.run import Run
from fruitgan.train_gan import job, segment
from fruitgan.train_gan.job import OutOfMemory, train_gan
from fruitgan.train_gan.settings import TrainGanResult, TrainGanSettings
from fruitgan.train_gan.trainer import LossNotFinite, Trainer

pytestmark = pytest.mark.usefixtures("no_report")

REPORT = segment.training_report
SEED = 3
STEPS = 8
RARELY = 1000


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ramp_domains(tmp_path_factory.mktemp("data") / "dark2light")


def settings(data: Path, out: Path, **changes: Any) -> TrainGanSettings:
    """With replay buffers and averages."""
    given = {"data": str(data), "out": out, "name": "run", "steps": STEPS, "gpu": "none", "precision": "fp32", "seed": SEED}
    often = {"log_every": 3, "save_every": 2, "sample_every": RARELY, "batch_size": 1, "image_size": 24}
    recipe = {"recipe": "cyclegan", "recipe_changes": {"ema_decay": "0.9"}, "generator": "mobile"}
    narrow = {"generator_options": {"base_channels": "4", "blocks": "1"}, "discriminator_options": {"base_channels": "4"}}
    return TrainGanSettings(**{**given, **often, **recipe, **narrow, **changes})


Train = Callable[..., TrainGanResult]


@pytest.fixture
def train(data: Path, tmp_path: Path) -> Train:
    """A new run, with some settings changed."""

    def go(on_progress: OnProgress | None = None, **changes: Any) -> TrainGanResult:
        return train_gan(settings(**{"data": data, "out": tmp_path, **changes}), on_progress)

    return go


def resumed(out: Path, on_progress: OnProgress | None = None, **changes: Any) -> TrainGanResult:
    return train_gan(TrainGanSettings(resume="run", out=out, gpu="none", **changes), on_progress)


def texts(events: list[Event]) -> list[str]:
    return [text for text in warnings_of(events) if text.startswith("step ")]


Spoil = Callable[[BatchLoader, int], bool]


def spoil(patch: pytest.MonkeyPatch, wanted: Spoil) -> None:
    """Make the images of domain a no numbers, where the given function of the feed and the done steps says so."""
    batch = BatchLoader.batch

    def spoilt(feed: BatchLoader, step: int, draws: Mapping[str, int]) -> Batch:
        made = batch(feed, step, draws)
        return Batch(made.a * torch.nan, made.b, made.draws) if wanted(feed, step) else made

    patch.setattr(BatchLoader, "batch", spoilt)


def seeds(count: int) -> set[int]:
    """The run's seed and those after one, two ... rollbacks, so many in all."""
    return {randomness.another_seed(SEED, number) for number in range(count)}


GoneBack = tuple[TrainGanResult, list[str]]
"""A run, and what it warned of."""


def only_at_first(feed: BatchLoader, step: int) -> bool:
    """Step 5 cannot be taken but after a rollback."""
    return step == 4 and feed.sampler.seed in seeds(1)


@pytest.fixture(scope="module")
def good(data: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainGanResult:
    """A run that nothing happens to."""
    return train_gan(settings(data, tmp_path_factory.mktemp("good"), sample_every=4))


@pytest.fixture(scope="module")
def gone_back(data: Path, tmp_path_factory: pytest.TempPathFactory) -> GoneBack:
    """A run that went back once."""
    events: list[Event] = []
    with pytest.MonkeyPatch.context() as patch:
        spoil(patch, only_at_first)
        result = train_gan(settings(data, tmp_path_factory.mktemp("back"), on_nan="rollback"), events.append)
    return result, texts(events)


# A loss that is not finite


def test_a_loss_that_is_not_finite_stops_the_run_and_the_log_names_it(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, lambda feed, step: step == 4)
    with pytest.raises(LossNotFinite, match=r"before step 6: .*cycle_a.*--resume and --on-nan rollback$") as error:
        train()
    assert error.value.exit_code == 1
    lines = log_lines(tmp_path / "run")
    assert [line["step"] for line in lines] == [3, 6]
    assert "cycle_a" in lines[-1]["not_finite"]
    tensors, document = last_checkpoint(tmp_path / "run")
    assert document["step"] == 4
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())


def test_rollback_goes_back_to_the_checkpoint_and_on_with_another_seed(good: TrainGanResult, gone_back: GoneBack) -> None:
    result, said = gone_back
    assert (result.step, result.finished) == (STEPS, True)
    assert len(said) == 1
    assert "before step 6: " in said[0]
    assert said[0].endswith("back to step 4, on with another seed (1 of 3 times)")
    lines, good_lines = log_lines(result.run), log_lines(good.run)
    assert [line["step"] for line in lines] == [3, 6, 8]
    assert [len(line.get("rollbacks", ())) for line in lines] == [0, 1, 0]
    assert (lines[1]["rollbacks"][0]["from_step"], lines[1]["rollbacks"][0]["to_step"]) == (6, 4)
    assert "cycle_a" in lines[1]["rollbacks"][0]["terms"]
    assert lines[0] == good_lines[0]
    assert lines[1]["losses"] != good_lines[1]["losses"]  # other images, of which none is spoilt
    assert result.weights_sha256 != good.weights_sha256


def test_a_run_that_went_back_resumes_bit_for_bit(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Step 5 is between the rollback and the line that tells of it; 6 is that line, and behind it is another rollback."""
    spoil(monkeypatch, lambda feed, step: only_at_first(feed, step) or (step == 7 and feed.sampler.seed in seeds(2)))
    whole = train(out=tmp_path / "whole", on_nan="rollback")
    assert [len(line.get("rollbacks", ())) for line in log_lines(whole.run)] == [0, 1, 1]
    for split in (5, 6):
        rolled: list[str] = []

        def stop(event: Event, rolled: list[str] = rolled, split: int = split) -> bool:
            rolled.extend(texts([event]))
            return bool(rolled) and step_of(event) == split

        stopped = train(stop, out=tmp_path / str(split), on_nan="rollback")
        assert (stopped.step, stopped.finished) == (split, False)
        assert resumed(tmp_path / str(split)).finished
        assert_same_end(stopped.run, whole.run)


def test_a_run_killed_between_a_rollback_and_its_next_checkpoint_goes_back_again(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone_back: GoneBack
) -> None:
    spoil(monkeypatch, only_at_first)
    events: list[Event] = []

    def die(event: Event) -> None:
        events.append(event)
        if texts(events) and step_of(event) > 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(die, on_nan="rollback")
    events.clear()
    resumed(tmp_path, events.append)  # and the run remembers what to do in such a case
    assert len(texts(events)) == 1
    assert_same_end(tmp_path / "run", gone_back[0].run)


def test_without_a_checkpoint_rollback_goes_back_to_the_start(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, only_at_first)
    rolled = train(on_nan="rollback", save_every=RARELY)
    assert [len(line.get("rollbacks", ())) for line in log_lines(rolled.run)] == [1, 0, 0]
    _, document = last_checkpoint(rolled.run)
    steps = Trainer.steps

    def other_seed_from_the_start(trainer: Trainer, until: int) -> Iterator[Any]:
        trainer.draw_anew(document["values"]["trainer/rollbacks"])
        return steps(trainer, until)

    monkeypatch.setattr(Trainer, "steps", other_seed_from_the_start)
    assert_same_end(train(out=tmp_path / "straight", save_every=RARELY).run, rolled.run)


def test_rollback_passes_over_a_checkpoint_that_was_damaged_meanwhile(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, only_at_first)
    events: list[Event] = []

    def damage(event: Event) -> None:
        events.append(event)
        if is_saved(event) and "00000004" in str(event) and not texts(events):
            (tmp_path / "run" / "checkpoints" / "step-00000004" / "state.json").write_text("{")

    assert train(damage, on_nan="rollback").finished
    assert "back to step 2, " in texts(events)[0]
    assert [line["step"] for line in log_lines(tmp_path / "run")] == [3, 6, 8]


def test_after_three_rollbacks_the_run_gives_up_with_its_last_good_checkpoint(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, good: TrainGanResult, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = [4]
    spoil(monkeypatch, lambda feed, step: step in wrong)
    events: list[Event] = []
    with pytest.raises(LossNotFinite, match="gone back 3 times already; start anew with"):
        train(events.append, on_nan="rollback")
    assert [text[-14:] for text in texts(events)] == ["(1 of 3 times)", "(2 of 3 times)", "(3 of 3 times)"]
    lines = log_lines(tmp_path / "run")
    assert [line["step"] for line in lines] == [3, 6]
    assert "cycle_a" in lines[-1]["not_finite"]
    _, document = last_checkpoint(tmp_path / "run")
    assert (document["step"], document["values"]["trainer/rollbacks"]) == (4, [])
    assert main(["show", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr().out
    assert "step 6: not finite: " in shown
    assert "last losses" in shown
    # What was wrong may be gone: the run goes on as if it had never been.
    wrong.clear()
    assert_same_end(resumed(tmp_path).run, good.run)


def test_asked_to_stop_just_when_a_loss_is_not_finite_it_stops_at_the_checkpoint(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone_back: GoneBack
) -> None:
    spoil(monkeypatch, only_at_first)
    result = train(stop_after(5), on_nan="rollback")
    assert (result.step, result.finished) == (4, False)
    assert_same_end(resumed(tmp_path).run, gone_back[0].run)


def test_a_rollback_takes_its_later_samples_with_it_and_stands_in_the_report(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, only_at_first)
    monkeypatch.setattr(segment, "training_report", REPORT)
    sheets: list[list[str]] = []

    def look(event: Event) -> None:
        if texts([event]):
            sheets.append(sorted(path.name for path in (tmp_path / "run" / "samples").iterdir()))

    result = train(look, on_nan="rollback", sample_every=1)
    assert sheets == [[f"step-{step:08d}.png" for step in (1, 2, 3, 4)]]
    page = (result.run / "report.html").read_text()
    assert "What went wrong" in page
    assert "By step 6: not finite before step 6: " in page


# No memory left


def raising(error: Exception) -> Callable[[], None]:
    def throw() -> None:
        raise error

    return throw


LACKS: dict[str, Callable[[], Any]] = {
    "torch on a CPU": lambda: torch.empty(1 << 50),
    "numpy": lambda: np.empty(1 << 58),
    "Python": raising(MemoryError()),
    "CUDA": raising(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nSee documentation")),
    "cuDNN": raising(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")),
    "MPS": raising(RuntimeError("MPS backend out of memory (MPS allocated: 18.01 GB)")),
    "the kernel": raising(OSError(12, "Cannot allocate memory")),
}


def failing_at(step: int, fail: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    batch = BatchLoader.batch

    def failing(feed: BatchLoader, done: int, draws: Mapping[str, int]) -> Batch:
        if done == step:
            fail()
        return batch(feed, done, draws)

    monkeypatch.setattr(BatchLoader, "batch", failing)


@pytest.mark.parametrize("where", LACKS)
def test_every_lack_of_memory_is_known_as_one(where: str) -> None:
    with pytest.raises((MemoryError, RuntimeError, OSError)) as error:
        LACKS[where]()
    assert is_out_of_memory(error.value)


def test_out_of_memory_names_what_takes_it_and_the_run_goes_on_where_there_is_more(
    train: Train, tmp_path: Path, good: TrainGanResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        failing_at(3, LACKS["torch on a CPU"], patch)
        with pytest.raises(OutOfMemory) as error:
            train()
    assert error.value.exit_code == 1
    said = str(error.value)
    assert "\n" not in said
    for part in ("on cpu", "--batch-size 1", "--image-size 24", "--precision fp32", "the checkpoint of step 2 stays"):
        assert part in said
    assert last_checkpoint(tmp_path / "run")[1]["step"] == 2
    assert_same_end(resumed(tmp_path).run, good.run)


def test_out_of_memory_before_the_first_checkpoint_and_from_the_command_line_is_one_line(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing_at(0, LACKS["CUDA"], monkeypatch)
    tiny = ["--recipe", "fast", "--image-size", "48", "--batch-size", "2", "--precision", "fp32", "--gpu", "none"]
    assert main(["train-gan", "--data", str(data), *tiny, "--name", "run", "--out", str(tmp_path)]) == 1
    complaint = capsys.readouterr().err.splitlines()[-1]
    assert complaint.startswith("error: out of memory on cpu with --batch-size 2, --image-size 48 and --precision fp32: ")
    assert complaint.endswith("; nothing was saved yet")


def test_another_error_than_out_of_memory_is_not_taken_for_it(
    train: Train, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_at(1, raising(RuntimeError("mat1 and mat2 shapes cannot be multiplied")), monkeypatch)
    with pytest.raises(RuntimeError, match="mat1") as error:
        train()
    assert not isinstance(error.value, FruitganError)


# The data's folder goes away


def copied(data: Path, tmp_path: Path) -> Path:
    shutil.copytree(data, tmp_path / data.name)
    return tmp_path / data.name


def test_the_datas_folder_may_disappear_while_a_run_goes_on(
    train: Train, data: Path, tmp_path: Path, good: TrainGanResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segment, "training_report", REPORT)
    mine = copied(data, tmp_path)

    def remove(event: Event) -> None:
        if step_of(event) == 1:
            shutil.rmtree(mine)

    result = train(remove, data=mine, sample_every=4)
    assert result.finished
    assert_same_end(result.run, good.run)
    for name in ("samples/step-00000004.png", "samples/step-00000008.png"):
        assert (result.run / name).read_bytes() == (good.run / name).read_bytes()
    assert "cycle" in (result.run / "report.html").read_text()


def test_a_folder_that_disappears_before_the_samples_are_read_costs_a_note_and_no_more(
    train: Train, data: Path, tmp_path: Path, good: TrainGanResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = copied(data, tmp_path)
    load_datasets = job.load_datasets

    def load_and_lose(*arguments: Any) -> Any:
        banks = load_datasets(*arguments)
        shutil.rmtree(mine)
        return banks

    events: list[Event] = []
    with monkeypatch.context() as patch:
        patch.setattr(job, "load_datasets", load_and_lose)
        result = train(events.append, data=mine)
    notes = warnings_of(events)
    assert [note.split(" can be read")[0] for note in notes if note.startswith("no image")] == [
        "no image of dark",
        "no image of light",
    ]
    assert result.finished
    assert (result.run / "samples" / "step-00000008.png").is_file()
    assert_same_end(result.run, good.run)


# The clock goes back


def test_a_clock_that_goes_back_changes_neither_durations_nor_the_run(
    train: Train, tmp_path: Path, good: TrainGanResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [2e9]

    def back_an_hour_each_time() -> float:
        now[0] -= 3600
        return now[0]

    monkeypatch.setattr(time, "time", back_an_hour_each_time)
    seconds_left: list[float] = []

    def keep_forecasts(event: Event) -> None:
        if step_of(event) > 0:
            seconds_left.append(event.details["seconds_left"])

    train(stop_after(3), max_seconds=3600.0)
    result = resumed(tmp_path, keep_forecasts)
    assert result.finished
    entries = Run(result.run).entries()
    seconds = [entry["seconds"] for entry in entries] + [result.seconds]
    assert seconds == sorted(seconds)
    assert seconds[0] > 0
    assert seconds[-1] < 3600
    assert all(entry["images_per_second"] > 0 for entry in entries)
    assert all(0 <= left < 3600 for left in seconds_left)
    assert_same_end(result.run, good.run)


def test_files_from_the_future_do_not_matter(train: Train, tmp_path: Path, good: TrainGanResult) -> None:
    shutil.copytree(train(stop_after(5), name="old").run, tmp_path / "run")
    shutil.copytree(good.run, tmp_path / "finished")
    future = time.time() + 10 * 365 * 86400
    for path in (tmp_path / "run").rglob("*"):
        os.utime(path, (future, future))
    os.utime(tmp_path / "run", (future, future))
    older = tmp_path / "run" / "checkpoints" / "step-00000004"
    os.utime(older, (future + 1, future + 1))  # the newest checkpoint is the one with the most steps, whatever the files say
    os.utime(tmp_path / "finished", (future + 2, future + 2))
    starts: list[int] = []

    def keep_start(event: Event) -> None:
        if start_of(event) >= 0:
            starts.append(start_of(event))

    result = train_gan(TrainGanSettings(resume="newest", out=tmp_path, gpu="none"), keep_start)
    assert (result.run.name, result.finished, starts) == ("run", True, [5])
    assert train_gan(TrainGanSettings(resume="newest", out=tmp_path, gpu="none")).run.name == "old"


def test_steps_go_on_while_a_checkpoint_is_written(
    train: Train, tmp_path: Path, good: TrainGanResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, write = threading.Event(), Checkpoints.write

    def slow(self: Checkpoints, what: Snapshot, files: Mapping[str, bytes]) -> Path:
        assert reached.wait(100)  # which comes at step 3, while that of step 2 is written
        return write(self, what, files)

    def on_progress(event: Event) -> None:
        if step_of(event) == 3:
            assert not (tmp_path / "run" / "checkpoints").exists()
            reached.set()

    monkeypatch.setattr(Checkpoints, "write", slow)
    assert_same_end(train(on_progress).run, good.run)


def test_a_checkpoint_that_cannot_be_written_beside_the_steps_ends_the_training(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[Event] = []
    write = Checkpoints.write

    def full(self: Checkpoints, what: Snapshot, files: Mapping[str, bytes]) -> Path:
        if what.step > 2:
            raise FruitganError("no space left on device")
        return write(self, what, files)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "write", full)
        with pytest.raises(FruitganError, match="no space left"):
            train(events.append)
    assert max(map(step_of, events)) in (4, 5, 6)  # the next save waits for that of step 4 at the latest
    assert resumed(tmp_path).step == STEPS
