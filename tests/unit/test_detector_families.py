"""Detectors by the name of a package's network, and a regression on features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from toy_bundles import detector_card

from fruitgan.errors import UsageError
from fruitgan.measures.contracts import features
from fruitgan.networks import weights
from fruitgan.networks.contracts import detectors
from fruitgan.registry import Choice
from fruitgan.train_detector.detector import DetectorBundle, load_detector, save_detector
from fruitgan.train_detector.regression import trials


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


def test_a_regression_on_features_of_a_network_that_is_larger_than_the_file_can_be_loaded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "SPARE_NUMBERS", 0)
    monkeypatch.setattr(weights, "SPARE_PARTS", 0)
    choice = detectors.choose("efficientnet-lite1")
    path = tmp_path / "detector.safetensors"
    save_detector(DetectorBundle(detector_card(choice, 256), detectors.build(choice)), path)
    assert set(load_detector(path).detector.state_dict()) == {"mean", "spread", "linear.weight", "linear.bias"}


@pytest.mark.parametrize("dimensions", [3, 90])
def test_the_regression_is_scikit_learns_with_more_features_than_images_too(dimensions: int) -> None:
    from sklearn.linear_model import LogisticRegression

    random = np.random.default_rng(dimensions)
    train, truth = random.normal(3, 2, (40, dimensions)), random.random(40) < 0.5
    train[truth, 0] += 3
    choose = random.normal(3, 2, (10, dimensions))
    for regression, found in trials(train, truth, choose, truth[:10]):
        scaled = (train - train.mean(0)) / train.std(0)
        model = LogisticRegression(C=1 / (found.penalty or 0), solver="newton-cg", tol=1e-10, max_iter=5000)
        expected = model.fit(scaled, truth)
        logits = expected.decision_function((choose - train.mean(0)) / train.std(0))
        np.testing.assert_allclose(regression.logits(choose), logits, rtol=0.01, atol=0.01)
