"""What the report shows beside the numbers: pictures of each kind, the most and least convincing ones, and mean spectra."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from fruitgan import randomness
from fruitgan.bundle import Card, load, locate, weights_sha256
from fruitgan.data.decode import decode
from fruitgan.data.labelled import LabelledImage
from fruitgan.engines.catalog import engines
from fruitgan.engines.contracts import Engine
from fruitgan.engines.padding import translate_padded
from fruitgan.errors import FruitganError
from fruitgan.evaluate.page import Exhibits, Looked, Shown
from fruitgan.evaluate.settings import EvaluateResult
from fruitgan.evaluate.sources import Sources
from fruitgan.images import Pixels, resize
from fruitgan.measures.features import extract
from fruitgan.measures.metrics.spectrum import FREQUENCIES, PowerSpectrum

GALLERY = 8
CONVINCING = 6
"""Pictures of each kind."""
BACK = {"a2b": "b2a", "b2a": "a2b"}
CARD_FILE = "dataset.json"


def exhibits(
    result: EvaluateResult,
    fakes: Sequence[LabelledImage],
    reals: Sequence[LabelledImage],
    sources: Sources | None,
    device: torch.device,
) -> Exhibits:
    """All that the page needs; where no attacker judged, no picture is called convincing."""
    source_of: Mapping[Path, Path] = {}
    if sources is not None and sources.paired:
        source_of = {fake.path: source for fake, source in zip(fakes, sources.paths, strict=True)}
    said = {image.file: image.logit for image in result.judged if image.generated}
    judged = sorted((image for image in fakes if image.path.name in said), key=lambda image: said[image.path.name])
    half = min(CONVINCING, len(judged) // 2)
    back = _Back(result.fake_dir, device)

    def shown(images: Sequence[LabelledImage]) -> tuple[Shown, ...]:
        return tuple(_shown(image, said[image.path.name], source_of.get(image.path), back) for image in images)

    return Exhibits(
        galleries={"generated": _gallery(fakes, result.seed), "real": _gallery(reals, result.seed)},
        most_convincing=shown(judged[:half]),
        least_convincing=shown(judged[::-1][:half]),
        looked=tuple(
            Looked(seen.file, seen.kind, seen.logit, decode(result.out / seen.picture).pixels) for seen in result.saliency
        ),
        spectra={"generated": _spectrum(fakes, device), "real": _spectrum(reals, device)},
    )


def _gallery(images: Sequence[LabelledImage], seed: int) -> tuple[Pixels, ...]:
    order = randomness.permutation(seed, 0, len(images), "evaluate/gallery")
    return tuple(decode(images[i].path).pixels for i in sorted(order[:GALLERY]))


def _shown(image: LabelledImage, logit: float, source: Path | None, back: _Back) -> Shown:
    fake = decode(image.path).pixels
    before = None if source is None else resize(decode(source).pixels, *fake.shape[:2])
    return Shown(file=image.path.name, logit=logit, source=before, fake=fake, cycled=back(fake))


def _spectrum(images: Sequence[LabelledImage], device: torch.device) -> tuple[float, ...]:
    """Mean decibels at each frequency."""
    values = extract(PowerSpectrum(), [image.path for image in images], device).values
    return tuple(float(value) for value in values[:, :FREQUENCIES].mean(0))


class _Back:
    """A generated picture back to where it came from, if the very bundle that made it can be had."""

    def __init__(self, fake_dir: Path, device: torch.device) -> None:
        self.way: tuple[Engine, Card] | None = None
        try:
            made_by: Any = json.loads((fake_dir.absolute().parent / CARD_FILE).read_bytes())
            name = made_by["bundle"]["name"]
            if Path(name).name != name:
                raise ValueError("a stranger's file names no places")
            bundle = load(locate(name))
            if weights_sha256(bundle) == made_by["bundle"]["weights_sha256"]:
                weights = bundle.weights[BACK[made_by["settings"]["direction"]]]
                engine = engines.get("torch")(generator=bundle.card.generator, weights=weights, gpu=None, device=str(device))
                self.way = engine, bundle.card
        except (OSError, ValueError, LookupError, TypeError, RecursionError, FruitganError):
            self.way = None  # no dataset of export-dataset, or its bundle is not here: the page does without

    def __call__(self, fake: Pixels) -> Pixels | None:
        if self.way is None:
            return None
        try:
            return translate_padded(self.way[0], self.way[1], fake)
        except FruitganError:
            return None
