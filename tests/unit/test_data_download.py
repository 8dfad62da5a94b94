"""Fetching: resumed, checked, unpacked whole or not at all; every test's server is this process, on loopback."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from loopback_server import Server, file_of, raw, remote, serving, zipped

from fruitgan.data import download
from fruitgan.data.download import fetch, fetch_file
from fruitgan.errors import DataError, FruitganError, UsageError
from fruitgan.progress import Event, Progress

FILES = {
    f"{split}/{number}.jpg": f"GIF89a {split} {number}".encode() * 50 for split in ("trainA", "trainB") for number in range(20)
}
ZIP = zipped(*((f"tiny/{name}", data) for name, data in FILES.items()), method=zipfile.ZIP_STORED)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FRUITGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "CHUNK_BYTES", 100)
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0.0)  # no pauses between attempts
    return tmp_path / "cache"


@pytest.fixture
def mirror(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serving() as server:
        server.answers = [file_of(ZIP)]
        monkeypatch.setenv("FRUITGAN_MIRROR", server.address + "/sets/")
        yield server


def in_cache(cache: Path) -> list[str]:
    return sorted(path.relative_to(cache).as_posix() for path in cache.rglob("*") if path.is_file())


def unpacked() -> list[str]:
    return sorted(f"datasets/tiny/{name}" for name in FILES)


def test_an_archive_is_fetched_once_and_unpacked_whole(mirror: Server, cache: Path) -> None:
    seen: list[Any] = []
    folder = fetch(remote(ZIP), seen.append)
    assert folder == cache / "datasets" / "tiny"
    assert in_cache(cache) == unpacked()
    assert (folder / "trainA" / "3.jpg").read_bytes() == FILES["trainA/3.jpg"]
    assert Progress("tiny.zip", len(ZIP), len(ZIP)) in seen
    assert seen[-1] == Progress("unpacking tiny", 40, 40)
    assert fetch(remote(ZIP)) == folder
    assert mirror.asked == [("/sets/tiny.zip", None)]


def test_of_several_at_once_one_downloads_and_the_others_wait(
    mirror: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "WAIT_SECONDS", 0.001)
    seen: list[Any] = []
    with ThreadPoolExecutor(4) as pool:  # a lock is an open file's, not a process'
        folders = list(pool.map(lambda _: fetch(remote(ZIP), seen.append), range(4)))
    assert folders == [cache / "datasets" / "tiny"] * 4
    assert mirror.asked == [("/sets/tiny.zip", None)]
    assert in_cache(cache) == unpacked()


def test_a_broken_connection_is_resumed_where_it_broke(mirror: Server, cache: Path) -> None:
    mirror.answers = [file_of(ZIP, 1000), file_of(ZIP, 700), file_of(ZIP)]
    fetch(remote(ZIP))
    assert [wanted for _, wanted in mirror.asked] == [None, "bytes=1000-", "bytes=1700-"]
    assert in_cache(cache) == unpacked()
    shutil.rmtree(cache)
    mirror.answers = [file_of(ZIP, 1000), file_of(ZIP, takes_ranges=False)]  # then the whole is asked for again
    fetch(remote(ZIP))
    assert in_cache(cache) == unpacked()


def test_a_download_that_was_given_up_is_resumed_by_the_next_run(mirror: Server, cache: Path) -> None:
    mirror.answers = [file_of(ZIP, 1000), *[file_of(ZIP, 0)] * 3, file_of(ZIP)]
    with pytest.raises(DataError, match=r"cannot be downloaded .*try again, or put tiny\.zip"):
        fetch(remote(ZIP))
    assert in_cache(cache) == ["downloads/tiny.zip.part"]
    assert (cache / "downloads" / "tiny.zip.part").stat().st_size == 1000
    mirror.asked.clear()
    fetch(remote(ZIP))
    assert [wanted for _, wanted in mirror.asked] == ["bytes=1000-"]
    assert in_cache(cache) == unpacked()


@pytest.mark.parametrize("begun", [b"another file's beginning", ZIP[:-1] + b"?", b"x" * (len(ZIP) + 10)])
def test_a_stale_beginning_is_thrown_away(begun: bytes, mirror: Server, cache: Path) -> None:
    (cache / "downloads").mkdir(parents=True)
    (cache / "downloads" / "tiny.zip.part").write_bytes(begun)
    fetch(remote(ZIP))
    assert in_cache(cache) == unpacked()


@pytest.mark.parametrize("served", [b"?" * len(ZIP), ZIP[:-100], ZIP + b"more", b"sorry"])
def test_a_wrong_sum_leaves_nothing(served: bytes, mirror: Server, cache: Path) -> None:
    mirror.answers = [file_of(served)]
    with pytest.raises(DataError, match=r"another sha256.*put tiny\.zip \([0-9,]+ bytes, sha256 [0-9a-f]{64}\)"):
        fetch(remote(ZIP))
    assert in_cache(cache) == []


@pytest.mark.parametrize("status", [404, 500])
def test_a_refusal_is_named(status: int, mirror: Server, cache: Path) -> None:
    mirror.answers = [raw(f"HTTP/1.1 {status} No\nContent-Length: 0")]
    with pytest.raises(DataError, match=rf"tiny\.zip: cannot be downloaded \({status}"):
        fetch(remote(ZIP))
    assert in_cache(cache) == []


def test_a_server_that_is_not_there_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRUITGAN_MIRROR", "http://127.0.0.1:9")
    with pytest.raises(DataError, match="the connection failed"):
        fetch(remote(ZIP))


@pytest.mark.parametrize("address", ["http://example.invalid", "ftp://127.0.0.1", "file:///etc", "nonsense"])
def test_only_https_and_loopback_are_asked(address: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRUITGAN_MIRROR", address)
    with pytest.raises(UsageError, match="https alone"):
        fetch(remote(ZIP))


def test_offline_names_file_address_sum_and_place(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRUITGAN_OFFLINE", "1")
    with pytest.raises(DataError) as raised:
        fetch(remote(ZIP))
    named = (remote(ZIP).address, remote(ZIP).sha256, str(cache / "downloads"), "FRUITGAN_OFFLINE")
    assert all(part in str(raised.value) for part in named)
    assert raised.value.exit_code == 3


def test_a_cache_that_cannot_be_made_is_named(tmp_path: Path, mirror: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FRUITGAN_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(FruitganError, match="cannot be written"):
        fetch(remote(ZIP))


def test_an_interrupted_unpacking_leaves_no_folder(mirror: Server, cache: Path) -> None:
    def stop(event: Event) -> None:
        if event == Progress("unpacking tiny", 5, 40):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(remote(ZIP), stop)
    assert not list((cache / "datasets").iterdir())
    fetch(remote(ZIP))
    assert [path for path in in_cache(cache) if path.startswith("datasets")] == unpacked()


def test_a_single_file_is_fetched_once_kept_and_refused_with_another_sum_whoever_put_it_there(
    mirror: Server, cache: Path
) -> None:
    data = b"tensors" * 100
    mirror.answers = [file_of(b"foreign" * 100), file_of(data)]
    with pytest.raises(DataError, match="another sha256"):
        fetch_file(remote(data, "weights.pth"))
    assert in_cache(cache) == []
    path = fetch_file(remote(data, "weights.pth"))
    assert path == cache / "downloads" / "weights.pth"
    assert path.read_bytes() == data
    assert fetch_file(remote(data, "weights.pth")) == path
    assert mirror.asked == [("/sets/weights.pth", None)] * 2
    path.write_bytes(b"wrong")
    with pytest.raises(DataError, match="its sha256 is"):
        fetch_file(remote(data, "weights.pth"))
