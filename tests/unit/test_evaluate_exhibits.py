"""The pictures of an evaluation's report: which ones, beside what, and that a stranger's files can't stop the page."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fruitgan.data.decode import decode
from fruitgan.data.labelled import LabelledImage, read_dataset
from fruitgan.evaluate.exhibits import Exhibits, exhibits
from fruitgan.evaluate.sources import find_sources
from fruitgan.export_dataset.job import ExportSettings, export_dataset
from fruitgan.images import resize
from fruitgan.measures.features import Pictures

SIDE_PX = 32


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the bundle that ships made of six pictures of noise; the data lie beside it."""
    folder = tmp_path_factory.mktemp("exported")
    random = np.random.default_rng(0)
    for split in ("trainA", "trainB", "testA", "testB"):
        (folder / "data" / split).mkdir(parents=True)
        for i in range(6):
            blocks = random.integers(0, 256, (8, 8, 3), dtype=np.uint8).repeat(5, 0).repeat(5, 1)
            Image.fromarray(blocks).save(folder / "data" / split / f"{i}.png")
    export_dataset(
        ExportSettings(
            bundle="apple2orange",
            data=str(folder / "data"),
            domains=("apple", "orange"),
            image_size=SIDE_PX,
            out=folder / "set",
            device="cpu",
        )
    )
    return folder / "set"


def shown_of(dataset: Path, **changes: Any) -> tuple[Exhibits, list[LabelledImage]]:
    images = read_dataset(dataset).images
    fakes = [image for image in images if image.generated]
    reals = [image for image in images if not image.generated]
    judged = [SimpleNamespace(file=image.path.name, generated=True, logit=float(i - 3)) for i, image in enumerate(fakes)]
    result: Any = SimpleNamespace(fake_dir=dataset / "predicted", out=dataset, seed=0, judged=judged, **changes)
    sources = find_sources(dataset.parent / "data", fakes, dataset / "origins", dataset / "predicted")
    return exhibits(result, fakes, reals, sources, Pictures(), torch.device("cpu")), fakes


def test_the_most_convincing_fakes_are_those_of_the_lowest_logits_beside_their_sources(
    dataset: Path,
) -> None:
    found, fakes = shown_of(dataset)
    assert [one.logit for one in found.cards["Most convincing"]] == [-3, -2, -1]
    assert [one.logit for one in found.cards["Least convincing"]] == [2, 1, 0]
    for one, image in zip(found.cards["Most convincing"], fakes, strict=False):
        assert one.file == image.path.name
        assert np.array_equal(one.pictures["generated"], decode(image.path).pixels)
        source = decode(dataset.parent / "data" / image.source).pixels
        assert "source" in one.pictures
        assert np.array_equal(one.pictures["source"], resize(source, SIDE_PX, SIDE_PX))
    assert len(found.galleries["generated"]) == len(found.galleries["real"]) == 6


def test_the_spectra_are_means_over_each_kind(dataset: Path) -> None:
    found, _ = shown_of(dataset)
    assert found.spectra.keys() == {"generated", "real"}
    flat = dataset.parent / "flat"
    flat.mkdir()
    noise = np.random.default_rng(0).normal(128, 25.5, (64, 64, 1)).repeat(3, 2)
    Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).save(flat / "0.png")
    only = LabelledImage(flat / "0.png", True, "g", "", "")
    result: Any = SimpleNamespace(fake_dir=flat, out=flat, seed=0, judged=())
    white = exhibits(result, [only], [only], None, Pictures(), torch.device("cpu")).spectra["generated"]
    assert np.mean(white) == pytest.approx(10 * np.log10(0.01) - 2.5, abs=1)  # white, a mean of logarithms lies 2.5 dB below
