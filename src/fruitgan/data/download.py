"""Download into the cache: resumed where a connection broke, checked, and unpacked as if a stranger had made the archive."""

from __future__ import annotations

import os
import stat
import struct
import time
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from fruitgan.errors import DataError, FruitganError, UsageError, reason_of, shown
from fruitgan.files import file_sha256, new_folder
from fruitgan.images import SUFFIXES
from fruitgan.machine import cache_folder, is_offline

if TYPE_CHECKING:
    import requests

OnStep = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done and how much there is (0 if not known)."""

CHUNK_BYTES = 1 << 14
"""The most that a broken connection loses: urllib3 throws away a piece that it could not fill."""
TIMEOUT_SECONDS = (10, 60)
"""To connect, and between two pieces of data."""
FRUITLESS_ATTEMPTS = 3
"""How often a connection may bring nothing new before the download is given up."""
PAUSE_SECONDS = 1.0
"""Between two attempts, longer by as much each time."""
REDIRECTS = frozenset({301, 302, 303, 307, 308})
MOST_REDIRECTS = 5
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A zip file in the network that holds one folder of its own name."""

    name: str
    address: str
    size_bytes: int
    sha256: str

    @property
    def file(self) -> str:
        return f"{self.name}.zip"


@dataclass(frozen=True, kw_only=True)
class SingleFile(Archive):
    """A file in the network that is used as it is; `name` is the file's whole name."""

    @property
    def file(self) -> str:
        return self.name


def folder_of(name: str) -> Path:
    """Where the set of this name lies once it is here; it is there whole or not at all."""
    return cache_folder() / "datasets" / name


def fetch(archive: Archive, on_progress: OnStep | None = None) -> Path:
    """The unpacked folder of an archive, downloaded if it is not here yet.

    A zip file that somebody put into the cache's folder `downloads` is taken instead of a download. `FRUITGAN_MIRROR=URL`
    names another place for all archives, `FRUITGAN_OFFLINE=1` forbids the network.

    Raises:
        DataError: offline or unreachable (says what to put where), a wrong checksum, a zip that is not what it should be.
        UsageError: an address that is not https (http is allowed on this machine alone).
        FruitganError: the cache cannot be written.
    """
    folder = folder_of(archive.name)
    if folder.is_dir():
        return folder
    was_there = os.path.lexists(_place(archive))
    zip_file = fetch_file(archive, on_progress)
    try:
        with new_folder(folder) as part:
            unzip(zip_file, archive.name, part, on_progress or _ignore)
    except FruitganError:
        # Another process may have been quicker.
        if not folder.is_dir():
            raise
    if not was_there:
        zip_file.unlink(missing_ok=True)
    return folder


def fetch_file(wanted: Archive, on_progress: OnStep | None = None) -> Path:
    """Where the file lies in the cache's folder `downloads`, fetched if it is not here yet; its sum was checked either way.

    Raises:
        As `fetch`.
    """
    path = _place(wanted)
    if os.path.lexists(path):
        if (found := file_sha256(path)) != wanted.sha256:
            raise DataError(
                f"{path}: its sha256 is {found}, not {wanted.sha256}: delete it, and have it downloaded or replace it"
            )
    elif is_offline():
        raise DataError(f"{wanted.name} is not here and FRUITGAN_OFFLINE is set; {_by_hand(wanted)}")
    else:
        _download(wanted, path, on_progress or _ignore)
    return path


def _place(archive: Archive) -> Path:
    return cache_folder() / "downloads" / archive.file


def _ignore(what: str, done: int, total: int) -> None:
    pass


def _by_hand(archive: Archive) -> str:
    return (
        f"put {archive.file} ({archive.size_bytes:,} bytes, sha256 {archive.sha256}) from {_address(archive)} "
        f"into {_place(archive).parent}"
    )


def _address(archive: Archive) -> str:
    mirror = os.environ.get("FRUITGAN_MIRROR")
    return f"{mirror.rstrip('/')}/{archive.file}" if mirror else archive.address


def _is_secure(address: str) -> bool:
    try:
        return urlsplit(address).scheme == "https"
    except ValueError:
        return False


def _is_loopback(address: str) -> bool:
    try:
        parts = urlsplit(address)
        return parts.scheme == "http" and parts.hostname in LOOPBACK
    except ValueError:
        return False


def _session() -> requests.Session:
    """A session that follows no redirect by itself: it would ask any address, and read whatever a redirect brings along."""
    import requests

    class Session(requests.Session):
        def get_redirect_target(self, resp: requests.Response) -> str | None:
            return None

    return Session()


