"""Scores of detectors that were trained once a fold, and what is said of two tests that differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from named_reports import RECORDED
from sklearn.metrics import average_precision_score, roc_auc_score

from fruitgan.data.labelled import LabelledImage
from fruitgan.evaluate.detectors import fold_mean, result_of
from fruitgan.evaluate.wording import claim_sentence, detector_details, meanings, number_rows, verdict
from fruitgan.measures.metrics.fid_kid import Fid
from fruitgan.train_detector.calibration import calibration


def two_folds(shift: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits of two folds, of which the second's are shifted, with truth and fold."""
    random = np.random.default_rng(0)
    truth, fold = np.arange(200) % 2 == 0, np.repeat([0, 1], 100)
    return truth + random.normal(0, 1, 200) + shift * fold, truth, fold


@pytest.mark.parametrize("shift", [0.0, 5.0])
def test_a_folds_own_scale_of_logits_leaves_auc_precision_and_curve_alone(shift: float) -> None:
    logits, truth, fold = two_folds(shift)
    images = [LabelledImage(Path(f"{i}"), bool(truth[i]), str(i), "", "") for i in range(200)]
    named = {"name": "x", "protocol": "", "image_size_px": 8, "resize": "squashed"}
    found = result_of(logits, images, fold, p_value=0.1, began=0.0, **named)
    halves = [(truth[fold == number], logits[fold == number]) for number in (0, 1)]
    assert found.auc == pytest.approx(np.mean([roc_auc_score(*half) for half in halves]))
    assert found.average_precision == pytest.approx(np.mean([average_precision_score(*half) for half in halves]))
    assert found.auc_interval[0] < found.auc < found.auc_interval[1]
    assert np.mean(found.roc) == pytest.approx(found.auc, abs=0.02)
    assert found.calibration.error == pytest.approx(np.mean([calibration(z, t).error for t, z in halves]))
    assert (roc_auc_score(truth, logits) < found.auc - 0.1) == (shift > 0)


def test_a_fold_with_one_class_counts_for_nothing() -> None:
    logits, truth, fold = two_folds(0.0)
    one_sided = np.where(fold == 1, True, truth)
    assert fold_mean(roc_area, logits, one_sided, fold) == pytest.approx(roc_auc_score(truth[:100], logits[:100]))
    with pytest.raises(ValueError, match="both classes"):
        fold_mean(roc_area, logits, np.ones(200, dtype=bool), fold)


def roc_area(logits: np.ndarray, truth: np.ndarray) -> float:
    return float(roc_auc_score(truth, logits))


def judged(p_value: float, interval: tuple[float, float], auc: float, auc_interval: tuple[float, float]) -> dict[str, Any]:
    scores = {"accuracy": sum(interval) / 2, "interval": interval, "auc": auc, "auc_interval": auc_interval, "p_value": p_value}
    won = (("logistic", 0.74, 1), ("spectrum", 0.6, 4))
    rows = [{"name": name, "held_out_auc": held_out, "chosen_folds": folds} for name, held_out, folds in won]
    detector = RECORDED["detector"] | scores | {"name": "spectrum", "resize": "squashed to 32 px"}
    return {"detector": detector, "detectors": rows, "by_depth": [{"stride": 16, "auc": 0.8}]}


@pytest.mark.parametrize(
    ("result", "start", "words"),
    [
        (
            judged(0.0001, (0.7, 0.9), 0.9, (0.8, 0.95)),
            "The generated images can be distinguished from real ones: ",
            "the strongest of 2 detectors in each fold (spectrum in 4 of 5)",
        ),
        (judged(0.0001, (0.4, 0.6), 0.5, (0.4, 0.6)), "The generated images can be distinguished", "another test, does not"),
        (judged(0.005, (0.45, 0.65), 0.785, (0.7, 0.85)), "It is open whether", "two tests differ"),
        (judged(0.005, (0.55, 0.75), 0.6, (0.48, 0.7)), "It is open whether", "better than chance"),
        (judged(0.0046, (0.4, 0.6), 0.481, (0.4, 0.56)), "The generated images cannot be distinguished", "p = 0.0046"),
    ],
)
def test_accuracy_and_p_never_contradict_each_other_in_words(result: dict[str, Any], start: str, words: str) -> None:
    assert verdict(result).startswith(start)
    assert words in verdict(result)
    assert "is of another test, by permutation" in detector_details(result)
    assert "(0.740, logistic)" in detector_details(result)
    assert "every image was squashed to 32 px" in detector_details(result)
    assert detector_details(result).endswith("as AUC by depth: parts of things 0.800.")


def test_a_number_that_hangs_on_how_many_there_are_stands_beside_its_value_at_the_floors_number() -> None:
    fid = {"value": 104.0, "interval": (70, 139), "n_real": 40, "n_fake": 40, "features": "colour", "resize": ""}
    floor = {"value": 160.0, "interval": (143, 177), "n_real": 20, "value_at_size": 163.0}
    (row,) = number_rows({"fid": fid, "floor": {"fid": floor}})
    assert row.texts[2] == "143 to 177 (from 20 each; generated: 163)"


def test_kinds_that_count_as_one_are_named_where_no_claim_is_made() -> None:
    claim = {"claim": "x", "holds": None, "agreeing": ["random", "colour"], "contrary": [], "undecided": [], "dependent": []}
    assert "and random and colour count as one" in claim_sentence(claim)
    assert "count as one" not in claim_sentence(claim | {"agreeing": ["random"]})


def test_a_frechet_distances_interval_does_not_reach_below_0() -> None:
    points = np.random.default_rng(0).normal(0, 5, (8, 40))
    found = Fid(resamples=50).measure(points, points)
    assert found.value == pytest.approx(0, abs=1e-6)
    assert found.interval.low == 0 < found.interval.high


@pytest.mark.parametrize(
    ("interval", "words"), [((0.1, 0.2), "lies above"), ((-0.1, 0.2), "holds it"), ((-0.2, -0.1), "lies below")]
)
def test_what_is_said_of_an_interval_is_where_it_lies(interval: tuple[float, float], words: str) -> None:
    kid = {"value": sum(interval) / 2, "interval": interval, "n_real": 9, "n_fake": 9, "features": "colour", "resize": ""}
    floor = {"value": 0.0, "interval": (-0.1, 0.1), "n_real": 4, "value_at_size": None}
    (sentence,) = meanings(number_rows({"kid": kid, "floor": {"kid": floor}})).values()
    assert words in sentence
