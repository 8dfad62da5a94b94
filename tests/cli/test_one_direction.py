"""A run that translates one way alone, through every command that takes a run or a bundle."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from picture_files import write_fruit_domains
from trainings import SMALL

from fruitgan import bundle as bundles
from fruitgan.cli import main
from fruitgan.data.decode import decode
from fruitgan.train_gan.job import train_gan
from fruitgan.train_gan.settings import TrainGanSettings

Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With images and, in its `runs/train-gan`, the run `one` by the recipe cut and `both` by fast."""
    folder = tmp_path_factory.mktemp("one-direction")
    data = write_fruit_domains(folder / "pear2plum", 3, 48)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fruitgan.train_gan.segment.OBSERVE_STEPS", 1)
        for name, recipe in (("one", "cut"), ("both", "fast")):
            out = folder / "runs" / "train-gan"
            given = {**SMALL, "recipe": recipe, "image_size": 48, "steps": 2, "log_every": 1}
            train_gan(TrainGanSettings(data=str(data), out=out, name=name, **given))
    return folder


@pytest.fixture
def typed(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    """Types a command in that folder; gives exit code, stdout and stderr."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("FRUITGAN_GPU", "none")
    monkeypatch.setenv("FRUITGAN_ENGINE", "torch")

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main([*arguments])
        output = capsys.readouterr()
        return code, output.out, output.err

    return run


def test_the_run_keeps_one_generator_and_shows_one_direction(folder: Path, typed: Typed) -> None:
    run = folder / "runs" / "train-gan" / "one"
    assert bundles.load_card(run / bundles.FILE_NAME).directions == ("a2b",)
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert set(lines[-1]["losses"]) == {"adversarial_ab", "nce_a", "identity_nce_b", "discriminator_b"}
    assert all(set(line["outputs"]) == {"a2b"} for line in lines)
    assert decode(run / "samples" / "step-00000002.png").pixels.shape[:2] == (3 * 48 + 2 * 2, 2 * 48 + 2)  # source and fake
    page = (run / "report.html").read_text()
    assert "pear → plum" in page
    assert "Generator: identity by content" in page
    assert "--to pear" not in page
    code, out, _ = typed("show", "one", "--json")
    assert (code, json.loads(out)["finished"]) == (0, True)
    assert json.loads(typed("show", str(run / bundles.FILE_NAME), "--json")[1])["directions"] == ["a2b"]


def test_it_translates_and_exports_its_direction_and_no_other(folder: Path, typed: Typed) -> None:
    picture = str(folder / "pear2plum" / "testA" / "0.png")
    assert typed("translate", picture, "--bundle", "one", "-o", "a.png")[0] == 0
    assert typed("translate", picture, "--bundle", "one", "--to", "plum", "-o", "b.png")[0] == 0
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()
    code, _, said = typed("translate", picture, "--bundle", "one", "--to", "pear", "-o", "c.png")
    assert (code, said) == (2, "error: --to pear: the bundle one only leads to plum\n")
    data = ("--data", "pear2plum", "--bundle", "one")
    for command in (("translate", picture, "--bundle", "one", "-o", "c.png"), ("export-dataset", *data, "--out", "no")):
        code, _, said = typed(*command, "--direction", "b2a")
        assert (code, said) == (2, "error: --direction b2a: the bundle one only has a2b\n")
    code, out, _ = typed("export-dataset", *data, "--out", "dataset")
    assert (code, out.splitlines()[0]) == (0, "one to plum, 48 px, png")


def test_a_training_starts_from_a_bundle_that_has_all_its_directions(typed: Typed) -> None:
    widths = ("--generator-option", "base_channels=4", "--generator-option", "blocks=1", "--image-size", "48")
    begin = ("train-gan", "--data", "pear2plum", *widths, "--batch-size", "1", "--steps", "1", "--threads", "1")
    narrow = ("--discriminator-option", "base_channels=4", "--init-from")
    assert typed(*begin, "--recipe", "cut", *narrow, "both", "--name", "from-both")[0] == 0
    code, _, said = typed(*begin, "--recipe", "fast", *narrow, "one", "--name", "from-one")
    assert code == 2
    assert said.endswith("one/bundle.safetensors: has no b2a, which this training needs\n")
    code, _, said = typed("distill", "--teacher", "one", "--data", "pear2plum", "--steps", "1")
    assert (code, "has no b2a, which this training needs" in said) == (2, True)
