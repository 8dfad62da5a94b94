"""Checkpoints on disks that refuse, fail or lie: what was good stays, and what is damaged is told and left behind."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fruitgan.errors import FruitganError
from fruitgan.runs import checkpoint
from fruitgan.runs.checkpoint import FORMAT, TENSORS, VALUES, Checkpoints


class Notes:
    """Something to keep."""

    def __init__(self, number: int = 0) -> None:
        self.number = number

    def state(self) -> dict[str, Any]:
        return {"number": self.number, "tensor": torch.full((64, 64), float(self.number))}

    def restore(self, state: dict[str, Any]) -> None:
        assert torch.equal(state["tensor"], torch.full((64, 64), float(state["number"])))
        self.number = state["number"]


def save(folder: Path, *steps: int, keep: int = 10) -> None:
    checkpoints = Checkpoints(folder, keep)
    for step in steps:
        checkpoints.save(step, {"notes": Notes(step)})


def restored(folder: Path) -> tuple[int, list[str]]:
    notes = Notes()
    step, told = Checkpoints(folder).restore_newest({"notes": notes})
    assert notes.number == step
    return step, told


def names(folder: Path) -> list[int]:
    """The steps of all that is there."""
    return sorted(int(path.name.removeprefix("step-")) for path in folder.iterdir())


@pytest.fixture
def fsync_of_folders(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Make the file system refuse to bring a folder to the disk, with the given errno."""
    fsync = os.fsync

    def refuse_with(code: int) -> None:
        def refusing(descriptor: int) -> None:
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                raise OSError(code, os.strerror(code))
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", refusing)

    return refuse_with


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EACCES, errno.ENOTSUP, errno.EPERM, errno.EBADF])
def test_a_file_system_that_brings_no_folders_to_the_disk_is_good_enough(
    code: int, fsync_of_folders: Callable[[int], None], tmp_path: Path
) -> None:
    fsync_of_folders(code)
    save(tmp_path / "checkpoints", 1, 2, 3, keep=2)
    assert restored(tmp_path / "checkpoints") == (3, [])
    assert names(tmp_path / "checkpoints") == [2, 3]


def test_a_file_system_that_opens_no_folders_is_good_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_open = os.open

    def opening(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if Path(path).is_dir() and not Path(path).name.startswith("."):  # a part is locked through its descriptor
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real_open(path, flags, *more, **named)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", opening)
        save(tmp_path / "checkpoints", 1, 2)
    assert restored(tmp_path / "checkpoints") == (2, [])


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_real_trouble_in_bringing_a_folder_to_the_disk_is_told_and_the_checkpoint_before_stays(
    code: int, fsync_of_folders: Callable[[int], None], tmp_path: Path
) -> None:
    save(tmp_path, 1, keep=1)
    fsync_of_folders(code)
    with pytest.raises(FruitganError, match=rf"step-00000002: cannot be written \({os.strerror(code).lower()}\)"):
        save(tmp_path, 2, keep=1)
    assert 1 in names(tmp_path)
    assert restored(tmp_path)[0] in (1, 2)


def test_a_disk_that_does_not_keep_what_is_written_is_told_and_the_checkpoint_before_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1, keep=1)
    sha256 = checkpoint.file_sha256

    def written_otherwise(path: Path) -> str:
        found = sha256(path)
        if path.parent.name.startswith("."):  # while it is written; what is read afterwards is another thing
            data = bytearray(path.read_bytes())
            data[-1] ^= 1
            path.write_bytes(data)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "file_sha256", written_otherwise)
        with pytest.raises(FruitganError, match="was just written: this disk is not to be trusted"):
            save(tmp_path, 2, keep=1)
    step, told = restored(tmp_path)
    assert step == 1
    assert len(told) == 1
    assert "step-00000002" in told[0]


def flipped(path: Path) -> None:
    data = bytearray((path / TENSORS).read_bytes())
    data[len(data) // 2] ^= 4
    (path / TENSORS).write_bytes(bytes(data))


def another_value(path: Path) -> None:
    document = json.loads((path / VALUES).read_text())
    (path / VALUES).write_text(json.dumps({**document, "values": {"notes/number": 77}}))


def torn(path: Path) -> None:
    os.truncate(path / TENSORS, 100)


def gone(path: Path) -> None:
    (path / TENSORS).unlink()


@pytest.mark.parametrize("damage", [flipped, another_value, torn, gone])
def test_the_only_good_checkpoint_stays_however_few_are_kept(damage: Callable[[Path], None], tmp_path: Path) -> None:
    save(tmp_path, 1, 2, 3)
    for step in (2, 3):
        damage(tmp_path / f"step-0000000{step}")
    assert restored(tmp_path)[0] == 1
    parts = {"notes": Notes()}
    goes_on = Checkpoints(tmp_path, keep=1)
    goes_on.restore_newest(parts)

    class Full:
        def state(self) -> dict[str, Any]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def restore(self, state: dict[str, Any]) -> None:
            raise AssertionError("only ever saved")

    with pytest.raises(OSError, match="No space"):
        goes_on.save(2, {"notes": Full()})
    assert restored(tmp_path)[0] == 1


@pytest.mark.parametrize("damage", [flipped, another_value, torn, gone])
def test_damaged_checkpoints_that_the_run_went_back_behind_go_with_the_next_save(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    save(tmp_path, 1, 4, 5)
    for step in (4, 5):
        damage(tmp_path / f"step-0000000{step}")
    goes_on = Checkpoints(tmp_path, keep=2)
    step, told = goes_on.restore_newest({"notes": Notes()})
    assert (step, len(told)) == (1, 2)
    assert all("damaged" in line or "no such file" in line for line in told)
    assert names(tmp_path) == [1, 4, 5]
    goes_on.save(2, {"notes": Notes(2)})
    assert names(tmp_path) == [1, 2]
    assert restored(tmp_path) == (2, [])


def test_what_a_newer_fruitgan_made_is_not_taken_for_damaged(tmp_path: Path) -> None:
    save(tmp_path, 1, 5)
    document = json.loads((tmp_path / "step-00000005" / VALUES).read_text())
    (tmp_path / "step-00000005" / VALUES).write_text(json.dumps({**document, "format": FORMAT + 1}))
    before = shutil.copytree(tmp_path / "step-00000005", tmp_path.parent / f"{tmp_path.name}-before")
    save(tmp_path, 2, keep=1)
    assert names(tmp_path) == [2, 5]
    for file in before.iterdir():
        assert (tmp_path / "step-00000005" / file.name).read_bytes() == file.read_bytes()
