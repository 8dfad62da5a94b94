"""Settings as data: frozen dataclasses to JSON and back, every key and type checked; JSON from strangers, strictly read."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from fruitgan.errors import DataError, UsageError, reason_of, shown
from fruitgan.files import open_regular, reading
from fruitgan.registry import suggestion

T = TypeVar("T")

MOST_LEVELS = 32
LARGEST_INTEGER = 2**64
LARGEST_TOML_BYTES = 1 << 20
LARGEST_JSON_BYTES = 8 << 20
"""Of a file: some hundred times what a run of ours writes, and few enough bytes for nothing to become large of them."""


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


def typed(kind: type[T], value: Any, file: Path) -> T:
    """What a file of ours says, as the dataclass.

    Raises:
        DataError: it says something else.
    """
    try:
        return from_json(kind, value, str(file))
    except UsageError as error:
        raise DataError(str(error)) from error


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
            parse_constant=_refused_constant,
            parse_float=_finite,
            parse_int=_bounded,
        )
    except RecursionError:
        raise ValueError(f"more than {MOST_LEVELS} levels") from None
    _check_levels(value)
    return value


def read_json(path: Path) -> Any:
    """The JSON of a file.

    Raises:
        DataError: it cannot be read, is no file or too large to be one of ours, or is not strict JSON (see `parse_json`).
    """
    with reading(path), open_regular(path) as file:
        text = file.read(LARGEST_JSON_BYTES + 1)
    if len(text) > LARGEST_JSON_BYTES:
        raise DataError(f"{path}: more than {LARGEST_JSON_BYTES:,} bytes; not a file of fruitgan's")
    try:
        return parse_json(text)
    except ValueError as error:
        raise DataError(f"{path}: not what it should be ({reason_of(error)})") from error


def read_toml(file: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        DataError: it cannot be read, or is too large to be a file of settings.
        UsageError: it is not TOML.
    """
    import tomllib  # few runs read a settings file

    with reading(file), open_regular(file) as opened:
        data = opened.read(LARGEST_TOML_BYTES + 1)
    try:
        if len(data) > LARGEST_TOML_BYTES:
            raise DataError(f"{file}: more than {LARGEST_TOML_BYTES:,} bytes; not a settings file")
        return tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: cannot be read (not UTF-8)") from error
    except (ValueError, RecursionError) as error:  # besides its own error the reader lets Python's on giant numbers through
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error).partition("\n")[0]
        raise UsageError(f"{file} is not TOML: {reason}") from error


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for key, value in pairs:
        if key in table:
            raise ValueError(f"the key {shown(key)} stands twice")
        table[key] = value
    return table


def _refused_constant(word: str) -> Any:
    raise ValueError(f"{word} is no number that could be meant")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value


def _bounded(text: str) -> int:
    value = int(text) if len(text) <= len(str(-LARGEST_INTEGER)) else LARGEST_INTEGER
    if not -LARGEST_INTEGER < value < LARGEST_INTEGER:
        raise ValueError("a whole number has more than 64 bits")
    return value


def _check_levels(value: Any) -> None:
    """Raises: ValueError for too many levels, and for text that no file could hold."""
    level = [value]
    for _ in range(MOST_LEVELS):
        below: list[Any] = []
        for entry in level:
            if isinstance(entry, dict):
                below += (*entry.keys(), *entry.values())
            elif isinstance(entry, list):
                below += entry
            elif isinstance(entry, str) and not entry.isascii():
                try:
                    entry.encode("utf-8", "surrogateescape")
                except UnicodeEncodeError:
                    raise ValueError("a text holds half a character") from None
        if not below:
            return
        level = below
    raise ValueError(f"more than {MOST_LEVELS} levels")


def from_json(kind: type[T], value: Any, where: str = "settings") -> T:
    """Build the dataclass `kind` from what `to_json` gave.

    Raises:
        UsageError: naming the key, if one is unknown, missing or of the wrong type.
    """
    return typing.cast(T, _convert(kind, value, where))


def _convert(kind: Any, value: Any, where: str) -> Any:
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _convert_dataclass(kind, value, where)
    origin = typing.get_origin(kind)
    arguments = typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(arguments, value, where)
    if origin is typing.Literal:
        found = next((word for word in arguments if type(word) is type(value) and word == value), None)
        if found is None:
            raise UsageError(f"{where}: {shown(value)} is not one of {', '.join(map(str, arguments))}")
        return found
    if origin is tuple:
        return _convert_tuple(arguments, value, where)
    if origin in (dict, Mapping) or origin is getattr(typing, "Mapping", None):
        if not isinstance(value, Mapping):
            raise UsageError(f"{where}: expected a table, found {shown(value)}")
        return {key: _convert(arguments[1], entry, f"{where}.{key}") for key, entry in value.items()}
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return _as_float(value, where)
    if kind is Path and isinstance(value, str):
        return Path(value)
    if isinstance(kind, type) and isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    name = "nothing" if kind is type(None) else getattr(kind, "__name__", str(kind))
    raise UsageError(f"{where}: expected {name}, found {shown(value)}")


def _as_float(value: float, where: str) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise UsageError(f"{where}: expected a finite number, found {shown(value)}")
    return number


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _convert_dataclass(kind: type, value: Any, where: str) -> Any:
    if not isinstance(value, Mapping):
        raise UsageError(f"{where}: expected a table, found {shown(value)}")
    hints = _hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    unknown = sorted(set(value) - set(fields))
    if unknown:
        raise UsageError(f"{where}: unknown key {shown(unknown[0])}: {suggestion(str(unknown[0]), list(fields))}")
    required = {
        name
        for name, field in fields.items()
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    missing = sorted(required - set(value))
    if missing:
        raise UsageError(f"{where}: key {missing[0]!r} is missing")
    return kind(**{name: _convert(hints[name], entry, f"{where}.{name}") for name, entry in value.items()})


def _convert_union(arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in arguments:
        return None
    problem: UsageError | None = None
    for argument in arguments:
        if argument is type(None):
            continue
        try:
            return _convert(argument, value, where)
        except UsageError as error:
            problem = problem or error
    raise problem or UsageError(f"{where}: {shown(value)} is not allowed here")


def _convert_tuple(arguments: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise UsageError(f"{where}: expected a list, found {shown(value)}")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_convert(arguments[0], entry, f"{where}[{i}]") for i, entry in enumerate(value))
    if len(arguments) != len(value):
        raise UsageError(f"{where}: expected {len(arguments)} values, found {len(value)}")
    return tuple(_convert(kind, entry, f"{where}[{i}]") for i, (kind, entry) in enumerate(zip(arguments, value, strict=True)))
