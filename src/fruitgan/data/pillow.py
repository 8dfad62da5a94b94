"""Pillow, made to read what it can and to keep what it thinks of it for itself."""

from __future__ import annotations

import ctypes
import functools
import logging
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import PIL
from PIL import Image

LEFT_OUT = frozenset({"EPS", "WMF", "MPEG", "BUFR", "GRIB", "HDF5"})
"""What Pillow opens and cannot decode by itself; for the first it would start another program."""

# A filter for all warnings that arise in Pillow's modules, as `warnings.filters` holds it.
_FILTER = ("ignore", None, Warning, re.compile(r"PIL\."), 0)

_lock = threading.Lock()
_inside = 0


@functools.cache
def formats() -> tuple[str, ...]:
    """Every format that this Pillow decodes; also those that others have taught it."""
    Image.init()
    logging.getLogger("PIL").addHandler(logging.NullHandler())  # else what it logs goes to standard error
    _silence_libtiff()
    return tuple(name for name in Image.OPEN if name not in LEFT_OUT)


def has_signature(name: str | None) -> bool:
    """Whether files of this format begin as no others do; where they don't, what cannot be decoded was none of them."""
    return Image.OPEN.get(name or "", (None, True))[1] is not None


@contextmanager
def quietly() -> Iterator[None]:
    """Pillow's warnings on odd files off: the number of pixels has its own limit here, and odd metadata are ignored.

    The filter stands among those of the process while any thread is inside. It is put in and taken out in place, since
    `warnings.catch_warnings` exchanges the whole list, and threads that overlap would bring back each other's.
    """
    global _inside
    filters = cast("list[Any]", warnings.filters)
    with _lock:
        if _inside == 0:
            filters.insert(0, _FILTER)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                # Another's `catch_warnings` may have come between, with a list of its own.
                with suppress(ValueError):
                    cast("list[Any]", warnings.filters).remove(_FILTER)


def _silence_libtiff() -> None:
    """libtiff writes its errors to standard error by itself; Pillow turns only its warnings off.

    Found where Pillow's wheels have it; elsewhere it goes on talking, which harms nothing but the looks.
    """
    package = Path(PIL.__file__).parent
    for folder in (package.parent / "pillow.libs", package / ".dylibs"):
        for library in folder.glob("libtiff*"):
            with suppress(OSError, AttributeError):
                set_handler = ctypes.CDLL(str(library)).TIFFSetErrorHandler
                set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
                set_handler(None)
