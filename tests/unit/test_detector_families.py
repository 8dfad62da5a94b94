"""Detectors by the name of a package's network, and a regression on features."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from picture_files import write_dataset
from PIL import Image

from fruitgan.errors import DataError, UsageError
from fruitgan.images import Pixels, resize
from fruitgan.measures.contracts import Features, features
from fruitgan.networks.backbones import build_backbone
from fruitgan.networks.contracts import detectors
from fruitgan.registry import Choice
from fruitgan.train_detector.detector import load_detector, save_detector
from fruitgan.train_detector.job import train_detector
from fruitgan.train_detector.regression import trials
from fruitgan.train_detector.settings import TrainDetectorSettings


def test_a_name_behind_a_colon_is_the_familys_option() -> None:
    choice = detectors.choose("torchvision:mobilenet_v3_small", {"image_size_px": 32})
    assert (choice.name, choice.options) == ("torchvision", {"network": "mobilenet_v3_small", "image_size_px": 32})
    assert detectors.build(choice).image_size_px == 32


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("torchvision:resnet19", "did you mean resnet1"),
        ("timm:resnet19", "timm has no classifier named 'resnet19': did you mean"),
        ("spectrum:resnet18", "spectrum is no family"),
        ("torchvison:resnet18", "did you mean torchvision"),
    ],
)
def test_an_unknown_member_or_family_says_what_is_near(name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        detectors.build(detectors.choose(name))


def test_a_network_that_cannot_see_so_small_an_image_says_so() -> None:
    with pytest.raises(UsageError, match="torchvision:maxvit_t cannot look at images of 32 px"):
        detectors.build(detectors.choose("torchvision:maxvit_t", {"image_size_px": 32}))


def test_logistic_sees_what_its_features_see() -> None:
    detector = detectors.build(Choice("logistic", "fruitgan", "0", {"features": "colour"}))
    backend = features.build(features.choose("colour"))
    pixels = np.asarray(Image.effect_noise((128, 128), 60).convert("RGB"))
    image = torch.from_numpy(pixels / 255).permute(2, 0, 1)[None].float()
    assert torch.equal(detector.features(image), backend(image))
    assert set(detector.state_dict()) == {"mean", "spread", "linear.weight", "linear.bias"}


class Wide(Features):
    """Many features of a network that is far larger than the regression on them: 18 million weights, 6,000 numbers."""

    name = "wide"
    dimensions = 6000
    resize = "squashed to 32 px"

    def __init__(self) -> None:
        super().__init__()
        self.network = torch.nn.Linear(3 * 32**2, self.dimensions)

    def prepare(self, pixels: Pixels) -> Pixels:
        return resize(pixels, 32, 32, Image.Resampling.BICUBIC)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(images.flatten(1))


def test_a_regression_on_features_of_a_large_network_can_be_loaded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "build", lambda _: Wide())
    write_dataset(tmp_path / "dataset", 12, planted=60)
    result = train_detector(
        TrainDetectorSettings(data=tmp_path / "dataset", detector="logistic", out=tmp_path / "runs", gpu="none", threads=1)
    )
    detector = load_detector(result.run).detector
    assert detector.state_dict()["mean"].shape == (6000,)


@pytest.mark.parametrize("dimensions", [3, 90])
def test_the_regression_is_scikit_learns_with_more_features_than_images_too(dimensions: int) -> None:
    from sklearn.linear_model import LogisticRegression

    random = np.random.default_rng(dimensions)
    train, truth = random.normal(3, 2, (40, dimensions)), random.random(40) < 0.5
    train[truth, 0] += 3
    choose = random.normal(3, 2, (10, dimensions))
    for trial in trials(train, truth, choose, truth[:10]):
        scaled = (train - train.mean(0)) / train.std(0)
        model = LogisticRegression(C=1 / (trial.round.penalty or 0), solver="newton-cg", tol=1e-10, max_iter=5000)
        expected = model.fit(scaled, truth)
        logits = expected.decision_function((choose - train.mean(0)) / train.std(0))
        np.testing.assert_allclose(trial.regression.logits(choose), logits, rtol=0.01, atol=0.01)


def test_a_detector_on_a_backbone_sees_mean_and_spread_of_its_frozen_maps() -> None:
    detector = detectors.build(detectors.choose("backbone:efficientnet-lite1", {"image_size_px": 32})).eval()
    images = torch.rand((2, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    maps = build_backbone("efficientnet-lite1", (4, 8, 16))(2 * images - 1, (4, 8, 16))
    naive = [[part for c in m[n] for part in (float(c.mean()), float(c.std(unbiased=False)))] for m in maps for n in (0, 1)]
    seen = detector.features(images)
    assert seen.shape == (2, 2 * (24 + 40 + 112))
    for n in (0, 1):
        expected = sorted(value for row in naive[n::2] for value in row)
        np.testing.assert_allclose(sorted(seen[n].tolist()), expected, atol=1e-4)
    assert {name for name, _ in detector.named_parameters()} == {"linear.weight", "linear.bias"}
    assert detectors.choose("backbone:torchvision:resnet18").options["network"] == "torchvision:resnet18"


def test_a_detector_on_a_backbone_is_saved_without_it_and_refused_where_its_weights_are_others(tmp_path: Path) -> None:
    write_dataset(tmp_path / "dataset", 12, planted=60)
    result = train_detector(
        TrainDetectorSettings(data=tmp_path / "dataset", detector="backbone", out=tmp_path / "runs", gpu="none", threads=1)
    )
    found = load_detector(result.run)
    assert set(found.detector.state_dict()) == {"mean", "spread", "linear.weight", "linear.bias"}
    assert result.file.stat().st_size < 30_000
    assert found.detector.trained_on == "EfficientNet-Lite1 (ImageNet)"
    save_detector(
        dataclasses.replace(found, card=dataclasses.replace(found.card, backbones={"backbone.sha256": "0" * 64})), result.file
    )
    with pytest.raises(DataError, match="with other weights than are installed here"):
        load_detector(result.run)
