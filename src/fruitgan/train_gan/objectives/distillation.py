"""Distillation: student generators imitate a teacher (Hinton et al. 2015, section 2, with images for class probabilities)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fruitgan.data.loader import Batch
from fruitgan.device import at_least_fp32, memory_format_of, without_autocast
from fruitgan.networks.contracts import Discriminator, Generator
from fruitgan.runs.checkpoint import State
from fruitgan.train_gan.objectives.adversarial import discriminator_loss
from fruitgan.train_gan.objectives.contracts import ObjectiveFactory, Player
from fruitgan.train_gan.objectives.cyclegan import CycleGAN

WINDOW_PX = 11
SIGMA_PX = 1.5
C1, C2 = 0.01**2, 0.03**2
"""Wang et al. 2004, section III-C, for images in [0, 1]."""


def structural_similarity(x: Tensor, y: Tensor) -> Tensor:
    """Mean SSIM of two batches [N, 3, H, W] in [-1, 1], 11 px or more a side: Wang et al. 2004, equation 13.

    Statistics under a Gaussian window of 11 x 11 px, where it lies within the picture; a mean over images, channels and places.
    In float32 at least, whatever the autocast around it: a variance is the small difference of large numbers.
    """
    with without_autocast(x.device):
        x, y = ((at_least_fp32(image) + 1) / 2 for image in (x, y))
        offsets = torch.arange(WINDOW_PX, device=x.device, dtype=x.dtype) - WINDOW_PX // 2
        line = torch.exp(-(offsets**2) / (2 * SIGMA_PX**2))
        line = line / line.sum()
        maps = x.shape[0] * x.shape[1]
        down, across = (line.view(shape).expand(maps, *shape[1:]) for shape in ((1, 1, -1, 1), (1, 1, 1, -1)))

        def mean(image: Tensor) -> Tensor:
            flat = image.flatten(0, 1).unsqueeze(0)  # as one image of many channels, for which kernels are made
            return F.conv2d(F.conv2d(flat, down, groups=maps), across, groups=maps)

        mean_x, mean_y = mean(x), mean(y)
        squares, product = mean_x * mean_x + mean_y * mean_y, mean_x * mean_y
        variances, covariance = mean(x * x + y * y) - squares, mean(x * y) - product  # only the variances' sum is needed
        return ((2 * product + C1) * (2 * covariance + C2) / ((squares + C1) * (variances + C2))).mean()


class TeacherHash:
    """The SHA-256 of the teacher's weights, so that a run does not go on with another."""

    def __init__(self, sha256: str) -> None:
        self.sha256 = sha256

    def settle(self, ok: Tensor) -> None:
        """A step changes no teacher."""

    def state(self) -> State:
        return {"sha256": self.sha256}

    def restore(self, state: State) -> None:
        if state["sha256"] != self.sha256:
            raise ValueError(f"the teacher was another ({str(state['sha256'])[:12]}, now {self.sha256[:12] or 'none'})")


@dataclass(frozen=True)
class DistillationStep:
    """What students and teachers made of both domains' images, [2 N, 3, H, W] in [-1, 1], the direction's own domain first.

    `adversarial` says whether the students hear of the discriminators.
    """

    batch: Batch
    student: Mapping[str, Tensor]
    teacher: Mapping[str, Tensor]
    adversarial: bool


class Distillation(CycleGAN):
    """`generator_ab` and `generator_ba` are students; their discriminators tell students' pictures from real ones.

    Each student is shown both domains: a teacher's answers cost no labels. Until `take_teachers` it is the source itself that
    is imitated. Teachers are no part of `networks`: not trained, not saved, not sent along.
    """

    def __init__(self, make_generator: Callable[[], Generator], make_discriminator: Callable[[], Discriminator]) -> None:
        super().__init__(make_generator, make_discriminator)
        students, discriminators = (player.networks for player in self.players)
        self.players = (
            Player("students", students, self._students_loss),
            Player("discriminators", discriminators, self._judges_loss),
        )
        self.weights = {name: torch.ones(()) for name in ("imitation", "structure", "adversarial")}
        self.take_teachers({}, "")

    def take_teachers(self, teachers: Mapping[str, Generator], sha256: str) -> None:
        """Imitate these, by direction; the sum is of their weights."""
        self.teachers = {name: teacher.requires_grad_(False).eval() for name, teacher in teachers.items()}
        self.extras = {"teacher": TeacherHash(sha256)}

    def to(self, device: torch.device) -> None:
        super().to(device)
        for teacher in self.teachers.values():
            teacher.to(device).to(memory_format=memory_format_of(device))

    def prepare(self, batch: Batch, variant: frozenset[str]) -> Any:  # a step of its own kind
        shown = {"a2b": torch.cat([batch.a, batch.b]), "b2a": torch.cat([batch.b, batch.a])}
        with torch.no_grad():
            teacher = {way: self.teachers[way](x) if way in self.teachers else x for way, x in shown.items()}
        student = {way: self.networks[name](shown[way]) for way, name in self.generators.items()}
        return DistillationStep(batch, student, teacher, adversarial="adversarial" in variant)

    def _students_loss(self, step: DistillationStep) -> dict[str, Tensor]:
        terms = {}
        n = len(step.batch.a)
        for way, domain, letters in (("a2b", "b", "ab"), ("b2a", "a", "ba")):
            student, teacher = step.student[way], step.teacher[way]
            terms[f"imitation_{letters}"] = self.weights["imitation"] * (student - teacher).abs().mean()
            terms[f"structure_{letters}"] = self.weights["structure"] * (1 - structural_similarity(student, teacher))
            if step.adversarial:
                terms[f"adversarial_{letters}"] = self.weights["adversarial"] * self.judges.fooled(domain, student[:n], {})
        return terms

    def _judges_loss(self, step: DistillationStep) -> dict[str, Tensor]:
        terms = {}
        for way, domain, real in (("a2b", "b", step.batch.b), ("b2a", "a", step.batch.a)):
            fake = step.student[way][: len(real)].detach().to(real.dtype)
            discriminator = self.networks[f"discriminator_{domain}"]
            terms[f"discriminator_{domain}"] = discriminator_loss("lsgan", discriminator(real), discriminator(fake))
        return terms


def distillation() -> ObjectiveFactory:
    """Students imitate a teacher: mean absolute error, structural similarity, and least squares adversarially (`distill`)."""
    return Distillation
