"""Hostile files for tests: how to spoil a good one, and how to notice that reading one takes too much memory."""

from __future__ import annotations

import copy
import json
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

DEEP = "@deep@"
JUNK: tuple[Any, ...] = (
    *(None, True, False, [], {}, [[]], {"a": {}}, DEEP),
    *(-1, 0, 1, 2, 7, 1000, 8192, 10**6, 10**9, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63), 10**400),
    *(0.0, -0.0, 0.5, 1e-320, 1e308, float("nan"), float("inf"), -float("inf")),
    *("", "x", "\0", "\n", "é", "\udcff", "\ud800", "\u202e", "<script>", "a" * 10_000, "9" * 5000, "1e999", "nan"),
    *("../../etc/passwd", "/etc/passwd", "os:system", "torch.nn:Module", "builtins.eval", "a2b", "F64", "BF16"),
)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in it."""
    found: list[tuple[Any, Any]] = []
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            found += [(value, key), *_places(value[key])]
    return found


def spoilt_json(draw: Callable[..., Any], value: Any) -> Any:
    """A copy of JSON values with one to three of them replaced, removed, added, moved or made another number."""
    value = json.loads(json.dumps(value))
    for _ in range(draw(st.integers(1, 3))):
        places = _places(value)
        if not places:
            return _junk(draw)
        container, key = places[draw(st.integers(0, len(places) - 1))]
        match draw(st.sampled_from(["junk", "junk", "remove", "add", "move", "number"])):
            case "junk":
                container[key] = _junk(draw)
            case "remove":
                del container[key]
            case "add" if isinstance(container, dict):
                container[draw(st.sampled_from(["x", "", "__class__", "format", "name"]))] = _junk(draw)
            case "add":
                container.insert(key, _junk(draw))
            case "move":
                other, place = places[draw(st.integers(0, len(places) - 1))]
                container[key] = json.loads(json.dumps(other[place])) if _has(other, place) else None
            case "number":
                if type(container[key]) in (int, float):
                    container[key] = draw(st.sampled_from([-1, 2, 1000, 10**12])) * container[key] + draw(st.integers(-2, 2))
    return value


def _junk(draw: Callable[..., Any]) -> Any:
    return copy.deepcopy(JUNK[draw(st.integers(0, len(JUNK) - 1))])  # a copy: what is put in may be spoilt in its turn


def _has(container: Any, key: Any) -> bool:
    return key in container if isinstance(container, dict) else key < len(container)


def spoilt_text(draw: Callable[..., Any], value: Any) -> str:
    """JSON text of a spoilt value, at times with a key that stands twice, or nested a hundred or a million levels deep."""
    text = json.dumps(value)
    levels = draw(st.sampled_from([33, 100, 900, 100_000]))
    text = text.replace(f'"{DEEP}"', "[" * levels + "]" * levels)
    if draw(st.integers(0, 19)) == 0 and text.startswith("{") and len(text) > 2:
        key = draw(st.sampled_from(["format", "name", "x", "dtype"]))
        text = text[:-1] + f', "{key}": 1, "{key}": 2}}'
    return text


def spoilt_bytes(draw: Callable[..., Any], data: bytes) -> bytes:
    """The bytes cut, lengthened, or with some of them changed, removed, doubled or moved; most often near the start."""
    spoilt = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.one_of(st.integers(0, min(2000, len(spoilt))), st.integers(0, len(spoilt))))
        length = draw(st.integers(0, 40))
        match draw(st.sampled_from(["flip", "flip", "cut", "remove", "insert", "double", "zero"])):
            case "flip" if at < len(spoilt):
                spoilt[at] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del spoilt[at:]
            case "remove":
                del spoilt[at : at + length]
            case "insert":
                spoilt[at:at] = draw(st.binary(max_size=40))
            case "double":
                spoilt[at:at] = spoilt[at : at + length]
            case "zero":
                spoilt[at : at + length] = bytes(min(length, len(spoilt) - at))
    return bytes(spoilt)


def tensor_file(header: str | bytes | Mapping[str, Any], content: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file with any header, which may say that it is of another length."""
    if isinstance(header, Mapping):
        header = json.dumps(header)
    raw = header.encode("utf-8", "surrogatepass") if isinstance(header, str) else header
    return struct.pack("<Q", len(raw) if length is None else length) + raw + content


def parts_of(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and content of a good safetensors file."""
    (length,) = struct.unpack("<Q", data[:8])
    header: dict[str, Any] = json.loads(data[8 : 8 + length])
    return header, data[8 + length :]


@contextmanager
def little_memory(more_bytes: int = 256 << 20) -> Iterator[None]:
    """While it lasts this process can have no more memory than now and `more_bytes`: what asks for it gets a MemoryError."""
    resource = pytest.importorskip("resource")
    statm = Path("/proc/self/statm")
    if not statm.exists():
        yield  # elsewhere the other promises are tested alone
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    now = int(statm.read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + more_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def examples(number: int) -> settings:
    """So many cases, the same every time; `HOSTILE_EXAMPLES=5000` tries that many others."""
    more = os.environ.get("HOSTILE_EXAMPLES")
    return settings(
        max_examples=int(more or number),
        derandomize=not more,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
