from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from fruitgan.errors import UsageError
from fruitgan.settings import from_json, to_json

ABSENT = object()


@dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float
    name: str = "plum"


@dataclass(frozen=True, kw_only=True)
class Outer:
    count: int
    inner: Inner
    quick: bool = False
    mode: Literal["a", "b"] = "a"
    path: Path | None = None
    sizes: tuple[int, ...] = ()
    pair: tuple[str, int] = ("x", 1)
    weights: Mapping[str, float] = field(default_factory=dict)
    parts: tuple[Inner, ...] = ()
    either: int | str = 0
    anything: Any = None


def test_settings_come_back_from_their_json_as_they_were() -> None:
    outer = Outer(
        count=3,
        inner=Inner(rate=0.5),
        quick=True,
        mode="b",
        path=Path("x/y"),
        sizes=(1, 2),
        pair=("z", 9),
        weights={"cycle": 10.0},
        parts=(Inner(rate=1.0, name="p"),),
        either="text",
        anything={"deep": [1, None]},
    )
    assert from_json(Outer, json.loads(json.dumps(to_json(outer)))) == outer


def test_defaults_fill_what_is_absent() -> None:
    assert from_json(Outer, {"count": 1, "inner": {"rate": 2}}) == Outer(count=1, inner=Inner(rate=2.0))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"count": ABSENT}, "'count' is missing"),
        ({"cuont": 1}, "cuont"),
        ({"count": "3"}, "settings.count"),
        ({"count": True}, "settings.count"),
        ({"count": 1.5}, "settings.count"),
        ({"quick": 1}, "settings.quick"),
        ({"mode": "c"}, "settings.mode"),
        ({"inner": 3}, "settings.inner"),
        ({"inner": {"rate": True}}, "settings.inner.rate"),
        ({"sizes": 3}, "settings.sizes"),
        ({"sizes": [1, "2"]}, "settings.sizes[1]"),
        ({"pair": ["x"]}, "settings.pair"),
        ({"weights": {"cycle": "x"}}, "settings.weights.cycle"),
        ({"weights": [1]}, "settings.weights"),
        ({"parts": [{"rate": 1}, {"rate": None}]}, "settings.parts[1].rate"),
        ({"path": 3}, "settings.path"),
        ({"either": None}, "settings.either"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_key(change: dict[str, Any], named: str) -> None:
    given = {"count": 1, "inner": {"rate": 1}, **change}
    with pytest.raises(UsageError) as caught:
        from_json(Outer, {key: value for key, value in given.items() if value is not ABSENT})
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_table_or_has_no_json_form_is_refused() -> None:
    with pytest.raises(UsageError, match="expected a table"):
        from_json(Outer, [1, 2])
    with pytest.raises(TypeError, match="set"):
        to_json({1, 2})
