from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from fruitgan.errors import UsageError
from fruitgan.settings import Settings, from_json, to_json

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


@dataclass(frozen=True, kw_only=True)
class Asked(Settings):
    sources: tuple[str, ...] = ()
    out: Path = Path("out")
    bundle: str | None = None
    place: Path | str = "here"
    kind: Literal["a", "b"] = "a"
    size: int | None = None
    rate: float = 1.0
    pair: tuple[str, str] | None = None
    sides: tuple[int, int] = (1, 1)
    bounds: Mapping[str, float] = field(default_factory=dict)


def test_what_means_the_same_is_taken_for_it() -> None:
    asked = Asked(sources="one.png", out="there", bundle=Path("b"), size=np.int64(3), rate=2, pair=["x", "y"])  # type: ignore[arg-type]
    assert asked == Asked(sources=("one.png",), out=Path("there"), bundle="b", size=3, rate=2.0, pair=("x", "y"))
    assert type(asked.size) is int
    assert Asked(sides=(np.int64(3), 4), bounds={"kid": np.float64(0.5)}) == Asked(sides=(3, 4), bounds={"kid": 0.5})  # type: ignore[arg-type]
    assert Asked(sources=Path("a.png")).sources == Asked(sources=iter(["a.png"])).sources == ("a.png",)  # type: ignore[arg-type]
    assert Asked(place="s3://a/b").place == "s3://a/b"  # and no path, which would have one slash
    assert isinstance(Asked(place=Path("a")).place, Path)


@pytest.mark.parametrize(
    "given",
    [
        {"size": "3"},
        {"size": True},
        {"kind": "c"},
        {"pair": ("x",)},
        {"rate": math.nan},
        {"out": 3},
        {"sources": (1,)},
        {"size": np.zeros(2)},
    ],
)
def test_another_kind_of_value_is_refused_by_the_fields_name(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=rf"^Asked\.{next(iter(given))}"):
        Asked(**given)
