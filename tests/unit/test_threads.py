"""The number of CPU threads: what fixes it, and how a trial finds it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from fruitgan import device as threads
from fruitgan.console.options import parse_threads
from fruitgan.device import fastest_threads, fixed_threads, seconds_by_threads, using_threads
from fruitgan.errors import UsageError


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[int, float]], Callable[[], None]]:
    """Makes work that takes so many seconds by a clock of the test's own, by the number of threads."""
    now = 0.0

    def make(seconds: dict[int, float]) -> Callable[[], None]:
        def run() -> None:
            nonlocal now
            now += seconds[torch.get_num_threads()]

        return run

    monkeypatch.setattr(threads.time, "perf_counter", lambda: now)
    monkeypatch.setattr(threads.time, "monotonic", lambda: now)
    return make


@pytest.mark.parametrize(("seconds", "best"), [({1: 3.0, 2: 2.0, 4: 1.0}, 4), ({1: 0.1, 2: 0.4, 4: 2.0}, 1)])
def test_the_fastest_number_is_chosen_and_torch_is_left_as_it_was(
    seconds: dict[int, float], best: int, work: Callable[[dict[int, float]], Callable[[], None]]
) -> None:
    before = torch.get_num_threads()
    found = fastest_threads(work(seconds))
    assert found.number == best
    assert str(best) in str(found)
    assert torch.get_num_threads() == before


def test_a_trial_ends_in_its_time_and_tries_each_number_as_often(
    work: Callable[[dict[int, float]], Callable[[], None]],
) -> None:
    counts: dict[int, int] = {}
    step = work({1: 0.2, 2: 0.2, 4: 0.2})

    def counted() -> None:
        counts[torch.get_num_threads()] = counts.get(torch.get_num_threads(), 0) + 1
        step()

    found = seconds_by_threads(counted, seconds=3.0)
    assert list(found) == [1, 2, 4]
    assert all(mean == pytest.approx(0.2) for mean in found.values())
    assert set(counts.values()) == {1 + 4}  # to settle, then in turns: 0.6 s, and 4 times 0.6 s reach 3 s


def test_what_was_asked_for_wins_over_the_environment_and_that_over_determinism(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fixed_threads(None) is None
    assert fixed_threads(None, deterministic=True) == threads.Threads(4, "deterministic")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with using_threads(1):
        assert fixed_threads(None, deterministic=True) == threads.Threads(1, "OMP_NUM_THREADS")
    assert fixed_threads(3, deterministic=True) == threads.Threads(3, "as asked")


def test_one_core_needs_no_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 1)
    assert fixed_threads(None) == threads.Threads(1, "all there are")


def test_a_number_of_threads_is_auto_or_one_that_can_be() -> None:
    assert [parse_threads(text) for text in ("auto", "3")] == [None, 3]
    for text in ("0", "-1", "two", "1.5", "99999"):
        with pytest.raises(UsageError, match=f"--threads {text}"):
            parse_threads(text)
