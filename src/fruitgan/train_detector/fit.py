"""Training of a detector: by batches with early stopping, or, where it is a logistic regression, one penalty after another."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

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
from fruitgan.runs.checkpoint import State
from fruitgan.settings import from_json, to_json
from fruitgan.train_detector.calibration import accuracy, log_loss
from fruitgan.train_detector.detector import BATCH_SIZE, LabelledImageDataset, dataset_logits
from fruitgan.train_detector.protocols import Indices, Split
from fruitgan.train_detector.regression import PENALTIES, Round, Trial, features_of, store, trials
from fruitgan.train_detector.settings import FitSettings


class NoRoundDone(FruitganError):
    """Stopped before the end of the first round, so that there is no detector to test."""


class Training(ABC):
    """Rounds of training until it is over, with the weights of the best round. At the end of a round it can be saved."""

    total_steps: int

    def __init__(self, detector: Detector) -> None:
        self.detector = detector
        self.step = 0
        self.rounds: list[Round] = []
        self.best_weights: dict[str, Tensor] = {}
        """On the host: a second copy of 540 MB is not to fill a GPU."""

    @property
    def best(self) -> Round | None:
        """The first round with the lowest validation loss."""
        return min(self.rounds, key=lambda found: found.val_loss, default=None)

    @property
    @abstractmethod
    def is_over(self) -> bool: ...

    @abstractmethod
    def next_round(self, monitor: Monitor) -> Round | None:
        """Train for a round; None if the monitor stopped it on the way."""

    def run(self, monitor: Monitor) -> bool:
        """Train until it is over, or the monitor stops it; whether it came to its end."""
        monitor.begin(self)
        while not self.is_over:
            found = self.next_round(monitor)
            if found is None:
                return False
            self.rounds.append(found)
            if found is self.best:
                weights = self.detector.state_dict().items()
                self.best_weights = {name: tensor.detach().to("cpu", copy=True) for name, tensor in weights}
            if monitor.round_done(self):
                return False
        return True

    def load_best(self) -> Round:
        """Give the detector its best weights.

        Raises:
            NoRoundDone: there are none.
        """
        if self.best is None:
            raise NoRoundDone("stopped before the end of the first epoch; there is nothing to test yet")
        self.detector.load_state_dict(self.best_weights)
        return self.best

    def state(self) -> State:
        best = {f"best.{name}": tensor for name, tensor in self.best_weights.items()}
        return {"step": self.step, "rounds": to_json(self.rounds), **best}

    def restore(self, state: State) -> None:
        try:
            rounds = [from_json(Round, entry, "a round") for entry in state["rounds"]]
        except UsageError as error:
            raise ValueError(str(error)) from error
        if [found.number for found in rounds] != list(range(1, len(rounds) + 1)) or not rounds:
            raise ValueError("its rounds do not follow each other")
        self.step, self.rounds, self.best_weights = state["step"], rounds, _part(state, "best.")


class Monitor:
    """Is told of a training's course, may restore its state and stop it. This one lets it run to its end."""

    def begin(self, training: Training) -> None:
        """Called before the first round."""

    def step_done(self, training: Training) -> bool:
        """Called after each step that does not end a round. Returns: whether to stop here, and lose the round so far."""
        return False

    def round_done(self, training: Training) -> bool:
        """Called after each round. Returns: whether to stop."""
        return False


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
    """False if it was stopped before its end."""

    def logits(self, dataset: LabelledImageDataset, indices: Indices, batch_size: int = BATCH_SIZE) -> NDArray[np.float64]:
        """[n] for the dataset's images with these numbers."""
        return dataset_logits(self.detector, dataset, indices, self.device, batch_size)


