"""A real third-party distribution, built and installed by pip without the network, and used through the command."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from picture_files import write_fruit_domains
from typed_commands import run_json

from fruitgan import registry
from fruitgan.cli import main
from fruitgan.networks.contracts import detectors

Capture = pytest.CaptureFixture[str]
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
def plugged(site: Path, tmp_path: Path) -> Iterator[Callable[[], None]]:
    """The plug-in is installed in this process until what this gives is called; a module in the test's folder can be, too."""
    before, patch = set(sys.modules), pytest.MonkeyPatch()

    def unplug() -> None:
        patch.undo()
        for name in set(sys.modules) - before:
            if (getattr(sys.modules[name], "__file__", None) or "").startswith((str(site), str(tmp_path))):
                del sys.modules[name]
        registry.forget()

    for folder in (tmp_path, site):
        patch.syspath_prepend(folder)
    registry.forget()
    yield unplug
    unplug()


def test_it_is_listed_with_its_package_and_version_and_its_detector_judges(plugged: object, capsys: Capture) -> None:
    listed = run_json(capsys, "list")
    kinds = (("generators", "plum-affine"), ("detectors", "plum-brightness"), ("trackers", "trackio"), ("commands", "plum"))
    for kind, name in kinds:
        found = [entry for entry in listed[kind] if entry["name"] == name]
        assert [(entry["package"], entry["version"]) for entry in found] == [("fruitgan-plum", "0.3.0")]
    assert detectors.build(detectors.choose("plum-brightness"))(torch.rand(4, 3, 32, 32)).shape == (4,)


def test_its_command_is_in_the_help_runs_and_fails_as_ours(
    plugged: object, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    assert main(["--help"]) == 0
    assert "from fruitgan-plum 0.3.0" in capsys.readouterr().out
    assert main(["plum", "--stones", "0"]) == 0
    assert capsys.readouterr() == ("a plum with no stone\n", "")
    monkeypatch.setenv("FRUITGAN_STONES", "1")
    assert run_json(capsys, "plum") == {"stones": 1}
    assert main(["plum", "--stones", "2", "--debug"]) == 3
    assert capsys.readouterr().err.endswith("error: a plum with 2 stones is no plum\n")


@pytest.mark.usefixtures("no_report")
def test_a_training_with_its_generator_and_tracker_translates_and_names_it_where_it_is_missing(
    plugged: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))
    write_fruit_domains(tmp_path / "data", 2, 32, splits=("trainA", "trainB"))
    (tmp_path / "trackio.py").write_text(STAND_IN)  # trackio refuses the pillow that fruitgan needs
    words = ["--recipe", "fast", "--image-size", "48", "--steps", "1", "--name", "plums", "--out", str(tmp_path / "runs")]
    plum = ["--generator", "plum-affine", "--generator-option", "base_channels=4", "--track", "trackio"]
    small = ["--discriminator", "patch-70", "--discriminator-option", "base_channels=4", "--gpu", "none"]
    assert main(["train-gan", "--data", str(tmp_path / "data"), *words, *plum, *small]) == 0
    said = capsys.readouterr()
    assert "trackio show" in said.err
    assert "initialized" not in said.out
    init, losses, image, finish = (tmp_path / "seen").read_text().splitlines()
    assert init.startswith("init fruitgan plums-")
    assert "losses/cycle_a" in losses
    assert (image, finish) == ("1 samples", "finish")
    picture, bundle = tmp_path / "data" / "trainA" / "0.png", tmp_path / "runs" / "plums"
    translate = ["translate", str(picture), "--bundle", str(bundle), "-o", str(tmp_path / "t"), "--engine", "torch"]
    assert main(translate) == 0
    plugged()
    assert main([*translate, "--overwrite"]) == 4
    assert "pip install fruitgan-plum" in capsys.readouterr().err
