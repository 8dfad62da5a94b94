"""Students, what they minimise, and structural similarity against a naive loop in float64."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fruitgan.data.loader import Batch
from fruitgan.networks.discriminators import MultiscalePatchDiscriminator
from fruitgan.networks.mobile import Lite, LiteU, Mobile
from fruitgan.train_gan.objectives.distillation import Distillation, structural_similarity

pytestmark = pytest.mark.usefixtures("repeatable")


def images(n: int, side_px: int) -> Tensor:
    return torch.rand((n, 3, side_px, side_px), dtype=torch.float64) * 2 - 1


def naive_similarity(x: Tensor, y: Tensor) -> float:
    """Wang et al. 2004, equations 13 to 16, window by window."""
    x, y = (x + 1) / 2, (y + 1) / 2
    line = [math.exp(-((i - 5) ** 2) / (2 * 1.5**2)) for i in range(11)]
    window = torch.tensor([[a * b for b in line] for a in line], dtype=torch.float64)
    window /= window.sum()
    values = []
    for n, c, row, column in itertools.product(range(x.shape[0]), range(3), range(x.shape[2] - 10), range(x.shape[3] - 10)):
        one, other = (image[n, c, row : row + 11, column : column + 11] for image in (x, y))
        mean_one, mean_other = float((window * one).sum()), float((window * other).sum())
        spread_one = float((window * (one - mean_one) ** 2).sum())
        spread_other = float((window * (other - mean_other) ** 2).sum())
        together = float((window * (one - mean_one) * (other - mean_other)).sum())
        values.append(
            (2 * mean_one * mean_other + 0.01**2)
            * (2 * together + 0.03**2)
            / ((mean_one**2 + mean_other**2 + 0.01**2) * (spread_one + spread_other + 0.03**2))
        )
    return sum(values) / len(values)


def test_structural_similarity_equals_a_naive_loop_and_is_1_for_the_same_picture() -> None:
    x, y = images(2, 13), images(2, 13)
    assert float(structural_similarity(x, y)) == pytest.approx(naive_similarity(x, y), rel=1e-9)
    assert float(structural_similarity(x, x)) == pytest.approx(1)


def test_structural_similarity_is_not_rounded_by_an_autocast_around_it() -> None:
    x = torch.full((1, 3, 16, 16), 0.9) + 0.001 * torch.randn(1, 3, 16, 16)
    y = x + 0.001 * torch.randn_like(x)
    expected = structural_similarity(x.double(), y.double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert float(structural_similarity(x, y)) == pytest.approx(float(expected), abs=1e-3)


@pytest.mark.parametrize("student", [Lite, LiteU])
def test_a_student_that_changes_the_source_starts_as_the_identity(student: Callable[..., nn.Module]) -> None:
    x = images(1, 32) * 0.97
    torch.testing.assert_close(student(base_channels=4, blocks=1).double()(x), x, rtol=0, atol=1e-12)


def made() -> Distillation:
    objective = Distillation(
        lambda: Lite(base_channels=4, blocks=1), lambda: MultiscalePatchDiscriminator(base_channels=2, scales=1)
    )
    for parameter in objective.networks.double().parameters():
        nn.init.normal_(parameter, 0, 0.2)
    objective.networks.eval()
    return objective


def teachers(seed: int = 2) -> dict[str, nn.Module]:
    torch.manual_seed(seed)
    found = {way: Mobile(base_channels=2, blocks=1).double() for way in ("a2b", "b2a")}
    for network in found.values():
        for parameter in network.parameters():
            nn.init.normal_(parameter, 0, 0.2)
    return found


def test_students_minimise_the_distance_to_their_teachers_on_both_domains() -> None:
    objective, wise = made(), teachers()
    objective.take_teachers(wise, "abc")
    weights = {"imitation": 10.0, "structure": 5.0, "adversarial": 2.0}
    for name, value in weights.items():
        objective.weights[name].fill_(value)
    batch = Batch(images(1, 24), images(1, 24))
    step = objective.prepare(batch, objective.variant(weights))
    terms = {name: float(term.detach()) for player in objective.players for name, term in player.loss(step).items()}
    for way, letters, own, other in (("a2b", "ab", batch.a, batch.b), ("b2a", "ba", batch.b, batch.a)):
        student = objective.networks[f"generator_{letters}"]
        said, right = (torch.cat([network(own), network(other)]).detach() for network in (student, wise[way]))
        assert terms[f"imitation_{letters}"] == pytest.approx(10 * float((said - right).abs().mean()))
        assert terms[f"structure_{letters}"] == pytest.approx(5 * (1 - naive_similarity(said, right)))
        (logits,) = objective.networks[f"discriminator_{letters[1]}"](said[:1])
        assert terms[f"adversarial_{letters}"] == pytest.approx(2 * float(((logits - 1) ** 2).mean().detach()))
        real = {"a": batch.a, "b": batch.b}[letters[1]]
        (on_real,) = objective.networks[f"discriminator_{letters[1]}"](real)
        expected = 0.5 * float((((on_real - 1) ** 2).mean() + (logits**2).mean()).detach())
        assert terms[f"discriminator_{letters[1]}"] == pytest.approx(expected)


def test_students_hear_nothing_of_discriminators_that_have_no_weight_and_that_train_all_the_same() -> None:
    objective = made()
    batch = Batch(images(1, 24), images(1, 24))
    alone, heard = (
        {name: term.detach() for player in objective.players for name, term in player.loss(step).items()}
        for step in (objective.prepare(batch, frozenset(variant)) for variant in ((), ("adversarial",)))
    )
    assert set(heard) - set(alone) == {"adversarial_ab", "adversarial_ba"}
    torch.testing.assert_close(alone, {name: heard[name] for name in alone}, rtol=0, atol=0)


def test_a_teacher_learns_nothing_and_is_not_saved() -> None:
    objective, wise = made(), teachers()
    objective.take_teachers(wise, "abc")
    step = objective.prepare(Batch(images(1, 24), images(1, 24)), frozenset())
    for player in objective.players:
        torch.autograd.backward(torch.stack(list(player.loss(step).values())).sum())
    assert all(parameter.grad is None for network in wise.values() for parameter in network.parameters())
    assert not [name for name in objective.networks.state_dict() if "teacher" in name]


def test_a_lesson_does_not_go_on_with_another_teacher() -> None:
    objective = made()
    objective.take_teachers(teachers(), "abc")
    kept = objective.extras["teacher"].state()
    objective.extras["teacher"].restore(kept)
    objective.take_teachers(teachers(3), "def")
    with pytest.raises(ValueError, match="the teacher was another"):
        objective.extras["teacher"].restore(kept)
