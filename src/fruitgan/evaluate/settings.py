"""What `evaluate` is asked, what it tells while it works, and what it gives back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fruitgan.errors import UsageError
from fruitgan.evaluate.compare_settings import Comparison
from fruitgan.evaluate.detector_results import (
    AttackerResult,
    ControlResult,
    DetectorResult,
    JudgedImage,
    LookedAt,
    ReadingResult,
    RobustnessResult,
)
from fruitgan.evaluate.leaks import Leak
from fruitgan.measures.contracts import MetricResult
from fruitgan.measures.distances import Claim, Difference
from fruitgan.settings import to_json

OUT = Path("runs/evaluate")
DEFAULT_FEATURES = ("fruit-embed", "random", "colour")
DEFAULT_METRICS = (
    "kid",
    "fid",
    "density",
    "coverage",
    "colour-lab",
    "spectrum",
    "upsampling-peaks",
    "structure",
    "gradient-ssim",
    "background",
    "nearest-training",
)
"""Those that take seconds; of what needs sources or training images, nothing is said where those were not given."""
ALL_METRICS = "all"
NO_DETECTOR = "none"
SHAPELESS = frozenset({"random", "colour"})
"""Features that see colours and textures and know no things."""
FRUIT_EMBED = "fruit-embed"
INCEPTION = "inception"
INCEPTION_KEYS = {"kid": "kernel_inception_distance_mean", "fid": "frechet_inception_distance"}
"""torch-fidelity's own names, which belong to Inception features alone."""


NETWORK_FAMILIES = ("torchvision", "timm")
"""Features whose name goes on with that of a network: `torchvision:resnet50`."""


def takes_weights(features: str) -> bool:
    """Whether these features can be given a file of weights."""
    return features == INCEPTION or features.partition(":")[0] in NETWORK_FAMILIES


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """Which images to judge, against which, and by what."""

    fake_dir: Path
    real_dir: Path | None = None
    """None is the folder `origins` beside the generated images."""
    source_dir: Path | None = None
    """What the generated images were made of; needed for R and for what is measured of each pair."""
    training_dir: Path | None = None
    """Real images of the target domain that the generator was trained on; needed for `nearest-training`."""
    detector: str | None = None
    """A detector's file or run, the name of the only attacker, or `none`; None leaves it to the attackers."""
    attackers: tuple[str, ...] = ()
    """Names of detectors to train on the spot, of which the strongest counts, or `all` alone; none means the default ones."""
    features: tuple[str, ...] = DEFAULT_FEATURES
    """The first gives the headline numbers."""
    metrics: tuple[str, ...] = DEFAULT_METRICS
    """Names, or `all` alone."""
    weights: Mapping[str, Path] = field(default_factory=dict)
    """By the name of features, a file with their weights; those of others are fetched or came with the package."""
    quick: bool = False
    out: Path | None = None
    """None is a folder below `runs/evaluate`, named after the generated images' folder."""
    fail_above: Mapping[str, float] = field(default_factory=dict)
    """By the name of a number: the highest value that passes."""
    fail_below: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    gpu: str | None = None
    threads: int | None = None
    """Of the CPU; None: what is fastest here, found by a trial."""
    device: str | None = None

    def __post_init__(self) -> None:
        for what, names in (("--features", self.features), ("--metrics", self.metrics)):
            if not names:
                raise UsageError(f"{what}: give at least one")
            if len(set(names)) < len(names):
                raise UsageError(f"{what}: {', '.join(names)}: one of them is named twice")
        if self.detector is not None and self.attackers:
            raise UsageError("--detector and --attackers both say who attacks; give one of them")
        for name in self.weights:
            if name not in self.features:
                raise UsageError(f"--weights {name}=...: give --features {name} with them")
            if not takes_weights(name):
                raise UsageError(f"--weights {name}=...: the features {name} need none")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"--seed {self.seed}: 0 or more is needed")
        for option, bounds in (("--fail-above", self.fail_above), ("--fail-below", self.fail_below)):
            for name, bound in bounds.items():
                if not math.isfinite(bound):
                    raise UsageError(f"{option} {name}={bound}: not a number to compare with")

    def key(self, metric: str, features: str) -> str:
        """What a number is called in the results: `kid` for the first features, `kid_colour` for further ones."""
        if features == INCEPTION and metric in INCEPTION_KEYS:
            return INCEPTION_KEYS[metric]
        return metric if features == self.features[0] else f"{metric}_{features}"

    def alias(self, name: str) -> str:
        """The key that a gate's name stands for: `kid` is always that of the first features."""
        return self.key(name, self.features[0]) if name in INCEPTION_KEYS else name


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
class Gate:
    """One bound, and whether the number is on the right side of it."""

    name: str
    above: bool
    """Whether a value above the bound fails, else one below."""
    bound: float
    value: float | None
    passed: bool

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.name} has no value, so it cannot pass"
        return f"{self.name} is {self.value:.4g}, {'above' if self.above else 'below'} {self.bound:g}"


@dataclass(frozen=True, kw_only=True)
class EvaluateResult:
    """What `--json` prints and `evaluation.json` holds; `as_json` has the numbers under their own names."""

    fake_dir: Path
    real_dir: Path
    source_dir: Path | None
    n_fake: int
    n_real: int
    numbers: Mapping[str, MetricResult]
    floor: Mapping[str, FloorResult]
    ratios: Mapping[str, RatioResult | None]
    """`r`, and `r_colour` and so on for further features."""
    r_withheld: str | None
    differences: Mapping[str, Difference]
    """Of the distances of generated and of source images from the real ones, by the number's key; below 0 is progress."""
    claims: tuple[Claim, ...]
    """What may be said, since several feature backends agree, and what may not."""
    not_measured: Mapping[str, str]
    """By a metric's name, why it has no number."""
    leaks: tuple[Leak, ...]
    detector: DetectorResult | None
    withheld: str | None
    """Why there is no detector's number."""
    controls: tuple[ControlResult, ...]
    attackers: tuple[AttackerResult, ...]
    judged: tuple[JudgedImage, ...]
    """What the detector said of each image that it judged."""
    robustness: tuple[RobustnessResult, ...]
    saliency: tuple[LookedAt, ...]
    reads_as_target: tuple[ReadingResult, ...]
    """Only where the sources are known."""
    detection_seconds: float
    compare: tuple[Comparison, ...]
    """Others held against these images, where they were asked for."""
    gates: tuple[Gate, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    quick: bool
    seed: int
    environment: Mapping[str, Any]
    """Versions of what computed it, and the machine's kind."""
    seconds: float
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
        values: dict[str, Any] = to_json(self)
        return {**values.pop("numbers"), **values.pop("ratios"), **values}


@dataclass(frozen=True)
class EvaluateProgress:
    """How far one part of the work is."""

    what: str
    done: int
    total: int


OnProgress = Callable[[EvaluateProgress], None]
