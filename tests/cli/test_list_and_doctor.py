from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typed_commands import run_json

from fruitgan import doctor
from fruitgan.cli import main
from fruitgan.registry import KINDS

Install = Callable[..., Path]
Captured = pytest.CaptureFixture[str]


def test_list_names_every_kind_and_what_is_of_it(capsys: Captured) -> None:
    listed = run_json(capsys, "list")
    assert tuple(listed) == KINDS
    (found,) = [entry for entry in listed["generators"] if entry["name"] == "resnet-9"]
    assert (found["kind"], found["package"], found["target"]) == ("generators", "fruitgan", "fruitgan.networks.resnet:resnet_9")
    assert found["summary"].startswith("ResNet generator with 9 residual blocks")
    for word in ("generators", "generator"):
        assert run_json(capsys, "list", word) == {"generators": listed["generators"]}


def test_a_kind_with_nothing_registered_is_no_error(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fruitgan.show.KINDS", ("nothings",))
    assert main(["list"]) == 0
    assert capsys.readouterr().out == "no nothings are registered\n"


def test_doctor_tells_what_this_machine_can_do_and_which_names_cannot_be_used(
    install: Install, capsys: Captured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FRUITGAN_CACHE", str(tmp_path / "not" / "yet"))
    monkeypatch.setenv("FRUITGAN_OFFLINE", "1")
    monkeypatch.setenv("FRUITGAN_AUTH", "ann:pear")
    install("rotten-plum", {"generators": {"rotten": "rotten_plum:rot"}}, "raise ImportError('no stone')")
    install("other-nets", {"generators": {"resnet-9": "other_nets:net"}}, version="7.0")
    found = run_json(capsys, "doctor")
    assert found["packages"]["torch"]
    assert found["python"].endswith(f"({sys.executable})")
    assert 0 < found["cpu"]["cores"] <= (os.cpu_count() or 1)
    assert min(found["disk_free_gib"], found["cache_free_gib"]) > 0
    assert "pear" not in found["environment"].pop("FRUITGAN_AUTH")
    assert found["environment"] == {"FRUITGAN_CACHE": str(tmp_path / "not" / "yet"), "FRUITGAN_OFFLINE": "1"}
    assert found["cache"] == found["environment"]["FRUITGAN_CACHE"]
    assert not (tmp_path / "not").exists()
    twice, rotten = found["problems"]  # and nothing of our own
    assert "'resnet-9'" in twice
    assert rotten == "the generator 'rotten' of package rotten-plum 1.0 cannot be imported: ImportError: no stone"
    monkeypatch.setattr(doctor, "diagnose", lambda: found)
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "torch " in shown
    assert f"problem: {rotten}\n" in shown
