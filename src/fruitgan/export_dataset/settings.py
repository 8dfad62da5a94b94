"""What `export_dataset` is asked, what it tells while it works, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fruitgan.bundle import RUNS
from fruitgan.engines.onnx_engine import AUTO
from fruitgan.errors import UsageError
from fruitgan.registry import suggestion
from fruitgan.translate.picture_files import Remark

Format = Literal["png", "webp", "jpg"]
FORMATS: tuple[Format, ...] = ("png", "webp", "jpg")
Origins = Literal["target", "source"]
OUT = Path("dataset")
LARGEST_SIZE_PX = 8192

OnProgress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """What to export, through which generator, and where to."""

    bundle: str | None = None
    """A file, a run or a name; None for the newest run, else the bundle that ships."""
    to: str | None = None
    """The domain to arrive at; None leaves it to `direction`."""
    direction: Literal["a2b", "b2a"] | None = None
    """None is the bundle's first."""
    data: str | None = None
    data_a: Path | None = None
    data_b: Path | None = None
    domains: tuple[str, str] | None = None
    out: Path = OUT
    count: int | None = None
    """Pictures of each class: test pictures first, then training pictures. None is as many test pictures as both classes
    have, and no others."""
    origins: Origins = "target"
    """The real pictures: those of the domain that the fakes imitate, or the very sources of the fakes."""
    image_size: int | None = None
    """Side of the exported squares in px; None is the bundle's training size."""
    format: Format = "png"
    """png and webp keep every bit; jpg loses detail, in both classes alike."""
    engine: str = AUTO
    """A registered name, or `auto` for the one that is through first."""
    gpu: str | None = None
    device: str | None = None
    overwrite: bool = False
    runs: Path = RUNS

    def __post_init__(self) -> None:
        if self.count is not None and self.count < 1:
            raise UsageError(f"--count {self.count}: 1 or more is needed")
        if self.image_size is not None and not 1 <= self.image_size <= LARGEST_SIZE_PX:
            raise UsageError(f"--image-size {self.image_size}: expected 1 to {LARGEST_SIZE_PX} px")
        if self.format not in FORMATS:
            raise UsageError(f"--format {self.format}: {suggestion(self.format, FORMATS)}")
        if self.direction not in (None, "a2b", "b2a"):
            raise UsageError(f"--direction {self.direction}: expected a2b or b2a")
        if self.origins not in ("target", "source"):
            raise UsageError(f"--origins {self.origins}: expected target or source")


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Files of the data that were not to be had or not to be used, whether or not they were wanted."""

    unreadable: tuple[Remark, ...]
    in_both_splits: int
    """Test pictures that are copies of training pictures, and those: the generator has seen them."""
    repeated: int
    """Further copies of a picture within its split."""


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """What `--json` prints."""

    dataset: Path
    predicted: int
    """Generated pictures that are there."""
    origins: int
    """Real pictures that are there."""
    made: int
    """How many of both were made now."""
    kept: int
    """How many of both were there already."""
    splits: Mapping[str, Mapping[str, int]]
    """By folder, how many sources are of the test and of the training split."""
    image_size_px: int
    format: str
    direction: str
    engine: str | None
    """What ran the generator; None where no fake was missing."""
    target: str
    """The domain that the fakes imitate."""
    bundle: str
    weights_sha256: str
    left_out: LeftOut
    warnings: tuple[str, ...]
    seconds: float
