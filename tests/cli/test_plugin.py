"""A real third-party distribution, built and installed by pip without the network, and used through the command."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from picture_files import write_fruit_domains

from fruitgan.cli import main

Install = Callable[..., Path]
Fruitgan = Callable[..., subprocess.CompletedProcess[str]]
PLUGIN = Path(__file__).parents[1] / "plugin"
STAND_IN = """
import os

def _see(*what):
    with open(os.environ["SEEN"], "a") as file:
        print(*what, file=file)

class Image:
    def __init__(self, value, caption=None):
        assert value.dtype == "uint8" and value.shape[2] == 3

class Run:
    def log(self, metrics, step=None):
        _see(step, *metrics)

    def finish(self):
        _see("finish")

def init(project, name=None, *, config=None, resume="never", embed=True):
    assert resume == "allow" and "plan" in config
    print("* Trackio project initialized")
    _see("init", project, name)
    return Run()
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the plug-in is installed into."""
    folder = tmp_path_factory.mktemp("site")
    options = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--target"]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(folder), str(PLUGIN)], check=True)
    return folder


@pytest.fixture
def env(site: Path) -> dict[str, str]:
    return {"PYTHONPATH": str(site)}


def test_it_is_listed_with_its_package_and_version(fruitgan: Fruitgan, env: dict[str, str]) -> None:
    listed = json.loads(fruitgan("list", "--json", env=env).stdout)
    plugged = (("generators", "plum-affine"), ("detectors", "plum-brightness"), ("trackers", "trackio"), ("commands", "plum"))
    for kind, name in plugged:
        found = [entry for entry in listed[kind] if entry["name"] == name]
        assert [(entry["package"], entry["version"]) for entry in found] == [("fruitgan-plum", "0.3.0")]


def test_its_command_is_in_the_help_and_runs(fruitgan: Fruitgan, env: dict[str, str]) -> None:
    assert "from fruitgan-plum 0.3.0" in fruitgan("--help", env=env).stdout
    done = fruitgan("plum", "--stones", "0", env=env)
    assert (done.returncode, done.stdout, done.stderr) == (0, "a plum with no stone\n", "")
    assert json.loads(fruitgan("plum", "--json", env={**env, "FRUITGAN_STONES": "1"}).stdout) == {"stones": 1}


def test_its_errors_are_lines_with_exit_codes_too(fruitgan: Fruitgan, env: dict[str, str]) -> None:
    done = fruitgan("plum", "--stones", "2", env=env)
    assert (done.returncode, done.stderr) == (3, "error: a plum with 2 stones is no plum\n")
    assert "Traceback" in fruitgan("plum", "--stones", "2", "--debug", env=env).stderr


def test_a_training_with_its_generator_and_tracker_translates_and_names_it_where_it_is_missing(
    fruitgan: Fruitgan, env: dict[str, str], tmp_path: Path
) -> None:
    write_fruit_domains(tmp_path / "data", 2, 32, splits=("trainA", "trainB"))
    (tmp_path / "trackio.py").write_text(STAND_IN)  # trackio refuses the pillow that fruitgan needs
    words = ["--recipe", "fast", "--image-size", "48", "--steps", "1", "--name", "plums", "--out", tmp_path / "runs"]
    plum = ["--generator", "plum-affine", "--generator-option", "base_channels=4", "--track", "trackio"]
    done = fruitgan(
        *("train-gan", "--data", tmp_path / "data", *words, *plum, "--gpu", "none"),
        env={"PYTHONPATH": f"{env['PYTHONPATH']}:{tmp_path}", "SEEN": str(tmp_path / "seen")},
    )
    assert done.returncode == 0, done.stderr
    assert "trackio show" in done.stderr
    assert "initialized" not in done.stdout
    init, losses, image, finish = (tmp_path / "seen").read_text().splitlines()
    assert init.startswith("init fruitgan plums-")
    assert "losses/cycle_a" in losses
    assert (image, finish) == ("1 samples", "finish")
    picture, bundle = tmp_path / "data" / "trainA" / "0.png", tmp_path / "runs" / "plums"
    translate = ["translate", picture, "--bundle", bundle, "-o", tmp_path / "t"]
    assert fruitgan(*translate, env=env).returncode == 0
    missing = fruitgan(*translate, "--overwrite")
    assert missing.returncode == 4
    assert "pip install fruitgan-plum" in missing.stderr


def test_its_networks_keep_the_contracts(site: Path) -> None:
    program = """
import torch
from fruitgan.networks.contracts import detectors, generators
torch.set_num_threads(1)
choice = generators.choose("plum-affine", {"base_channels": "4"})
assert (choice.package, choice.version, choice.options) == ("fruitgan-plum", "0.3.0", {"base_channels": 4, "slope": 0.2})
generator = generators.build(choice)
x = torch.rand(2, 3, 5, 7) * 2 - 1
assert generator(x).shape == x.shape and generator(x).abs().max() <= 1
detector = detectors.build(detectors.choose("plum-brightness"))
assert detector(torch.rand(4, 3, 32, 32)).shape == (4,)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], env={"PYTHONPATH": str(site)}, check=False)
    assert done.returncode == 0


def test_an_unknown_command_can_be_near_to_a_plug_ins(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install("fruitgan-plum", {"commands": {"plum": "fruitgan_plum:plum"}})
    assert main(["plumb"]) == 2
    assert "did you mean plum?" in capsys.readouterr().err