def fitting_augmentation(choice: Choice, detector: Detector, wanted: str | None) -> Choice:
    """The augmentation that was asked for, or the detector's own.

    Raises:
        UsageError: an unknown name, or one that this detector cannot be trained with.
    """
    augmentation = augmentations.choose(wanted or detector.suggested_augmentation)
    augment: Augmentation = augmentations.build(augmentation)
    if augment.load_size_px(detector.image_size_px) != detector.image_size_px:
        raise UsageError(
            f"--augment {augmentation.name} crops its images out of larger ones, which a detector is not given; "
            "use mirror or rotate-shift-mirror"
        )
    if augment.gives_size_px(detector.image_size_px) != detector.image_size_px and not detector.takes_any_size:
        raise UsageError(f"--augment {augmentation.name} shows parts of the image, and {choice.name} takes whole ones alone")
    if isinstance(detector, LinearDetector) and augmentation.name != "none":
        raise UsageError(f"--augment {augmentation.name}: the detector {choice.name} is fitted to the images as they are")
    return augmentation


def fit(
    choice: Choice,
    dataset: LabelledImageDataset,
    split: Split,
    settings: FitSettings,
    *,
    device: torch.device,
    monitor: Monitor | None = None,
) -> FittedDetector:
    """Train on `split.train` and keep the weights of the lowest loss on `split.val`; `split.test` is not looked at.

    All that is random is a function of the seed and the step. If the monitor stops it, it ends with the best weights so far.

    Raises:
        UsageError: the images have another size than the detector wants, or an augmentation for what is fitted in one go.
        NoRoundDone: stopped before the end of the first round.
        FruitganError: the loss is not finite.
    """
    # Weights and dropout are drawn from torch's own generator, which is given back as it was.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else [], device_type="cuda"):
        torch.manual_seed(randomness.torch_seed(settings.seed, 0, "detector/weights"))
        detector: Detector = detectors.build(choice)
        if detector.image_size_px != dataset.size_px:
            raise UsageError(
                f"the detector {choice.name} wants images of {detector.image_size_px} px and would get {dataset.size_px} px"
            )
        augmentation = fitting_augmentation(choice, detector, settings.augment)
        detector.to(device)
        training: Training
        if isinstance(detector, LinearDetector):
            training = RegressionTraining(detector, dataset, split, settings, device)
        else:
            training = NetworkTraining(detector, dataset, split, settings, augmentations.build(augmentation), device)
        finished = training.run(monitor or Monitor())
        best = training.load_best()
    return FittedDetector(choice, detector.eval(), device, augmentation, tuple(training.rounds), best, finished)


class RegressionTraining(Training):
    """A logistic regression, fitted with each penalty in turn."""

    total_steps = len(PENALTIES)
    detector: LinearDetector

    def __init__(
        self, detector: LinearDetector, dataset: LabelledImageDataset, split: Split, settings: FitSettings, device: torch.device
    ) -> None:
        super().__init__(detector)
        self.dataset = dataset
        self.split = split
        self.device = device
        self.batch_size = settings.batch_size or BATCH_SIZE
        self.trials: Iterator[Trial] | None = None

    @property
    def is_over(self) -> bool:
        return len(self.rounds) == len(PENALTIES)

    def next_round(self, monitor: Monitor) -> Round:
        if self.trials is None:
            self.trials = self._trials()
        regression, found = next(self.trials)
        store(self.detector, regression)
        self.step += 1
        return found

    def _trials(self) -> Iterator[Trial]:
        """Those that the rounds so far lack."""
        labels = self.dataset.generated
        train, val = (
            features_of(self.detector, self.dataset, part, self.device, self.batch_size)
            for part in (self.split.train, self.split.val)
        )
        return trials(train, labels[self.split.train], val, labels[self.split.val], done=len(self.rounds))


