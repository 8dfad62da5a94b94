"""Settings of `evaluate`: which images, against which, and with which features, metrics and detectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fruitgan.errors import UsageError
from fruitgan.images import Fit
from fruitgan.progress import Event
from fruitgan.settings import Settings

OUT = Path("runs/evaluate")
DEFAULT_FEATURES = ("fruit-embed", "random", "colour")
DEFAULT_METRICS = (
    *("kid", "fid", "density", "coverage", "colour-lab", "spectrum", "upsampling-peaks"),
    *("structure", "background", "nearest-training"),
)
"""Those that take seconds; of what needs sources or training images, nothing is said where those were not given."""
ALL = "all"
NO_DETECTOR = "none"
SHAPELESS = frozenset({"random", "colour"})
"""Features that see colours and textures and know no things."""
FRUIT_EMBED = "fruit-embed"
INCEPTION = "inception"
INCEPTION_KEYS = {"kid": "kernel_inception_distance_mean", "fid": "frechet_inception_distance"}
"""torch-fidelity's own names, which belong to Inception features alone."""
NETWORK_FAMILIES = ("torchvision", "timm")
"""Features whose name goes on with that of a network: `torchvision:resnet50`."""
RATIO = "r"

Tell = Callable[[Event], None]
"""Where the parts of this job send their progress; it ends the job if somebody asks for that."""


def takes_weights(features: str) -> bool:
    """Whether these are features of ours that a file of weights can be given to."""
    return features.partition(":")[0] in (*NETWORK_FAMILIES, INCEPTION, "clip", "dinov2", "efficientnet-lite1")


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings(Settings):
    """Which images to evaluate, against which, and by what."""

    fake_dir: Path | str
    """A folder, or an address or tar shards as `data.remote.at_hand` takes them; so are the other folders."""
    real_dir: Path | str | None = None
    """None is the folder `origins` beside the generated images."""
    source_dir: Path | str | None = None
    """What the generated images were made of; needed for R and for what is measured of each pair."""
    training_dir: Path | str | None = None
    """Real images of the target domain that the generator was trained on; needed for `nearest-training`."""
    background: str | None = None
    value_range: str | None = None
    fit: Fit | None = None
    """How images are made of files, as in training; None is as `dataset.json` says."""
    detector: str | None = None
    """A detector's file or run, the name of the only one to train, or `none`; None trains those of `attackers`."""
    attackers: tuple[str, ...] = ()
    """Names of detectors to train here, of which the strongest counts, or `all` alone; none means the default ones."""
    features: tuple[str, ...] = DEFAULT_FEATURES
    """The first gives the headline numbers."""
    metrics: tuple[str, ...] = DEFAULT_METRICS
    """Names, or `all` alone."""
    weights: Mapping[str, Path] = field(default_factory=dict)
    """By the name of features, a file with their weights; those of others are fetched or came with the package."""
    quick: bool = False
    ray: str | None = None
    """The cluster whose actors compute features, as `parallel.connected` takes it; None is this process."""
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
        super().__post_init__()
        for what, names in (("--features", self.features), ("--metrics", self.metrics)):
            if not names:
                raise UsageError(f"{what}: give at least one")
            if len(set(names)) < len(names):
                raise UsageError(f"{what}: {', '.join(names)}: one of them is named twice")
        for name in self.features:
            if name in NETWORK_FAMILIES:
                raise UsageError(f"--features {name}: which network? Such as {name}:resnet50")
        if self.detector is not None and self.attackers:
            raise UsageError("--detector and --attackers both say which detectors; give one of them")
        for name in self.weights:
            if name not in self.features:
                raise UsageError(f"--weights {name}=...: give --features {name} with them")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"--seed {self.seed}: 0 or more is needed")

    @property
    def bounds(self) -> list[tuple[str, str, float]]:
        """Option, number and bound of every gate."""
        options = {"--fail-above": self.fail_above, "--fail-below": self.fail_below}
        return [(option, name, bound) for option, bounds in options.items() for name, bound in bounds.items()]

    def key(self, number: str, features: str) -> str:
        """What a number is called in the results: `kid` or `r` on the first features, `kid_colour` on further ones."""
        if features == INCEPTION and number in INCEPTION_KEYS:
            return INCEPTION_KEYS[number]
        return number if features == self.features[0] else f"{number}_{features}"


@dataclass(frozen=True, kw_only=True)
class CompareSettings(Settings):
    """Whose images are compared, and for bundles of what they are made."""

    runs: tuple[str, ...]
    """Bundles or runs, exported datasets, or folders of generated images; the others are held against the first."""
    data: str | None = None
    """For bundles: the images to translate, and the real ones; as of `export-dataset`."""
    domains: tuple[str, str] | None = None
    to: str | None = None
    count: int | None = None
    """For bundles: images of each class, as of `export-dataset`."""
    image_size: int | None = None
    """For bundles: the side of their images; None: that of their training, the smallest of them where they differ."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.runs) < 2:
            raise UsageError("--compare: give at least two, as in --compare RUN1 RUN2")
        if len(set(self.runs)) < len(self.runs):
            raise UsageError(f"--compare {' '.join(self.runs)}: one of them is named twice")
