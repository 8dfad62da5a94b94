"""Settings as data: frozen dataclasses that check their types, to JSON and back; JSON from strangers, strictly read."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from fruitgan.addresses import named
from fruitgan.errors import DataError, UsageError, reading, reason_of, shown
from fruitgan.files import open_regular
from fruitgan.registry import suggestion

T = TypeVar("T")
Precision = Literal["auto", "fp32", "bf16"]
"""In which networks are multiplied."""
RUNS = Path("runs", "train-gan")
"""Where trainings leave their runs."""
SHIPPED = Path(__file__).parent / "weights"
"""The bundles that come with the package, and their graphs."""

MOST_LEVELS = 32
LARGEST_INTEGER = 2**64
LARGEST_TOML_BYTES = 1 << 20
LARGEST_JSON_BYTES = 8 << 20
"""Some hundred times what a run of ours writes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What a job is asked for: each field has the type that it says, or what means the same.

    A `str` may stand for a `Path` and the other way round, one thing alone for a tuple of such, numpy's numbers for Python's.
    """

    def __post_init__(self) -> None:
        """Raises: UsageError, naming the field, for a value of another kind."""
        for name, kind in _hints(typing.cast(Any, type(self))).items():
            value = getattr(self, name)
            if typing.get_args(kind)[1:] == (Ellipsis,):
                alone = isinstance(value, str) or not isinstance(value, Iterable)
                value = (value,) if alone else tuple(value)
            object.__setattr__(self, name, _convert(kind, value, f"{type(self).__name__}.{name}"))


def to_json(value: Any) -> Any:
    """The value as dicts, lists, strings, numbers, booleans and None; a path becomes its string."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(entry) for entry in value]
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{type(value).__name__} has no JSON form")


