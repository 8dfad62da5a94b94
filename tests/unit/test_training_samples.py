"""Samples during training, and KID: which images are held out, that training does not notice, and where its numbers go."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from picture_files import write_noise_domains
from PIL import Image
from torch import Tensor, nn
from trainings import SMALL, assert_same_end, last_checkpoint, log_lines, stop_after

from fruitgan.cli import main
from fruitgan.data.groups import Look, held_out
from fruitgan.data.image_dataset import ImageDataset
from fruitgan.data.sources import folder_source
from fruitgan.errors import UsageError
from fruitgan.images import Pixels
from fruitgan.measures.contracts import features
from fruitgan.measures.distances import kernel_distance
from fruitgan.progress import silent
from fruitgan.runs.run import Run
from fruitgan.train_gan.assemble import make_plan
from fruitgan.train_gan.job import train_gan
from fruitgan.train_gan.samples import HeldOutKid, hold_out, sample_rows, translate_batch
from fruitgan.train_gan.settings import TrainGanSettings
from fruitgan.train_gan.trainer import Trainer

CPU = torch.device("cpu")
SHORT: dict[str, Any] = {**SMALL, "image_size": 48, "steps": 5, "log_every": 2, "save_every": 3, "sample_every": 999}


def unlike(count: int) -> list[Look]:
    """Of pictures that are all unlike."""
    draw = random.Random(5)
    return [Look(hashlib.sha256(bytes([n % 256, n // 256])).hexdigest(), draw.getrandbits(64)) for n in range(count)]


def test_a_tenth_is_held_out_whatever_the_order() -> None:
    looks = unlike(400)
    chosen = held_out(looks, 10, 8)
    assert len(chosen) == 40
    assert held_out(random.Random(1).sample(looks, 400), 10, 8) == chosen
    assert len(held_out(looks[:30], 10, 8)) == 8


def test_near_duplicates_are_held_out_together_and_a_large_group_of_them_never() -> None:
    looks = unlike(400)
    contents = [look.content for look in looks]
    pairs = [Look(contents[200 + n], looks[n].code ^ 1) for n in range(200)]  # picture 200 + n looks like picture n
    chosen = held_out([*looks[:200], *pairs], 10, 8)
    assert len(chosen) == 40
    assert all((contents[n] in chosen) == (contents[200 + n] in chosen) for n in range(200))
    film = held_out([Look(content, looks[0].code) for content in contents[:100]] + looks[100:], 10, 8)
    assert len(film) == 40
    assert not film & set(contents[:100])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "dark2light"
    write_noise_domains(folder, 24, (32, 32), lighter_b=60)
    for split in ("trainA", "trainB"):  # each is there twice, once as another format would have it
        for path in sorted((folder / split).glob("*.png")):
            with Image.open(path) as image:
                image.resize((64, 64), Image.Resampling.NEAREST).save(path.with_name(f"{path.stem}-large.png"))
    return folder


def test_what_is_held_out_and_what_is_trained_on_are_all_there_is_and_not_alike(data: Path) -> None:
    source = folder_source(data)
    kept, held = hold_out(source, make_plan(TrainGanSettings(**SHORT), CPU), 40, silent)
    for domain, of, dataset in ((kept.a, source.a, held[0]), (kept.b, source.b, held[1])):
        assert set(domain.train) | set(dataset.names) == set(of.train)
        assert not {path.stem[:4] for path in domain.train} & {path.stem[:4] for path in dataset.names}
        assert len(dataset) == 8
        assert dataset.pixels.shape == (8, 40, 40, 3)
        assert domain.test == of.test


class Swap(nn.Module):
    """Gives the pictures of the other domain, in whatever batches it is asked."""

    def __init__(self, pictures: Pixels) -> None:
        super().__init__()
        self.pictures, self.at = torch.from_numpy(pictures.copy()).permute(0, 3, 1, 2) / 127.5 - 1, 0

    def forward(self, x: Tensor) -> Tensor:
        self.at += len(x)
        return self.pictures[self.at - len(x) : self.at]


def test_the_judges_kid_is_that_of_the_fakes_features_to_those_of_real_images() -> None:
    draw = np.random.default_rng(2)
    pictures = [draw.integers(low, low + 150, (12, 48, 48, 3), dtype=np.uint8) for low in (0, 90)]
    held = tuple(ImageDataset(pixels, tuple(Path(str(n)) for n in range(12)), ()) for pixels in pictures)
    generators = {"a2b": nn.Identity(), "b2a": Swap(pictures[0])}
    trainer = SimpleNamespace(
        objective=SimpleNamespace(generators=dict.fromkeys(generators, "")), generator=generators.__getitem__
    )
    found = HeldOutKid(held, CPU)(cast(Trainer, trainer))
    backend = features.build(features.choose("random"))
    squares = [torch.from_numpy(np.stack([backend.prepare(pixels) for pixels in some])) for some in pictures]
    with torch.inference_mode():
        a, b = (backend(images.permute(0, 3, 1, 2).float() / 255).double().numpy() for images in squares)
    assert found["a2b"] == found["untranslated"] == pytest.approx(kernel_distance(a, b), abs=2e-6)
    assert found["b2a"] == pytest.approx(kernel_distance(a, a), abs=2e-6)


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`often` and `seldom` judged, the latter at its end alone; `stopped` is `often`, stopped at step 3 and resumed."""
    out = tmp_path_factory.mktemp("runs")
    train_gan(TrainGanSettings(data=str(data), out=out, name="often", evaluate_every=1, **SHORT))
    with pytest.MonkeyPatch.context() as patch:  # one page is enough
        patch.setattr("fruitgan.train_gan.segment.training_report", lambda *_: "")
        train_gan(TrainGanSettings(data=str(data), out=out, name="seldom", evaluate_every=10**6, **SHORT))
        train_gan(TrainGanSettings(data=str(data), out=out, name="stopped", evaluate_every=1, **SHORT), stop_after(3))
        train_gan(TrainGanSettings(out=out, resume="stopped", gpu="none"))
    return out


