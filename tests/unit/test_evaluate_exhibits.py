"""The pictures of an evaluation's report: which ones, beside what, and that a stranger's files can't stop the page."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fruitgan.bundle import load, locate
from fruitgan.data.decode import decode
from fruitgan.data.labelled import LabelledImage, read_dataset
from fruitgan.engines.contracts import engines
from fruitgan.engines.padding import translate_pixels
from fruitgan.evaluate.exhibits import Exhibits, exhibits
from fruitgan.evaluate.sources import find_sources
from fruitgan.export_dataset.job import ExportSettings, export_dataset
from fruitgan.images import resize

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
    result: Any = SimpleNamespace(fake_dir=dataset / "predicted", out=dataset, seed=0, judged=judged, saliency=(), **changes)
    sources = find_sources(dataset.parent / "data", fakes, dataset / "origins", dataset / "predicted")
    return exhibits(result, fakes, reals, sources, torch.device("cpu")), fakes


def test_the_most_convincing_fakes_are_those_of_the_lowest_logits_beside_their_sources_and_their_way_back(
    dataset: Path,
) -> None:
    found, fakes = shown_of(dataset)
    assert [one.logit for one in found.cards["Most convincing"]] == [-3, -2, -1]
    assert [one.logit for one in found.cards["Least convincing"]] == [2, 1, 0]
    bundle = load(locate("apple2orange"))
    back = engines.get("torch")(generator=bundle.card.generator, weights=bundle.weights["b2a"], gpu=None, device="cpu")
    for one, image in zip(found.cards["Most convincing"], fakes, strict=False):
        assert one.file == image.path.name
        assert np.array_equal(one.pictures["generated"], decode(image.path).pixels)
        source = decode(dataset.parent / "data" / image.source).pixels
        assert "source" in one.pictures
        assert np.array_equal(one.pictures["source"], resize(source, SIDE_PX, SIDE_PX))
        assert "cycled" in one.pictures
        assert np.array_equal(one.pictures["cycled"], translate_pixels(back, bundle.card, one.pictures["generated"], "native"))
    assert len(found.galleries["generated"]) == len(found.galleries["real"]) == 6


def test_the_spectra_are_means_over_each_kind(dataset: Path) -> None:
    found, _ = shown_of(dataset)
    assert found.spectra.keys() == {"generated", "real"}
    flat = dataset.parent / "flat"
    flat.mkdir()
    noise = np.random.default_rng(0).normal(128, 25.5, (64, 64, 1)).repeat(3, 2)
    Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).save(flat / "0.png")
    only = LabelledImage(flat / "0.png", True, "g", "", "")
    result: Any = SimpleNamespace(fake_dir=flat, out=flat, seed=0, judged=(), saliency=())
    white = exhibits(result, [only], [only], None, torch.device("cpu")).spectra["generated"]
    assert np.mean(white) == pytest.approx(10 * np.log10(0.01) - 2.5, abs=1)  # white, a mean of logarithms lies 2.5 dB below


@pytest.mark.parametrize(
    "card",
    [
        b"",
        b"[" * 100_000,
        b"[]",
        b'{"bundle": {"name": ["x"]}}',
        b'{"bundle": {"name": "/dev/zero"}}',
        b'{"bundle": {"name": "no such bundle"}}',
        json.dumps({"bundle": {"name": "apple2orange", "weights_sha256": "0"}, "settings": {"direction": "a2b"}}).encode(),
        b"another direction",
    ],
)
def test_without_the_very_bundle_there_is_no_way_back_and_still_a_page(dataset: Path, card: bytes) -> None:
    file = dataset / "dataset.json"
    before = file.read_bytes()
    if card == b"another direction":
        card = before.replace(b'"direction": "a2b"', b'"direction": "up"')
        assert card != before
    file.write_bytes(card)
    try:
        found, _ = shown_of(dataset)
    finally:
        file.write_bytes(before)
    assert ["cycled" in one.pictures for one in found.cards["Most convincing"]] == [False] * 3
