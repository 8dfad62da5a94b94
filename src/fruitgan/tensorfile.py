"""Safetensors files as a stranger may have made them: neither a long header nor one that lies takes much memory.

The layout (https://huggingface.co/docs/safetensors): 8 bytes with the header's length, the header as JSON, the tensors.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, deserialize

from fruitgan.errors import DataError, reading, reason_of, shown
from fruitgan.files import open_regular
from fruitgan.settings import parse_json, typed

T = TypeVar("T")
LARGEST_HEADER_BYTES = 2 << 20
"""Room for some 15,000 tensors; what JSON can become in memory is a few ten times as much."""
LARGEST_FILE_BYTES = 8 << 30
"""Above this it is none of ours, but perhaps a file with holes, which is small on the disk and large in memory."""
NUMPY_TYPES = {"BOOL": "|b1"} | {f"{kind}{8 * n}": f"<{kind.lower()}{n}" for kind in "UIF" for n in (1, 2, 4, 8)}


@dataclass(frozen=True)
class TensorFile:
    """A file whose header is JSON; its tensors are not read yet."""

    path: Path
    what: str
    metadata: Mapping[str, str]

    def card(self, kind: type[T], key: str, newest: int) -> T:
        """The card in its metadata, as the dataclass.

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
        return typed(kind, table, f"{self.path}: not a {self.what}: card")

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The tensors by name.

        Raises:
            DataError: the header does not fit the file; a tensor is empty or of a type unknown here; a number is not finite.
        """
        with reading(self.path), open_regular(self.path) as file:
            content = file.read()
        try:
            return {name: self._array(name, stored) for name, stored in cast(Any, deserialize)(content)}
        except (SafetensorError, ValueError) as error:  # numpy refuses more axes than it can have
            raise DataError(f"{self.path}: torn or damaged ({reason_of(error)}); copy it again") from error

    def _array(self, name: str, stored: Mapping[str, Any]) -> NDArray[Any]:
        kind, shape = stored["dtype"], stored["shape"]
        flat = np.frombuffer(stored["data"], NUMPY_TYPES[kind]) if kind in NUMPY_TYPES and 0 not in shape else None
        if flat is None:
            wrong = f"is empty or of a type not known here ({kind})"
        elif flat.dtype.kind == "f" and not np.isfinite(flat).all():
            wrong = "holds numbers that are not finite"
        elif flat.dtype.kind == "b" and flat.view(np.uint8).max() > 1:
            wrong = "holds what is neither true nor false"
        else:
            return flat.reshape(shape)
        raise DataError(f"{self.path}: the tensor {shown(name)} {wrong}; the {self.what} is damaged")


def open_tensors(path: Path, what: str, largest_header_bytes: int = LARGEST_HEADER_BYTES) -> TensorFile:
    """Look at a file's header; `what` says in messages what the file should be.

    Raises:
        DataError: no such file, no safetensors, or torn in its header.
    """
    if not path.is_file():
        raise DataError(f"{path}: {'not a file' if path.exists() else 'no such file'}; expected a {what} (.safetensors)")
    with reading(path), open_regular(path) as file:
        length = os.fstat(file.fileno()).st_size
        if length > LARGEST_FILE_BYTES:
            raise DataError(f"{path}: not a {what}: {length:,} bytes are more than any has")
        start = file.read(8)
        size = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if size > length - 8 and file.read(1) == b"{":
            raise DataError(f"{path}: torn in its header; copy it again")
        if not 2 <= size <= length - 8:
            raise DataError(f"{path}: not a {what}{_but(path, start)}")
        if size > largest_header_bytes:
            raise DataError(f"{path}: not a {what}: its header has {size:,} bytes, more than any needs")
        text = file.read(size)
    try:
        header = parse_json(text)
    except ValueError as error:
        if foreign := _but(path, start):
            raise DataError(f"{path}: not a {what}{foreign}") from error
        raise DataError(f"{path}: not a {what}: its header cannot be read ({reason_of(error)})") from error
    metadata = header.get("__metadata__", {}) if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise DataError(f"{path}: not a {what}: its metadata are no texts")
    return TensorFile(path, what, metadata)


def _but(path: Path, start: bytes) -> str:
    """What a file is that is no safetensors, as far as its name and its first bytes say."""
    suffix = path.suffix.lower()
    if suffix == ".onnx":
        return " but an exported graph; give the run or the bundle that it was made of"
    if suffix in (".pth", ".pt", ".ckpt", ".pkl") or start.startswith((b"PK\3\4", b"\x80\2")):
        return " but a checkpoint of PyTorch's, which fruitgan import makes a bundle of; else give a run or a .safetensors file"
    return ""
