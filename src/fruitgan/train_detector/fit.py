"""Training of a detector: by batches with early stopping, or, where it is a logistic regression, one penalty after another."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fruitgan import randomness
from fruitgan.data.augment import Augmentation, augmentations
from fruitgan.device import own_randomness
from fruitgan.distributed import ranks
from fruitgan.errors import FruitganError, UsageError
from fruitgan.networks.contracts import Detector, LinearDetector, detectors
from fruitgan.networks.divided import divide
from fruitgan.progress import OnProgress, Progress, silent
from fruitgan.registry import Choice
from fruitgan.runs.checkpoint import State
from fruitgan.settings import from_json, to_json
from fruitgan.train_detector.calibration import accuracy, log_loss
from fruitgan.train_detector.detector import BATCH_SIZE, LabelledImageDataset
from fruitgan.train_detector.protocols import Indices, Split
from fruitgan.train_detector.regression import PENALTIES, Round, features_of, store, trials
from fruitgan.train_detector.settings import FitSettings


class NoRoundDone(FruitganError):
    """Stopped before the end of the first round, so that there is no detector to test."""


class LossNotFinite(FruitganError):
    """A loss became infinite or not a number."""

    is_everywhere = True


def fitting_augmentation(choice: Choice, detector: Detector, wanted: str | None) -> Choice:
    """The augmentation that was asked for, or the detector's own.

    Raises:
        UsageError: an unknown name, or one that this detector cannot be trained with.
    """
    augmentation = augmentations.choose(wanted or detector.suggested_augmentation)
    augment: Augmentation = augmentations.build(augmentation)
    side_px = detector.image_size_px
    gives_parts = augment.gives_size_px(side_px) != side_px and not detector.takes_any_size
    if augment.load_size_px(side_px) != side_px or gives_parts:
        raise UsageError(
            f"--augment {augmentation.name} shows parts of the images, and {choice.name} is given whole ones; "
            "use mirror or rotate-shift-mirror"
        )
    if isinstance(detector, LinearDetector) and augmentation.name != "none":
        raise UsageError(f"--augment {augmentation.name}: the detector {choice.name} is fitted to the images as they are")
    return augmentation


def fit(
    choice: Choice, dataset: LabelledImageDataset, split: Split, settings: FitSettings, device: torch.device
) -> tuple[Detector, Round]:
    """The detector trained on `split.train` with the weights of the lowest loss on `split.val`, and the round of these.

    `split.test` is not looked at; all that is random is a function of the seed and the step.

    Raises:
        UsageError, FruitganError: as `Training` and its `run`.
    """
    with own_randomness(device):
        training = Training(choice, dataset, split, settings, device)
        for _ in training.run():
            pass
        return training.detector, training.load_best()


@dataclass
class Training:
    """Rounds of training, with the weights of the best one; it can be saved and restored between two rounds.

    Of several processes each takes its rows of every batch.

    A round is an epoch of Adam on the cross entropy, or of a logistic regression a fit with one penalty. Use it within
    `own_randomness`.
    """

    choice: Choice
    dataset: LabelledImageDataset
    """Of the size that the detector wants."""
    split: Split
    settings: FitSettings
    device: torch.device
    tell: OnProgress = silent

    def __post_init__(self) -> None:
        """Raises: UsageError for an augmentation that does not fit the detector."""
        choice, settings, device = self.choice, self.settings, self.device
        torch.manual_seed(randomness.torch_seed(settings.seed, 0, "detector/weights"))
        self.detector: Detector = detectors.build(choice)
        self.augmentation = fitting_augmentation(choice, self.detector, settings.augment)
        self.augment: Augmentation = augmentations.build(self.augmentation)
        self.step = 0
        self.rounds: list[Round] = []
        self.best_weights: dict[str, Tensor] = {}
        """On the host: a second copy of 540 MB is not to fill a GPU."""
        self.batch_size = settings.batch_size_for(len(self.split.train))
        self.optimizer: torch.optim.Adam | None = None
        self.total_steps = len(PENALTIES)
        self.detector.to(device)
        if isinstance(self.detector, LinearDetector):
            if ranks().is_group:
                raise UsageError(f"the detector {choice.name} is fitted to all images at once: one process does that")
        else:
            divide(self.detector)
            self.detector.to(memory_format=torch.channels_last)  # faster, on CPUs above all
            self.optimizer = torch.optim.Adam(self.detector.parameters(), lr=settings.learning_rate, eps=settings.epsilon)
            self.total_steps = settings.epochs * len(batches(self.split.train, self.batch_size))

    @property
    def best(self) -> Round | None:
        """The first round with the lowest validation loss."""
        return min(self.rounds, key=lambda found: found.val_loss, default=None)

    @property
    def is_over(self) -> bool:
        """Whether all penalties were tried, all epochs done, or the validation loss has not fallen for a while."""
        done = len(self.rounds)
        if self.optimizer is None:
            return done == len(PENALTIES)
        return done >= self.settings.epochs or (self.best is not None and done - self.best.number >= self.settings.patience)

    def run(self) -> Iterator[Round | None]:
        """Train until it is over: yields each round at its end, and None after every other step.

        Raises:
            LossNotFinite: with the epoch.
        """
        for found in self._trials(self.detector) if isinstance(self.detector, LinearDetector) else self._epochs():
            if found is not None:
                self.rounds.append(found)
                if found is self.best:
                    weights = self.detector.state_dict().items()
                    self.best_weights = {name: tensor.detach().to("cpu", copy=True) for name, tensor in weights}
            yield found

    def load_best(self) -> Round:
        """Give the detector its best weights, and put it in evaluation mode.

        Raises:
            NoRoundDone: there are none.
        """
        if self.best is None:
            raise NoRoundDone("stopped before the end of the first epoch; there is nothing to test yet")
        self.detector.load_state_dict(self.best_weights)
        self.detector.eval()
        return self.best

    def state(self) -> State:
        parts: dict[str, Mapping[str, Any]] = {"best": self.best_weights}
        if self.optimizer is not None:
            moments = self.optimizer.state_dict()["state"].items()  # none before the first step
            parts["network"] = self.detector.state_dict()
            parts["optimizer"] = {f"{index}.{key}": value for index, entry in moments for key, value in entry.items()}
        kept: State = {f"{part}.{name}": value for part, entries in parts.items() for name, value in entries.items()}
        return {"step": self.step, "rounds": to_json(self.rounds)} | kept

    def restore(self, state: State) -> None:
        try:
            rounds = [from_json(Round, entry, "a round") for entry in state["rounds"]]
        except UsageError as error:
            raise ValueError(str(error)) from error
        if [found.number for found in rounds] != list(range(1, len(rounds) + 1)) or not rounds:
            raise ValueError("its rounds do not follow each other")
        self.step, self.rounds, self.best_weights = state["step"], rounds, _part(state, "best.")
        if self.optimizer is not None:
            self.detector.load_state_dict(_part(state, "network."))
            moments: dict[int, dict[str, Any]] = {}
            for name, value in _part(state, "optimizer.").items():
                index, _, key = name.partition(".")
                moments.setdefault(int(index), {})[key] = value
            self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})

    def _trials(self, detector: LinearDetector) -> Iterator[Round]:
        """A fit with each penalty that was not tried yet."""
        if self.is_over:
            return
        labels, split, batch_size = self.dataset.generated, self.split, self.settings.batch_size or BATCH_SIZE
        images = np.concatenate([split.train, split.val])

        def tell(done: int) -> None:
            self.tell(Progress("features", done, len(images)))

        train, val = np.split(features_of(detector, self.dataset, images, self.device, batch_size, tell), [len(split.train)])
        for regression, found in trials(train, labels[split.train], val, labels[split.val], done=len(self.rounds)):
            store(detector, regression)
            self.step += 1
            yield found

    def _epochs(self) -> Iterator[Round | None]:
        """Each training image once, augmented and with dropout; then the loss on the validation set."""
        train, val = self.split.train, self.split.val
        truth = self.dataset.generated[val]
        while not self.is_over:
            began = time.monotonic()
            self.detector.train()
            number = len(self.rounds) + 1
            loss_sum, correct = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
            order = train[randomness.permutation(self.settings.seed, number, len(train), "detector/order")]
            pieces = batches(order, self.batch_size)
            for place, indices in enumerate(pieces, start=1):
                loss, recognised = self._train_step(indices)
                loss_sum += loss * len(indices)
                correct += recognised
                if place < len(pieces):
                    yield None
            own_logits = self.dataset.logits(self.detector, val[ranks().share(len(val))], self.device, self.batch_size)
            val_logits = np.concatenate(ranks().exchange(own_logits.tolist()))
            train_loss, val_loss = float(loss_sum) / len(train), log_loss(val_logits, truth)
            if not math.isfinite(train_loss) or not math.isfinite(val_loss):
                raise LossNotFinite(
                    f"the loss is not finite in epoch {number}; a lower --learning-rate or another --seed may help"
                )
            yield Round(
                number=number,
                train_loss=train_loss,
                train_accuracy=float(correct) / len(train),
                val_loss=val_loss,
                val_accuracy=accuracy(val_logits, truth),
                seconds=time.monotonic() - began,
            )

    def _train_step(self, indices: Indices) -> tuple[Tensor, Tensor]:
        """One step of Adam: its loss, and how many images of the batch were classified correctly."""
        assert self.optimizer is not None
        seed, n = self.settings.seed, len(indices)
        draws = randomness.sample(seed, self.step, n * self.augment.draws, "detector/augment")
        torch.manual_seed(randomness.torch_seed(seed, self.step, "detector/dropout"))
        ranks().rows, own = n, ranks().share(n)
        images, labels = self.dataset.batch(indices[own], self.device), self.dataset.labels(indices[own], self.device)
        images = self.augment.apply(images, torch.from_numpy(draws.reshape(n, -1)[own]), self.dataset.size_px)
        logits = self.detector(images.contiguous(memory_format=torch.channels_last))
        loss = F.binary_cross_entropy_with_logits(logits, labels, reduction="sum") / n
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        loss, correct = loss.detach(), ((logits > 0) == (labels > 0)).sum().to(loss.dtype)
        with torch.no_grad():
            ranks().add([*(p.grad for p in self.detector.parameters() if p.grad is not None), loss, correct])
        self.optimizer.step()
        self.step += 1
        return loss, correct


def batches(order: Indices, batch_size: int) -> list[Indices]:
    """The order cut in pieces; a single image at the end joins the piece before, since batch norm cannot do with one."""
    starts = list(range(0, len(order), batch_size))
    if len(starts) > 1 and len(order) - starts[-1] == 1:
        starts.pop()
    return np.split(order, starts[1:])


def _part(state: State, prefix: str) -> dict[str, Any]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
