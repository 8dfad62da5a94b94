"""What a detector has seen stands on its card: the images that taught it, their files, and what its logits are worth."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from evaluations import subject_of
from picture_files import noise, pixels_of, write_dataset
from PIL import Image
from scipy.optimize import minimize_scalar
from scipy.special import expit
from toy_bundles import detector_card

from fruitgan.data.groups import Look, content_sha256
from fruitgan.data.labelled import ManifestRow, manifest_bytes, read_dataset
from fruitgan.errors import DataError
from fruitgan.evaluate.detection import judge_by_given
from fruitgan.files import file_sha256
from fruitgan.networks.contracts import detectors
from fruitgan.train_detector.calibration import calibration_slope
from fruitgan.train_detector.detector import load_detector
from fruitgan.train_detector.job import train_detector
from fruitgan.train_detector.seen import FilesSeen, Header, jpeg_quality
from fruitgan.train_detector.settings import TrainDetectorResult, TrainDetectorSettings

pytestmark = pytest.mark.usefixtures("no_detector_report")


def trained(data: Path, out: Path, **settings: str) -> TrainDetectorResult:
    return train_detector(
        TrainDetectorSettings(data=data, out=out, detector="spectrum", detector_options={"bins": "4"}, gpu="none", **settings)
    )


def judged(run: Path, data: Path) -> tuple[list[str], int, list[str]]:
    """The contents of the images that a detector from a file is judged on, how many are left out, and the notes."""
    images = read_dataset(data).images
    result, notes, answers = judge_by_given(run, load_detector(run), subject_of(data, images))
    assert len(answers) == result.n
    places = {True: "predicted", False: "origins"}
    contents = [content_sha256(pixels_of(data / places[answer["generated"]] / answer["file"])) for answer in answers]
    return contents, len(images) - result.n, notes


@pytest.mark.parametrize("protocol", ["grouped", "seed"])
def test_the_card_lists_what_trained_chose_and_tested_and_with_nothing_left_to_judge_it_says_so(
    tmp_path: Path, protocol: str
) -> None:
    write_dataset(tmp_path / "set", 30, planted=60)
    result = trained(tmp_path / "set", tmp_path / "runs", protocol=protocol)
    card = load_detector(result.run).card
    there = {content_sha256(pixels_of(path)) for path in (tmp_path / "set").rglob("*.png")}
    train, val, test = set(card.train_sha256), set(card.val_sha256), set(card.test_sha256)
    assert [len(train), len(val), len(test)] == [result.train_images, result.val_images, result.n]
    assert train | val | test == there
    assert not train & test
    assert val == test if protocol == "seed" else not val & (train | test)
    assert len(card.taught_looks) == len((train | val) - test)
    assert card.files == FilesSeen(sides_px=(16, 16), formats=("PNG",))
    for path in (tmp_path / "set").rglob("*.png"):
        if content_sha256(pixels_of(path)) in test:
            path.unlink()
    with pytest.raises(DataError, match=r"taught the detector, or are nearly like one that did: .* left"):
        judged(result.run, tmp_path / "set")


def test_one_merged_pair_of_near_duplicates_does_not_reshuffle_who_judges(tmp_path: Path) -> None:
    """As in a public bug report: a pair that is grouped only later changes every later draw of a recomputed split."""
    data = tmp_path / "set"
    write_dataset(data, 30, planted=60)
    files = sorted(data.rglob("*.png"))
    Image.fromarray(np.clip(pixels_of(files[0]) + np.uint8(1), 0, 255)).save(files[1])  # both are real, and nearly alike
    rows = [
        ManifestRow(path.relative_to(data).as_posix(), label, path.name, "train", f"{n:064x}", file_sha256(path), "")
        for n, path in enumerate(files)
        for label in ["generated" if path.parent.name == "predicted" else "real"]
    ]
    (data / "manifest.csv").write_bytes(manifest_bytes(rows))
    result = trained(data, tmp_path / "runs")
    card = load_detector(result.run).card
    (data / "manifest.csv").unlink()  # now the near-duplicates are one group, and all groups have other names
    contents, left_out, notes = judged(result.run, data)
    assert set(contents) <= set(card.test_sha256)
    assert not set(contents) & {*card.train_sha256, *card.val_sha256}
    assert left_out == 60 - len(contents) >= 60 - result.n
    assert any(f"{left_out} of 60 images" in note for note in notes)
    for path in files:  # copies of training images in another format are known again by their look
        Image.open(path).resize((64, 64)).save(path.with_suffix(".jpg"), quality=95)
        path.unlink()
    _, left_out, _ = judged(result.run, data)
    assert left_out >= 0.8 * len(card.taught_looks)


def test_the_quality_of_a_jpeg_is_read_from_its_tables() -> None:
    for quality in (5, 30, 50, 75, 90, 95, 100):
        file = io.BytesIO()
        Image.fromarray(noise(16, 16)).save(file, "JPEG", quality=quality)
        assert jpeg_quality(Image.open(file).quantization[0]) == quality  # type: ignore[attr-defined]


def test_what_lies_outside_is_said_in_words() -> None:
    seen = FilesSeen.of([Header(256, 300, "JPEG", 90), Header(260, 256, "JPEG", 95), Header(256, 256, "PNG", None)])
    assert seen == FilesSeen(sides_px=(256, 300), formats=("JPEG", "PNG"), qualities=(90, 95))
    assert seen.outside(Header(300, 256, "JPEG", 85)) == []
    assert seen.outside(Header(300, 255, "WEBP", None)) == [
        "size: 300 x 255 px, trained on sides of 256 to 300 px",
        "format: WEBP, trained on JPEG and PNG",
    ]
    assert seen.outside(Header(256, 256, "JPEG", 60)) == ["compression: JPEG quality 60, trained on 90 to 95"]


def test_near_duplicates_of_what_taught_it_and_their_groups_cannot_test_it() -> None:
    random = np.random.default_rng(0)
    taught = [int(number) for number in random.integers(0, 2**63, 20)]
    looks = [taught[i] ^ int(sum(1 << int(bit) for bit in random.permutation(64)[:i])) for i in range(10)]
    naive = [min((look ^ other).bit_count() for other in taught) > 4 for look in looks]
    assert naive == [False] * 5 + [True] * 5
    choice = detectors.choose("spectrum")
    card = detector_card(choice, 128, taught_looks=tuple(f"{look:016x}" for look in taught), train_sha256=("seen",))
    seen = [Look("", look) for look in looks]
    assert card.is_untaught(seen, [str(i) for i in range(10)]).tolist() == naive
    assert not card.is_untaught(seen, ["one group"] * 10).any()
    assert card.is_untaught([Look("seen", 0), Look("", 0)], ["a", "b"]).tolist() == [False, True]
    assert detector_card(choice, 128).is_untaught([Look("", 0)], ["a"]).all()


def test_the_slope_makes_probabilities_of_logits_that_are_too_sure() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(0, 4, 4000)
    truth = random.random(4000) < expit(0.3 * logits)
    slope = calibration_slope(logits, truth)
    assert slope == pytest.approx(0.3, abs=0.03)
    assert calibration_slope(10 * logits, truth) == pytest.approx(slope / 10, rel=1e-3)
    few, classes = logits[:50], truth[:50]
    targets = np.where(classes, (classes.sum() + 1) / (classes.sum() + 2), 1 / ((~classes).sum() + 2))
    found = minimize_scalar(
        lambda a: float((np.logaddexp(0, a * few) - targets * a * few).sum()), bounds=(0, 5), method="bounded"
    )
    assert calibration_slope(few, classes) == pytest.approx(found.x, rel=1e-3)
    sure, right = np.array([-2.0, -1.0, 1.0, 2.0]), np.array([False, False, True, True])
    assert 0.1 < calibration_slope(sure, right) < 10  # finite, though no image is misclassified
    assert calibration_slope(-sure, right) == calibration_slope(0 * sure, right) == 0
