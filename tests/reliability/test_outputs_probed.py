"""Where nothing can be written, a job says so before its work begins, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from picture_files import write_dataset, write_noise_domains

from fruitgan.cli import main
from fruitgan.errors import FruitganError
from fruitgan.files import check_writable

COMMANDS = {
    "train-gan": ["--data", "fruit"],
    "export-dataset": ["--data", "fruit"],
    "train-detector": ["--data", "dataset"],
    "evaluate": ["--fake-dir", "dataset/predicted"],
    "distill": ["--data", "fruit", "--teacher", "apple2orange"],
    "demo": [],
    "export": ["--format", "onnx"],
}
"""And the words without which each would complain of something else."""


@pytest.mark.parametrize("command", COMMANDS)
def test_a_place_that_cannot_be_written_is_one_line_at_once(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for work in ("data.image_dataset.ImageDataset.build", "data.labelled.LabelledImage.__init__"):
        monkeypatch.setattr(f"fruitgan.{work}", None)  # whoever began to work would find out
    write_noise_domains(tmp_path / "fruit", 2, (16, 16))
    write_dataset(tmp_path / "dataset", 2, planted=0)
    (tmp_path / "file").write_text("in the way")
    before = sorted(tmp_path.rglob("*"))
    assert main([command, *COMMANDS[command], "-o" if command == "export" else "--out", "file/below"]) == 1
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert said.err.startswith("error: file/below: cannot be written (")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_demo_on_a_gpu_that_is_not_there_draws_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--out", str(tmp_path / "demo"), "--gpu", "77"]) == 4
    assert "GPU 77: " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_can_be_written_is_left_as_it_was(tmp_path: Path) -> None:
    check_writable(tmp_path, tmp_path / "not" / "yet")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_seen_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.open", full)
    with pytest.raises(FruitganError, match="cannot be written \\(no space left on device\\)"):
        check_writable(tmp_path / "out")
