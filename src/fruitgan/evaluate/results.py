"""Results of `evaluate`, as `evaluation.json` holds them. Shares are in [0, 1], intervals of 95%."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fruitgan.evaluate.leaks import Leak
from fruitgan.measures.contracts import FloorResult, MetricResult
from fruitgan.measures.metrics.fid_kid import RatioResult
from fruitgan.settings import finite, to_json
from fruitgan.train_detector.calibration import Calibration, Verdict

Row = dict[str, Any]
"""One row of a table of `evaluation.json`; its columns stand in docs/formats.md."""


@dataclass(frozen=True, kw_only=True)
class DetectorResult(Verdict):
    """The strongest detector on held-out images, or the one given; `p_value` is of the one permutation test of all of them."""

    name: str
    auc_interval: tuple[float, float]
    """95% (Newcombe), of as many independent images as these are worth."""
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
class EvaluateResult:
    """What `--json` prints and `evaluation.json` holds (docs/formats.md); `as_json` has the numbers under their own names."""

    fake_dir: Path | str
    real_dir: Path | str
    source_dir: Path | str | None
    n_fake: int
    n_real: int
    n_fake_training: int
    n_real_training: int
    """So many of them are of the generator's training split, as a manifest says."""
    numbers: dict[str, MetricResult] = field(default_factory=dict)
    """By their key: `kid`, `kid_colour` and so on."""
    floor: dict[str, FloorResult] = field(default_factory=dict)
    ratios: dict[str, RatioResult | None] = field(default_factory=dict)
    """`r`, and `r_colour` and so on for further features; None where it cannot be measured, and `r_withheld` says why."""
    r_withheld: str | None = None
    not_measured: dict[str, str] = field(default_factory=dict)
    """By a metric's name, why it has no number."""
    claims: list[Row] = field(default_factory=list)
    trained_against: tuple[str, ...] | None = None
    """The pretrained networks that judged the generator in training; None where they are not known."""
    judges_sharing_training: tuple[str, ...] = ()
    """Features and detectors here that share training data or weights with those."""
    leaks: tuple[Leak, ...] = ()
    detector: DetectorResult | None = None
    withheld: str | None = None
    """Why there is no detector."""
    detector_trained_on: str = ""
    """The data that the features of a given detector were trained on elsewhere."""
    controls: list[Row] = field(default_factory=list)
    detectors: list[Row] = field(default_factory=list)
    by_depth: list[Row] = field(default_factory=list)
    robustness: list[Row] = field(default_factory=list)
    learning_curve: list[Row] = field(default_factory=list)
    judged: list[Row] = field(default_factory=list)
    compare: list[Row] = field(default_factory=list)
    """Further generators held against this one."""
    gates: tuple[Gate, ...] = ()
    notes: list[str] = field(default_factory=list)
    warnings: tuple[str, ...] = ()
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
        found: dict[str, Any] = finite({**numbers, **values})
        return found
