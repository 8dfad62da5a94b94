"""Results of `evaluate`, as `evaluation.json` holds them. Shares are in [0, 1], intervals of 95%."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fruitgan.evaluate.leaks import Leak
from fruitgan.measures.contracts import MetricResult
from fruitgan.measures.distances import Claim
from fruitgan.settings import to_json
from fruitgan.train_detector.calibration import Calibration, Verdict


@dataclass(frozen=True, kw_only=True)
class FloorResult(MetricResult):
    """Real images against real ones; `n_real` and `n_fake` are the two halves."""

    value_at_size: float | None = None
    """What the generated images score with as few images as a half has, where the number depends on how many there are."""


@dataclass(frozen=True, kw_only=True)
class RatioResult(MetricResult):
    """R: how much of the distance between sources and real images is left."""

    n_source: int
    source_value: float
    """KID of the sources against the real images."""
    source_interval: tuple[float, float]
    paired: bool
    """Whether each generated image was resampled together with its source."""


@dataclass(frozen=True, kw_only=True)
class DetectorResult(Verdict):
    """The strongest detector on held-out images, or the one given; `p_value` is of the one permutation test of all of them."""

    name: str
    auc_interval: tuple[float, float]
    """By the bootstrap over groups of images."""
    average_precision: float
    calibration: Calibration
    """Its error, as AUC and average precision, is the mean over the folds; its bins hold the images of all folds."""
    roc: tuple[float, ...]
    """Share of the generated images found where 0, 0.02 ... 1 of the real ones are taken for generated; mean over the folds."""
    protocol: str
    """In words: why the detector learnt nothing from its test images."""
    left_out: int = 0
    """Images that taught a given detector, or are nearly like one that did."""
    image_size_px: int
    resize: str
    """How every image was brought to that size."""
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores of a detector in the folds of the cross-validation."""

    name: str
    accuracy: float
    interval: tuple[float, float]
    auc: float


@dataclass(frozen=True, kw_only=True)
class DetectorRow(Scores):
    """One detector, whether it was chosen in a fold or not."""

    image_size_px: int
    resize: str
    held_out_auc: float
    """On the half of the images that the permutation test looks at."""
    chosen_folds: int
    seconds: float
    trained_on: str = ""
    """The data that its weights were trained on before it saw these images."""


@dataclass(frozen=True, kw_only=True)
class ControlResult:
    """Real images against real images, put to the same test as the generated ones: they must not be distinguished."""

    name: str
    detail: str
    n: int
    p_value: float
    auc: float
    """The largest of the detectors'."""
    distinguished: bool


@dataclass(frozen=True, kw_only=True)
class RobustnessResult(Scores):
    """The strongest detectors on test images after a change that they were not trained for.

    `change` is none, jpeg (amount: quality), blur (sigma in px), resize (scale there and back), crop (share of the side that is
    left) or noise (sigma in grey levels).
    """

    change: str
    amount: float
    average_precision: float
    accuracy_reals_changed: float
    """With the real images alone changed."""
    accuracy_generated_changed: float
    n: int


@dataclass(frozen=True, kw_only=True)
class LearningRow(Scores):
    """The strongest detector, trained on fewer images."""

    n_training: int
    """With those that choose penalty and epoch; mean over the folds."""


@dataclass(frozen=True, kw_only=True)
class DepthRow(Scores):
    """A detector on a backbone, given its features at one stride alone: 4 shows colours, 8 textures, 16 parts of things."""

    stride: int


@dataclass(frozen=True, kw_only=True)
class JudgedImage:
    """A detector's answer on one test image; above 0 is generated."""

    file: str
    generated: bool
    logit: float


