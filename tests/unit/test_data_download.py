"""Fetching: resumed, checked, unpacked whole or not at all; every test's server is this process, on loopback."""

from __future__ import annotations

import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from fruitgan.data import download
from fruitgan.data.download import RemoteFile, fetch, fetch_file, unzip
from fruitgan.data.named import ArchivedSet
from fruitgan.errors import DataError, FruitganError, UsageError
from fruitgan.progress import Event, Progress


@dataclass
class Server:
    """Serves one file under every name, and can misbehave."""

    data: bytes = b""
    cuts: list[int] = field(default_factory=list)
    """After how many bytes the next connections break."""
    takes_ranges: bool = True
    status: int | None = None
    redirect: str | None = None
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """The paths and Range headers of all requests."""
    address: str = ""


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.asked.append((self.path, wanted))
            if state.status or state.redirect:
                self.send_response(state.status or 302)
                if state.redirect:
                    self.send_header("Location", state.redirect)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and state.takes_ranges else 0
            if start >= len(state.data) > 0:
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(state.data) - 1}/{len(state.data)}")
            body = state.data[start:]
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: state.cuts.pop(0)] if state.cuts else body)
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.address = f"http://127.0.0.1:{http.server_port}"
    yield state
    http.shutdown()
    thread.join()
    http.server_close()


def zipped(files: dict[str, bytes], root: str = "tiny") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in files.items():
            archive.writestr(f"{root}/{name}" if root else name, data)
    return file.getvalue()


FILES = {
    f"{split}/{number}.jpg": f"GIF89a {split} {number}".encode() * 50 for split in ("trainA", "trainB") for number in range(20)
}
ZIP = zipped(FILES)


def archive_of(data: bytes, address: str = "https://example.invalid/tiny.zip") -> RemoteFile:
    return RemoteFile(name="tiny.zip", address=address, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FRUITGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "CHUNK_BYTES", 100)
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0.0)  # no pauses between attempts
    return tmp_path / "cache"


