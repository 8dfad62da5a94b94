"""What a GPU must do as a CPU does. Run with `pytest -m gpu` on a machine that has one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fruitgan.workflows.train_detector import TrainDetectorSettings, train_detector
from fruitgan.workflows.train_detector.settings import Rounded
from fruitgan.workflows.train_gan import TrainGanSettings, train_gan
from fruitgan.workflows.train_gan.settings import Stepped

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
