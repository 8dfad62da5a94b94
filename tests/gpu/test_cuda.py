"""What a GPU must do as a CPU does. Run with `pytest -m gpu` on a machine that has one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fruitgan.training.trainer import StepReport, Trainer
from fruitgan.workflows.train_detector import TrainDetectorSettings, train_detector
from fruitgan.workflows.train_detector.settings import Rounded
from fruitgan.workflows.train_gan import TrainGanSettings, assemble, train_gan
from fruitgan.workflows.train_gan.settings import Noted, Stepped

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU on this machine"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for domain in ("trainA", "trainB"):
        (tmp_path / "data" / domain).mkdir(parents=True)
        for number in range(6):
            pixels = random.integers(0, 256, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / domain / f"{number}.png")
    return tmp_path / "data"


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


@pytest.mark.parametrize("recipe", ["fast", "cyclegan"])
def test_a_gpu_starts_with_the_losses_of_a_cpu(folder: Path, recipe: str) -> None:
    first: dict[str, dict[str, float]] = {}
    for gpu in ("none", "0"):

        def keep_first(event: object, gpu: str = gpu) -> bool:
            if isinstance(event, Stepped) and event.report.losses is not None:
                first.setdefault(gpu, dict(event.report.losses))
                return True
            return False

        train_gan(settings(folder, f"{recipe}-{gpu}", recipe=recipe, gpu=gpu), keep_first)
    assert first["0"] == pytest.approx(first["none"], rel=1e-3)


@pytest.mark.parametrize("recipe", ["fast", "cyclegan"])  # the second has a pool of past fakes
def test_a_run_on_a_gpu_stops_resumes_and_finishes(folder: Path, recipe: str) -> None:
    def stop_at_five(event: object) -> bool:
        return isinstance(event, Stepped) and event.report.step == 5

    stopped = train_gan(settings(folder, "stopped", recipe=recipe), stop_at_five)
    assert (stopped.step, stopped.finished) == (5, False)
    resumed = train_gan(TrainGanSettings(resume="stopped", out=folder.parent / "runs", gpu="0"))
    assert (resumed.step, resumed.finished) == (8, True)


def test_a_run_of_a_gpu_goes_on_on_a_cpu(folder: Path) -> None:
    train_gan(settings(folder, "moved", steps=4))
    result = train_gan(TrainGanSettings(resume="moved", out=folder.parent / "runs", gpu="none", steps=6))
    assert (result.step, result.finished) == (6, True)


@pytest.mark.parametrize("recipe", ["fast", "cyclegan"])
@pytest.mark.parametrize("room", [True, False])
def test_captured_steps_train_as_steps_as_they_are(
    folder: Path, recipe: str, room: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within a thousandth after eight steps: a graph holds the same kernels, but atomic sums have no order."""
    monkeypatch.setattr(assemble, "has_room_for", lambda *_: room)  # the images in the GPU's memory, or pinned in the host's
    losses: dict[str, dict[str, float]] = {}
    notes: list[str] = []

    def note(event: object) -> None:
        if isinstance(event, Noted) and "CUDA graphs" in event.text:
            notes.append(event.text)

    losses["captured"] = dict(train_gan(settings(folder, "captured", recipe=recipe), note).final_losses)
    with monkeypatch.context() as patch:
        patch.setattr(assemble, "CudaGraphs", lambda _: None)
        losses["plain"] = dict(train_gan(settings(folder, "plain", recipe=recipe)).final_losses)
    assert not notes  # nothing fell back
    assert losses["captured"] == pytest.approx(losses["plain"], rel=1e-3)


@pytest.mark.parametrize("recipe", ["fast", "cyclegan"])
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
    assert train_gan(settings(folder, "watched", recipe=recipe, steps=20, log_every=10)).finished


@pytest.mark.slow
def test_compiled_networks_train_on_a_gpu_as_those_that_are_not(folder: Path) -> None:
    plain = train_gan(settings(folder, "plain")).final_losses
    assert train_gan(settings(folder, "compiled", compile=True)).final_losses == pytest.approx(dict(plain), rel=5e-3)


def test_a_profile_on_a_gpu_holds_the_kernels(folder: Path) -> None:
    result = train_gan(settings(folder, "told", profile=True))
    events = json.loads((result.run / "profile" / "trace.json").read_text())["traceEvents"]
    assert any(event.get("cat") == "kernel" for event in events)


def test_bf16_on_a_gpu_trains_to_finite_losses(folder: Path) -> None:
    result = train_gan(settings(folder, "half", precision="bf16"))
    assert result.finished
    assert all(np.isfinite(value) for value in result.final_losses.values())


@pytest.mark.parametrize("detector", ["small-cnn", "seed-cnn", "spectrum"])
def test_a_detector_trained_on_a_gpu_judges_like_one_of_a_cpu(folder: Path, detector: str) -> None:
    random = np.random.default_rng(0)
    for name in ("predicted", "origins"):
        (folder / name).mkdir()
        for number in range(20):
            pixels = random.integers(60, 120, (32, 32, 3))
            if name == "predicted":
                pixels[::2, ::2] += 60
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number}.png")
    first: dict[str, float] = {}
    for gpu in ("none", "0"):

        def keep_first(event: object, gpu: str = gpu) -> None:
            if isinstance(event, Rounded):
                first.setdefault(gpu, event.round.train_loss)

        asked = TrainDetectorSettings(
            data=folder, detector=detector, protocol="seed", epochs=2, gpu=gpu, name=gpu, out=folder / "runs"
        )
        assert train_detector(asked, keep_first).file.is_file()
    if detector == "spectrum":  # the others' dropout is drawn on the device
        assert first["0"] == pytest.approx(first["none"], rel=1e-3)
