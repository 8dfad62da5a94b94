"""What a GPU must do as a CPU does. Run with `pytest -m gpu` on a machine that has one."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from picture_files import write_dataset, write_noise_domains
from torch import Tensor
from training_events import step_of, warnings_of

from fruitgan.distributed import VARIABLES
from fruitgan.process_group import joined
from fruitgan.progress import Event, Progress
from fruitgan.train_detector.job import train_detector
from fruitgan.train_detector.settings import TrainDetectorSettings
from fruitgan.train_gan import assemble
from fruitgan.train_gan.cuda_graphs import WARM_UP_STEPS
from fruitgan.train_gan.job import train_gan
from fruitgan.train_gan.objectives.adversarial import Judges
from fruitgan.train_gan.settings import TrainGanSettings
from fruitgan.train_gan.trainer import StepReport, Trainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU on this machine"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_noise_domains(tmp_path / "data", 6, (40, 48), splits=("trainA", "trainB"))


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """cuDNN with all of float32's digits, and its sums in one order: else a few steps of a game are apart by per cents."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


RECIPES: dict[str, dict[str, object]] = {
    "fast": {},
    "cyclegan": {},  # with a pool of past fakes
    "fruit": {"image_size": 96, "batch_size": 2},  # spectral norm, images changed as they are shown, three scales
    "seed-unet": {"image_size": 128, "generator": "unet-128"},  # dropout
}


def settings(folder: Path, name: str, **changes: object) -> TrainGanSettings:
    given: dict[str, object] = {
        "data": str(folder),
        "recipe": "fast",
        "image_size": 64,
        "steps": 8,
        "precision": "fp32",
        "gpu": "0",
        "name": name,
        "out": folder.parent / "runs",
        "save_every": 4,
        "log_every": 1,
    }
    return TrainGanSettings(**(given | changes))  # type: ignore[arg-type]


def losses_of(events: list[Event]) -> list[dict[str, float]]:
    """Of each step."""
    return [dict(event.details["losses"]) for event in events if isinstance(event, Progress) and event.details.get("losses")]


def about_graphs(events: list[Event]) -> list[str]:
    return [text for text in warnings_of(events) if "CUDA graphs" in text]


@pytest.mark.parametrize("recipe", ["fast", "cyclegan", "fruit"])  # dropout is drawn on the device
def test_a_gpu_starts_with_the_losses_of_a_cpu(folder: Path, recipe: str) -> None:
    events: dict[str, list[Event]] = {"none": [], "0": []}
    for gpu, heard in events.items():
        asked = settings(folder, f"{recipe}-{gpu}", recipe=recipe, gpu=gpu, **RECIPES[recipe] | {"steps": 1})
        train_gan(asked, heard.append)
    assert losses_of(events["0"])[0] == pytest.approx(losses_of(events["none"])[0], rel=1e-3)


@pytest.mark.parametrize("recipe", ["fast", "cyclegan"])  # the second has a pool of past fakes
def test_a_run_on_a_gpu_stops_resumes_and_finishes(folder: Path, recipe: str) -> None:
    def stop_at_five(event: object) -> bool:
        return step_of(event) == 5

    stopped = train_gan(settings(folder, "stopped", recipe=recipe), stop_at_five)
    assert (stopped.step, stopped.finished) == (5, False)
    resumed = train_gan(TrainGanSettings(resume="stopped", out=folder.parent / "runs", gpu="0"))
    assert (resumed.step, resumed.finished) == (8, True)


def test_a_run_of_a_gpu_goes_on_on_a_cpu(folder: Path) -> None:
    train_gan(settings(folder, "moved", steps=4))
    result = train_gan(TrainGanSettings(resume="moved", out=folder.parent / "runs", gpu="none", steps=6))
    assert (result.step, result.finished) == (6, True)