def _answer(session: requests.Session, url: str, headers: Mapping[str, str]) -> requests.Response:
    """The answer behind all redirects, its body not yet read.

    A redirect may lead to https alone; from this machine's own server also back to it, but not from elsewhere: what listens
    here is not for strangers.

    Raises:
        DataError: a redirect leads elsewhere, or there is no end of them.
    """
    for _ in range(1 + MOST_REDIRECTS):
        answer = session.get(url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS)
        if answer.status_code not in REDIRECTS or "Location" not in answer.headers:
            return answer
        answer.close()
        try:
            address = urljoin(url, answer.headers["Location"])
        except ValueError:
            address = ""
        if not (_is_secure(address) or (_is_loopback(address) and _is_loopback(url))):
            raise DataError(f"{url}: leads on to {shown(address)}, but data are fetched by https alone")
        url = address
    raise DataError(f"{url}: leads on and on")


def _download(archive: Archive, path: Path, on_progress: OnStep) -> None:
    """Download beside the path; the file gets its name only when its sum is right."""
    import requests
    import urllib3

    address = _address(archive)
    if not (_is_secure(address) or _is_loopback(address)):
        raise UsageError(f"{address}: data are fetched by https alone (http on this machine only); see FRUITGAN_MIRROR")
    part = path.with_name(f"{path.name}.part")
    was_begun = part.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # What was begun long ago may be another file's beginning: then once more, from nothing.
        for _ in range(2 if was_begun else 1):
            _resume(part, archive.size_bytes, address, lambda done: on_progress(archive.name, done, archive.size_bytes))
            if part.exists() and file_sha256(part) == archive.sha256:
                part.replace(path)
                return
            part.unlink(missing_ok=True)
    except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:  # a hostile server causes the others
        raise DataError(f"{address}: cannot be downloaded ({_reason(error)}); try again, or {_by_hand(archive)}") from error
    except OSError as error:
        raise FruitganError(f"{path.parent}: cannot be written ({reason_of(error)})") from error
    raise DataError(f"{address}: not the file it should be (another sha256), so it was deleted; {_by_hand(archive)}")


def _reason(error: Exception) -> str:
    import requests

    if isinstance(error, requests.HTTPError):
        return str(error).partition(" for url")[0]
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    return "the connection failed" if isinstance(error, requests.ConnectionError) else shown(str(error))[1:-1]


def _resume(part: Path, size_bytes: int, url: str, on_bytes: Callable[[int], None]) -> None:
    """Bring `part` to its size, going on from its end, now and in later runs.

    Raises:
        requests.RequestException: refused, or the connection brought nothing new several times.
    """
    import requests

    def done() -> int:
        return part.stat().st_size if part.exists() else 0

    fruitless = 0
    with _session() as session:
        while done() != size_bytes:
            before = done()
            try:
                _fill(session, part, size_bytes, url, before, on_bytes)
                if done() <= before or done() > size_bytes:
                    return  # a file of another size; its sum will show it
            except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError):
                fruitless = 0 if done() > before else fruitless + 1
                if fruitless == FRUITLESS_ATTEMPTS:
                    raise
                time.sleep(PAUSE_SECONDS * fruitless)


def _fill(session: requests.Session, part: Path, size_bytes: int, url: str, done: int, on_bytes: Callable[[int], None]) -> None:
    """Add what one answer of the server brings, one byte more than the file has at most."""
    headers = {"Accept-Encoding": "identity"}
    if done:
        headers["Range"] = f"bytes={done}-"
    with _answer(session, url, headers) as answer:
        if answer.status_code == 416:  # there is nothing from there on: what is here is no beginning of this file
            return
        answer.raise_for_status()
        if (packed := answer.headers.get("Content-Encoding", "identity")) != "identity":
            raise DataError(f"{url}: sent packed ({shown(packed)[1:-1]}) though that was not asked for; try again")
        goes_on = answer.status_code == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {done}-")
        with part.open("ab" if goes_on else "wb") as file:
            done = done if goes_on else 0
            for chunk in answer.iter_content(CHUNK_BYTES):
                # One byte too many is enough to know that it is another file, whatever the server still sends.
                done += file.write(chunk[: size_bytes + 1 - done])
                on_bytes(min(done, size_bytes))
                if done > size_bytes:
                    return


LARGEST_GROWTH = 20
"""Photographs hardly shrink in a zip file; what grows more than this is a bomb."""
SMALL_BYTES = 50_000_000
"""Up to here the growth does not matter."""
MOST_ENTRIES = 1_000_000
UNZIPPED_BYTES = 1 << 20
DEEPEST = 16
LONGEST_NAME_BYTES = 240
METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
"""The others can ask for gigabytes of memory in a few bytes, and no set of images needs them."""
ENCRYPTED = 0x1 | 0x40 | 0x2000
ZIP_ERRORS = (
    zipfile.BadZipFile,
    NotImplementedError,
    EOFError,
    RuntimeError,
    ValueError,
    OverflowError,
    struct.error,
    zlib.error,
)
"""What zipfile raises for one that is damaged or made to confuse it."""