def test_a_training_does_not_notice_how_often_it_is_judged(runs: Path) -> None:
    often, seldom = runs / "often", runs / "seldom"
    assert last_checkpoint(often)[1]["sha256"] == last_checkpoint(seldom)[1]["sha256"]
    judged = {run.name: [line["step"] for line in log_lines(run) if "kid" in line] for run in (often, seldom)}
    assert judged == {"often": [2, 4, 5], "seldom": [5]}
    losses = [[line["losses"] for line in log_lines(run)] for run in (often, seldom)]
    assert losses[0] == losses[1]
    last = log_lines(often)[-1]["kid"]
    assert sorted(last) == ["a2b", "b2a", "untranslated"]
    assert log_lines(seldom)[-1]["kid"] == last


def test_a_resumed_run_keeps_its_held_out_images_and_ends_alike(runs: Path) -> None:
    assert_same_end(runs / "stopped", runs / "often")


def test_the_config_counts_what_is_held_out_and_the_fingerprint_has_it(runs: Path) -> None:
    config = Run(runs / "often").config
    assert config["held_out_images"] == [8, 8]
    assert config["training_images"] == [40, 40]
    assert len(config["data_fingerprint"].split("/")) == 4
    page = (runs / "often" / "report.html").read_text()
    assert "KID on held-out images" in page
    assert "for KID alone 8 and 8" in page


def test_a_run_that_trained_on_all_images_is_not_judged_later(data: Path, tmp_path: Path, no_report: None) -> None:
    train_gan(TrainGanSettings(data=str(data), out=tmp_path, name="all", **{**SHORT, "steps": 2}))
    assert Run(tmp_path / "all").config["held_out_images"] is None
    assert not any("kid" in line for line in log_lines(tmp_path / "all"))
    with pytest.raises(UsageError, match="begin a new run"):
        train_gan(TrainGanSettings(out=tmp_path, resume="all", steps=4, evaluate_every=1, gpu="none"))


def test_too_few_images_are_said_before_a_run_is_made(data: Path, tmp_path: Path) -> None:
    for split in ("trainA", "trainB", "testA", "testB"):
        (tmp_path / "few" / split).mkdir(parents=True)
        for path in sorted((data / split).glob("????.png"))[:12]:
            shutil.copy(path, tmp_path / "few" / split)
    words = ["--data", str(tmp_path / "few"), "--out", str(tmp_path / "runs"), "--gpu", "none", "--steps", "1"]
    assert main(["train-gan", *words, "--recipe", "fast", "--image-size", "48", "--evaluate-every", "1", "--json"]) == 3
    assert list((tmp_path / "runs").glob("*")) == []


def test_a_hostile_line_of_the_log_is_no_kid(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "seldom", tmp_path / "run")
    log = tmp_path / "run" / "log.jsonl"
    good = [json.loads(line) for line in log.read_text().splitlines()]
    log.write_text(
        "".join(json.dumps({**line, "kid": bad}) + "\n" for line, bad in zip(good, ({"a2b": "x"}, ["a2b"], None), strict=True))
    )
    assert Run(tmp_path / "run").entries() == []


class Half(nn.Module):
    """Half the contrast, and noise while it is being trained."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.rand_like(x) if self.training else x / 2


class Negative(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return -x


PICTURES = [np.full((8, 8, 3), value, np.uint8) for value in (0, 100, 255)]


def test_pictures_are_translated_in_evaluation_mode_and_the_generator_is_left_as_it_was() -> None:
    for training in (True, False):
        generator = Half().train(training)
        out = translate_batch(generator, PICTURES, CPU)
        assert generator.training == training
        assert [picture.dtype for picture in out] == [np.uint8] * 3
        assert [int(picture[0, 0, 0]) for picture in out] == [64, 114, 191]  # rounded, not truncated
        assert all(picture.shape == (8, 8, 3) for picture in out)


def test_a_row_is_source_fake_and_cycled_for_each_direction() -> None:
    generators = {"a2b": Negative(), "b2a": Half().eval()}
    rows = sample_rows(generators, {"a2b": PICTURES[:2], "b2a": PICTURES[2:]}, CPU)
    values = [[int(picture[0, 0, 0]) for picture in row] for row in rows]
    assert values == [[0, 255, 191], [100, 155, 141], [255, 191, 64]]


def test_with_one_direction_nothing_is_cycled() -> None:
    rows = sample_rows({"a2b": Negative()}, {"a2b": PICTURES[:1]}, CPU)
    assert [len(row) for row in rows] == [2]
