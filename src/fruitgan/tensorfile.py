"""Safetensors files as a stranger may have made them: every size in the header is held against the file before a byte is read.

The layout (https://huggingface.co/docs/safetensors): 8 bytes with the header's length, the header as JSON, the tensors. Needs
numpy alone.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from fruitgan.errors import DataError, UsageError, reason_of, shown
from fruitgan.files import open_regular, reading
from fruitgan.settings import from_json, parse_json

T = TypeVar("T")
LARGEST_HEADER_BYTES = 2 << 20
"""Room for some 15,000 tensors; what JSON can become in memory is a few ten times as much."""
LARGEST_FILE_BYTES = 8 << 30
"""Above this it is none of ours, but perhaps a file with holes, which is small on the disk and large in memory."""
MOST_AXES = 16
LONGEST_NAME = 512
METADATA = "__metadata__"

NUMPY_TYPES: Mapping[str, str] = {
    "BOOL": "|b1",
    "U8": "|u1",
    "I8": "|i1",
    "U16": "<u2",
    "I16": "<i2",
    "F16": "<f2",
    "U32": "<u4",
    "I32": "<i4",
    "F32": "<f4",
    "U64": "<u8",
    "I64": "<i8",
    "F64": "<f8",
}


@dataclass(frozen=True)
class Stored:
    """One tensor as the header tells of it; `begin` and `end` count bytes from the end of the header."""

    kind: str
    """A name of `NUMPY_TYPES`, or another that numpy lacks."""
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class TensorFile:
    """An open file whose header was checked; nothing of its tensors is read yet."""

    path: Path
    what: str
    metadata: Mapping[str, str]
    tensors: Mapping[str, Stored]
    file: BinaryIO
    content_bytes: int

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The tensors by name, read-only, in no more memory than they take in the file.

        Raises:
            DataError: a tensor is empty or of a type that numpy lacks, a number is not finite; the file was changed or cannot
                be read.
        """
        for name, stored in self.tensors.items():
            if 0 in stored.shape:
                raise DataError(f"{self.path}: the tensor {shown(name)} is empty; the {self.what} is damaged")
            if stored.kind not in NUMPY_TYPES:
                raise DataError(f"{self.path}: the tensor {shown(name)} is of the type {shown(stored.kind)}, not known here")
        with reading(self.path):
            content = self.file.read(self.content_bytes)
        if len(content) < self.content_bytes:
            raise DataError(f"{self.path}: torn: it became shorter while it was read")
        return {name: self._array(content, name, stored) for name, stored in self.tensors.items()}

    def card(self, kind: type[T], key: str, newest: int, upgrade: Callable[[int, dict[str, Any]], None] | None = None) -> T:
        """The card in its metadata, as the dataclass; `upgrade` is given its format's version and, to change it, its table.

        Raises:
            DataError: there is none, it cannot be read, is of a newer format than `newest`, or says something else.
        """
        try:
            table = parse_json(self.metadata[key])
        except ValueError as error:
            raise DataError(f"{self.path}: not a {self.what}: its card cannot be read ({reason_of(error)})") from error
        version = table.pop("format", None) if isinstance(table, dict) else None
        if type(version) is not int or version < 1:
            raise DataError(f"{self.path}: not a {self.what}: its card has no format")
        if version > newest:
            raise DataError(f"{self.path}: has format {version}, newer than this program's {newest}: pip install -U fruitgan")
        if upgrade is not None:
            upgrade(version, table)
        try:
            return from_json(kind, table, "card")
        except UsageError as error:
            raise DataError(f"{self.path}: not a {self.what}: {error}") from error

    def _array(self, content: bytes, name: str, stored: Stored) -> NDArray[Any]:
        kind = np.dtype(NUMPY_TYPES[stored.kind])
        flat = np.frombuffer(content, kind, math.prod(stored.shape), stored.begin)
        wrong = ""
        if kind.kind == "f" and not np.isfinite(flat).all():
            wrong = "numbers that are not finite"
        elif kind.kind == "b" and flat.view(np.uint8).max() > 1:
            wrong = "what is neither true nor false"
        if wrong:
            raise DataError(f"{self.path}: the tensor {shown(name)} holds {wrong}; the {self.what} is damaged")
        return flat.reshape(stored.shape)


