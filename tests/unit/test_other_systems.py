"""What Windows and macOS lack or do otherwise, played here by taking it away."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fruitgan import files, locks, machine
from fruitgan.addresses import place_of
from fruitgan.console.signals import polite_stop
from fruitgan.data import sources
from fruitgan.errors import DataError, FruitganError
from fruitgan.runs.run import RunInUse, holder, locked


class Windows:
    """Its locks, of a byte of a file by a descriptor; folders and read-only files cannot be opened for writing."""

    LK_NBLCK = 2

    def __init__(self) -> None:
        self.held: dict[tuple[int, int], int] = {}
        self.open = os.open

    def locking(self, descriptor: int, mode: int, size: int) -> None:
        assert (mode, size) == (self.LK_NBLCK, 1)
        place = (os.fstat(descriptor).st_ino, os.lseek(descriptor, 0, os.SEEK_CUR))
        if self.held.setdefault(place, descriptor) != descriptor:
            raise PermissionError(errno.EACCES, "Permission denied")

    def opened(self, path: Any, flags: int, *mode: int) -> int:
        if Path(path).is_dir():
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return self.open(path, flags, *mode)


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> Windows:
    system = Windows()
    monkeypatch.setattr(locks, "fcntl", None)
    monkeypatch.setattr(locks, "msvcrt", system)
    monkeypatch.setattr(os, "open", system.opened)
    monkeypatch.delattr(os, "pread", raising=False)
    monkeypatch.setattr(shutil, "_use_fd_functions", False)
    return system


def test_a_lock_of_windows_is_on_a_byte_that_nobody_reads(windows: Windows, tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("content")
    one, other = (os.open(tmp_path / "lock", os.O_RDWR) for _ in range(2))
    assert locks.try_lock(one) is True
    assert locks.try_lock(other) is False
    assert next(iter(windows.held))[1] > 1 << 29
    assert os.read(one, 100) == os.read(other, 100) == b"content"
    os.close(one)
    os.close(other)


def test_a_run_folder_is_locked_there_too(windows: Windows, tmp_path: Path) -> None:
    with locked(tmp_path) as is_locked:
        assert is_locked
        assert holder(tmp_path) == f"process {os.getpid()}"
        with pytest.raises(RunInUse), locked(tmp_path):
            pass
    windows.held.clear()  # closing a file does it there
    with locked(tmp_path) as is_locked:
        assert is_locked


def test_a_file_is_closed_before_it_gets_its_name(windows: Windows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    fsync, replace = os.fsync, Path.replace

    def replaced(part: Path, place: Path) -> Path:
        with pytest.raises(OSError, match="descriptor"):
            os.fstat(synced[0])
        return replace(part, place)

    monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.append(descriptor), fsync(descriptor))[1])
    monkeypatch.setattr(Path, "replace", replaced)
    files.write_atomically(tmp_path / "new" / "file", b"content")
    assert [path.read_bytes() for path in (tmp_path / "new").iterdir()] == [b"content"]


def test_folders_appear_whole_where_they_cannot_be_opened(
    windows: Windows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags: list[int] = []
    monkeypatch.setattr(os, "open", lambda path, given, *mode: (flags.append(given), windows.opened(path, given, *mode))[1])
    with files.new_folder(tmp_path / "made") as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "file").write_bytes(b"content")
    assert (tmp_path / "made" / "inner" / "file").read_bytes() == b"content"
    assert os.O_RDWR in flags  # only what may be written to can be brought to the disk there

    def denied(path: Any, given: int, *mode: int) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", denied)
    files._to_disk(tmp_path / "made" / "inner" / "file")  # a read-only file, of which nobody can do more
    monkeypatch.setattr(os, "open", windows.opened)

    def failing(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(FruitganError, match="input/output"), files.new_folder(tmp_path / "other") as folder:
        (folder / "file").write_bytes(b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_without_locks_of_folders_age_tells_what_is_abandoned(windows: Windows, tmp_path: Path) -> None:
    young, old = (tmp_path / f"{files.PART_PREFIX}{name}{files.PART_SUFFIX}" for name in ("young", "old"))
    for part in (young, old):
        part.mkdir()
    before = time.time() - 2 * files.LONGEST_WRITING_SECONDS
    os.utime(old, (before, before))
    assert files.remove_abandoned(tmp_path) == [old]
    assert young.is_dir()


def test_memory_and_the_processor_are_known_or_guessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(path: Path, *_: Any, **__: Any) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", absent)  # no /proc, no /sys
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1 << 21}.__getitem__, raising=False)
    assert machine._memory_bytes() == (8 << 30, 4 << 30)  # macOS
    monkeypatch.delattr(os, "sysconf")
    assert machine._memory_bytes() == (None, 4 << 30)  # Windows
    monkeypatch.setattr(machine.platform, "processor", lambda: "AMD64 Family 25")
    assert machine.cpu_name() == "AMD64 Family 25"
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert machine.cores() == os.cpu_count()


def test_a_gpu_is_looked_for_where_the_system_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "sys", SimpleNamespace(platform="darwin"))
    for processor, has in (("arm64", True), ("x86_64", False)):
        monkeypatch.setattr(machine.platform, "machine", lambda processor=processor: processor)
        assert machine.may_have_gpu() is has
    monkeypatch.setattr(machine, "sys", SimpleNamespace(platform="win32"))
    monkeypatch.setenv("SYSTEMROOT", str(tmp_path))
    assert not machine.may_have_gpu()
    (tmp_path / "System32").mkdir()
    (tmp_path / "System32" / "nvcuda.dll").touch()
    assert machine.may_have_gpu()


@pytest.mark.skipif(sys.platform == "win32", reason="there it is so anyway")
def test_a_system_without_sigusr1_is_asked_to_stop_by_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(signal, "SIGUSR1")
    before = signal.getsignal(signal.SIGTERM)
    with polite_stop(str) as stop:
        assert signal.getsignal(signal.SIGTERM) == stop.asked
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_drive_letter_begins_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(place_of(r"C:\pictures"), Path)
    assert isinstance(place_of("C://pictures"), Path)
    assert not isinstance(place_of("s3://pictures"), Path)
    monkeypatch.setattr(os, "sep", "\\")
    with pytest.raises(DataError, match="no such folder"):  # and no unknown name
        sources.find_source(r"C:\pictures")
