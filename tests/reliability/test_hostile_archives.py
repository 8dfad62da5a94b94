"""Archives and servers of strangers: what is unpacked is what was meant, or nothing is; no server fills disk or memory."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import struct
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
from hostile import examples
from hypothesis import given
from hypothesis import strategies as st
from loopback_server import Answer, Server, raw, remote, serving, zipped

from fruitgan.data import download
from fruitgan.data.download import fetch, unzip
from fruitgan.errors import DataError

GOOD = zipped(
    ("tiny/", b""),
    ("tiny/trainA/0.jpg", b"apple " * 40),
    ("tiny/trainA/1.jpg", bytes(range(256))),
    ("tiny/trainB/0.jpg", b"orange " * 40),
    ("tiny/readme.txt", b"text"),
    ("__MACOSX/tiny/b.jpg", b"3"),
)


def unpack(folder: Path, data: bytes) -> Path:
    """Unpack into `folder`/out, which only `fetch` would remove."""
    (folder / "bad.zip").write_bytes(data)
    (folder / "out").mkdir()
    unzip(folder / "bad.zip", "tiny", folder / "out")
    return folder / "out"


def test_the_good_archive_is_unpacked(tmp_path: Path) -> None:
    out = unpack(tmp_path, GOOD)
    names = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    assert names == ["trainA/0.jpg", "trainA/1.jpg", "trainB/0.jpg"]
    assert (out / "trainA" / "0.jpg").read_bytes() == b"apple " * 40


@pytest.mark.parametrize(
    "name",
    [
        *("tiny/../../evil.jpg", "../tiny/evil.jpg", "/tiny/trainA/evil.jpg", "//server/share/evil.jpg"),
        *("C:\\evil.jpg", "C:/tiny/evil.jpg", "tiny/trainA/evil.jpg:stream.jpg", "tiny\\..\\..\\evil.jpg"),
    ],
)
def test_an_entry_whose_name_is_a_trap_is_refused_before_anything_is_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="leaves the folder") as raised:
        unpack(tmp_path, zipped(("tiny/trainA/fine.jpg", b"fine"), (name, b"evil")))
    assert len(str(raised.value).splitlines()) == 1
    assert len(str(raised.value)) < 400 + len(str(tmp_path))
    assert not list((tmp_path / "out").iterdir())
    assert not [path for path in tmp_path.rglob("*") if "evil" in path.name]


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
@pytest.mark.parametrize("name", ["tiny/trainA/x.jpg", "tiny/trainA", "elsewhere/link"])
def test_links_and_devices_are_refused_wherever_they_stand(kind: int, name: str, tmp_path: Path) -> None:
    link = zipfile.ZipInfo(name)
    link.external_attr = (kind | 0o777) << 16
    with pytest.raises(DataError, match="is a link or device"):
        unpack(tmp_path, zipped(("tiny/trainA/fine.jpg", b"fine"), (link, b"/etc/passwd")))
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, 9, 93, 97, 1])
def test_rare_ways_of_packing_are_refused(method: int, tmp_path: Path) -> None:
    usual = method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    data = bytearray(zipped(("tiny/trainA/x.jpg", b"x" * 100), method=method if usual else zipfile.ZIP_STORED))
    at = data.index(b"PK\x01\x02") + 10
    data[at : at + 2] = struct.pack("<H", method)
    with pytest.raises(DataError, match="packed in a way"):
        unpack(tmp_path, bytes(data))


def bomb(stated: int) -> bytes:
    """Forty megabytes of nothing in forty kilobytes, which state another size."""
    data = bytearray(zipped(("tiny/trainA/x.jpg", b"\0" * 40_000_000)))
    for magic, place in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = data.index(magic) + place
        data[at : at + 4] = struct.pack("<I", stated)
    return bytes(data)


@pytest.mark.parametrize("stated", [0, 1, 100_000])
def test_a_bomb_that_understates_itself_writes_no_more_than_it_states(stated: int, tmp_path: Path) -> None:
    data = bomb(stated)
    tracemalloc.start()
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack(tmp_path, data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20
    assert sum(path.stat().st_size for path in (tmp_path / "out").rglob("*.jpg")) <= stated


def test_entries_that_share_their_bytes_count_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the overlapping zip bombs of Fifield 2019: one kernel, and a directory that names it many times."""
    monkeypatch.setattr("fruitgan.data.download.SMALL_BYTES", 1_000_000)
    one = zipped(("tiny/trainA/0000.jpg", b"\0" * 100_000))
    start = one.index(b"PK\x01\x02")
    end = one.index(b"PK\x05\x06")
    listed = b"".join(one[start:end].replace(b"0000.jpg", f"{number:04}.jpg".encode()) for number in range(1000))
    tail = bytearray(one[end:])
    tail[8:12] = struct.pack("<HH", 1000, 1000)
    tail[12:16] = struct.pack("<I", len(listed))
    with pytest.raises(DataError, match="unpacks to more than images can be"):
        unpack(tmp_path, one[:start] + listed + bytes(tail))
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK",
        b"PK\x05\x06" + b"\xff" * 18,
        b"PK\x05\x06" + bytes(18),
        GOOD[:-1],
        GOOD[100:],
        GOOD.replace(b"PK\x03\x04", b"PK\x03\x05"),
        GOOD.replace(b"PK\x01\x02", b"PK\x01\x03"),
        zipped(("other/a.jpg", b"1"), ("tiny/trainA/a.txt", b"1")),
        zipped(("tiny/a.jpg", b"abcdefgh" * 10), method=zipfile.ZIP_STORED).replace(b"abcdefgh" * 10, b"abcdefgX" * 10),
    ],
)
def test_a_broken_archive_is_one_line(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(DataError) as raised:
        unpack(tmp_path, data)
    assert len(str(raised.value).splitlines()) == 1


@examples(100)
@given(st.data())
def test_any_spoilt_archive_is_unpacked_in_its_own_folder_or_refused_in_one_line(
    hostile: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("zip")
    place = folder / "case"
    place.mkdir()
    try:
        spoilt = bytes(hostile.bytes(data.draw, GOOD))
        said = "unpacked"
        with hostile.little_memory():
            try:
                unpack(place, spoilt)
            except DataError as error:
                said = str(error)
        assert len(said.splitlines()) == 1
        assert {path.name for path in place.iterdir()} <= {"bad.zip", "out"}
        assert all(path.is_dir() or stat.S_ISREG(path.lstat().st_mode) for path in (place / "out").rglob("*"))
        assert sum(path.lstat().st_size for path in (place / "out").rglob("*.*")) < 1_000_000
    finally:
        shutil.rmtree(place)
    assert not list(folder.iterdir())


# Servers


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("FRUITGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0.0)  # no pauses between attempts
    with serving() as state:
        monkeypatch.setenv("FRUITGAN_MIRROR", state.address)
        yield state


def left_in(cache: Path) -> list[str]:
    return sorted(path.relative_to(cache).as_posix() for path in cache.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "target",
    [
        "http://example.invalid/tiny.zip",
        "//example.invalid/tiny.zip",
        "ftp://example.invalid/tiny.zip",
        "file:///etc/passwd",
        "http://[::1",
        "http://127.0.0.1@example.invalid/",
        "javascript:alert(1)",
        "http://127.0.0.1.example.invalid/",
    ],
)
def test_a_redirect_to_anything_but_https_is_never_followed(target: str, server: Server, tmp_path: Path) -> None:
    server.answers = [raw(f"HTTP/1.1 302 Found\nLocation: {target}\nContent-Length: 0")]
    with pytest.raises(DataError, match="cannot be downloaded"):
        fetch(remote(GOOD))
    assert server.asked == [("/tiny.zip", None)]
    assert left_in(tmp_path / "cache") == []


def test_a_strangers_server_cannot_lead_to_what_listens_here(server: Server) -> None:
    for address in ("https://example.org/a.zip", "http://localhost:1/a.zip"):
        with download._session(address) as session, pytest.raises(requests.exceptions.InvalidSchema):
            session.get(server.address)
    assert server.asked == []


def test_a_mirror_on_this_machine_may_lead_on_within_it(server: Server, tmp_path: Path) -> None:
    server.answers = [
        raw("HTTP/1.1 302 Found\nLocation: /other/tiny.zip\nContent-Length: 0"),
        raw(f"HTTP/1.1 200 OK\nContent-Length: {len(GOOD)}", GOOD),
    ]
    fetch(remote(GOOD))
    assert server.asked == [("/tiny.zip", None), ("/other/tiny.zip", None)]
    assert left_in(tmp_path / "cache")[0] == "datasets/tiny/trainA/0.jpg"


def test_redirects_without_end_are_given_up(server: Server) -> None:
    server.answers = [raw("HTTP/1.1 301 Moved\nLocation: /tiny.zip\nContent-Length: 0")]
    with pytest.raises(DataError, match="Exceeded 5 redirects"):
        fetch(remote(GOOD))
    assert len(server.asked) == 1 + download.MOST_REDIRECTS


def endless(head: str, piece: bytes) -> Answer:
    """An answer that goes on until the client hangs up, or has had far too much."""

    def answer(connection: socket.socket, _: str) -> None:
        connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n")
        for _ in range(200 * (1 << 20) // len(piece)):
            connection.sendall(piece)

    return answer


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        ("HTTP/1.1 200 OK", b"x" * 65536),
        ("HTTP/1.1 200 OK\nContent-Length: 999999999999", b"x" * 65536),
        ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", b"10000\r\n" + b"x" * 65536 + b"\r\n"),
        ("HTTP/1.1 302 Found\nLocation: http://example.invalid/", b"x" * 65536),
        ("HTTP/1.1 500 No", b"x" * 65536),
        ("HTTP/1.1 200 OK\nContent-Encoding: gzip", b"x" * 65536),
        ("HTTP/1.1 200 OK\nX: ", b"x" * 65536),
    ],
)
def test_an_answer_without_end_fills_neither_disk_nor_memory(head: str, piece: bytes, server: Server, tmp_path: Path) -> None:
    server.answers = [endless(head, piece)]
    tracemalloc.start()
    with pytest.raises(DataError) as raised:
        fetch(remote(GOOD))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20
    assert len(str(raised.value).splitlines()) == 1
    assert not [name for name in left_in(tmp_path / "cache") if not name.endswith(".part")]
    assert sum((tmp_path / "cache" / name).stat().st_size for name in left_in(tmp_path / "cache")) <= len(GOOD) + 1


@pytest.mark.parametrize(
    "answer",
    [
        raw(f"HTTP/1.1 200 OK\nContent-Length: {len(GOOD) - 5}", GOOD),
        raw(f"HTTP/1.1 200 OK\nContent-Length: {len(GOOD) + 5}", GOOD + b"12345"),
        raw("HTTP/1.1 200 OK\nContent-Length: 0"),
        raw(f"HTTP/1.1 200 OK\nContent-Length: {len(GOOD)}", GOOD[::-1]),
        raw("HTTP/1.1 200 OK\nContent-Length: 5\nContent-Length: 6", b"12345"),
        raw("HTTP/1.1 200 OK\nContent-Length: many", b"12345"),
        raw("HTTP/1.1 200 OK\nContent-Length: -5", b"12345"),
        raw("HTTP/1.1 206 Partial\nContent-Range: bytes 7-9/10\nContent-Length: 3", b"123"),
        raw("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", b"zz\r\n12345"),
        raw("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", b"-5\r\n12345"),
        raw("HTTP/1.1 999999 \n" + "X: y\n" * 200),
        raw("SSH-2.0-OpenSSH_9.6"),
        raw(""),
        lambda connection, head: None,
        raw("HTTP/1.1 302 Found\nLocation: https://[\nContent-Length: 0"),
        raw("HTTP/1.1 302 Found\nLocation: https://\x00\xff\nContent-Length: 0"),
        raw("HTTP/1.1 302 Found\nLocation: https://" + "x" * 5000 + "/\nContent-Length: 0"),
    ],
)
def test_a_server_that_lies_is_one_line_and_leaves_nothing_unpacked(answer: Answer, server: Server, tmp_path: Path) -> None:
    server.answers = [answer]
    with pytest.raises(DataError) as raised:
        fetch(remote(GOOD))
    assert len(str(raised.value).splitlines()) == 1
    assert not [name for name in left_in(tmp_path / "cache") if not name.endswith(".part")]


@pytest.mark.parametrize("data", [zipped(("tiny/trainA/a.jpg", b"1"), ("tiny/../../evil.jpg", b"2")), b"no zip", GOOD[:-4]])
def test_what_has_the_right_sum_and_is_hostile_all_the_same_leaves_nothing_unpacked(
    data: bytes, server: Server, tmp_path: Path
) -> None:
    server.answers = [raw(f"HTTP/1.1 200 OK\nContent-Length: {len(data)}", data)]
    with pytest.raises(DataError):
        fetch(remote(data))
    assert [name for name in left_in(tmp_path / "cache") if "datasets" in name] == []
    assert not list(tmp_path.rglob("evil*"))


def test_a_pipe_in_the_cache_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRUITGAN_CACHE", str(tmp_path))
    (tmp_path / "downloads").mkdir()
    os.mkfifo(tmp_path / "downloads" / "tiny.zip")
    with pytest.raises(DataError, match="not a regular file"):
        fetch(remote(GOOD))
