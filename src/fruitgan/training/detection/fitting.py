"""Detectors are trained by batches with early stopping, or, where they are logistic regressions, fitted in one go."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fruitgan import randomness
from fruitgan.augment.contracts import Augmentation, augmentations
from fruitgan.data.decode import decode
from fruitgan.data.parallel import in_order
from fruitgan.errors import FruitganError, UsageError
from fruitgan.images import Pixels, resize
from fruitgan.models.catalog import detectors
from fruitgan.models.contracts import Detector, LinearDetector
from fruitgan.registry import Choice
from fruitgan.training.detection.album import RESAMPLE, Album, unit_images
from fruitgan.training.detection.regression import fit_regression
from fruitgan.training.detection.rounds import OnRound, Round
from fruitgan.training.detection.splits import Indices, Parts
from fruitgan.training.detection.verdict import log_loss

Weights = dict[str, Tensor]

BATCH_SIZE = 64
LEAST_BATCH = 8
STEPS_PER_EPOCH = 16
"""Batch norm's running statistics need steps: with three an epoch they lag so far behind that patience runs out first."""


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How a detector is trained; the defaults are the lab report's, patience and epochs being unknown there."""

    epochs: int = 100
    patience: int = 10
    """Epochs without a lower loss on the choosing images after which it stops."""
    batch_size: int | None = None
    """None: 64, the lab report's, or fewer where an epoch would then have less than 16 steps."""
    learning_rate: float = 1e-3
    epsilon: float = 1e-7
    augment: str | None = None
    """Name of an augmentation; None means what the detector suggests."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("patience", 1), ("batch_size", 2)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"--{name.replace('_', '-')} {value}: {least} or more is needed")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise UsageError(f"a learning rate of {self.learning_rate} is not above 0")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"--seed {self.seed}: 0 or more is needed")

    def batch_size_for(self, training_images: int) -> int:
        """Images a step."""
        return self.batch_size or min(BATCH_SIZE, max(LEAST_BATCH, training_images // STEPS_PER_EPOCH))


@dataclass(frozen=True)
class FittedDetector:
    """A detector in evaluation mode with its best weights, and how it came to them."""

    choice: Choice
    detector: Detector
    device: torch.device
    augmentation: Choice
    rounds: tuple[Round, ...]
    best: Round
    finished: bool
    """False if somebody asked it to stop before it would have."""

    def logits(self, album: Album, indices: Indices, batch_size: int = BATCH_SIZE) -> NDArray[np.float64]:
        """[n] for the album's images with these numbers."""
        return _album_logits(self.detector, album, indices, self.device, batch_size)


def fitting_augmentation(choice: Choice, detector: Detector, wanted: str | None) -> Choice:
    """The augmentation that was asked for, or the detector's own.

    Raises:
        UsageError: an unknown name, or one that this detector cannot be trained with.
    """
    augmentation = augmentations.choose(wanted or detector.suggested_augmentation)
    augment: Augmentation = augmentations.build(augmentation)
    if augment.load_size_px(detector.image_size_px) != detector.image_size_px:
        raise UsageError(
            f"--augment {augmentation.name} cuts its pictures out of larger ones, which a detector is not given; "
            "use mirror or rotate-shift-mirror"
        )
    if isinstance(detector, LinearDetector) and augmentation.name != "none":
        raise UsageError(f"--augment {augmentation.name}: the detector {choice.name} is fitted to the images as they are")
    return augmentation


def fit(
    choice: Choice,
    album: Album,
    parts: Parts,
    settings: FitSettings,
    *,
    device: torch.device,
    on_round: OnRound | None = None,
) -> FittedDetector:
    """Train on `parts.train`, keep the weights of the lowest loss on `parts.choose`; `parts.judge` is not looked at.

    All that is random is a function of the seed and the step. `on_round` is told of each round; if it returns True, training
    ends there, with the best weights so far.

    Raises:
        UsageError: the album has another size than the detector wants, or an augmentation for what is fitted in one go.
        FruitganError: the loss is not finite.
    """
    # Weights and dropout are drawn from torch's own generator, which is given back as it was.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else [], device_type="cuda"):
        torch.manual_seed(randomness.torch_seed(settings.seed, 0, "detector/weights"))
        detector: Detector = detectors.build(choice)
        if detector.image_size_px != album.size_px:
            raise UsageError(
                f"the detector {choice.name} wants images of {detector.image_size_px} px and would be given {album.size_px} px"
            )
        augmentation = fitting_augmentation(choice, detector, settings.augment)
        augment: Augmentation = augmentations.build(augmentation)
        detector.to(device)
        if isinstance(detector, LinearDetector):
            rounds, best, finished = fit_regression(detector, album, parts, device, settings.batch_size or BATCH_SIZE, on_round)
        else:
            loop = _Loop(detector, album, parts, settings, augment, device)
            rounds, best, finished = loop.run(on_round)
    return FittedDetector(choice, detector.eval(), device, augmentation, tuple(rounds), best, finished)


