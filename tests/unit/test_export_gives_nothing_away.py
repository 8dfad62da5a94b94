"""What an export must not do: add something by which real and generated pictures could be told apart.

The generator here gives back what it gets, so whatever tells its results from real pictures was added on the way.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from picture_files import smooth
from PIL import Image
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from toy_bundles import save_toy

from fruitgan.data.labelled import LabelledImage, read_dataset
from fruitgan.engines.contracts import Engine, Images, engines
from fruitgan.export_dataset.job import ExportSettings, export_dataset
from fruitgan.registry import Choice

EACH = 60
SIDE_PX = 48
HEADER_BYTES = 48
IDENTITY = """
from fruitgan.networks.contracts import Generator, SizeRule

class Identity(Generator):
    size_rule = SizeRule(40, 20)
    def forward(self, x):
        return x

def identity():
    return Identity()
"""

Install = Callable[..., Path]
Export = Callable[..., tuple[LabelledImage, ...]]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two domains of the same kind of picture, as JPEG, so that they come with blocks and a history."""
    root = tmp_path_factory.mktemp("photographs")
    for number in range(2 * EACH):
        path = root / ("left" if number % 2 else "right") / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(smooth(number, SIDE_PX, SIDE_PX, 40, 216)).save(path, quality=60)
    return root


@pytest.fixture
def export(photographs: Path, tmp_path: Path, install: Install) -> Export:
    install("gives-back", {"generators": {"identity": "gives_back:identity"}}, IDENTITY)
    save_toy(
        tmp_path / "identity.safetensors",
        weight=None,
        domains=("left", "right"),
        generator=Choice("identity", "gives-back", "1.0"),
        directions=("a2b",),
        image_size_px=SIDE_PX,
        size_minimum_px=40,
        size_multiple_px=20,
    )

    def export(**settings: Any) -> tuple[LabelledImage, ...]:
        given = {"data_a": photographs / "left", "data_b": photographs / "right", "count": EACH, "gpu": "none", **settings}
        given["engine"] = "torch"  # the others would first export a graph
        export_dataset(ExportSettings(bundle=str(tmp_path / "identity.safetensors"), out=tmp_path / "out", **given))
        return read_dataset(tmp_path / "out").images

    return export


@pytest.mark.parametrize("size_px", [SIDE_PX, 40, 61])
def test_what_an_identity_generator_gives_is_the_real_picture_byte_for_byte(export: Export, size_px: int) -> None:
    """Also where the picture has to be padded for the generator (61 px are no multiple of 20), and where it keeps its size."""
    images = export(origins="source", image_size=size_px, count=8)
    fakes = {image.source: image.path.read_bytes() for image in images if image.generated}
    reals = {image.source: image.path.read_bytes() for image in images if not image.generated}
    assert fakes == reals
    assert len(fakes) == 8


def test_nothing_on_the_outside_tells_real_from_generated(export: Export) -> None:
    right, n = told_apart(export())
    assert binomtest(right, n, 0.5, alternative="greater").pvalue > 0.05


def test_a_stretch_of_each_picture_to_its_own_range_would_be_found(export: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: the test above has eyes."""

    class Stretched(Engine):
        def __init__(self, **options: Any) -> None: ...

        def translate(self, images: Images) -> Images:
            stretched: Images = (images - images.min()) / np.ptp(images)
            return stretched

    monkeypatch.setattr(engines, "get", lambda name: Stretched)
    right, n = told_apart(export())
    assert binomtest(right, n, 0.5, alternative="greater").pvalue < 0.001


def told_apart(images: tuple[LabelledImage, ...]) -> tuple[int, int]:
    """How many of the pictures a logistic regression calls rightly, each while it was left out, and how many there are."""
    values = np.stack([outside(image.path) for image in images])
    labels = np.array([image.generated for image in images])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    scores = cross_val_score(model, values, labels, cv=folds)
    return round(float(scores.mean()) * len(labels)), len(labels)


def outside(path: Path) -> NDArray[np.float64]:
    """File size, the file's first bytes, how much of the 8 x 8 blocks shows, and the smallest, largest and mean value."""
    data = path.read_bytes()
    with Image.open(path) as image:
        pixels = np.array(image, dtype=np.float64)
    steps = np.abs(np.diff(pixels, axis=1)).mean(axis=(0, 2))
    edge = np.arange(len(steps)) % 8 == 7
    blockiness = steps[edge].mean() - steps[~edge].mean()
    looks = [len(data), path.stat().st_mtime, blockiness, pixels.min(), pixels.max(), pixels.mean()]
    return np.array([*looks, *data[:HEADER_BYTES]], dtype=np.float64)