@pytest.fixture
def mirror(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    server.data = ZIP
    monkeypatch.setenv("FRUITGAN_MIRROR", server.address + "/sets/")
    return server


def in_cache(cache: Path) -> list[str]:
    return sorted(path.relative_to(cache).as_posix() for path in cache.rglob("*") if path.is_file())


def unpacked() -> list[str]:
    return sorted(f"datasets/tiny/{name}" for name in FILES)


def test_an_archive_is_fetched_once_and_unpacked_whole(mirror: Server, cache: Path) -> None:
    seen: list[Any] = []
    folder = fetch(archive_of(ZIP), seen.append)
    assert folder == cache / "datasets" / "tiny"
    assert in_cache(cache) == unpacked()
    assert (folder / "trainA" / "3.jpg").read_bytes() == FILES["trainA/3.jpg"]
    assert Progress("tiny.zip", len(ZIP), len(ZIP)) in seen
    assert seen[-1] == Progress("unpacking tiny", 40, 40)
    assert fetch(archive_of(ZIP)) == folder
    assert mirror.asked == [("/sets/tiny.zip", None)]


def test_a_broken_connection_is_resumed_where_it_broke(mirror: Server, cache: Path) -> None:
    mirror.cuts = [1000, 700]
    fetch(archive_of(ZIP))
    assert [wanted for _, wanted in mirror.asked] == [None, "bytes=1000-", "bytes=1700-"]
    assert in_cache(cache) == unpacked()


def test_a_download_that_was_given_up_is_resumed_by_the_next_run(mirror: Server, cache: Path) -> None:
    mirror.cuts = [1000, 0, 0, 0]
    with pytest.raises(DataError, match=r"cannot be downloaded .*try again, or put tiny\.zip"):
        fetch(archive_of(ZIP))
    assert in_cache(cache) == ["downloads/tiny.zip.part"]
    assert (cache / "downloads" / "tiny.zip.part").stat().st_size == 1000
    mirror.asked.clear()
    fetch(archive_of(ZIP))
    assert [wanted for _, wanted in mirror.asked] == ["bytes=1000-"]
    assert in_cache(cache) == unpacked()


def test_a_server_without_ranges_is_asked_for_the_whole_again(mirror: Server, cache: Path) -> None:
    mirror.takes_ranges = False
    mirror.cuts = [1000]
    fetch(archive_of(ZIP))
    assert in_cache(cache) == unpacked()


@pytest.mark.parametrize("begun", [b"another file's beginning", ZIP[:-1] + b"?", b"x" * (len(ZIP) + 10)])
def test_a_stale_beginning_is_thrown_away(begun: bytes, mirror: Server, cache: Path) -> None:
    (cache / "downloads").mkdir(parents=True)
    (cache / "downloads" / "tiny.zip.part").write_bytes(begun)
    fetch(archive_of(ZIP))
    assert in_cache(cache) == unpacked()


@pytest.mark.parametrize("served", [b"?" * len(ZIP), ZIP[:-100], ZIP + b"more", b"sorry"])
def test_a_wrong_sum_leaves_nothing(served: bytes, mirror: Server, cache: Path) -> None:
    mirror.data = served
    with pytest.raises(DataError, match=r"another sha256.*put tiny\.zip \([0-9,]+ bytes, sha256 [0-9a-f]{64}\)"):
        fetch(archive_of(ZIP))
    assert in_cache(cache) == []


@pytest.mark.parametrize("status", [404, 500])
def test_a_refusal_is_named(status: int, mirror: Server, cache: Path) -> None:
    mirror.status = status
    with pytest.raises(DataError, match=rf"tiny\.zip: cannot be downloaded \({status}"):
        fetch(archive_of(ZIP))
    assert in_cache(cache) == []


def test_a_server_that_is_not_there_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRUITGAN_MIRROR", "http://127.0.0.1:9")
    with pytest.raises(DataError, match="the connection failed"):
        fetch(archive_of(ZIP))


@pytest.mark.parametrize("address", ["http://example.invalid", "ftp://127.0.0.1", "file:///etc", "nonsense"])
def test_only_https_and_loopback_are_asked(address: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRUITGAN_MIRROR", address)
    with pytest.raises(UsageError, match="https alone"):
        fetch(archive_of(ZIP))


def test_offline_names_file_address_sum_and_place(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRUITGAN_OFFLINE", "1")
    with pytest.raises(DataError) as raised:
        fetch(archive_of(ZIP))
    message = str(raised.value)
    for part in (
        "tiny.zip",
        "https://example.invalid/tiny.zip",
        hashlib.sha256(ZIP).hexdigest(),
        str(cache / "downloads"),
        "FRUITGAN_OFFLINE",
    ):
        assert part in message
    assert raised.value.exit_code == 3


def test_a_zip_put_there_by_hand_is_used_and_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRUITGAN_OFFLINE", "1")
    (cache / "downloads").mkdir(parents=True)
    (cache / "downloads" / "tiny.zip").write_bytes(ZIP)
    fetch(archive_of(ZIP))
    assert in_cache(cache) == sorted([*unpacked(), "downloads/tiny.zip"])


def test_a_cache_that_cannot_be_made_is_named(tmp_path: Path, mirror: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FRUITGAN_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(FruitganError, match="cannot be written"):
        fetch(archive_of(ZIP))


def test_an_interrupted_unpacking_leaves_no_folder(mirror: Server, cache: Path) -> None:
    def stop(event: Event) -> None:
        if event == Progress("unpacking tiny", 5, 40):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(archive_of(ZIP), stop)
    assert not list((cache / "datasets").iterdir())
    fetch(archive_of(ZIP))
    assert [path for path in in_cache(cache) if path.startswith("datasets")] == unpacked()


def test_a_named_set_becomes_a_source(mirror: Server, cache: Path) -> None:
    dataset = ArchivedSet("tiny", ("pear", "plum"), "tiny fruit", len(ZIP), hashlib.sha256(ZIP).hexdigest())
    assert not dataset.is_present()
    source = dataset.source()
    assert dataset.is_present()
    assert (source.name, source.a.name, source.b.name) == ("tiny", "pear", "plum")
    assert len(source.a.train) + len(source.a.test) == 20


def unpack(tmp_path: Path, data: bytes) -> Path:
    (tmp_path / "bad.zip").write_bytes(data)
    (tmp_path / "out").mkdir()
    unzip(tmp_path / "bad.zip", "tiny", tmp_path / "out")
    return tmp_path / "out"


def test_what_is_no_image_is_left_in_the_zip(tmp_path: Path) -> None:
    out = unpack(
        tmp_path, zipped({"tiny/trainA/a.jpg": b"1", "tiny/run.sh": b"2", "__MACOSX/tiny/b.jpg": b"3", "c.jpg": b"4"}, root="")
    )
    assert [path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()] == ["trainA/a.jpg"]


@pytest.mark.parametrize(
    "data",
    [b"no zip at all", ZIP[:-50], zipped({"a.jpg": b"1"}, root="other"), zipped({"trainA/a.txt": b"1"})],
)
def test_what_cannot_be_unpacked_is_named(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"bad\.zip: (cannot be unpacked|holds no images in a folder tiny)"):
        unpack(tmp_path, data)


def test_damaged_content_is_named(tmp_path: Path) -> None:
    data = zipped({"trainA/a.jpg": b"abcdefgh" * 10}).replace(b"abcdefgh" * 10, b"abcdefgh" * 9 + b"abcdefgX")
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack(tmp_path, data)


def file_of(data: bytes) -> RemoteFile:
    return RemoteFile(
        name="weights.pth", address="https://example.invalid/x", size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest()
    )


def test_a_single_file_is_fetched_once_under_its_own_name_and_kept(mirror: Server, cache: Path) -> None:
    mirror.data = b"tensors" * 100
    path = fetch_file(file_of(mirror.data))
    assert path == cache / "downloads" / "weights.pth"
    assert path.read_bytes() == mirror.data
    assert fetch_file(file_of(mirror.data)) == path
    assert mirror.asked == [("/sets/weights.pth", None)]


def test_a_single_file_of_another_sum_is_refused_whoever_put_it_there(mirror: Server, cache: Path) -> None:
    mirror.data = b"other"
    with pytest.raises(DataError, match="another sha256"):
        fetch_file(file_of(b"right"))
    assert in_cache(cache) == []
    (cache / "downloads").mkdir(exist_ok=True)
    (cache / "downloads" / "weights.pth").write_bytes(b"wrong")
    with pytest.raises(DataError, match="its sha256 is"):
        fetch_file(file_of(b"right"))
