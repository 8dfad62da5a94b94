"""Detectors are trained by batches with early stopping, or, where they are logistic regressions, fitted in one go."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fruitgan import randomness
from fruitgan.data.augment import Augmentation, augmentations
from fruitgan.errors import FruitganError, UsageError
from fruitgan.networks.contracts import Detector, LinearDetector, detectors
from fruitgan.registry import Choice
from fruitgan.stateful import State, Stateful
from fruitgan.train_detector.calibration import log_loss
from fruitgan.train_detector.checkpoint import History, Keeper, OptimizerState
from fruitgan.train_detector.detector import BATCH_SIZE, LabelledImageDataset, dataset_logits
from fruitgan.train_detector.epochs import OnRound, Round
from fruitgan.train_detector.protocols import Indices, Split
from fruitgan.train_detector.regression import fit_regression
from fruitgan.train_gan.trainer import NetworkState

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

    def logits(self, album: LabelledImageDataset, indices: Indices, batch_size: int = BATCH_SIZE) -> NDArray[np.float64]:
        """[n] for the album's images with these numbers."""
        return dataset_logits(self.detector, album, indices, self.device, batch_size)


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
    if augment.gives_size_px(detector.image_size_px) != detector.image_size_px and not detector.takes_any_size:
        raise UsageError(f"--augment {augmentation.name} shows parts of the picture, and {choice.name} takes whole ones alone")
    if isinstance(detector, LinearDetector) and augmentation.name != "none":
        raise UsageError(f"--augment {augmentation.name}: the detector {choice.name} is fitted to the images as they are")
    return augmentation


def fit(
    choice: Choice,
    album: LabelledImageDataset,
    parts: Split,
    settings: FitSettings,
    *,
    device: torch.device,
    on_round: OnRound | None = None,
    keeper: Keeper | None = None,
) -> FittedDetector:
    """Train on `parts.train`, keep the weights of the lowest loss on `parts.val`; `parts.test` is not looked at.

    All that is random is a function of the seed and the step. `on_round` is told of each round; if it returns True, training
    ends there, with the best weights so far. The keeper may let it go on from an earlier state, and may stop it after any step.

    Raises:
        UsageError: the album has another size than the detector wants, or an augmentation for what is fitted in one go.
        NothingToJudge: stopped before the first round was over.
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
        keeper, history = keeper or Keeper(), History()
        if isinstance(detector, LinearDetector):
            batch_size = settings.batch_size or BATCH_SIZE
            finished = fit_regression(detector, album, parts, device, batch_size, history, keeper, on_round)
        else:
            finished = _Loop(detector, album, parts, settings, augment, device, history).run(keeper, on_round)
        best = history.give_best(detector)
    return FittedDetector(choice, detector.eval(), device, augmentation, tuple(history.rounds), best, finished)


class _Loop:
    """Adam on the cross entropy, epoch after epoch, until the choosing images have not gained for a while."""

    def __init__(
        self,
        detector: Detector,
        album: LabelledImageDataset,
        parts: Split,
        settings: FitSettings,
        augmentation: Augmentation,
        device: torch.device,
        history: History,
    ) -> None:
        self.detector = detector.to(memory_format=torch.channels_last)  # the faster order for convolutions, on CPUs above all
        self.album = album
        self.parts = parts
        self.settings = settings
        self.augmentation = augmentation
        self.device = device
        self.optimizer = torch.optim.Adam(detector.parameters(), lr=settings.learning_rate, eps=settings.epsilon)
        self.batch_size = settings.batch_size_for(len(parts.train))
        self.history = history
        self.step = 0
        self.batches_done = 0
        """Of the epoch that it is in."""
        self.loss_sum = torch.zeros((), device=device)
        """Over the images of those."""
        self.right = torch.zeros((), device=device)

    def stateful(self) -> dict[str, Stateful]:
        """Every part that influences the next step, by name."""
        network, optimizer = NetworkState(self.detector), OptimizerState(self.optimizer)
        return {"loop": self, "history": self.history, "network": network, "optimizer": optimizer}

    def state(self) -> State:
        counts = {"step": self.step, "batches_done": self.batches_done}
        return {**counts, "loss_sum": self.loss_sum, "right": self.right}

    def restore(self, state: State) -> None:
        if min(state["step"], state["batches_done"]) < 0:
            raise ValueError("it counts fewer steps than none")
        self.step, self.batches_done = state["step"], state["batches_done"]
        self.loss_sum.copy_(state["loss_sum"])
        self.right.copy_(state["right"])

    def run(self, keeper: Keeper, on_round: OnRound | None) -> bool:
        """Whether it came to its end, or somebody asked it to stop."""
        parts = self.stateful()
        keeper.take_up(parts, self.history)
        stopped = False
        while not stopped and not self._is_over():
            if self._train(keeper, parts):
                return False
            round_ = self._round()
            self.history.add(round_, self.detector)
            stopped = bool(on_round is not None and on_round(round_))
            keeper.keep(self.step, parts, is_end=stopped or self._is_over())
        return not stopped

    def _is_over(self) -> bool:
        done, best = len(self.history.rounds), self.history.best
        return done >= self.settings.epochs or (best is not None and done - best.number >= self.settings.patience)

    def _round(self) -> Round:
        """The epoch that has just ended, and what the choosing images say of it."""
        number = len(self.history.rounds) + 1
        loss, right = float(self.loss_sum) / len(self.parts.train), float(self.right) / len(self.parts.train)
        chosen = dataset_logits(self.detector, self.album, self.parts.val, self.device, self.batch_size)
        truth = self.album.generated[self.parts.val]
        val_loss = log_loss(chosen, truth)
        if not math.isfinite(loss) or not math.isfinite(val_loss):
            raise FruitganError(f"the loss is not finite in epoch {number}; try another --seed or a larger --batch-size")
        self.batches_done = 0
        self.loss_sum.zero_()
        self.right.zero_()
        return Round(
            number=number,
            train_loss=loss,
            train_accuracy=right,
            val_loss=val_loss,
            val_accuracy=float(((chosen > 0) == truth).mean()),
            is_best=self.history.is_gain(val_loss),
            seconds=time.monotonic() - self.began,
        )

    def _train(self, keeper: Keeper, parts: Mapping[str, Stateful]) -> bool:
        """The rest of an epoch: each training image once, augmented and with dropout. Whether it was stopped on the way."""
        self.began = time.monotonic()
        self.detector.train()
        seed, train = self.settings.seed, self.parts.train
        order = train[randomness.permutation(seed, len(self.history.rounds) + 1, len(train), "detector/order")]
        pieces = list(batches(order, self.batch_size))
        for number, indices in enumerate(pieces[self.batches_done :], start=self.batches_done + 1):
            torch.manual_seed(randomness.torch_seed(seed, self.step, "detector/dropout"))
            truth = self.album.labels(indices, self.device)
            logits = self.detector(self._images(indices))
            loss = F.binary_cross_entropy_with_logits(logits, truth)
            self.optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            self.optimizer.step()
            self.loss_sum += loss.detach() * len(indices)
            self.right += ((logits.detach() > 0) == (truth > 0)).sum()
            self.step += 1
            self.batches_done = number
            # The last one belongs to the round, which is kept whole.
            if number < len(pieces) and keeper.ends(self.step, parts):
                return True
        return False

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