@pytest.mark.parametrize(("recipe", "room"), [*((name, True) for name in RECIPES), ("cyclegan", False)])
def test_captured_steps_train_as_steps_as_they_are(
    folder: Path, recipe: str, room: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within a thousandth in the first repeated step, a hundredth in the next.

    A graph holds the same kernels, but atomic sums have no order, and Adam's first updates are as large whatever a gradient's.
    Later steps of a game in float32 cannot be held against each other.
    """
    monkeypatch.setattr(assemble, "has_room_for", lambda *_: room)  # the images in the GPU's memory, or pinned in the host's
    asked = {"recipe": recipe, **RECIPES[recipe], "steps": 12}
    captured: list[Event] = []
    plain: list[Event] = []
    train_gan(settings(folder, "captured", **asked), captured.append)
    assert not about_graphs(captured)  # nothing fell back
    monkeypatch.setattr(assemble, "CudaGraphs", lambda _: None)
    train_gan(settings(folder, "plain", **asked), plain.append)
    for step, tolerance in ((WARM_UP_STEPS, 1e-3), (WARM_UP_STEPS + 1, 1e-2)):  # counted from 0
        assert losses_of(captured)[step] == pytest.approx(losses_of(plain)[step], rel=tolerance)


def test_a_step_that_cannot_be_captured_trains_as_it_is_and_says_why(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged = Judges.to_judge

    def waiting(judges: Judges, fakes: Mapping[str, Tensor], draws: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = judged(judges, fakes, draws)
        return {domain: images + 0 * float(images.mean()) for domain, images in found.items()}

    monkeypatch.setattr(Judges, "to_judge", waiting)
    events: list[Event] = []
    assert train_gan(settings(folder, "waits"), events.append).finished
    (said,) = about_graphs(events)
    assert "captur" in said.partition("(")[2]  # what was not permitted, and not that something failed before
    assert "previous error" not in said
    assert torch.cuda.current_stream() == torch.cuda.default_stream()


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")  # torch calls it a prototype
@pytest.mark.parametrize("recipe", list(RECIPES))
def test_between_logged_steps_nothing_waits_for_the_gpu(folder: Path, recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Trainer._one_step

    def watched(trainer: Trainer) -> StepReport:
        logs = (trainer.step + 1) % trainer.log_every == 0 or trainer.step < 5  # the first ones choose kernels and record
        torch.cuda.set_sync_debug_mode("default" if logs else "error")
        try:
            return plain(trainer)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(Trainer, "_one_step", watched)
    asked = settings(folder, "watched", recipe=recipe, log_every=10, **RECIPES[recipe] | {"steps": 20})
    assert train_gan(asked).finished


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # torch's compiler warns of its own parts
def test_compiled_networks_train_on_a_gpu_as_those_that_are_not(folder: Path) -> None:
    plain = train_gan(settings(folder, "plain")).final_losses
    assert train_gan(settings(folder, "compiled", compile=True)).final_losses == pytest.approx(dict(plain), rel=5e-3)


def test_a_profile_on_a_gpu_holds_the_kernels(folder: Path) -> None:
    result = train_gan(settings(folder, "told", profile=True))
    events = json.loads((result.run / "profile" / "trace.json").read_text())["traceEvents"]
    assert any(event.get("cat") == "kernel" for event in events)


@pytest.mark.parametrize("recipe", list(RECIPES))
def test_bf16_on_a_gpu_trains_to_finite_losses(folder: Path, recipe: str) -> None:
    result = train_gan(settings(folder, "half", recipe=recipe, precision="bf16", **RECIPES[recipe]))
    assert result.finished
    assert all(np.isfinite(value) for value in result.final_losses.values())


@pytest.mark.parametrize("detector", ["small-cnn", "seed-cnn", "spectrum"])
def test_a_detector_trained_on_a_gpu_judges_like_one_of_a_cpu(folder: Path, detector: str) -> None:
    write_dataset(folder / "dataset", 20, planted=60)
    first: dict[str, float] = {}
    for gpu in ("none", "0"):
        asked = TrainDetectorSettings(
            data=folder / "dataset", detector=detector, protocol="seed", epochs=2, gpu=gpu, name=gpu, out=folder / "runs"
        )
        run = train_detector(asked).run
        first[gpu] = json.loads((run / "log.jsonl").read_text().splitlines()[0])["train_loss"]
    if detector == "spectrum":  # the others' dropout is drawn on the device
        assert first["0"] == pytest.approx(first["none"], rel=1e-3)


def test_one_process_under_nccl_trains_as_one_without(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its all-reduce and all-gather of one are captured with the step, and change nothing."""
    events: list[Event] = []
    plain = train_gan(settings(folder, "plain", recipe="cyclegan", steps=WARM_UP_STEPS + 2))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    for name, value in zip(VARIABLES, ("0", "1", "127.0.0.1", port), strict=True):
        monkeypatch.setenv(name, value)
    with joined():
        grouped = train_gan(settings(folder, "grouped", recipe="cyclegan", steps=WARM_UP_STEPS + 2), events.append)
    assert not about_graphs(events)
    assert grouped.final_losses == pytest.approx(plain.final_losses, rel=1e-2)
