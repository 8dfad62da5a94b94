"""What of a judgement goes into the log, the numbers and the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fruitgan.data.labelled import LabelledImage
from fruitgan.images import Pixels
from fruitgan.measures.statistics import wilson
from fruitgan.settings import to_json
from fruitgan.train_detector.detector import LabelledImageDataset
from fruitgan.train_detector.epochs import Round
from fruitgan.train_detector.protocols import Split
from fruitgan.train_detector.settings import Part

EXAMPLES = 6


def log_line(round_: Round) -> dict[str, Any]:
    """A round as a line of the log; a regression's has its penalty."""
    line = {key: value for key, value in to_json(round_).items() if value is not None}
    line["seconds"] = round(round_.seconds, 3)
    return {"epoch" if round_.penalty is None else "trial": line.pop("number"), **line}


def by_split(judged: Sequence[LabelledImage], logits: NDArray[np.float64]) -> tuple[Part, ...]:
    """How many of the fakes were recognised, by whether their source was in the generator's training; none if unknown."""
    found = []
    for split in ("test", "train"):
        members = [logit > 0 for image, logit in zip(judged, logits, strict=True) if image.generated and image.split == split]
        if members:
            hits = int(sum(members))
            low, high = wilson(hits, len(members))
            found.append(Part(split=split, n=len(members), found=hits / len(members), interval=(low, high)))
    return tuple(found)


def examples(album: LabelledImageDataset, parts: Split, logits: NDArray[np.float64]) -> dict[str, list[Pixels]]:
    """The most surely told and the most surely mistaken pictures of each class, uint8 [S, S, 3]."""
    truth = album.generated[parts.test]
    kinds = {
        "generated, recognised": (truth & (logits > 0), -logits),
        "generated, taken for real": (truth & (logits <= 0), logits),
        "real, recognised": (~truth & (logits <= 0), logits),
        "real, taken for generated": (~truth & (logits > 0), -logits),
    }
    shown = {}
    for kind, (which, order) in kinds.items():
        numbers = np.flatnonzero(which)
        numbers = numbers[np.argsort(order[numbers], kind="stable")][:EXAMPLES]
        shown[kind] = [album.pixels(int(parts.test[number])) for number in numbers]
    return shown
