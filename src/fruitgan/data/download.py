"""Download into the cache: resumed where a connection broke, checked by its sha256, and unpacked."""

from __future__ import annotations

import os
import stat
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fruitgan.errors import DataError, FruitganError, UsageError, reason_of, shown, writing
from fruitgan.files import REAL_TROUBLE, file_sha256, make_once, size_bytes
from fruitgan.images import SUFFIXES
from fruitgan.locks import locked_file
from fruitgan.machine import cache_folder, is_offline
from fruitgan.progress import Note, OnProgress, Progress, silent

if TYPE_CHECKING:
    import requests

CHUNK_BYTES = 1 << 14
"""The most that a broken connection loses: urllib3 throws away a piece that it could not fill."""
TIMEOUT_SECONDS = (10, 60)
"""To connect, and between two pieces of data."""
FRUITLESS_ATTEMPTS = 3
"""How often a connection may bring nothing new before the download is given up."""
WAIT_SECONDS = 0.5
"""Between two looks whether another process is done."""
PAUSE_SECONDS = 1.0
"""Between two attempts, longer by as much each time."""
MOST_REDIRECTS = 5
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file in the network; a zip file holds one folder of its own name."""

    name: str
    address: str
    size_bytes: int
    sha256: str


def folder_of(name: str) -> Path:
    """Where the set of this name lies once it is here; it is there whole or not at all."""
    return cache_folder() / "datasets" / name


def fetch(archive: RemoteFile, tell: OnProgress = silent) -> Path:
    """The unpacked folder of a zip file, downloaded if it is not here yet.

    A file that somebody put into the cache's folder `downloads` is taken instead of a download. `FRUITGAN_MIRROR=URL`
    names another place for all of them, `FRUITGAN_OFFLINE=1` forbids the network.

    Raises:
        DataError: offline or unreachable (says what to put where), a wrong checksum, a zip that is not what it should be.
        UsageError: an address that is not https (http is allowed on this machine alone).
        FruitganError: the cache cannot be written.
    """
    name = Path(archive.name).stem
    folder = folder_of(name)
    if folder.is_dir():
        return folder
    with _alone(archive, tell):
        if not folder.is_dir():
            was_there = os.path.lexists(_place(archive))
            zip_file = _fetched(archive, tell)
            make_once(folder, lambda part: unzip(zip_file, name, part, tell))
            if not was_there:
                zip_file.unlink(missing_ok=True)
    return folder


def fetch_file(wanted: RemoteFile, tell: OnProgress = silent) -> Path:
    """Where the file lies in the cache's folder `downloads`, fetched if it is not here yet; its sum was checked either way.

    Raises:
        As `fetch`.
    """
    if os.path.lexists(_place(wanted)):
        return _fetched(wanted, tell)
    with _alone(wanted, tell):
        return _fetched(wanted, tell)


@contextmanager
def _alone(wanted: RemoteFile, tell: OnProgress) -> Iterator[None]:
    """While inside no other process downloads or unpacks the file; it is waited for."""
    if is_offline():
        yield
        return
    said = False

    def wait(_: int) -> None:
        nonlocal said
        if not said:
            tell(Note(f"another process downloads {wanted.name}: waiting for it"))
        said = True
        time.sleep(WAIT_SECONDS)

    lock = _place(wanted).with_name(f"{wanted.name}.lock")
    with writing(lock.parent):
        lock.parent.mkdir(parents=True, exist_ok=True)
    with locked_file(lock, wait):
        yield


def _fetched(wanted: RemoteFile, tell: OnProgress) -> Path:
    path = _place(wanted)
    if os.path.lexists(path):
        if (found := file_sha256(path)) != wanted.sha256:
            raise DataError(
                f"{path}: its sha256 is {found}, not {wanted.sha256}: delete it, and have it downloaded or replace it"
            )
    elif is_offline():
        raise DataError(f"{wanted.name} is not here and FRUITGAN_OFFLINE is set; {_by_hand(wanted)}")
    else:
        _download(wanted, path, tell)
    return path


def _place(wanted: RemoteFile) -> Path:
    return cache_folder() / "downloads" / wanted.name


def _by_hand(wanted: RemoteFile) -> str:
    return (
        f"put {wanted.name} ({wanted.size_bytes:,} bytes, sha256 {wanted.sha256}) from {_address(wanted)} "
        f"into {_place(wanted).parent}"
    )


def _address(wanted: RemoteFile) -> str:
    mirror = os.environ.get("FRUITGAN_MIRROR")
    return f"{mirror.rstrip('/')}/{wanted.name}" if mirror else wanted.address


def _may_be_asked(address: str) -> bool:
    """https, or a server on this machine."""
    try:
        parts = urlsplit(address)
        return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)
    except ValueError:
        return False


def _session(address: str) -> requests.Session:
    """A session that follows redirects by https alone, or within the server of an address on this machine.

    What else listens here is not for strangers, who may lead anywhere.
    """
    import requests

    session = requests.Session()
    session.max_redirects = MOST_REDIRECTS
    # A redirect may bring a body without end along, of which requests would read all.
    session.hooks["response"].append(lambda answer, **_: answer.close() if answer.is_redirect else None)
    plain, parts = session.adapters.pop("http://"), urlsplit(address)
    if parts.scheme == "http":
        session.mount(f"http://{parts.netloc}/", plain)
    return session


def _download(wanted: RemoteFile, path: Path, tell: OnProgress) -> None:
    """Download beside the path; the file gets its name only when its sum is right."""
    import requests
    import urllib3

    address = _address(wanted)
    if not _may_be_asked(address):
        raise UsageError(f"{address}: data are fetched by https alone (http on this machine only); see FRUITGAN_MIRROR")
    part = path.with_name(f"{path.name}.part")
    try:
        # What was begun long ago may be another file's beginning: then once more, from nothing.
        for _ in range(2 if part.exists() else 1):
            _resume(part, wanted, address, tell)
            if part.exists() and file_sha256(part) == wanted.sha256:
                part.replace(path)
                return
            part.unlink(missing_ok=True)
    except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:  # a hostile server causes the others
        raise DataError(f"{address}: cannot be downloaded ({_reason(error)}); try again, or {_by_hand(wanted)}") from error
    except OSError as error:
        raise FruitganError(f"{path.parent}: cannot be written ({reason_of(error)})") from error
    raise DataError(f"{address}: not the file it should be (another sha256), so it was deleted; {_by_hand(wanted)}")


def _reason(error: Exception) -> str:
    import requests

    if isinstance(error, requests.HTTPError):
        return str(error).partition(" for url")[0]
    if isinstance(error, requests.exceptions.InvalidSchema):
        return "it leads on to another address, but data are fetched by https alone"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    return "the connection failed" if isinstance(error, requests.ConnectionError) else shown(str(error))[1:-1]


def _resume(part: Path, wanted: RemoteFile, address: str, tell: OnProgress) -> None:
    """Bring `part` to its size, going on from its end, now and in later runs.

    Raises:
        requests.RequestException: refused, or the connection brought nothing new several times.
    """
    import requests

    fruitless = 0
    with _session(address) as session:
        while (before := size_bytes(part)) != wanted.size_bytes:
            asked = {"Accept-Encoding": "identity", **({"Range": f"bytes={before}-"} if before else {})}
            try:
                with session.get(address, headers=asked, stream=True, timeout=TIMEOUT_SECONDS) as answer:
                    _add(part, before, answer, wanted, tell)
                if not before < size_bytes(part) <= wanted.size_bytes:
                    return  # a file of another size; its sum will show it
            except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError):
                fruitless = 0 if size_bytes(part) > before else fruitless + 1
                if fruitless == FRUITLESS_ATTEMPTS:
                    raise
                time.sleep(PAUSE_SECONDS * fruitless)


def _add(part: Path, done: int, answer: requests.Response, wanted: RemoteFile, tell: OnProgress) -> None:
    """Write what an answer brings behind the first `done` bytes, one byte more than the file has at most."""
    if answer.status_code == 416:  # there is nothing from there on: what is here is no beginning of this file
        return
    answer.raise_for_status()
    goes_on = answer.status_code == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {done}-")
    done = done if goes_on else 0
    with part.open("ab" if goes_on else "wb") as file:
        for chunk in answer.iter_content(CHUNK_BYTES):
            # One byte too many is enough to know that it is another file, whatever the server still sends.
            done += file.write(chunk[: wanted.size_bytes + 1 - done])
            tell(Progress(wanted.name, min(done, wanted.size_bytes), wanted.size_bytes))
            if done > wanted.size_bytes:
                return


LARGEST_GROWTH = 20
"""Photographs hardly shrink in a zip file; what grows more than this is a bomb."""
SMALL_BYTES = 50_000_000
"""Up to here the growth does not matter."""
METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
"""The others can ask for gigabytes of memory in a few bytes, and no set of images needs them."""


def unzip(zip_file: Path, root: str, folder: Path, tell: OnProgress = silent) -> None:
    """Put the images below the zip file's folder `root` into `folder`, at the places they have below it.

    Raises:
        DataError: not a zip file, a damaged one, one without images there, or with an entry that leaves the folder, is a link
            or device or is packed in a rare way, or with more content than photographs can have. What was written by then is
            for the caller to remove.
    """
    try:
        with zipfile.ZipFile(zip_file) as archive:
            entries = _checked(archive, zip_file, root)
            for done, entry in enumerate(entries, start=1):
                entry.filename = "/".join(PurePosixPath(entry.filename).parts[1:])
                archive.extract(entry, folder)  # no more than the size that it states, and of the right sum
                tell(Progress(f"unpacking {root}", done, len(entries)))
    except (FruitganError, MemoryError):
        raise
    except Exception as error:  # zipfile raises nearly anything for a file that is damaged or made to confuse it
        if isinstance(error, OSError) and error.errno in REAL_TROUBLE:  # the disk's; any other is an impossible place or name
            raise
        raise DataError(f"{zip_file}: cannot be unpacked ({reason_of(error)})") from error


def _checked(archive: zipfile.ZipFile, zip_file: Path, root: str) -> list[zipfile.ZipInfo]:
    """The images to write; every entry is looked at before the first is written."""
    infos = archive.infolist()
    limit = max(SMALL_BYTES, LARGEST_GROWTH * zip_file.stat().st_size)
    if sum(info.file_size for info in infos) > limit:
        raise DataError(f"{zip_file}: unpacks to more than images can be ({len(infos):,} entries, over {limit:,} bytes)")
    found = []
    for info in infos:
        parts = PurePosixPath(info.filename).parts
        problem = None
        if info.filename.startswith("/") or any(part == ".." or "\\" in part or ":" in part for part in parts):
            problem = "leaves the folder"
        elif stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            problem = "is a link or device"
        elif info.compress_type not in METHODS:
            problem = "is packed in a way that is not used for images"
        if problem is not None:
            raise DataError(f"{zip_file}: refused, since the entry {shown(info.filename)} {problem}")
        if len(parts) > 1 and not info.is_dir() and parts[0] == root and Path(parts[-1]).suffix.lower() in SUFFIXES:
            found.append(info)
    if not found:
        raise DataError(f"{zip_file}: holds no images in a folder {root}")
    return found
