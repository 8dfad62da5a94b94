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


def test_a_kind_with_nothing_registered_is_no_error(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fruitgan.show.KINDS", ("nothings",))
    assert main(["list"]) == 0
    assert capsys.readouterr().out == "no nothings are registered\n"


def test_doctor_tells_what_this_machine_can_do_and_which_names_cannot_be_used(
    install: Install, capsys: Captured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FRUITGAN_CACHE", str(tmp_path / "not" / "yet"))
    monkeypatch.setenv("FRUITGAN_OFFLINE", "1")
    install("rotten-plum", {"generators": {"rotten": "rotten_plum:rot"}}, "raise ImportError('no stone')")
    install("other-nets", {"generators": {"resnet-9": "other_nets:net"}}, version="7.0")
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
    twice, rotten = found["problems"]  # and nothing of our own
    assert f"fruitgan {fruitgan.__version__} (" in twice
    assert "other-nets 7.0" in twice
    assert rotten == "the generator 'rotten' of package rotten-plum 1.0 cannot be imported: ImportError: no stone"
    monkeypatch.setattr(doctor, "diagnose", lambda: found)
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "torch " in shown
    assert f"problem: {rotten}\n" in shown
