"""Images at addresses and in shards: the evaluation has the numbers of that of the folders, and names the addresses."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from evaluations import evaluating, fill, write_manifest

from fruitgan.cli import main
from fruitgan.errors import DataError
from fruitgan.evaluate.job import evaluate


@pytest.fixture(autouse=True)
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An exported dataset and what its fakes were made of."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FRUITGAN_CACHE", str(tmp_path / "cache"))
    for name, first, redness in (("predicted", 0, 0.2), ("origins", 100, 0.8), ("x", 0, 0.0)):
        fill(tmp_path / "set" / name, 12, first, redness)
    write_manifest(tmp_path / "set")
    (tmp_path / "set/dataset.json").write_text(json.dumps({"bundle": {"trained_against": ["a network"]}}))
    return tmp_path / "set"


@pytest.fixture
def address(dataset: Path) -> Iterator[str]:
    """Of a copy of the dataset."""
    files = fsspec.filesystem("memory")
    for path in dataset.rglob("*.*"):
        files.pipe_file(f"bucket/set/{path.relative_to(dataset).as_posix()}", path.read_bytes())
    yield "memory://bucket/set"
    files.store.clear()


def numbers(**places: Any) -> dict[str, Any]:
    """The values of an evaluation, without those that name places and times."""
    values = evaluate(evaluating(Path("set"), real_dir=None, out=Path("out"), **places)).as_json()
    assert values["warnings"] == []
    strip = {"seconds", "resize"}
    picked = {key: values[key] for key in ("kid", "fid", "r", "floor", "claims", "trained_against", "n_real", "n_fake")}
    return json.loads(json.dumps(picked), object_hook=lambda entry: {k: v for k, v in entry.items() if k not in strip})


def test_a_dataset_at_an_address_has_the_numbers_of_the_folder(address: str) -> None:
    here = numbers(source_dir=Path("set/x"))
    assert here["trained_against"] == ["a network"]
    assert numbers(fake_dir=f"{address}/predicted", source_dir=f"{address}/x") == here
    shown = json.loads(Path("out/evaluation.json").read_text())
    places = [f"{address}/{name}" for name in ("predicted", "origins", "x")]
    assert [shown[key] for key in ("fake_dir", "real_dir", "source_dir")] == places
    assert f"{address}/predicted" in Path("out/report.html").read_text()


def test_shards_have_the_numbers_of_their_samples(capsys: pytest.CaptureFixture[str]) -> None:
    here = numbers()
    for name in ("predicted", "origins"):
        for part in range(2):
            with tarfile.open(f"{name}-{part}.tar", "w") as tar:
                for path in sorted(Path("set", name).iterdir())[6 * part : 6 * part + 6]:
                    tar.add(path, path.name)
    found = evaluate(evaluating(Path("set"), fake_dir="predicted-*.tar", real_dir="origins-*.tar", out=Path("out"))).as_json()
    assert found["warnings"][0].startswith("predicted-*.tar and origins-*.tar: no manifest.csv")
    for key in ("kid", "fid"):
        assert (found[key]["value"], found[key]["interval"]) == (here[key]["value"], here[key]["interval"])
    asked = ["evaluate", "--fake-dir", "predicted-*.tar", "--real-dir", "origins-*.tar", "--detector", "none", "--quick"]
    assert main([*asked, "--features", "colour", "--metrics", "kid", "--device", "cpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kid"]["value"] == here["kid"]["value"]


def test_what_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match="memory://nothing/predicted"):
        numbers(fake_dir="memory://nothing/predicted")
    assert main(["evaluate", "--fake-dir", "memory://key:secret@nothing/predicted", "--device", "cpu"]) == 2
    assert "secret" not in capsys.readouterr().err
