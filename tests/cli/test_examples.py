"""The examples do what they say."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fruitgan import registry
from fruitgan.cli import main
from fruitgan.demo.dataset import DrawSettings, demo
from fruitgan.demo.dataset import draw as draw_set
from fruitgan.engines import onnx_engine
from fruitgan.runs.run import Run
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
def fruit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the demo set, with fewer and smaller pictures than are drawn on first use."""
    monkeypatch.setenv("FRUITGAN_CACHE", str(tmp_path / "cache"))
    draw_set(DrawSettings(out=demo._folder, train_count=4, test_count=1, size_px=48))
    return demo._folder


@pytest.mark.usefixtures("no_report", "fruit")
def test_the_api_example_trains_and_translates(example: Callable[..., str], tmp_path: Path) -> None:
    assert "step 20: " in example("train_and_translate.py", tmp_path)
    assert len(list((tmp_path / "translated").glob("*.png"))) == 1


@pytest.mark.usefixtures("no_report")
def test_the_two_folders_example_goes_on_where_it_stopped(example: Callable[..., str], fruit: Path) -> None:
    texts = [example("two_folders.py", fruit / "trainA", fruit / "trainB", 0.002) for _ in range(2)]
    steps = [int(text.split(",")[0].removeprefix("step ")) for text in texts]
    assert 0 < steps[0] < steps[1]


@pytest.mark.usefixtures("no_report", "fruit")
def test_the_building_blocks_of_the_docs_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_own", {})
    text = (EXAMPLES.parent / "docs" / "api-blocks.md").read_text(encoding="utf-8")
    program = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    names: dict[str, Any] = {"__name__": "blocks"}
    exec(compile(program, "api-blocks.md", "exec"), names)
    assert Run(names["trained"].run).config["plan"]["generator"]["package"] == registry.OWN_PROGRAM
    seen = torch.from_numpy(names["pixels"][:128, :128].copy()).permute(2, 0, 1).float().unsqueeze(0) / 127.5 - 1
    assert names["network"](seen).shape == seen.shape
    assert names["orange"].shape == names["pixels"].shape
    assert names["averaged"] is not names["generator"]


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
    assert len(set(re.findall(r"image: (.+)", yaml.safe_dump(job)))) == 1
    assert job["spec"]["rayClusterSpec"].keys() >= {"headGroupSpec", "workerGroupSpecs"}
