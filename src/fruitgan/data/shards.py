"""WebDataset shards: tar files in which the files of one sample stand together, under one name up to its first dot."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from fruitgan.addresses import Address, Place
from fruitgan.errors import DataError, reason_of
from fruitgan.files import open_regular

SUFFIX = ".tar"
MARK = "FRUITGAN.translate"
"""The entry of the tar's global header with what made it, which other programs pass over."""
MARK_BYTES = 1 << 22
"""The header lies within these first bytes."""

Member = tuple[str, bytes]
"""A file's name and its bytes."""


def is_shard(place: Place | None) -> bool:
    """By its name: a tar file has no beginning of its own."""
    return place is not None and place.suffix.lower() == SUFFIX


def samples(data: bytes) -> Iterator[list[Member]]:
    """The files of each sample of a shard, in their order.

    Raises:
        DataError: it is no tar file, or a damaged one.
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