def finite(value: Any) -> Any:
    """The same values for JSON, which has no infinities (they become null), and for people (see `addresses.named`)."""
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [finite(entry) for entry in value]
    if isinstance(value, str):
        return named(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def typed(kind: type[T], value: Any, where: Path | str) -> T:
    """What a file of ours says, as the dataclass.

    Raises:
        DataError: it says something else.
    """
    try:
        return from_json(kind, value, str(where))
    except UsageError as error:
        message = str(error)
        raise DataError(message if message.startswith(str(where)) else f"{where}: {message}") from error


def parse_json(text: str | bytes) -> Any:
    """JSON as a stranger may have written it, strictly: nothing that a careless reader would take for something else.

    Raises:
        ValueError: it is no UTF-8 or no JSON, has a key twice, a number that is not finite or beyond 64 bits, half a character
            (but for those that stand for a file name's bytes), or more than `MOST_LEVELS` levels; says which.
    """
    try:
        value = json.loads(
            text.decode() if isinstance(text, bytes) else text,
            object_pairs_hook=_table,
            parse_constant=_number,
            parse_float=_number,
            parse_int=_bounded,
        )
    except RecursionError:
        raise ValueError(f"more than {MOST_LEVELS} levels") from None
    try:
        _check(value, MOST_LEVELS)
    except UnicodeEncodeError:
        raise ValueError("a text holds half a character") from None
    return value


def read_json(path: Path) -> Any:
    """The JSON of a file.

    Raises:
        DataError: it cannot be read, is no file or too large to be one of ours, or is not strict JSON (see `parse_json`).
    """
    try:
        return parse_json(_content(path, LARGEST_JSON_BYTES, "a file of fruitgan's"))
    except ValueError as error:
        raise DataError(f"{path}: not what it should be ({reason_of(error)})") from error


def read_toml(file: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        DataError: it cannot be read, or is too large to be a file of settings.
        UsageError: it is not TOML.
    """
    import tomllib  # few runs read a settings file

    try:
        return tomllib.loads(_content(file, LARGEST_TOML_BYTES, "a settings file").decode())
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: cannot be read (not UTF-8)") from error
    except RecursionError as error:
        raise UsageError(f"{file} is not TOML: nested too deeply") from error
    except ValueError as error:  # tomllib's own, and Python's on giant numbers
        raise UsageError(f"{file} is not TOML: {reason_of(error)}") from error


def _content(path: Path, most_bytes: int, what: str) -> bytes:
    with reading(path), open_regular(path) as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise DataError(f"{path}: more than {most_bytes:,} bytes; not {what}")
    return content


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        twice = next(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i]))
        raise ValueError(f"the key {shown(twice)} stands twice")
    return table


def _number(text: str) -> float:
    value = float(text)  # of NaN and Infinity too, which Python's reader takes
    if not math.isfinite(value):
        raise ValueError("a number is not finite")
    return value


def _bounded(text: str) -> int:
    # Measured as text first: Python refuses to read thousands of digits.
    if len(text) > len(str(-LARGEST_INTEGER)) or abs(int(text)) >= LARGEST_INTEGER:
        raise ValueError("a whole number has more than 64 bits")
    return int(text)


def _check(value: Any, levels: int) -> None:
    """Raises: ValueError for too many levels; UnicodeEncodeError, which is one, for text that no file could hold."""
    if not levels:
        raise ValueError(f"more than {MOST_LEVELS} levels")
    if isinstance(value, str):
        value.encode("utf-8", "surrogateescape")
    elif isinstance(value, (dict, list)):
        for entry in (*value, *value.values()) if isinstance(value, dict) else value:
            _check(entry, levels - 1)


def from_json(kind: type[T], value: Any, where: str = "settings") -> T:
    """Build the dataclass `kind` from what `to_json` gave.

    Raises:
        UsageError: naming the key, if one is unknown, missing or of the wrong type.
    """
    return typing.cast(T, _convert(kind, value, where))


def _convert(kind: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if getattr(value, "shape", None) == ():  # a number of numpy's
        value = value.item()
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return value if isinstance(value, kind) else _convert_dataclass(kind, value, where)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(arguments, value, where)
    if origin is typing.Literal:
        if not any(type(word) is type(value) and word == value for word in arguments):
            raise UsageError(f"{where}: {shown(value)} is not one of {', '.join(map(str, arguments))}")
        return value
    if isinstance(kind, type) and hasattr(kind, "_fields"):  # a named tuple
        return kind(*_convert_tuple(tuple(_hints(kind).values()), value, where))
    if origin is tuple:
        return _convert_tuple(arguments, value, where)
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise UsageError(f"{where}: expected a table, found {shown(value)}")
        return {key: _convert(arguments[1], entry, f"{where}.{key}") for key, entry in value.items()}
    if kind is float and type(value) in (int, float) and abs(value) <= sys.float_info.max:
        return float(value)
    if (kind is Path and isinstance(value, str)) or (kind is str and isinstance(value, Path)):
        return kind(value)
    if kind is not float and isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    name = {float: "a finite number", type(None): "nothing"}.get(kind, kind.__name__)
    raise UsageError(f"{where}: expected {name}, found {shown(value)}")


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _convert_dataclass(kind: type, value: Any, where: str) -> Any:
    if not isinstance(value, Mapping):
        raise UsageError(f"{where}: expected a table, found {shown(value)}")
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    if unknown := sorted(set(value) - set(fields)):
        raise UsageError(f"{where}: unknown key {shown(unknown[0])}: {suggestion(str(unknown[0]), list(fields))}")
    for name, field in sorted(fields.items()):
        if name not in value and field.default is field.default_factory is dataclasses.MISSING:
            raise UsageError(f"{where}: key {name!r} is missing")
    return kind(**{name: _convert(_hints(kind)[name], entry, f"{where}.{name}") for name, entry in value.items()})


def _convert_union(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    """As it is, or as the first of the kinds that fits. Raises: UsageError, what the first says."""
    if type(value) in kinds:
        return value
    problems = []
    for kind in kinds:
        try:
            return _convert(kind, value, where)
        except UsageError as error:
            problems.append(error)
    raise problems[0]


def _convert_tuple(kinds: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise UsageError(f"{where}: expected a list, found {shown(value)}")
    if kinds[1:] == (Ellipsis,):
        kinds = kinds[:1] * len(value)
    if len(kinds) != len(value):
        raise UsageError(f"{where}: expected {len(kinds)} values, found {len(value)}")
    return tuple(_convert(kind, entry, f"{where}[{i}]") for i, (kind, entry) in enumerate(zip(kinds, value, strict=True)))
