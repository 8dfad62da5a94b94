"""Images at fsspec addresses, and WebDataset shards wherever they lie, as a folder of files: copied into the cache, once.

<cache>/addresses/<key>/<name>/...   the files, in the tree in which they lie there; those of a shard in a folder of its name

The key is a hash of the address and of what lies there: names, sizes, and sums or times. All may be deleted at any time.
Shards are tar files in which the files of one sample stand together, under one name up to its first dot.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import io
import itertools
import json
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from fruitgan.addresses import Address, Listed, Place, copies, is_pattern, listed, place_of
from fruitgan.cache import hold, make_room
from fruitgan.data.finder import reason_no_image
from fruitgan.errors import DataError, UsageError, about_address, reason_of, shown
from fruitgan.files import make_once, open_regular
from fruitgan.images import SUFFIXES
from fruitgan.machine import cache_folder
from fruitgan.parallel import in_order
from fruitgan.progress import Note, OnProgress, silent

SUFFIX = ".tar"
MARK = "FRUITGAN.translate"
"""The entry of the tar's global header with what made it, which other programs pass over."""
MARK_BYTES = 1 << 22
"""The header lies within these first bytes."""
NO_FILE_HERE = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL)
"""How a file system says that it does not take just this name, or not beside the others."""

Member = tuple[str, bytes]
"""A file's name and its bytes."""


def is_shard(place: Place | None) -> bool:
    """By its name: a tar file has no beginning of its own."""
    return place is not None and place.suffix.lower() == SUFFIX


def samples(data: bytes) -> Iterator[list[Member]]:
    """The files of each sample of a shard, in their order.

    Raises:
        DataError: it is no tar file, or a damaged one, or one that is cut short.
    """
    sample: list[Member] = []
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                is_odd = member.issparse() or member.size > len(data) or path.is_absolute() or ".." in path.parts
                if is_odd or not member.isreg():
                    continue
                if sample and _key(sample[0][0]) != _key(member.name):
                    yield sample
                    sample = []
                file = tar.extractfile(member)
                assert file is not None  # of a regular one
                sample.append((member.name, file.read()))
            # Python's reader takes any end for the end; a whole file has a block of zeros there.
            if data[tar.offset : tar.offset + tarfile.BLOCKSIZE] != bytes(tarfile.BLOCKSIZE) or len(data) % tarfile.BLOCKSIZE:
                raise tarfile.ReadError("it is cut short")
    except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
        raise DataError(f"not a tar file, or a damaged one ({reason_of(error)})") from error
    if sample:
        yield sample


def _key(name: str) -> tuple[str, str]:
    path = PurePosixPath(name)
    return str(path.parent), path.name.partition(".")[0]


