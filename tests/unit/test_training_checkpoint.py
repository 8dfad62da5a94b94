"""Checkpoints are whole or absent, and what is damaged is passed over and said."""

from __future__ import annotations

import json
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fruitgan.errors import DataError, FruitganError
from fruitgan.files import PART_PREFIX, new_folder
from fruitgan.runs.checkpoint import FORMAT, TENSORS, VALUES, Checkpoints, SaveClock


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


def restored(checkpoints: Checkpoints) -> tuple[int, list[str]]:
    notes, other = Notes(0), Notes(0)
    step, problems = checkpoints.restore_newest({"notes": notes, "other": other})
    assert (notes.number, other.number) == (step, -step)
    assert torch.equal(notes.tensor, torch.full((2, 3), float(step)))
    return step, problems


def test_the_newest_checkpoint_is_restored_to_every_part(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 5, 100, 20)
    assert restored(checkpoints) == (100, [])
    assert [path.name for path in checkpoints.paths()] == ["step-00000005", "step-00000020", "step-00000100"]


def test_without_a_checkpoint_nothing_is_restored_and_training_starts_at_0(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "none").restore_newest({"notes": Untouched()}) == (0, [])


def test_a_checkpoint_is_safetensors_and_json_alone(tmp_path: Path) -> None:
    path = saved(tmp_path, 7).paths()[0]
    assert sorted(file.name for file in path.iterdir()) == [VALUES, TENSORS]
    document = json.loads((path / VALUES).read_text())
    assert document["format"] == FORMAT
    assert document["step"] == 7
    assert document["values"] == {"notes/number": 7, "notes/text": "7", "other/number": -7, "other/text": "-7"}


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1, 2, 3, 4, keep=2)
    assert [path.name for path in checkpoints.paths()] == ["step-00000003", "step-00000004"]


