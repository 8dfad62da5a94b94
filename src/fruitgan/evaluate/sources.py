"""Where generated images come from: their source images, the networks that judged their generator, and how far they got."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fruitgan.data.labelled import LabelledImage
from fruitgan.data.sources import image_files
from fruitgan.errors import DataError
from fruitgan.evaluate.results import TargetShare
from fruitgan.evaluate.settings import Tell
from fruitgan.images import Pixels, from_pillow, to_pillow
from fruitgan.measures.contracts import NOT_KNOWN, Features
from fruitgan.measures.features import Pictures, extract
from fruitgan.measures.statistics import wilson
from fruitgan.progress import Progress
from fruitgan.train_detector.protocols import grouped_folds
from fruitgan.train_detector.regression import Regression, trials
from fruitgan.translate.picture_files import TRAINED_AGAINST, read_mark

CARD_FILE = "dataset.json"
CARD_LIMIT_BYTES = 1 << 20
FOLDS = 5
LEAST_PER_CLASS = 20


@dataclass(frozen=True)
class Sources:
    """The source images."""

    paths: tuple[Path, ...]
    paired: bool
    """Whether source i is that of generated image i."""
    note: str | None
    """What to know about the choice."""


def find_sources(folder: Path, fakes: Sequence[LabelledImage], *others: Path) -> Sources:
    """The sources of the generated images, by the manifest or by name, else all images of the folder.

    `folder` is where the sources lie, or what the manifest's paths are relative to. `others` are the folders that it must not
    be.

    Raises:
        DataError: no such folder, no images in it, or it is one of the others.
    """
    if not folder.is_dir():
        raise DataError(f"--source-dir {folder}: {'not a folder' if folder.exists() else 'no such folder'}")
    if folder.resolve() in [other.resolve() for other in others]:
        raise DataError(f"--source-dir {folder}: is the folder of the real or of the generated images")
    files = image_files(folder)
    if not files:
        raise DataError(f"--source-dir {folder}: holds no images")
    if all(fake.source for fake in fakes):
        by_path = {path.relative_to(folder).as_posix(): path for path in files}
        by_name = _unique({path: path.name for path in files})
        found = [by_path.get(fake.source) or by_name.get(Path(fake.source).name) for fake in fakes]
    else:
        by_stem = _unique({path: path.stem for path in files})
        found = [by_stem.get(fake.path.stem) for fake in fakes]
    known = tuple(path for path in found if path is not None)
    if len(known) == len(fakes):
        return Sources(known, True, None)
    missing = f"of {len(fakes) - len(known)} of {len(fakes)} generated images the source is not known, so "
    return Sources(files, False, f"{missing}R takes all {len(files)} images of {folder} as sources, and its interval is wider")


def _unique(names: Mapping[Path, str]) -> dict[str, Path]:
    """By name, the files whose name no other has."""
    counts = Counter(names.values())
    return {name: path for path, name in names.items() if counts[name] == 1}


def dataset_card(fake_dir: Path) -> Any:
    """The `dataset.json` beside the generated images, whatever a stranger wrote into it; None where none can be read."""
    path = fake_dir.absolute().parent / CARD_FILE
    try:
        if not path.is_file() or path.stat().st_size > CARD_LIMIT_BYTES:
            return None
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def trained_against(fake_dir: Path, fakes: Sequence[LabelledImage]) -> tuple[str, ...] | None:
    """Names of the pretrained networks that judged the generator in training; None where they are not known.

    From the dataset's card, else from the marks in the pictures. Where only some pictures tell, the names that they tell count.
    """
    card = dataset_card(fake_dir)
    bundle = card.get("bundle") if isinstance(card, dict) else None
    if isinstance(bundle, dict) and TRAINED_AGAINST in bundle:
        told = [bundle[TRAINED_AGAINST]]
    else:
        told = [(read_mark(fake.path) or {}).get(TRAINED_AGAINST) for fake in fakes]
    known = [names for names in told if isinstance(names, list) and all(isinstance(name, str) for name in names)]
    names = {name for each in known for name in each}
    return tuple(sorted(names)) if names or len(known) == len(told) else None


def sharing(judges: Mapping[str, str], against: Sequence[str] | None) -> tuple[str, ...]:
    """The judges that share training data or weights with a network that judged the generator in training.

    `judges` are names with what each was trained on, "" for one without weights of its own. `EfficientNet-Lite1 (ImageNet)`
    shares data with what was trained on ImageNet, and weights with `timm:efficientnet_lite1`.
    """
    return tuple(name for name, data in judges.items() if data and any(_shares(name, data, entry) for entry in against or ()))


def dependent(judges: Mapping[str, str], against: Sequence[str] | None) -> frozenset[str]:
    """The judges that share training with those networks, and those that may, since their own training is not known."""
    unknown = [name for name, data in judges.items() if data == NOT_KNOWN and against]
    return frozenset((*sharing(judges, against), *unknown))


def _shares(name: str, trained_on: str, entry: str) -> bool:
    network, _, data = entry.partition("(")
    return (trained_on != NOT_KNOWN and _is_in(data or network, trained_on)) or _is_in(network, name)


def _is_in(part: str, whole: str) -> bool:
    return bool(_plain(part)) and _plain(part) in _plain(whole)


def _plain(text: str) -> str:
    return "".join(sign for sign in text.lower() if sign.isalnum())


class Grey(Features):
    """A backend that is shown every picture without its colours."""

    def __init__(self, backend: Features) -> None:
        super().__init__()
        self.backend = backend
        self.name = f"{backend.name}-grey"
        self.version = backend.version
        self.dimensions = backend.dimensions
        self.resize = f"grey, {backend.resize}"

    def prepare(self, pixels: Pixels) -> Pixels:
        return self.backend.prepare(from_pillow(to_pillow(pixels).convert("L")))

    def forward(self, images: Tensor) -> Tensor:
        seen: Tensor = self.backend(images)
        return seen


def target_shares(
    backend: Features,
    reals: Sequence[LabelledImage],
    fakes: Sequence[LabelledImage],
    sources: Sources,
    pictures: Pictures,
    device: torch.device,
    seed: int,
    tell: Tell,
) -> tuple[TargetShare, ...]:
    """Share of the generated images taken for the target, as they are and in grey, where colour alone cannot decide.

    A logistic regression on the backend's features learns sources against real images in grouped folds; each generated image is
    classified by the one that has not seen its source. Empty where images are too few.

    Raises:
        DataError: an image cannot be decoded.
    """
    if min(len(reals), len(fakes), len(sources.paths)) < LEAST_PER_CLASS:
        return ()
    groups = [fake.group for fake in fakes] if sources.paired else [f"source {i}" for i in range(len(sources.paths))]
    known = [LabelledImage(path, False, group, "", "") for path, group in zip(sources.paths, groups, strict=True)]
    known += [LabelledImage(real.path, True, real.group, "", "") for real in reals]
    found = []
    for view, seen_by in (("as they are", backend), ("grey", Grey(backend))):

        def described(images: Sequence[LabelledImage], what: str, seen_by: Features = seen_by) -> NDArray[np.float64]:
            label, total = f"reads as target: {what} images, {seen_by.name}", len(images)
            paths = [image.path for image in images]
            return extract(seen_by, paths, device, lambda n: tell(Progress(label, n, total)), read=pictures).values

        known_values, fake_values = described(known, "real"), described(fakes, "generated")
        try:
            found.append(_share(view, backend.name, known, known_values, fakes, fake_values, seed))
        except DataError:  # too few different things for the folds
            return ()
    return tuple(found)


def _share(
    view: str,
    features: str,
    known: Sequence[LabelledImage],
    known_values: NDArray[np.float64],
    fakes: Sequence[LabelledImage],
    fake_values: NDArray[np.float64],
    seed: int,
) -> TargetShare:
    is_target = np.array([image.generated for image in known])
    models: list[Regression] = []
    logits = np.full(len(known), np.nan)
    fold_of: dict[str, int] = {}
    for number, split in enumerate(grouped_folds(known, FOLDS, seed)):
        trained = trials(known_values[split.train], is_target[split.train], known_values[split.val], is_target[split.val])
        models.append(min(trained, key=lambda trial: trial.round.val_loss).regression)
        logits[split.test] = models[-1].logits(known_values[split.test])
        fold_of |= {known[i].group: number for i in split.test}
    tested = ~np.isnan(logits)
    # A source that was left out to balance the classes taught no fold.
    places = np.array([fold_of.get(fake.group, zlib.crc32(fake.group.encode()) % FOLDS) for fake in fakes])
    fake_logits = np.empty(len(fakes))
    for number, model in enumerate(models):
        fake_logits[places == number] = model.logits(fake_values[places == number])
    hits = int((fake_logits > 0).sum())
    low, high = wilson(hits, len(fakes))
    sources_share, reals_share = (float((logits[tested & side] > 0).mean()) for side in (~is_target, is_target))
    return TargetShare(
        view=view,
        features=features,
        share=hits / len(fakes),
        interval=(low, high),
        n=len(fakes),
        sources_share=sources_share,
        reals_share=reals_share,
        accuracy=(reals_share + 1 - sources_share) / 2,
        n_known=int(tested.sum()),
    )
