"""Attackers in an evaluation: what they leave, and that controls and leaks withhold their number."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluations import SIDE_PX, SMOOTH, blob, evaluating, fill
from PIL import Image

from fruitgan.data.labelled import LabelledImage
from fruitgan.errors import UsageError
from fruitgan.evaluate import detection, detectors
from fruitgan.evaluate.detectors import detectors_named
from fruitgan.evaluate.job import evaluate
from fruitgan.evaluate.settings import EvaluateSettings
from fruitgan.images import Pixels
from fruitgan.measures.features import weightless
from fruitgan.train_detector.two_sample_test import CHANGES


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """40 smooth fakes, 40 real images with grain, and the reddish sources of the fakes."""
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "set/predicted", 40, grain=SMOOTH)
    fill(tmp_path / "set/origins", 40, 1000)
    fill(tmp_path / "set/sources", 40, redness=1.0)
    return tmp_path / "set"


def settings(dataset: Path, **changes: object) -> EvaluateSettings:
    return evaluating(dataset, **{"detector": None, "attackers": ("spectrum",), "metrics": ("kid",)} | changes)


def test_an_evaluation_leaves_all_that_its_attackers_found(dataset: Path) -> None:
    told: list[str] = []
    asked = settings(dataset, quick=False, attackers=("spectrum", "logistic"))
    result = evaluate(asked, lambda progress: told.append(progress.what))
    values = json.loads(result.file.read_text())
    assert values == result.as_json()
    assert values["leaks"] == []
    assert values["withheld"] is None
    assert [row["name"] for row in values["detectors"]] == ["spectrum", "logistic:colour"]
    assert sum(row["chosen_folds"] for row in values["detectors"]) == 5
    detector = values["detector"]
    chosen = {row["name"]: row["chosen_folds"] for row in values["detectors"]}
    assert chosen[detector["name"]] == max(chosen.values())
    assert detector["p_value"] <= 0.001
    assert detector["n"] == len(values["judged"]) == 80
    right = sum((image["logit"] > 0) == image["generated"] for image in values["judged"])
    assert detector["accuracy"] == right / 80 > 0.9
    assert sum(bin["n"] for bin in detector["calibration"]["bins"]) == 80
    assert [control["name"] for control in values["controls"]] == ["reals-against-reals"]
    assert not any(control["distinguished"] for control in values["controls"])
    by_change = {(row["change"], row["amount"]): row["accuracy"] for row in values["robustness"]}
    assert len(by_change) == 12
    assert by_change["none", 0] == detector["accuracy"]
    assert by_change["blur", 3] < by_change["none", 0]  # which makes all of them smooth
    blurred = next(row for row in values["robustness"] if (row["change"], row["amount"]) == ("blur", 3))
    assert blurred["accuracy_reals_changed"] < blurred["accuracy_generated_changed"] == detector["accuracy"]
    learnt = values["learning_curve"]
    assert [row["n_training"] for row in learnt] == sorted(row["n_training"] for row in learnt)
    assert learnt[-1]["accuracy"] == next(row["accuracy"] for row in values["detectors"] if row["name"] == detector["name"])
    assert {"testing spectrum", "robustness", "control: reals against reals, logistic:colour"} <= set(told)


def test_the_noise_is_another_for_each_name_also_where_that_is_no_utf_8(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = min((dataset / "origins").iterdir())
    first.rename(first.with_name(os.fsdecode(b"\xff.png")))
    numbers: list[int] = []

    def noise(pixels: Pixels, number: int) -> Pixels:
        numbers.append(number)
        return pixels

    monkeypatch.setattr(detectors, "CHANGES", [replace(change, apply=noise) for change in CHANGES])
    evaluate(settings(dataset, quick=False))
    names = {path.name for part in ("predicted", "origins") for path in (dataset / part).iterdir()}
    assert len(set(numbers)) == len(names)


def test_a_regression_on_features_takes_the_cached_ones_and_those_of_each_stride_by_itself(
    dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[int] = []
    honest = weightless.Colour.forward

    def counting(self: weightless.Colour, images: torch.Tensor) -> torch.Tensor:
        looked_at.append(len(images))
        return honest(self, images)

    monkeypatch.setattr(weightless.Colour, "forward", counting)
    monkeypatch.setattr(weightless.Colour, "columns", lambda self: {4: slice(None), 8: slice(0, 1)}, raising=False)
    monkeypatch.setenv("FRUITGAN_CACHE", str(dataset / "cache"))  # no other test has filled it
    result = evaluate(settings(dataset, fake_dir=dataset / "sources", attackers=("logistic",)))
    assert sum(looked_at) == 80  # folds, test and control took what the numbers were made of
    assert [(row["name"], row["stride"]) for row in result.by_depth] == [("logistic:colour", 4), ("logistic:colour", 8)]
    whole, part = result.by_depth
    assert all(whole[key] == result.detectors[0][key] for key in ("accuracy", "auc"))
    assert part["auc"] < whole["auc"]
    assert "textures" in result.report.read_text()


def test_cut_outs_that_differ_only_in_invisible_pixels_are_not_distinguished(tmp_path: Path) -> None:
    """30 against 30, transparent outside a circle, where the generated ones hide noise and the real ones grey."""
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX] - (SIDE_PX - 1) / 2
    opacity = np.where(np.hypot(y, x) < SIDE_PX / 2 - 2, 255, 0).astype(np.uint8)
    random = np.random.default_rng(0)
    for name, first, highest in (("predicted", 0, 256), ("origins", 1000, 101)):
        (tmp_path / name).mkdir()
        for i in range(30):
            pixels = blob(first + i)
            pixels[opacity == 0] = random.integers(100, highest, (int((opacity == 0).sum()), 3))
            Image.fromarray(np.dstack([pixels, opacity])).save(tmp_path / name / f"{i:03d}.png")
    result = evaluate(settings(tmp_path))
    assert result.leaks == ()
    assert result.detector is not None
    assert result.detector.p_value > 0.01
    assert result.detector.interval[0] < 0.5
    assert result.numbers["kid"].interval.low < 0
    assert "cannot be distinguished" in result.report.read_text()


def test_real_images_of_two_kinds_withhold_the_number(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(dataset / "origins", 20, 5000, grain=SMOOTH)

    def by_kind(reals: Sequence[LabelledImage], seed: int) -> list[LabelledImage]:
        return [replace(image, generated=int(image.path.stem) < 20) for image in reals]

    monkeypatch.setattr(detection, "halved", by_kind)
    result = evaluate(settings(dataset))
    assert result.as_json()["detector"] is None
    assert "the control reals-against-reals was distinguished" in (result.withheld or "")


def test_names_of_attackers() -> None:
    assert detectors_named((), quick=False) == (*detectors_named((), quick=True), "small-cnn")
    assert detectors_named((), quick=True) == ("spectrum", "npr", "efficientnet-lite1", "logistic")
    everyone = detectors_named(("all",), quick=False)
    assert everyone[:5] == detectors_named((), quick=False)
    assert {"seed-cnn", "resnet18", "resnet50"} <= set(everyone)
    assert not {"torchvision", "timm"} & set(everyone)
    assert detectors_named(("timm:resnet10t",), quick=False) == ("timm:resnet10t",)
    for names, words in ((("all", "spectrum"), "stands alone"), (("spectrun",), "did you mean"), (("logistic",) * 2, "twice")):
        with pytest.raises(UsageError, match=words):
            detectors_named(names, quick=False)
    with pytest.raises(UsageError, match="both say which detectors"):
        EvaluateSettings(fake_dir=Path("x"), detector="spectrum", attackers=("logistic",))