@dataclass(frozen=True, kw_only=True)
class CompareRow:
    """One number of two generators; `value` is the run's, and below 0 the difference favours it.

    `recognised` is the share of the fakes that the strongest detector finds.
    """

    name: str
    features: str
    first: float
    value: float
    difference: float
    interval: tuple[float, float]
    p_value: float
    test: str
    n: int
    """Pairs."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One run held against the first, by name."""

    first: str
    run: str
    first_dir: Path
    run_dir: Path
    n_sources: int
    """How many sources both translated."""
    rows: tuple[CompareRow, ...]
    claim: Claim
    """Whether the run is better."""
    judges_sharing_training: tuple[str, ...]
    notes: tuple[str, ...]
    report: Path
    """The run's own evaluation."""


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One bound, and whether the number is on the right side of it; with `above` a value above it fails, else one below."""

    name: str
    above: bool
    bound: float
    value: float | None
    passed: bool

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.name} has no value, so it cannot pass"
        return f"{self.name} is {self.value:.4g}, {'above' if self.above else 'below'} {self.bound:g}"


@dataclass(kw_only=True)
class Numbers:
    """Numbers by their key: `kid`, `kid_colour` and so on."""

    numbers: dict[str, MetricResult] = field(default_factory=dict)
    floor: dict[str, FloorResult] = field(default_factory=dict)
    ratios: dict[str, RatioResult | None] = field(default_factory=dict)
    """`r`, and `r_colour` and so on for further features; None where it cannot be measured."""
    not_measured: dict[str, str] = field(default_factory=dict)
    """By a metric's name, why it has no number."""


@dataclass(kw_only=True)
class Detection:
    """Results of detectors; without a detector `withheld` says why."""

    detector: DetectorResult | None = None
    withheld: str | None = None
    detector_trained_on: str = ""
    """The data that the features of a given detector were trained on elsewhere."""
    controls: tuple[ControlResult, ...] = ()
    detectors: tuple[DetectorRow, ...] = ()
    by_depth: tuple[DepthRow, ...] = ()
    judged: tuple[JudgedImage, ...] = ()
    robustness: tuple[RobustnessResult, ...] = ()
    learning_curve: tuple[LearningRow, ...] = ()
    notes: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class EvaluateResult(Numbers, Detection):
    """What `--json` prints and `evaluation.json` holds (docs/formats.md); `as_json` has the numbers under their own names."""

    fake_dir: Path
    real_dir: Path
    source_dir: Path | None
    n_fake: int
    n_real: int
    trained_against: tuple[str, ...] | None
    """The pretrained networks that judged the generator in training; None where they are not known."""
    judges_sharing_training: tuple[str, ...]
    """Features and detectors here that share training data or weights with those."""
    r_withheld: str | None
    claims: tuple[Claim, ...]
    leaks: tuple[Leak, ...]
    compare: tuple[Comparison, ...] = ()
    """Further generators held against this one."""
    gates: tuple[Gate, ...] = ()
    warnings: tuple[str, ...]
    quick: bool
    seed: int
    environment: Mapping[str, Any]
    seconds: float = 0.0
    out: Path
    file: Path
    report: Path

    @property
    def failed_gates(self) -> tuple[Gate, ...]:
        return tuple(gate for gate in self.gates if not gate.passed)

    def value(self, name: str) -> float | None:
        """The number of this key; None if it was withheld."""
        if name in ("accuracy", "auc"):
            return None if self.detector is None else float(getattr(self.detector, name))
        found = self.numbers.get(name) or self.ratios.get(name)
        return None if found is None else found.value

    def as_json(self) -> dict[str, Any]:
        """The entries of `evaluation.json`; numbers of a judge that shares training say so."""
        values: dict[str, Any] = to_json(self)
        numbers = values.pop("numbers") | values.pop("ratios")
        entries = [*numbers.values(), values["detector"], *values["detectors"], *values["by_depth"]]
        for row, judges in [
            *((entry, self.judges_sharing_training) for entry in entries),
            *((row, each["judges_sharing_training"]) for each in values["compare"] for row in each["rows"]),
        ]:
            if row and set(str(row.get("features") or row["name"]).split(", ")) & set(judges):
                row["shares_training"] = True
        # JSON has no infinities: they become null.
        return dict(json.loads(json.dumps({**numbers, **values}), parse_constant=lambda name: None))
