"""The data sets that have a name, ours and a plug-in's."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from fruitgan.data.named import SETS, ArchivedSet
from fruitgan.data.sources import Dataset, find_source, registry
from fruitgan.demo.dataset import DrawSettings, demo
from fruitgan.errors import UsageError
from fruitgan.progress import Note, Progress


@pytest.mark.parametrize("name", [*SETS, "demo"])
def test_a_registered_set_keeps_the_contract(name: str) -> None:
    dataset = registry.get(name)
    assert isinstance(dataset, Dataset)
    assert dataset.name == name
    assert len(set(dataset.domains)) == 2
    assert dataset.summary
    assert "\n" not in dataset.summary
    if isinstance(dataset, ArchivedSet):  # fetched by https and held to a sum
        assert dataset.archive.address == f"https://efrosgans.eecs.berkeley.edu/cyclegan/datasets/{name}.zip"
        assert re.fullmatch(r"[0-9a-f]{64}", dataset.sha256)
        assert dataset.size_bytes > 10**7
        assert not dataset.is_present()


def test_drawn_fruit_is_a_source_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRUITGAN_OFFLINE", "1")
    small = dataclasses.replace(demo, settings=DrawSettings(train_count=2, test_count=1, size_px=16), edition=0)
    seen: list[Any] = []
    source = small.source(seen.append)
    assert [len(part) for part in (source.a.train, source.b.train, source.a.test, source.b.test)] == [2, 2, 1, 1]
    assert (source.name, source.a.name, source.b.name) == ("demo", "apple", "orange")
    assert (seen[0], seen[-1]) == (Note("drawing fruit into the cache, once"), Progress("drawing", 6, 6))
    assert small.is_present()
    seen.clear()
    assert small.source(lambda *event: seen.append(event)) == source
    assert not seen


def test_a_process_that_draws_the_same_fruit_at_the_same_time_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    small = dataclasses.replace(demo, settings=DrawSettings(train_count=1, test_count=1, size_px=16), edition=-1)
    seen: list[Any] = []

    def tell(event: Any) -> None:
        seen.append(event)
        if event == Progress("drawing", 2, 4):
            small.source()  # the other is quicker

    source = small.source(tell)
    assert seen[-1] == Progress("drawing", 4, 4)
    assert [path.stat().st_size > 0 for path in (*source.a.train, *source.b.train)] == [True, True]
    cache = source.a.train[0].parents[2]
    assert not [path for path in cache.iterdir() if path.name.startswith(".")]  # the slower one's part is gone


def test_domains_of_a_named_set_can_be_renamed(monkeypatch: pytest.MonkeyPatch) -> None:
    small = dataclasses.replace(demo, settings=DrawSettings(train_count=2, test_count=1, size_px=16), edition=0)
    monkeypatch.setattr(type(registry), "get", lambda self, name: small)
    source = find_source("demo", domains=("red", "round"))
    assert (source.a.name, source.b.name) == ("red", "round")
    with pytest.raises(UsageError, match="two different names"):
        find_source("demo", domains=("red", "red"))