class _Loop:
    """Adam on the cross entropy, epoch after epoch, until the choosing images have not gained for a while."""

    def __init__(
        self,
        detector: Detector,
        album: Album,
        parts: Parts,
        settings: FitSettings,
        augmentation: Augmentation,
        device: torch.device,
    ) -> None:
        self.detector = detector.to(memory_format=torch.channels_last)  # the faster order for convolutions, on CPUs above all
        self.album = album
        self.parts = parts
        self.settings = settings
        self.augmentation = augmentation
        self.device = device
        self.optimizer = torch.optim.Adam(detector.parameters(), lr=settings.learning_rate, eps=settings.epsilon)
        self.batch_size = settings.batch_size_for(len(parts.train))
        self.step = 0

    def run(self, on_round: OnRound | None) -> tuple[list[Round], Round, bool]:
        rounds: list[Round] = []
        best: Round | None = None
        weights: Weights = {}
        stopped = False
        for number in range(1, self.settings.epochs + 1):
            round_ = self._epoch(number, best)
            rounds.append(round_)
            if round_.is_best:
                best, weights = round_, _copy(self.detector)
            stopped = bool(on_round is not None and on_round(round_))
            if stopped or best is None or number - best.number >= self.settings.patience:
                break
        if best is None:
            raise FruitganError("the loss was not finite from the first epoch on; try another --seed")
        self.detector.load_state_dict(weights)
        return rounds, best, not stopped

    def _epoch(self, number: int, best: Round | None) -> Round:
        began = time.monotonic()
        loss, right = self._train(number)
        chosen = _album_logits(self.detector, self.album, self.parts.choose, self.device, self.batch_size)
        truth = self.album.generated[self.parts.choose]
        choose_loss = log_loss(chosen, truth)
        if not math.isfinite(loss) or not math.isfinite(choose_loss):
            raise FruitganError(f"the loss is not finite in epoch {number}; try another --seed or a larger --batch-size")
        return Round(
            number=number,
            train_loss=loss,
            train_accuracy=right,
            choose_loss=choose_loss,
            choose_accuracy=float(((chosen > 0) == truth).mean()),
            is_best=best is None or choose_loss < best.choose_loss,
            seconds=time.monotonic() - began,
        )

    def _train(self, number: int) -> tuple[float, float]:
        """One pass over the training images; their mean loss and accuracy on the way, augmented and with dropout."""
        self.detector.train()
        seed, train = self.settings.seed, self.parts.train
        order = train[randomness.permutation(seed, number, len(train), "detector/order")]
        loss_sum = torch.zeros((), device=self.device)
        right = torch.zeros((), device=self.device)
        for indices in batches(order, self.batch_size):
            torch.manual_seed(randomness.torch_seed(seed, self.step, "detector/dropout"))
            truth = self.album.labels(indices, self.device)
            logits = self.detector(self._images(indices))
            loss = F.binary_cross_entropy_with_logits(logits, truth)
            self.optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            self.optimizer.step()
            loss_sum += loss.detach() * len(indices)
            right += ((logits.detach() > 0) == (truth > 0)).sum()
            self.step += 1
        return float(loss_sum) / len(train), float(right) / len(train)

    def _images(self, indices: Indices) -> Tensor:
        n = len(indices)
        draws = randomness.sample(self.settings.seed, self.step, n * self.augmentation.draws, "detector/augment")
        images = self.album.batch(indices, self.device)
        images = self.augmentation.apply(images, torch.from_numpy(draws.reshape(n, -1)), self.album.size_px)
        return images.contiguous(memory_format=torch.channels_last)


def batches(order: Indices, batch_size: int) -> Iterator[Indices]:
    """The order cut in pieces; a single image at the end joins the piece before, since batch norm cannot do with one."""
    starts = list(range(0, len(order), batch_size))
    if len(starts) > 1 and len(order) - starts[-1] == 1:
        starts.pop()
    for place, start in enumerate(starts):
        yield order[start : starts[place + 1] if place + 1 < len(starts) else len(order)]


def predict(
    detector: Detector,
    paths: Sequence[Path],
    *,
    device: torch.device,
    batch_size: int = BATCH_SIZE,
    on_progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float64]:
    """Logits [n], above 0 for generated, of images from the disk, each squashed to the detector's size, a batch at a time.

    Raises:
        DataError: an image cannot be decoded.
    """
    size_px = detector.image_size_px
    detector.eval().to(device)
    logits = np.empty(len(paths))
    waiting: list[Pixels] = []

    def load(path: Path) -> Pixels:
        return resize(decode(path).pixels, size_px, size_px, RESAMPLE)

    for done, (_, pixels) in enumerate(in_order(load, paths), start=1):
        waiting.append(pixels)
        if len(waiting) == batch_size or done == len(paths):
            logits[done - len(waiting) : done] = _answers(detector, unit_images(np.stack(waiting), device))
            waiting = []
            if on_progress is not None:
                on_progress(done, len(paths))
    return logits


def _album_logits(
    detector: Detector, album: Album, indices: Indices, device: torch.device, batch_size: int
) -> NDArray[np.float64]:
    detector.eval()
    logits = np.empty(len(indices))
    for start in range(0, len(indices), batch_size):
        piece = indices[start : start + batch_size]
        logits[start : start + len(piece)] = _answers(detector, album.batch(piece, device))
    return logits


@torch.no_grad()
def _answers(detector: Detector, images: Tensor) -> NDArray[np.float64]:
    return np.asarray(detector(images).double().cpu().numpy())


def _copy(detector: Detector) -> Weights:
    """The weights of this moment, on the host: a second copy of 540 MB is not to fill a GPU."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in detector.state_dict().items()}
