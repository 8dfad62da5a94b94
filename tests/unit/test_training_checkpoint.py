"""Checkpoints are whole or absent; what is damaged is passed over and said; on a disk that fails what was good stays."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import resource
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fruitgan.errors import DataError, FruitganError
from fruitgan.files import new_folder
from fruitgan.runs import checkpoint
from fruitgan.runs.checkpoint import DTYPES, FORMAT, TENSORS, VALUES, Checkpoints, SaveClock, snapshot, write_tensors


class Notes:
    """Something to keep: a tensor, a number and a text."""

    def __init__(self, number: int) -> None:
        self.tensor = torch.full((2, 3), float(number))
        self.number = number

    def state(self) -> dict[str, Any]:
        return {"tensor": self.tensor, "a.b/c": self.tensor.double().t(), "number": self.number, "text": str(self.number)}

    def restore(self, state: dict[str, Any]) -> None:
        assert set(state) == {"tensor", "a.b/c", "number", "text"}
        self.tensor, self.number = state["tensor"], state["number"]
        assert torch.equal(state["a.b/c"], self.tensor.double().t())
        assert state["text"] == str(self.number)


class Untouched:
    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        raise AssertionError("nothing may be restored")


def saved(folder: Path, *steps: int, keep: int = 10) -> Checkpoints:
    checkpoints = Checkpoints(folder, keep)
    for step in steps:
        checkpoints.save(step, {"notes": Notes(step), "other": Notes(-step)})
    return checkpoints


def paths(checkpoints: Checkpoints) -> list[Path]:
    return sorted(checkpoints.folder.glob("step-*"))


def restored(checkpoints: Checkpoints) -> tuple[int, list[str]]:
    notes, other = Notes(0), Notes(0)
    step, problems = checkpoints.restore_newest({"notes": notes, "other": other})
    assert (notes.number, other.number) == (step, -step)
    assert torch.equal(notes.tensor, torch.full((2, 3), float(step)))
    return step, problems


def test_the_newest_checkpoint_is_restored_to_every_part(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 5, 100, 20)
    assert restored(checkpoints) == (100, [])
    assert [path.name for path in paths(checkpoints)] == ["step-00000005", "step-00000020", "step-00000100"]


def test_without_a_checkpoint_nothing_is_restored_and_training_starts_at_0(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "none").restore_newest({"notes": Untouched()}) == (0, [])


def test_a_checkpoint_is_safetensors_and_json_alone(tmp_path: Path) -> None:
    path = paths(saved(tmp_path, 7))[0]
    assert sorted(file.name for file in path.iterdir()) == [VALUES, TENSORS]
    document = json.loads((path / VALUES).read_text())
    assert document["format"] == FORMAT
    assert document["step"] == 7
    assert document["values"] == {"notes/number": 7, "notes/text": "7", "other/number": -7, "other/text": "-7"}


def test_a_checkpoint_holds_the_state_of_its_moment_however_late_it_is_written(tmp_path: Path) -> None:
    notes, other = Notes(4), Notes(-4)
    taken = snapshot(4, {"notes": notes, "other": other})
    for part in (notes, other):
        part.tensor.fill_(9)
    Checkpoints(tmp_path).write(taken)
    assert restored(Checkpoints(tmp_path)) == (4, [])


def test_tensors_of_every_type_and_form_are_read_by_the_library_and_their_sum_is_the_files(tmp_path: Path) -> None:
    numbers = torch.arange(24).reshape(2, 3, 2, 2)
    tensors = {f"of/{str(kind)[6:]}": numbers.to(kind) for kind in DTYPES}
    tensors |= {"a/number": torch.tensor(2.5), "a/none": torch.zeros(0, 3), 'a/"name" é': torch.ones(1)}
    tensors |= {"a/last": numbers.float().to(memory_format=torch.channels_last), "a/turned": numbers.permute(3, 2, 1, 0)}
    tensors["a/part"] = numbers[:, 1]
    sha256 = write_tensors(tmp_path / "x", tensors)
    assert sha256 == hashlib.sha256((tmp_path / "x").read_bytes()).hexdigest()
    found = load_file(tmp_path / "x")
    assert found.keys() == tensors.keys()
    assert all(found[name].dtype == tensor.dtype and torch.equal(found[name], tensor) for name, tensor in tensors.items())


def flipped(path: Path) -> None:
    data = bytearray((path / TENSORS).read_bytes())
    data[-1] ^= 1
    (path / TENSORS).write_bytes(bytes(data))


def changed(path: Path, **values: Any) -> None:
    (path / VALUES).write_text(json.dumps({**json.loads((path / VALUES).read_text()), **values}))


def emptied(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "torn": lambda path: (path / TENSORS).write_bytes((path / TENSORS).read_bytes()[:-9]),
    "a bit": flipped,
    "no tensors": lambda path: (path / TENSORS).unlink(),
    "another value": lambda path: changed(path, values={"notes/number": 77}),
    "no values": lambda path: (path / VALUES).unlink(),
    "torn values": lambda path: (path / VALUES).write_text((path / VALUES).read_text()[:40]),
    "values of another kind": lambda path: (path / VALUES).write_text("[1, 2]"),
    "no text": lambda path: (path / VALUES).write_bytes(b"\xff\xfe\x00"),
    "empty": emptied,
    "newer": lambda path: changed(path, format=FORMAT + 1),
    "other parts": lambda path: changed(path, parts=["notes"]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_and_named_while_another_is_whole(tmp_path: Path, damage: str) -> None:
    checkpoints = saved(tmp_path, 1, 2, 3)
    DAMAGES[damage](paths(checkpoints)[-1])
    step, problems = restored(checkpoints)
    assert step == 2
    assert len(problems) == 1
    assert "step-00000003" in problems[0]
    assert "\n" not in problems[0]
    for path in paths(checkpoints)[:-1]:
        DAMAGES[damage](path)
    with pytest.raises(DataError, match=r"no checkpoint is whole; the newest: .*step-00000003"):
        checkpoints.restore_newest({"notes": Untouched(), "other": Untouched()})


def test_a_checkpoint_of_other_parts_or_under_another_steps_name_is_passed_over(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1, 2)
    (tmp_path / "step-00000002").rename(tmp_path / "step-00000009")
    step, (problem,) = restored(checkpoints)
    assert step == 1
    assert "was made at step 2" in problem
    Checkpoints(tmp_path).save(3, {"notes": Notes(3)})
    step, problems = restored(checkpoints)
    assert step == 1
    assert "holds other parts" in problems[-1]


def test_a_whole_checkpoint_of_the_same_step_is_left_as_it_is(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1)
    before = (paths(checkpoints)[0] / TENSORS).stat().st_mtime_ns
    saved(tmp_path, 1)
    assert (paths(checkpoints)[0] / TENSORS).stat().st_mtime_ns == before


@contextmanager
def files_of_at_most_a_kilobyte() -> Iterator[None]:
    """What a full disk does, as far as a test may: writing more than that fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def write_too_much(checkpoints: Checkpoints, step: int) -> None:
    """More than the disk takes; that is said, and nothing is left behind."""
    part = Notes(step)
    part.tensor = torch.zeros(64, 64)
    with pytest.raises(FruitganError, match=f"step-0000000{step}: cannot be written") as error, files_of_at_most_a_kilobyte():
        checkpoints.save(step, {"notes": part, "other": part})
    assert error.value.exit_code == 1
    assert list(checkpoints.folder.glob(".*")) == []


