from __future__ import annotations

import pytest

from fruitgan.errors import DataError, EnvironmentProblem, FruitganError, GateFailed, Stopped, UsageError


@pytest.mark.parametrize(
    ("kind", "code"), [(FruitganError, 1), (UsageError, 2), (DataError, 3), (EnvironmentProblem, 4), (GateFailed, 5)]
)
def test_every_kind_of_error_has_its_exit_code(kind: type[FruitganError], code: int) -> None:
    assert kind("what").exit_code == code


def test_a_stopped_job_carries_the_code_of_the_signal() -> None:
    assert Stopped("saved at step 3", 143).exit_code == 143


def test_every_error_a_user_can_cause_can_be_caught_as_one() -> None:
    for kind in (UsageError, DataError, EnvironmentProblem, GateFailed, Stopped):
        assert issubclass(kind, FruitganError)