def packed(members: Sequence[Member], mark: Mapping[str, Any]) -> bytes:
    """A shard of these files with the mark of what made it; the same files give the same bytes."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT, pax_headers={MARK: json.dumps(mark)}) as tar:
        for name, data in members:
            about = tarfile.TarInfo(name)
            about.size = len(data)
            tar.addfile(about, io.BytesIO(data))
    return file.getvalue()


def read_shard_mark(place: Place) -> dict[str, Any] | None:
    """The mark of a shard of ours; None for any other file."""
    try:
        if isinstance(place, Address):
            head = place.read(MARK_BYTES)
        else:
            with open_regular(place) as file:
                head = file.read(MARK_BYTES)
        with tarfile.open(fileobj=io.BytesIO(head), mode="r:") as tar:
            mark = json.loads(tar.pax_headers[MARK])
    except (tarfile.TarError, OSError, ValueError, KeyError, DataError, RecursionError):
        return None
    return mark if isinstance(mark, dict) else None


def is_elsewhere(text: str | Path) -> bool:
    """Whether it means an address, a shard or a pattern, and no folder that is here."""
    place = place_of(str(text))
    if isinstance(place, Address):
        return True
    return not place.is_dir() and (is_shard(place) or ("://" not in str(text) and glob.has_magic(str(text))))


def at_hand(text: str | Path, tell: OnProgress = silent, beside: Sequence[str] = ()) -> Path:
    """The folder of images that is meant: a folder that is here, or what lies elsewhere as one in the cache.

    At an address no file is opened before it is copied, so that there the name tells what is an image or a shard; what is
    hidden is left out. Files of the names `beside`, where they stand beside the folder that is meant, stand beside the copy.

    Raises:
        UsageError, EnvironmentProblem: no such kind of address, one of the web, or its package is missing.
        DataError: nothing is there, or it cannot be read.
        FruitganError: the cache cannot be written.
    """
    place = place_of(str(text))
    if not is_elsewhere(text):
        if (advice := about_address(str(text))) is not None and not str(text).lower().startswith("file:"):
            raise UsageError(f"{text}: {advice}")
        return Path(place)  # type: ignore[arg-type]
    address = place if isinstance(place, Address) else Address(f"file://{os.path.abspath(place)}")
    found = listed(address, recursive=True)
    seen = [file for file in found if not any(part.startswith(".") for part in file.relative.parts)]
    files = [file for file in seen if file.path.suffix.lower() in (SUFFIX, *SUFFIXES)]
    if not files:
        raise DataError(f"{text}: no such file or folder, or nothing in it that is named as an image or a shard is")
    if len(seen) > len(files):
        tell(Note(f"{text}: left out {len(seen) - len(files)} files that are not named as images are"))
    extra = [file for name in beside for file in listed(address.parent / name, recursive=False)]
    about = "\n".join([str(address), *(f"{file.path} {file.about}" for file in (*files, *extra))])
    folder = cache_folder() / "addresses" / hashlib.sha256(about.encode()).hexdigest()[:16]
    top, base = str(text).rstrip("/"), str(address)
    if is_pattern(address):
        top, base = _before_pattern(top), _before_pattern(base)
    inner = folder / PurePosixPath(base).name.removesuffix(SUFFIX).strip(":")
    places = {file: inner / _below(base, file) for file in files}
    for file, place in places.items():
        if is_shard(file.path) and place != inner:
            copies[f"{place}{os.sep}"] = f"{top}/{place.relative_to(inner).as_posix()}{file.path.suffix}/"
    copies.update({f"{inner}{os.sep}": f"{top}/", str(inner): str(text), str(folder): str(place_of(top).parent), base: top})

    def fill(part: Path) -> None:
        _copy(address, {file: part / place.relative_to(folder) for file, place in places.items()}, tell)
        for file in extra:
            (part / file.relative).write_bytes(file.path.read())

    while not hold(folder):
        make_once(folder, fill)
        make_room(folder)
    return inner


def _before_pattern(text: str) -> str:
    """The folder in which all lies that a pattern matches."""
    return "/".join(itertools.takewhile(lambda part: not glob.has_magic(part), text.split("/"))) or "."


def _below(base: str, file: Listed[Address]) -> str:
    """Where in the folder the file, or a shard's, are to lie: of one name in two folders that a pattern matches, apart."""
    whole, above = (text.partition("://")[2].strip("/") for text in (str(file.path), base))
    place = whole[len(above) :].strip("/") if f"{whole}/".startswith(f"{above}/") else file.relative.as_posix()
    return place[: -len(SUFFIX)] if is_shard(file.path) else place or file.relative.as_posix()


def _copy(address: Address, places: Mapping[Listed[Address], Path], tell: OnProgress) -> None:
    def copy(file: Listed[Address]) -> None:
        place, data, name = places[file], file.path.read(), ""
        try:
            members = itertools.chain.from_iterable(samples(data)) if is_shard(file.path) else [("", data)]
            for name, content in members:
                if not name or reason_no_image(content) is None:
                    (place / name).parent.mkdir(parents=True, exist_ok=True)
                    (place / name).write_bytes(content)
        except DataError as error:
            raise DataError(f"{file.path}: {error}") from error
        except (OSError, ValueError) as error:  # the latter for a zero in a name
            if isinstance(error, OSError) and error.errno not in NO_FILE_HERE:
                raise
            raise DataError(f"{file.path}: {shown(name or place.name)} can be no file here ({reason_of(error)})") from error

    for _ in in_order(copy, list(places), what=f"copying {address}", tell=tell):
        pass