@contextmanager
def open_tensors(path: Path, what: str, largest_header_bytes: int = LARGEST_HEADER_BYTES) -> Iterator[TensorFile]:
    """Open a file and check its header; `what` says in messages what it should be.

    Raises:
        DataError: no such file, no safetensors, torn, or a header that does not fit the file.
    """
    if not path.is_file():
        raise DataError(f"{path}: {'not a file' if path.exists() else 'no such file'}; expected a {what} (.safetensors)")
    with reading(path), open_regular(path) as file:
        length = os.fstat(file.fileno()).st_size
        if length > LARGEST_FILE_BYTES:
            raise DataError(f"{path}: not a {what}: {length:,} bytes are more than any has")
        header, size = _header(file, length, path, what, largest_header_bytes)
        metadata = header.pop(METADATA, {})
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise DataError(f"{path}: not a {what}: its metadata are no texts")
        tensors = {name: _stored(name, entry, path, what) for name, entry in header.items()}
        _check_places(tensors, length - 8 - size, path)
        yield TensorFile(path, what, metadata, tensors, file, length - 8 - size)


def _header(file: BinaryIO, length: int, path: Path, what: str, most: int) -> tuple[dict[str, Any], int]:
    """The header and its length in bytes."""
    start = file.read(8)
    size = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if size > length - 8 and file.read(1) == b"{":
        raise DataError(f"{path}: torn in its header; copy it again")
    if size < 2 or size > length - 8:
        raise DataError(f"{path}: not a {what}")
    if size > most:
        raise DataError(f"{path}: not a {what}: its header has {size:,} bytes, more than any needs")
    try:
        header = parse_json(file.read(size))
    except ValueError as error:
        raise DataError(f"{path}: not a {what}: its header cannot be read ({reason_of(error)})") from error
    if not isinstance(header, dict):
        raise DataError(f"{path}: not a {what}: its header is no table")
    return header, size


def _stored(name: str, entry: Any, path: Path, what: str) -> Stored:
    """Raises: DataError where the header's entry of a tensor contradicts itself."""

    def counts(value: Any, most: int) -> bool:
        return isinstance(value, list) and len(value) <= most and all(type(n) is int and n >= 0 for n in value)

    if (
        not isinstance(entry, dict)
        or set(entry) != {"dtype", "shape", "data_offsets"}
        or not isinstance(entry["dtype"], str)
        or not counts(entry["shape"], MOST_AXES)
        or not counts(entry["data_offsets"], 2)
        or len(entry["data_offsets"]) != 2
        or entry["data_offsets"][1] < entry["data_offsets"][0]
        or len(name) > LONGEST_NAME
        or not name.isprintable()
    ):
        raise DataError(f"{path}: not a {what}: its header says nothing sensible of the tensor {shown(name)}")
    begin, end = entry["data_offsets"]
    shape = tuple(entry["shape"])
    kind = NUMPY_TYPES.get(entry["dtype"])
    if kind is not None and end - begin != math.prod(shape) * np.dtype(kind).itemsize:
        raise DataError(f"{path}: damaged: the shape of the tensor {shown(name)} contradicts its {end - begin:,} bytes")
    return Stored(entry["dtype"], shape, begin, end)


def _check_places(tensors: Mapping[str, Stored], length: int, path: Path) -> None:
    """Raises: DataError unless the tensors lie side by side and fill what is behind the header."""
    place = 0
    for stored in sorted(tensors.values(), key=lambda stored: (stored.begin, stored.end)):
        if stored.begin != place:
            raise DataError(f"{path}: damaged: its tensors overlap, or leave gaps")
        place = stored.end
    if place != length:
        raise DataError(f"{path}: torn: {length:,} bytes of tensors where its header speaks of {place:,}; copy it again")
