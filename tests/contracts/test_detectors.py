"""What every registered detector keeps, a stranger's as well as ours."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fruitgan.data.augment import augmentations
from fruitgan.errors import UsageError
from fruitgan.networks.contracts import Detector, LinearDetector, detectors

pytestmark = pytest.mark.usefixtures("repeatable")

# The two are torchvision's family with a network's name, which is tested under its own.
NAMES = [pytest.param(name, marks=pytest.mark.slow) if name in ("resnet18", "resnet50") else name for name in detectors.names()]
OWN = [entry.name for entry in detectors.entries() if entry.package == "fruitgan"]
SIZED = ("small-cnn", "seed-cnn", "spectrum", "resnet18", "resnet50", "torchvision", "timm")
SIDE_PX = 32


def test_our_detectors_take_a_size_unless_their_features_have_one() -> None:
    assert set(SIZED) | {"logistic", "efficientnet-lite1", "npr"} == set(OWN)


def light(name: str) -> Detector:
    """The detector for small images, where its size can be chosen."""
    builder: Callable[..., Detector] = detectors.get(name)
    return builder(**({"image_size_px": SIDE_PX} if "image_size_px" in inspect.signature(builder).parameters else {}))


def images(detector: Detector, n: int = 3, dtype: torch.dtype = torch.float32) -> Tensor:
    """Of the detector's size; in float64, where the large ones take seconds, no larger than that features need."""
    side_px = min(detector.image_size_px, 64) if dtype == torch.float64 else detector.image_size_px
    return torch.rand((n, 3, side_px, side_px), dtype=dtype)


@pytest.mark.parametrize("name", NAMES)
def test_a_detector_gives_a_finite_logit_an_image(name: str) -> None:
    detector = light(name)
    assert isinstance(detector, Detector)
    for mode in (True, False):
        x = images(detector.train(mode))
        before = x.clone()
        logits = detector(x)
        assert logits.shape == (3,)
        assert logits.dtype == torch.float32
        assert torch.isfinite(logits).all()
        assert torch.equal(x, before)
    flat = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1).expand_as(before)
    assert torch.isfinite(detector(flat)).all()
    assert detector.suggested_augmentation in augmentations.names()
    assert not isinstance(detector, LinearDetector) or detector.suggested_augmentation == "none"


@pytest.mark.parametrize("name", NAMES)
def test_judged_images_are_treated_one_by_one(name: str) -> None:
    detector = light(name).double().eval()
    x = images(detector, n=2, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(detector(x), torch.cat([detector(x[:1]), detector(x[1:])]), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_a_gradient_reaches_every_parameter(name: str) -> None:
    detector = light(name).double().train()
    n = 2 if isinstance(detector, LinearDetector) else 4  # of two, batch norm leaves nothing but their signs
    (detector(images(detector, n, torch.float64)) * torch.tensor([1.0, -2.0, 0.5, 1.5])[:n]).sum().backward()
    for key, parameter in detector.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().max() > 0, key


@pytest.mark.parametrize("name", NAMES)
def test_a_detector_survives_a_safetensors_file(name: str, tmp_path: Path) -> None:
    detector = light(name)
    x = images(detector)
    detector(x)  # in training, so that what is estimated on the way differs from its start
    detector.eval()
    save_file(detector.state_dict(), tmp_path / "detector.safetensors")
    other = light(name).eval()
    other.load_state_dict(load_file(tmp_path / "detector.safetensors"))
    assert torch.equal(other(x), detector(x))


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_starts_the_same_detector(name: str) -> None:
    starts = []
    for seed in (7, 7, 8):
        torch.manual_seed(seed)
        starts.append(torch.cat([p.detach().flatten() for p in light(name).parameters()]))
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])


@pytest.mark.parametrize("name", SIZED)
def test_every_size_that_is_accepted_works_and_the_others_are_refused_with_one_that_does(name: str) -> None:
    more = {"bins": 4} if name == "spectrum" else {}
    for side_px in (8, 100):
        with pytest.raises(UsageError, match=rf"{side_px} px is not 16 or more and a multiple of 8; --image-size \d+ would do"):
            detectors.build(detectors.choose(name, {"image_size_px": side_px}))
    for side_px in (16, 24):
        detector = detectors.build(detectors.choose(name, {"image_size_px": side_px, **more})).eval()
        assert detector.image_size_px == side_px
        assert detector(images(detector)).shape == (3,)