def test_a_checkpoint_that_cannot_be_written_leaves_those_before_and_nothing_half(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1, keep=1)
    write_too_much(checkpoints, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert restored(checkpoints) == (1, [])


# Folders that are whole or absent


def test_a_new_folder_gets_its_name_when_it_is_filled(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "down" / "folder"
    with new_folder(target) as folder:
        (folder / "below").mkdir()
        (folder / "below" / "file").write_text("x")
        assert not target.exists()
    assert (target / "below" / "file").read_text() == "x"
    assert [path.name for path in target.parent.iterdir()] == ["folder"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_new_folder_is_absent_when_filling_it_fails(tmp_path: Path, error: type[BaseException]) -> None:
    def fill() -> None:
        with new_folder(tmp_path / "folder") as folder:
            (folder / "file").write_text("x")
            raise error

    with pytest.raises(error):
        fill()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("taken", ["file", "folder", "empty", "file/below"])
def test_a_new_folder_takes_nobodys_place(tmp_path: Path, taken: str) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder" / "mine").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(FruitganError, match=f"{taken}: cannot be written"), new_folder(tmp_path / taken) as folder:
        (folder / "file").write_text("x")
    assert sorted(tmp_path.rglob("*")) == before


def test_saving_takes_its_share_of_the_time_and_else_comes_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock = SaveClock()

    def seconds_until_due() -> float:
        began = now[0]
        while not clock.is_due:
            now[0] += 1
        return now[0] - began

    assert seconds_until_due() == 60
    for took, pause in ((0.5, 60), (1.2, 60), (3.0, 150), (0.1, 60)):
        with clock.saving():
            now[0] += took
        assert seconds_until_due() == pause


# Disks that refuse, fail or lie


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
    saved(tmp_path / "checkpoints", 1, 2, 3, keep=2)
    assert restored(Checkpoints(tmp_path / "checkpoints")) == (3, [])
    assert names(tmp_path / "checkpoints") == [2, 3]


def test_a_file_system_that_opens_no_folders_is_good_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_open = os.open

    def opening(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if Path(path).is_dir() and not Path(path).name.startswith("."):  # a part is locked through its descriptor
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real_open(path, flags, *more, **named)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", opening)
        saved(tmp_path / "checkpoints", 1, 2)
    assert restored(Checkpoints(tmp_path / "checkpoints")) == (2, [])


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_real_trouble_in_bringing_a_folder_to_the_disk_is_told_and_the_checkpoint_before_stays(
    code: int, fsync_of_folders: Callable[[int], None], tmp_path: Path
) -> None:
    saved(tmp_path, 1, keep=1)
    fsync_of_folders(code)
    with pytest.raises(FruitganError, match=rf"step-00000002: cannot be written \({os.strerror(code).lower()}\)"):
        saved(tmp_path, 2, keep=1)
    assert 1 in names(tmp_path)
    assert restored(Checkpoints(tmp_path))[0] in (1, 2)


def test_a_disk_that_does_not_keep_what_is_written_is_told_and_the_checkpoint_before_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path, 1, keep=1)
    write = checkpoint.write_tensors

    def written_otherwise(path: Path, tensors: Any) -> str:
        found = write(path, tensors)
        flipped(path.parent)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_tensors", written_otherwise)
        with pytest.raises(FruitganError, match="was just written: this disk is not to be trusted"):
            saved(tmp_path, 2, keep=1)
    step, told = restored(Checkpoints(tmp_path))
    assert step == 1
    assert len(told) == 1
    assert "step-00000002" in told[0]


@pytest.mark.parametrize("damage", ["a bit", "another value"])
def test_the_only_good_checkpoint_stays_however_few_are_kept(damage: str, tmp_path: Path) -> None:
    saved(tmp_path, 1, 2, 3)
    for step in (2, 3):
        DAMAGES[damage](tmp_path / f"step-0000000{step}")
    assert restored(Checkpoints(tmp_path))[0] == 1
    goes_on = Checkpoints(tmp_path, keep=1)
    restored(goes_on)
    write_too_much(goes_on, 2)
    assert restored(Checkpoints(tmp_path))[0] == 1


def test_damaged_checkpoints_that_the_run_went_back_behind_go_with_the_next_save(tmp_path: Path) -> None:
    saved(tmp_path, 1, 4, 5)
    DAMAGES["another value"](tmp_path / "step-00000004")
    DAMAGES["no tensors"](tmp_path / "step-00000005")
    step, told = restored(Checkpoints(tmp_path, keep=2))
    assert (step, len(told)) == (1, 2)
    assert "no such file" in told[0]
    assert "damaged" in told[1]
    assert names(tmp_path) == [1, 4, 5]
    saved(tmp_path, 2, keep=2)
    assert names(tmp_path) == [1, 2]
    assert restored(Checkpoints(tmp_path)) == (2, [])


def test_what_a_newer_fruitgan_made_is_not_taken_for_damaged(tmp_path: Path) -> None:
    saved(tmp_path, 1, 5)
    newer = tmp_path / "step-00000005"
    DAMAGES["newer"](newer)
    before = {file: file.read_bytes() for file in newer.iterdir()}
    saved(tmp_path, 2, keep=1)
    assert names(tmp_path) == [2, 5]
    assert {file: file.read_bytes() for file in newer.iterdir()} == before
