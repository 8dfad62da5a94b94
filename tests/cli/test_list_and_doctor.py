from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import fruitgan
from fruitgan import doctor
from fruitgan.cli import main
from fruitgan.registry import KINDS

Install = Callable[..., Path]
Captured = pytest.CaptureFixture[str]


def test_list_names_every_kind_and_what_is_of_it(capsys: Captured) -> None:
    assert main(["list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert tuple(listed) == KINDS
    (found,) = [entry for entry in listed["generators"] if entry["name"] == "resnet-9"]
    assert (found["kind"], found["package"], found["target"]) == ("generators", "fruitgan", "fruitgan.networks.resnet:resnet_9")
    assert found["summary"].startswith("ResNet generator with 9 residual blocks")


@pytest.mark.parametrize("word", ["generators", "generator"])
def test_one_kind_can_be_asked_for_in_singular_or_plural(capsys: Captured, word: str) -> None:
    assert main(["list", word, "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == ["generators"]


def test_an_unknown_kind_says_what_is_near(capsys: Captured) -> None:
    assert main(["list", "generatos"]) == 2
    assert capsys.readouterr().err.startswith("error: no kind 'generatos': did you mean generators")


def test_a_kind_with_nothing_registered_is_no_error(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fruitgan.list.KINDS", ("nothings",))
    assert main(["list"]) == 0
    assert capsys.readouterr().out == "no nothings are registered\n"


def test_doctor_tells_what_this_machine_can_do(capsys: Captured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FRUITGAN_CACHE", str(tmp_path / "not" / "yet"))
    monkeypatch.setenv("FRUITGAN_OFFLINE", "1")
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["packages"]["torch"]
    assert found["python"].endswith(f"({sys.executable})")
    assert 0 < found["cpu"]["cores"] <= (os.cpu_count() or 1)
    assert found["disk_free_gib"] > 0
    assert found["cache"] == str(tmp_path / "not" / "yet")
    assert found["cache_free_gib"] > 0
    assert found["environment"] == {"FRUITGAN_CACHE": found["cache"], "FRUITGAN_OFFLINE": "1"}
    assert not (tmp_path / "not").exists()


def test_doctor_for_people_is_a_table_and_the_problems(install: Install, capsys: Captured) -> None:
    install("rotten-plum", {"generators": {"rotten": "rotten_plum:rot"}}, "raise ImportError('no stone')")
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "torch " in shown
    assert "problem: the generator 'rotten' of package rotten-plum 1.0 cannot be imported: ImportError: no stone\n" in shown


def test_names_claimed_twice_are_a_problem(install: Install) -> None:
    install("other-nets", {"generators": {"resnet-9": "other_nets:net"}}, version="7.0")
    (problem,) = [line for line in doctor.unusable() if "resnet-9" in line]
    assert f"fruitgan {fruitgan.__version__} (" in problem
    assert "other-nets 7.0" in problem


def test_nothing_of_our_own_is_unusable() -> None:
    assert doctor.unusable() == []


@pytest.mark.parametrize(
    ("declared", "complaint"),
    [
        ('plum = "pear_tree:plum"', None),
        ('plum = "pear_tree:plum"\npear = "pear_tree:pear"', "generators/pear"),
        ('plum = "pear_tree:moved"', "generators/plum"),
        ("", "generators/plum"),
        (None, "is installed from"),
    ],
)
def test_stale_metadata_of_an_editable_install_is_a_problem(
    install: Install, tmp_path: Path, declared: str | None, complaint: str | None
) -> None:
    project = tmp_path / "pear tree"
    if declared is not None:
        project.mkdir()
        (project / "pyproject.toml").write_text(f'[project.entry-points."fruitgan.generators"]\n{declared}\n')
    site = install("pear-tree", {"generators": {"plum": "pear_tree:plum"}})
    origin = {"url": project.as_uri(), "dir_info": {"editable": True}}
    (site / "pear_tree-1.0.dist-info" / "direct_url.json").write_text(json.dumps(origin))
    found = [line for line in doctor.stale() if "pear-tree" in line]
    if complaint is None:
        assert found == []
    else:
        (line,) = found
        assert complaint in line
        assert f"pip install -e {project}" in line or declared is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"url": "file:///x"}', '{"dir_info": {"editable": true}}'])
def test_a_package_installed_in_any_other_way_is_none_of_our_business(install: Install, text: str) -> None:
    site = install("pear-tree", {"generators": {"plum": "pear_tree:plum"}})
    (site / "pear_tree-1.0.dist-info" / "direct_url.json").write_text(text)
    assert not any("pear-tree" in line for line in doctor.stale())