class NetworkTraining(Training):
    """Adam on the cross entropy, epoch after epoch, until the validation loss has not fallen for a while."""

    def __init__(
        self,
        detector: Detector,
        dataset: LabelledImageDataset,
        split: Split,
        settings: FitSettings,
        augmentation: Augmentation,
        device: torch.device,
    ) -> None:
        super().__init__(detector.to(memory_format=torch.channels_last))  # the faster order for convolutions, on CPUs above all
        self.dataset = dataset
        self.split = split
        self.settings = settings
        self.augmentation = augmentation
        self.device = device
        self.optimizer = torch.optim.Adam(detector.parameters(), lr=settings.learning_rate, eps=settings.epsilon)
        self.batch_size = settings.batch_size_for(len(split.train))
        self.total_steps = settings.epochs * len(batches(split.train, self.batch_size))

    def state(self) -> State:
        network = {f"network.{name}": tensor for name, tensor in self.detector.state_dict().items()}
        moments = self.optimizer.state_dict()["state"].items()  # none before the first step
        optimizer = {f"optimizer.{index}.{key}": value for index, kept in moments for key, value in kept.items()}
        return super().state() | network | optimizer

    def restore(self, state: State) -> None:
        super().restore(state)
        self.detector.load_state_dict(_part(state, "network."))
        moments: dict[int, dict[str, Any]] = {}
        for name, value in _part(state, "optimizer.").items():
            index, _, key = name.partition(".")
            moments.setdefault(int(index), {})[key] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})

    @property
    def is_over(self) -> bool:
        done = len(self.rounds)
        return done >= self.settings.epochs or (self.best is not None and done - self.best.number >= self.settings.patience)

    def next_round(self, monitor: Monitor) -> Round | None:
        """Each training image once, augmented and with dropout; then the loss on the validation set."""
        began = time.monotonic()
        self.detector.train()
        number, train = len(self.rounds) + 1, self.split.train
        loss_sum, correct = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        order = train[randomness.permutation(self.settings.seed, number, len(train), "detector/order")]
        pieces = batches(order, self.batch_size)
        for place, indices in enumerate(pieces, start=1):
            loss, logits = self._train_step(indices)
            loss_sum += loss * len(indices)
            correct += ((logits > 0) == (self.dataset.labels(indices, self.device) > 0)).sum()
            if place < len(pieces) and monitor.step_done(self):
                return None
        val_logits = dataset_logits(self.detector, self.dataset, self.split.val, self.device, self.batch_size)
        truth = self.dataset.generated[self.split.val]
        train_loss, val_loss = float(loss_sum) / len(train), log_loss(val_logits, truth)
        if not math.isfinite(train_loss) or not math.isfinite(val_loss):
            raise FruitganError(f"the loss is not finite in epoch {number}; a lower --learning-rate or another --seed may help")
        return Round(
            number=number,
            train_loss=train_loss,
            train_accuracy=float(correct) / len(train),
            val_loss=val_loss,
            val_accuracy=accuracy(val_logits, truth),
            seconds=time.monotonic() - began,
        )

    def _train_step(self, indices: Indices) -> tuple[Tensor, Tensor]:
        """One step of Adam: its loss, and the logits [n] of the batch."""
        seed, n = self.settings.seed, len(indices)
        draws = randomness.sample(seed, self.step, n * self.augmentation.draws, "detector/augment")
        torch.manual_seed(randomness.torch_seed(seed, self.step, "detector/dropout"))
        images = self.dataset.batch(indices, self.device)
        images = self.augmentation.apply(images, torch.from_numpy(draws.reshape(n, -1)), self.dataset.size_px)
        logits = self.detector(images.contiguous(memory_format=torch.channels_last))
        loss = F.binary_cross_entropy_with_logits(logits, self.dataset.labels(indices, self.device))
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimizer.step()
        self.step += 1
        return loss.detach(), logits.detach()


def batches(order: Indices, batch_size: int) -> list[Indices]:
    """The order cut in pieces; a single image at the end joins the piece before, since batch norm cannot do with one."""
    starts = list(range(0, len(order), batch_size))
    if len(starts) > 1 and len(order) - starts[-1] == 1:
        starts.pop()
    return np.split(order, starts[1:])


def _part(state: State, prefix: str) -> dict[str, Any]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
