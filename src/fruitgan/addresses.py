"""Files at addresses such as `s3://bucket/key`, through fsspec, which is imported for them alone: a plain path is a Path.

Credentials are a matter of fsspec's packages, which find them in the environment and in files of their own.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, Generic, TypeVar

from fruitgan.errors import DataError, EnvironmentProblem, FruitganError, UsageError, reason_of
from fruitgan.files import write_atomically

NOT_OPENED = ("http", "https", "ftp")
"""What is fetched first, by other means, and not opened here."""
PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs"}
KNOWN_BY = ("size", "ETag", "etag", "md5Hash", "LastModified", "mtime", "created")
"""What fsspec's packages say of a file that tells its content from another."""


@dataclass(frozen=True)
class Address:
    """A file elsewhere, or a folder of files."""

    text: str

    def __str__(self) -> str:
        return self.text

    def __truediv__(self, relative: PurePath | str) -> Address:
        return Address(f"{self.text}/{PurePath(relative).as_posix()}")

    @property
    def parent(self) -> Address:
        """The folder that holds it; a bucket is its own."""
        protocol, _, rest = self.text.partition("://")
        above = rest.rpartition("/")[0]
        return Address(f"{protocol}://{above}") if above else self

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.text).suffix

    def read(self, most_bytes: int | None = None) -> bytes:
        """All bytes, or so many from the beginning. Raises: DataError."""
        with _asked(self.text, DataError, "read") as (files, name):
            return bytes(files.cat_file(name, end=most_bytes))

    def write(self, data: bytes) -> None:
        """Object stores show an object once all of it is there. Raises: FruitganError."""
        with _asked(self.text, FruitganError, "written") as (files, name):
            files.pipe_file(name, data)


Place = Path | Address

copies: dict[str, str] = {}
"""Beginnings of paths in the cache, a longer one first, and what the user calls what was copied there."""


def named(text: str) -> str:
    """A text for people, in which files that are copies have the names of what they are copies of."""
    for copy, original in copies.items():
        text = text.replace(copy, original)
    return text


At = TypeVar("At", Path, Address)


@dataclass(frozen=True)
class Listed(Generic[At]):
    """A file that was found where one was named, or below a folder or by a pattern."""

    path: At
    relative: PurePath
    """Where it lies below the folder that was named; its bare name if it was named itself."""
    about: str = ""
    """At an address: its size, and its sum or time, as far as they are listed; another content has another."""


def place_of(text: str) -> Place:
    """What is meant by a path or an address; `file://` is a path.

    Raises:
        UsageError: an address that holds a name or a password.
    """
    protocol, separator, rest = text.partition("://")
    if not separator or len(protocol) == 1 or protocol.lower() in NOT_OPENED:  # one letter is a drive of Windows
        return Path(text)
    if protocol.lower() == "file":
        return Path(rest)
    if "@" in rest.partition("/")[0]:  # not shown again: it may be a secret
        raise UsageError(f"{protocol}://: an address must hold no credentials; they are taken from the environment")
    return Address(f"{protocol}://{rest.rstrip('/')}")


def write_whole(place: Place, data: bytes) -> None:
    """Write a file that is there whole or not at all. Raises: FruitganError."""
    if isinstance(place, Address):
        place.write(data)
    else:
        write_atomically(place, data)


def listed(address: Address, recursive: bool) -> list[Listed[Address]]:
    """The file at an address, those in a folder there, or all that a pattern matches, by name; none is opened.

    Raises:
        UsageError, EnvironmentProblem: no such kind of address, or its package is missing.
        DataError: it cannot be listed.
    """
    with _asked(address.text, DataError, "listed") as (files, root):
        files.invalidate_cache()
        found: dict[Address, Listed[Address]] = {}
        has_many = is_pattern(address)
        for top in sorted(files.glob(root)) if has_many else [root.rstrip("/")]:
            start = Address(files.unstrip_protocol(top)) if has_many else address
            for name, info in sorted(files.find(top, maxdepth=None if recursive else 1, detail=True).items()):
                relative = name[len(top) :].strip("/")
                about = " ".join(str(info[key]) for key in KNOWN_BY if key in info)
                path = start / relative if relative else start
                found.setdefault(path, Listed(path, PurePosixPath(relative or PurePosixPath(name).name), about))
        return [*found.values()]


def is_pattern(address: Address) -> bool:
    """Whether all is meant that matches it; what has this very name goes before. Raises: as `listed`."""
    with _asked(address.text, DataError, "listed") as (files, root):
        return glob.has_magic(root) and not files.exists(root)


@contextmanager
def _asked(address: str, kind: type[FruitganError], what: str) -> Iterator[tuple[Any, str]]:
    """The file system of an address and its name there; what it raises meanwhile becomes an error of ours."""
    protocol = address.partition("://")[0]
    try:
        import fsspec.core

        files, name = fsspec.core.url_to_fs(address)
    except ImportError as error:
        package = "fsspec" if error.name == "fsspec" else PACKAGES.get(protocol)
        hint = f"{package} is not installed: pip install {package}" if package else reason_of(error)
        raise EnvironmentProblem(f"{protocol}://: {hint}") from error
    except ValueError as error:
        raise UsageError(f"{address}: fsspec knows no such kind of address ({reason_of(error)})") from error
    try:
        yield files, name
    except (MemoryError, FruitganError):
        raise
    except Exception as error:  # each of its packages has errors of its own
        reason = "no such file or folder" if isinstance(error, FileNotFoundError) else reason_of(error)
        raise kind(f"{address}: cannot be {what} ({reason})") from error
