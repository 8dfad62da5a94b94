"""The examples do what they say."""

from __future__ import annotations

import runpy
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from fruitgan.cli import main
from fruitgan.demo.dataset import DrawSettings, demo
from fruitgan.demo.dataset import draw as draw_set
from fruitgan.demo.fruit import draw
from fruitgan.engines import onnx_engine
from fruitgan.train_gan import recipes
from fruitgan.train_gan.recipe import Part

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs the main function of an example in an empty folder, with small networks; gives what it prints."""
    monkeypatch.chdir(tmp_path)
    generator = Part(name="mobile", options={"base_channels": 4, "blocks": 1})
    discriminator = Part(name="patch-70", options={"base_channels": 4})
    monkeypatch.setattr(recipes, "fast", replace(recipes.fast, generator=generator, discriminator=discriminator))
    monkeypatch.setattr(onnx_engine, "EXPORTERS", ("absent",))  # to export its graph takes longer than all the rest

    def run(name: str, *arguments: object) -> str:
        runpy.run_path(str(EXAMPLES / name))["main"](*arguments)
        return capsys.readouterr().out

    return run


@pytest.fixture
def small_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo set, with fewer and smaller pictures than are drawn on first use."""
    monkeypatch.setenv("FRUITGAN_CACHE", str(tmp_path / "cache"))
    draw_set(DrawSettings(out=demo._folder, train_count=4, test_count=1, size_px=48))


def test_the_api_example_trains_and_translates(small_demo: None, example: Callable[..., str], tmp_path: Path) -> None:
    assert "step 20: " in example("train_and_translate.py", tmp_path)
    assert len(list((tmp_path / "translated").glob("*.png"))) == 1


def test_the_two_folders_example_goes_on_where_it_stopped(example: Callable[..., str], tmp_path: Path) -> None:
    for kind in ("apple", "orange"):
        (tmp_path / kind).mkdir()
        for index in range(3):
            Image.fromarray(draw(kind, 32, 0, index)).save(tmp_path / kind / f"{index}.png")
    texts = [example("two_folders.py", tmp_path / "apple", tmp_path / "orange", 0.01) for _ in range(2)]
    steps = [int(text.split(",")[0].removeprefix("step ")) for text in texts]
    assert 0 < steps[0] < steps[1]


def test_the_own_generator_example_trains_it(small_demo: None, example: Callable[..., str]) -> None:
    assert "step 10: cycle" in example("own_generator.py", 10)


def test_the_slurm_script_is_sound_shell() -> None:
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run([shellcheck, EXAMPLES / "cluster" / "translate.slurm"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_ray_job_runs_a_command_that_there_is_on_nodes_of_one_image(capsys: pytest.CaptureFixture[str]) -> None:
    yaml = pytest.importorskip("yaml")
    job = yaml.safe_load((EXAMPLES / "cluster" / "translate.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    program, command, *arguments = job["spec"]["entrypoint"].split()
    assert (program, arguments[-3:]) == ("fruitgan", ["--ray", "auto", "--json"])
    assert main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in arguments if word.startswith("--"))
    groups = job["spec"]["rayClusterSpec"]
    containers = [
        container
        for group in (groups["headGroupSpec"], *groups["workerGroupSpecs"])
        for container in group["template"]["spec"]["containers"]
    ]
    assert len({container["image"] for container in containers}) == 1
    assert all({"envFrom", "resources", "volumeMounts"} < container.keys() for container in containers)
