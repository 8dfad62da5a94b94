"""The contest of attackers, what disturbs them, and where they look."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fruitgan.data.labelled import LabelledImage
from fruitgan.errors import UsageError
from fruitgan.networks.contracts import detectors
from fruitgan.progress import Event, Progress
from fruitgan.train_detector.detector import LabelledImageDataset, answers, open_image_dataset, squashed
from fruitgan.train_detector.fit import fitting_augmentation
from fruitgan.train_detector.protocols import grouped_folds, half_split
from fruitgan.train_detector.regression import features_of
from fruitgan.train_detector.settings import FitSettings
from fruitgan.train_detector.two_sample_test import (
    CHANGES,
    Candidate,
    cross_validation,
    feature_candidate,
    pixel_candidate,
    two_sample_test,
)

SIDE = 32
CPU = torch.device("cpu")


def write(folder: Path, count: int, stripes: float) -> list[LabelledImage]:
    """Noise of two kinds of which one has faint stripes, as upsampling leaves."""
    random = np.random.default_rng(0)
    images = []
    for number in range(count):
        generated = number % 2 == 0
        pixels = random.normal(128, 30, (SIDE, SIDE, 3))
        pixels[np.arange(0, SIDE, 2) if generated else random.permutation(SIDE)[::2]] += stripes  # as much power in both
        path = folder / f"{number:03d}.png"
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)
        images.append(LabelledImage(path, generated, f"thing {number // 4}", "", ""))
    return images


def spectrum(name: str, album: LabelledImageDataset, bins: int) -> Candidate:
    """Sees frequencies alone, few or many of them."""
    choice = detectors.choose("spectrum", {"image_size_px": SIDE, "bins": bins})
    everything = np.arange(len(album), dtype=np.int64)
    seen = features_of(detectors.build(choice), album, everything, CPU, 64)  # type: ignore[arg-type]
    groups = [image.group for image in album.images]
    return feature_candidate(name, lambda: detectors.build(choice), lambda pixels: squashed(pixels, SIDE), seen, groups, CPU)  # type: ignore[arg-type,return-value]


def test_the_attacker_that_sees_the_difference_is_chosen_and_judged_on_what_it_did_not_see(tmp_path: Path) -> None:
    images = write(tmp_path, 160, stripes=20)
    generated = np.array([image.generated for image in images])
    folds = grouped_folds(images, 3, 0)
    album = open_image_dataset(images, SIDE)
    blind, seeing = spectrum("blind", album, bins=1), spectrum("seeing", album, bins=4)
    told: list[Event] = []
    found = cross_validation([blind, seeing], folds, generated, told.append)
    assert found.name == "seeing"
    assert len(found.judged) == len(set(found.judged)) == 160
    rows = np.flatnonzero(found.fold == 1)
    assert set(found.judged[rows]) == set(folds[1].test)
    np.testing.assert_array_equal(found.strongest[rows], found.logits[found.chosen[1]][rows])
    assert ((found.strongest > 0) == generated[found.judged]).mean() > 0.9
    winner = found.winners[1].detector  # the weights that are kept are those that gave these answers
    pictures = [found.winners[1].prepare(album.decoded.pixels[index]) for index in found.judged[rows]]
    again = answers(winner, pictures, CPU)
    np.testing.assert_allclose(again, found.strongest[rows], atol=1e-3)
    assert told[-1] == Progress("detector seeing", 6, 6)
    test = two_sample_test([blind, seeing], half_split(images, 0), generated, [image.group for image in images], 0)
    assert test.rejects
    shuffled = np.random.default_rng(1).permutation(generated)
    assert not two_sample_test([seeing], half_split(images, 0), shuffled, [str(i) for i in range(160)], 0).rejects


def test_a_network_is_trained_on_parts_where_it_takes_them(tmp_path: Path) -> None:
    images = write(tmp_path, 40, stripes=30)
    generated = np.array([image.generated for image in images])
    album = open_image_dataset(images, SIDE)
    choice = detectors.choose("small-cnn", {"image_size_px": SIDE, "base_channels": 2})
    small = pixel_candidate("small", choice, album, FitSettings(epochs=1), CPU)
    learned = small.learn(half_split(images, 0), generated)
    assert np.isfinite(learned.val_loss)
    assert small.seconds > 0
    choice = detectors.choose("seed-cnn", {"image_size_px": SIDE})
    with pytest.raises(UsageError, match="part-mirror shows parts of the images"):
        fitting_augmentation(choice, detectors.build(choice), "part-mirror")


def test_changes_do_what_their_names_say() -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (64, 48, 3), dtype=np.uint8)
    by_name = {(change.name, change.amount): change.apply(pixels, 7) for change in CHANGES}
    assert np.array_equal(by_name["none", 0], pixels)
    assert by_name["crop", 0.875].shape == (56, 42, 3)
    assert np.array_equal(by_name["crop", 0.875], pixels[4:60, 3:45])
    roughness = [np.abs(np.diff(by_name["blur", sigma].astype(float), axis=0)).mean() for sigma in (1, 2, 3)]
    assert roughness[0] > roughness[1] > roughness[2]
    loss = [np.abs(by_name["jpeg", q].astype(float) - pixels).mean() for q in (95, 75, 50, 30)]
    assert loss[0] < loss[1] < loss[2] < loss[3]
    noise = by_name["noise", 4].astype(float) - pixels
    inside = (pixels > 20) & (pixels < 235)
    assert noise[inside].std() == pytest.approx(4, rel=0.05)
    assert np.array_equal(by_name["noise", 4], CHANGES[-1].apply(pixels, 7))
    assert not np.array_equal(by_name["noise", 4], CHANGES[-1].apply(pixels, 8))
    for change in CHANGES:
        assert change.apply(pixels, 0).dtype == np.uint8


def test_pictures_of_several_sizes_are_answered_one_by_one() -> None:
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (side, side, 3), dtype=np.uint8) for side in (SIDE, SIDE + 8, SIDE)]
    detector = detectors.build(detectors.choose("small-cnn", {"base_channels": 2})).eval()
    with torch.no_grad():
        expected = [float(detector(torch.from_numpy(picture / 255).permute(2, 0, 1)[None].float())) for picture in pictures]
    np.testing.assert_allclose(answers(detector, pictures, CPU), expected, rtol=1e-5)
