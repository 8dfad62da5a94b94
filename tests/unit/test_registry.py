from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fruitgan import registry
from fruitgan.errors import EnvironmentProblem, UsageError
from fruitgan.registry import Choice, Registry, suggestion

Install = Callable[..., Path]

PLUM = """
def plum(*, width: int = 8, rate: float = 0.5, soft: bool = True, kind: str = "sweet"):
    return width, rate, soft, kind
"""


@pytest.fixture
def generators(install: Install) -> Registry[Any]:
    install("fruitgan-plum", {"generators": {"plum": "fruitgan_plum:plum"}}, PLUM)
    return Registry("generators")


def test_a_plug_in_stands_beside_what_is_built_in(generators: Registry[Any]) -> None:
    assert {"plum", "resnet-9"} <= set(generators.names())
    assert Registry[Any]("nothing-of-the-kind").names() == []
    assert "fruitgan_plum" not in sys.modules
    owner = generators.owner("plum")
    assert (owner.package, owner.version, owner.target) == ("fruitgan-plum", "1.0", "fruitgan_plum:plum")


def test_an_unknown_name_says_what_is_near_or_else_what_there_is(generators: Registry[Any]) -> None:
    with pytest.raises(UsageError, match=r"no generator named 'plumb': did you mean plum\?"):
        generators.get("plumb")
    assert suggestion("xyzzy", ["apple", "orange"]) == "known are apple, orange"
    assert suggestion("xyzzy", []) == "there is none"


def test_two_owners_of_one_name_are_both_named(generators: Registry[Any], install: Install) -> None:
    install("other-plum", {"generators": {"plum": "other_plum:plum"}}, PLUM, version="2.1")
    with pytest.raises(UsageError) as caught:
        generators.get("plum")
    assert "fruitgan-plum 1.0 (fruitgan_plum:plum)" in str(caught.value)
    assert "other-plum 2.1 (other_plum:plum)" in str(caught.value)


def test_one_distribution_found_twice_on_the_path_is_one(generators: Registry[Any], install: Install) -> None:
    install("fruitgan-plum", {"generators": {"plum": "fruitgan_plum:plum"}}, PLUM, folder="again")
    assert [entry.name for entry in generators.entries()].count("plum") == 1
    assert generators.get("plum")() == (8, 0.5, True, "sweet")


@pytest.mark.parametrize("source", ["import no_such_module_anywhere", "raise SystemExit(3)", "def plum(: pass", "other = 1"])
def test_a_plug_in_that_fails_to_import_breaks_only_itself(install: Install, source: str) -> None:
    install("rotten-plum", {"generators": {"rotten": "rotten_plum:plum"}}, source)
    generators: Registry[Any] = Registry("generators")
    assert {"rotten", "resnet-9"} <= set(generators.names())
    with pytest.raises(EnvironmentProblem, match=r"'rotten' of package rotten-plum 1\.0 cannot be imported") as caught:
        generators.get("rotten")
    assert "\n" not in str(caught.value)
    assert callable(generators.get("resnet-9"))


def test_a_choice_has_all_options_resolved_text_as_the_type_of_the_default(generators: Registry[Any]) -> None:
    choice = generators.choose("plum", {"width": 4})
    assert choice == Choice("plum", "fruitgan-plum", "1.0", {"width": 4, "rate": 0.5, "soft": True, "kind": "sweet"})
    assert generators.build(choice) == (4, 0.5, True, "sweet")
    given = {"width": "16", "rate": "1e-3", "soft": "FALSE", "kind": "7"}
    assert generators.choose("plum", given).options == {"width": 16, "rate": 1e-3, "soft": False, "kind": "7"}
    assert generators.choose("plum", {"rate": 1}).options["rate"] == 1.0


def test_an_unknown_option_or_a_value_of_another_type_is_refused_by_its_name(generators: Registry[Any]) -> None:
    with pytest.raises(UsageError, match="no option 'widht': did you mean width"):
        generators.choose("plum", {"widht": 3})
    wrong = [("width", "wide"), ("width", 1.5), ("width", True), ("soft", "perhaps"), ("soft", 1), ("kind", 3)]
    for option, value in wrong:
        with pytest.raises(UsageError, match=f"generator plum, option {option}: {value!r} is not"):
            generators.choose("plum", {option: value})


def test_a_choice_whose_package_is_gone_names_the_package() -> None:
    with pytest.raises(EnvironmentProblem, match=r"fruitgan-plum 1\.0.*not installed: pip install fruitgan-plum"):
        Registry[Any]("generators").build(Choice("plum", "fruitgan-plum", "1.0", {}))


def test_a_program_names_a_thing_of_its_own_until_it_ends(generators: Registry[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_own", {})

    def quince(*, width: int = 3) -> int:
        return width

    def better(*, width: int = 4) -> int:
        return width

    generators.register("quince", quince)
    generators.register("quince", better)  # a cell of a notebook that is run again
    choice = generators.choose("quince", {"width": "5"})
    assert (choice.package, generators.build(choice)) == (registry.OWN_PROGRAM, 5)
    assert generators.choose("quince").options == {"width": 4}
    for taken in ("plum", "not a name"):
        with pytest.raises(UsageError, match="register"):
            generators.register(taken, quince)
    monkeypatch.setattr(registry, "_own", {})
    with pytest.raises(EnvironmentProblem, match=r"quince.*register it"):
        generators.build(choice)
