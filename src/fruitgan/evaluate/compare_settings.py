"""What `evaluate --compare` is asked and what it adds to the result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fruitgan.bundle import RUNS
from fruitgan.errors import UsageError
from fruitgan.measures.distances import Claim

BOOTSTRAP = "paired bootstrap over sources"
MCNEMAR = "McNemar, exact"


@dataclass(frozen=True, kw_only=True)
class CompareSettings:
    """Whose images are put side by side, and for bundles of what they are made."""

    runs: tuple[str, ...]
    """Bundles or runs, exported datasets, or folders of generated images; the others are held against the first."""
    data: str | None = None
    """For bundles: the images to translate, and the real ones; as of `export-dataset`."""
    domains: tuple[str, str] | None = None
    to: str | None = None
    direction: Literal["a2b", "b2a"] | None = None
    count: int | None = None
    """For bundles: images of each class, as of `export-dataset`."""
    runs_dir: Path = RUNS
    """Where runs are looked for by name."""

    def __post_init__(self) -> None:
        if len(self.runs) < 2:
            raise UsageError("--compare: give at least two, as in --compare RUN1 RUN2")
        if len(set(self.runs)) < len(self.runs):
            raise UsageError(f"--compare {' '.join(self.runs)}: one of them is named twice")


@dataclass(frozen=True, kw_only=True)
class CompareRow:
    """One number of both on the same sources; for every one of them lower is better for the generator."""

    name: str
    """`kid`, `fid`, `r`; `recognised`, the share of the fakes that the strongest attacker finds; `accuracy`, of all images."""
    features: str
    """The backend, or the attackers' names."""
    first: float
    value: float
    difference: float
    """`value` less `first`; below 0 the run is better than the first."""
    interval: tuple[float, float]
    p_value: float
    test: str
    n: int
    """Pairs."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One run held against the first."""

    first: str
    run: str
    """What the two are called."""
    first_dir: Path
    run_dir: Path
    """The generated images."""
    n_sources: int
    """How many sources both translated."""
    rows: tuple[CompareRow, ...]
    claim: Claim
    """Whether the run is better: several feature backends must say so with paired intervals that leave out 0."""
    notes: tuple[str, ...]
    report: Path
    """The run's own evaluation."""