def torn(path: Path) -> None:
    data = (path / TENSORS).read_bytes()
    (path / TENSORS).write_bytes(data[: len(data) // 2])


def flipped(path: Path) -> None:
    data = bytearray((path / TENSORS).read_bytes())
    data[-1] ^= 1
    (path / TENSORS).write_bytes(bytes(data))


def without_tensors(path: Path) -> None:
    (path / TENSORS).unlink()


def without_values(path: Path) -> None:
    (path / VALUES).unlink()


def torn_values(path: Path) -> None:
    (path / VALUES).write_text((path / VALUES).read_text()[:40])


def values_of_another_kind(path: Path) -> None:
    (path / VALUES).write_text("[1, 2]")


def values_that_are_no_text(path: Path) -> None:
    (path / VALUES).write_bytes(b"\xff\xfe\x00")


def empty(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


def of_a_newer_format(path: Path) -> None:
    document = json.loads((path / VALUES).read_text())
    (path / VALUES).write_text(json.dumps({**document, "format": FORMAT + 1}))


def of_other_parts(path: Path) -> None:
    document = json.loads((path / VALUES).read_text())
    (path / VALUES).write_text(json.dumps({**document, "parts": ["notes"]}))


DAMAGES = [
    torn,
    flipped,
    without_tensors,
    without_values,
    torn_values,
    values_of_another_kind,
    values_that_are_no_text,
    empty,
    of_a_newer_format,
    of_other_parts,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_checkpoint_is_passed_over_and_named(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    checkpoints = saved(tmp_path, 1, 2, 3)
    damage(checkpoints.paths()[-1])
    step, problems = restored(checkpoints)
    assert step == 2
    assert len(problems) == 1
    assert "step-00000003" in problems[0]
    assert "\n" not in problems[0]


@pytest.mark.parametrize("damage", DAMAGES)
def test_when_none_is_whole_nothing_is_restored_and_the_newest_is_named(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    checkpoints = saved(tmp_path, 1, 2)
    for path in checkpoints.paths():
        damage(path)
    with pytest.raises(DataError, match=r"no checkpoint is whole; the newest: .*step-00000002"):
        checkpoints.restore_newest({"notes": Untouched(), "other": Untouched()})


def test_a_damaged_checkpoint_is_written_anew_when_its_step_comes_again(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1, 2, keep=1)
    flipped(checkpoints.paths()[0])
    saved(tmp_path, 2, keep=1)
    assert restored(checkpoints) == (2, [])


def test_a_whole_checkpoint_of_the_same_step_is_left_as_it_is(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1)
    before = (checkpoints.paths()[0] / TENSORS).stat().st_mtime_ns
    saved(tmp_path, 1)
    assert (checkpoints.paths()[0] / TENSORS).stat().st_mtime_ns == before


def test_a_checkpoint_still_being_written_when_the_power_went_is_not_seen(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1)
    shutil.copytree(checkpoints.paths()[0], tmp_path / f"{PART_PREFIX}0123.part")
    assert restored(checkpoints) == (1, [])


@contextmanager
def files_of_at_most_a_kilobyte() -> Iterator[None]:
    """What a full disk does, as far as a test may: writing more than that fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class Large(Notes):
    def __init__(self) -> None:
        super().__init__(0)
        self.tensor = torch.zeros(64, 64)


def test_a_checkpoint_that_cannot_be_written_leaves_those_before_and_nothing_half(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1, keep=1)
    with pytest.raises(FruitganError, match="step-00000002: cannot be written") as error, files_of_at_most_a_kilobyte():
        checkpoints.save(2, {"notes": Large(), "other": Large()})
    assert error.value.exit_code == 1
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


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_new_folder_is_absent_when_filling_it_fails(tmp_path: Path, error: type[BaseException]) -> None:
    def fill() -> None:
        with new_folder(tmp_path / "folder") as folder:
            (folder / "file").write_text("x")
            raise error

    with pytest.raises(error):
        fill()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("what", ["a file", "a folder", "an empty folder"])
def test_a_new_folder_takes_nobodys_place(tmp_path: Path, what: str) -> None:
    target = tmp_path / "taken"
    if what == "a file":
        target.write_text("mine")
    else:
        target.mkdir()
        if what == "a folder":
            (target / "mine").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(FruitganError, match=r"taken: cannot be written"), new_folder(target) as folder:
        (folder / "file").write_text("x")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_new_folder_where_none_can_be_is_a_users_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(FruitganError, match="cannot be written"), new_folder(tmp_path / "file" / "folder"):
        pass


def test_a_tensor_that_needs_gradients_or_is_a_view_is_kept_as_it_looks(tmp_path: Path) -> None:
    class View:
        tensor: Tensor = torch.arange(12.0).view(3, 4).t().requires_grad_()

        def state(self) -> dict[str, Any]:
            return {"view": self.tensor}

        def restore(self, state: dict[str, Any]) -> None:
            self.tensor = state["view"]

    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"view": View()})
    found = View()
    checkpoints.restore_newest({"view": found})
    assert torch.equal(found.tensor, View.tensor)
    assert not found.tensor.requires_grad


def test_a_damaged_later_checkpoint_never_crowds_out_a_whole_one(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 500, 1000, keep=2)
    (tmp_path / "step-00001000" / TENSORS).write_bytes(b"damaged")
    checkpoints.keep = 1
    assert restored(checkpoints)[0] == 500
    saved(tmp_path, 750, keep=1)
    assert restored(checkpoints)[0] == 750


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


def test_a_part_of_an_older_checkpoint_is_restored_under_its_name_now(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, former={"former": "now"})
    checkpoints.save(3, {"former": Notes(3)}, {"seconds": 1.5})
    notes = Notes(0)
    assert checkpoints.restore_newest({"now": notes}) == (3, [])
    assert notes.number == 3
    assert (checkpoints.about(3), checkpoints.about(0)) == ({"seconds": 1.5}, {})
    with pytest.raises(DataError, match="holds other parts"):
        Checkpoints(tmp_path).restore_newest({"now": notes})