Place = tuple[str, ...]


def unzip(zip_file: Path, root: str, folder: Path, on_progress: OnStep) -> None:
    """Put the images below the zip file's folder `root` into `folder`, at the places they have below it.

    Raises:
        DataError: not a zip file, a damaged one, one without images there, or with an entry that leaves the folder, is a link
            or device, stands there twice, is encrypted, is packed in a rare way or has a name that not every system takes, or
            with more content than photographs can have. What was written by then is for the caller to remove.
    """
    try:
        with zipfile.ZipFile(zip_file) as archive:
            entries = _checked(archive, zip_file, root)
            for done, (place, entry) in enumerate(entries.items(), start=1):
                target = folder.joinpath(*place)
                target.parent.mkdir(parents=True, exist_ok=True)
                _write(archive, entry, target)
                on_progress(f"unpacking {root}", done, len(entries))
    except ZIP_ERRORS as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DataError(f"{zip_file}: cannot be unpacked ({reason})") from error


def _checked(archive: zipfile.ZipFile, zip_file: Path, root: str) -> dict[Place, zipfile.ZipInfo]:
    """The images to write, by the parts of their places; every entry is looked at before the first is written."""
    infos = archive.infolist()
    limit = max(SMALL_BYTES, LARGEST_GROWTH * zip_file.stat().st_size)
    if len(infos) > MOST_ENTRIES or sum(info.file_size for info in infos) > limit:
        raise DataError(f"{zip_file}: unpacks to more than images can be ({len(infos):,} entries, over {limit:,} bytes)")
    found: dict[Place, zipfile.ZipInfo] = {}
    for info in infos:
        parts = PurePosixPath(info.filename).parts
        if problem := _problem(info, parts):
            raise DataError(f"{zip_file}: refused, since the entry {shown(info.filename)} {problem}")
        if not info.is_dir() and len(parts) > 1 and parts[0] == root and Path(parts[-1]).suffix.lower() in SUFFIXES:
            if parts[1:] in found:
                raise DataError(f"{zip_file}: refused, since the entry {shown(info.filename)} stands there twice")
            found[parts[1:]] = info
    if not found:
        raise DataError(f"{zip_file}: holds no images in a folder {root}")
    _refuse_collisions(found, zip_file)
    return found


def _problem(info: zipfile.ZipInfo, parts: Place) -> str | None:
    """What is wrong with an entry, whether it would be written or not."""
    if not parts:
        return "has no name"
    if info.filename.startswith("/") or any(part == ".." or "\\" in part or ":" in part for part in parts):
        return "leaves the folder"
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or device"
    if info.flag_bits & ENCRYPTED:
        return "is encrypted"
    if info.compress_type not in METHODS:
        return "is packed in a way that is not used for images"
    if len(parts) > DEEPEST or any(len(os.fsencode(part)) > LONGEST_NAME_BYTES for part in parts):
        return "has a name that not every system can hold"
    if not info.filename.isprintable():
        return "has a name with signs that cannot be seen"
    return None


def _refuse_collisions(entries: dict[Place, zipfile.ZipInfo], zip_file: Path) -> None:
    """Raises: DataError where two names are one file on some systems (A.jpg and a.jpg, or é in two spellings), or where one is
    a file and another's folder.
    """
    spelling: dict[Place, Place] = {}
    files = set()
    for place, info in entries.items():
        folded = tuple(unicodedata.normalize("NFC", unicodedata.normalize("NFC", part).casefold()) for part in place)
        files.add(folded)
        for end in range(1, len(place) + 1):
            if spelling.setdefault(folded[:end], place[:end]) != place[:end]:
                raise DataError(f"{zip_file}: refused, since the entry {shown(info.filename)} stands there twice")
    for folded, place in spelling.items():
        if folded[:-1] in files:
            raise DataError(f"{zip_file}: refused, since {shown('/'.join(place[:-1]))} is a file and a folder in it")


def _write(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> None:
    """Copy one entry; no more than its stated size is ever written."""
    with target.open("xb") as file:
        for chunk in _content(archive, entry):
            file.write(chunk)


def _content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    left = entry.file_size
    try:
        with archive.open(entry) as source:
            while left > 0 and (chunk := source.read(min(UNZIPPED_BYTES, left))):
                yield chunk
                left -= len(chunk)
            if left or source.read(1):
                raise zipfile.BadZipFile("an entry has another size than stated")
    except OSError as error:  # an impossible place in the file
        raise zipfile.BadZipFile(str(error)) from error
