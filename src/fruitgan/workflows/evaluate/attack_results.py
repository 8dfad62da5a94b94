"""What the attackers of an evaluation found out. Shares in [0, 1]; 95% intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fruitgan.evaluation.calibration import Calibration
from fruitgan.training.detection import Confusion


@dataclass(frozen=True, kw_only=True)
class DetectorResult:
    """How often a detector tells the two apart: the strongest attacker, or the one that was given."""

    name: str
    accuracy: float
    interval: tuple[float, float]
    """Wilson, over the judged images, each counted once."""
    auc: float
    auc_interval: tuple[float, float]
    """By the bootstrap over groups of images."""
    average_precision: float
    balanced_accuracy: float
    calibration: Calibration
    p_value: float
    """Of the one permutation test of all attackers (evaluation/permutation.py)."""
    n: int
    chance: float
    confusion: Confusion
    protocol: str
    """In words: how it came about that the judged images had taught it nothing."""
    image_size_px: int
    chosen: Mapping[str, int]
    """In how many folds each attacker was the strongest on the choosing images."""
    seconds: float


@dataclass(frozen=True, kw_only=True)
class AttackerResult:
    """One attacker in the same folds, whether it was chosen there or not."""

    name: str
    image_size_px: int
    accuracy: float
    interval: tuple[float, float]
    auc: float
    balanced_accuracy: float
    held_out_auc: float
    """On the half of the images that the permutation test looks at."""
    chosen_folds: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class ControlResult:
    """Images that nobody should be able to tell apart, put to the same test."""

    name: str
    """`reals-against-reals`, or `identity-export`."""
    detail: str
    n: int
    """Images that took part."""
    p_value: float
    auc: float | None
    """The largest of the attackers'; None where every pixel is the same, so that nothing had to be trained."""
    told_apart: bool


@dataclass(frozen=True, kw_only=True)
class RobustnessResult:
    """The detector on the judged images after a change that it was not trained for."""

    change: str
    """`none`, `jpeg`, `blur`, `resize`, `crop` or `noise`."""
    amount: float
    """Quality, sigma in px, scale there and back, share of the side that is left, or sigma in grey levels."""
    accuracy: float
    interval: tuple[float, float]
    auc: float
    average_precision: float
    n: int


@dataclass(frozen=True, kw_only=True)
class JudgedImage:
    """What the detector said of one image; above 0 is generated."""

    file: str
    generated: bool
    group: str
    logit: float


@dataclass(frozen=True, kw_only=True)
class LookedAt:
    """Where the detector looked in one picture."""

    file: str
    kind: str
    """`surest` (a generated image, recognised), or `missed` (a generated image, taken for real)."""
    logit: float
    picture: str
    """The picture with the places marked that matter most, relative to the results' folder."""


@dataclass(frozen=True, kw_only=True)
class ReadingResult:
    """What share of the generated images a classifier of real sources against real target images takes for the target."""

    view: str
    """`as they are`, or `grey`, where colour alone cannot decide."""
    features: str
    share: float
    interval: tuple[float, float]
    """Wilson."""
    n: int
    sources_share: float
    """Of the real sources, which it did not learn from: where the generated images come from."""
    reals_share: float
    """Of the real images of the target, which it did not learn from: where they should arrive."""
    accuracy: float
    """Mean share of real sources and real target images told right; near 0.5 the classifier sees nothing in this view."""
    n_known: int
