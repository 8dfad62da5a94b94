"""Settings as data: frozen dataclasses to JSON and back, every key and every type checked."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from fruitgan.errors import UsageError

T = TypeVar("T")


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
        if value not in arguments:
            raise UsageError(f"{where}: {value!r} is not one of {', '.join(map(str, arguments))}")
        return value
    if origin is tuple:
        return _convert_tuple(arguments, value, where)
    if origin in (dict, Mapping) or origin is getattr(typing, "Mapping", None):
        if not isinstance(value, Mapping):
            raise UsageError(f"{where}: expected a table, found {value!r}")
        return {key: _convert(arguments[1], entry, f"{where}.{key}") for key, entry in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is Path and isinstance(value, str):
        return Path(value)
    if isinstance(kind, type) and isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    name = "nothing" if kind is type(None) else getattr(kind, "__name__", str(kind))
    raise UsageError(f"{where}: expected {name}, found {value!r}")


def _convert_dataclass(kind: type, value: Any, where: str) -> Any:
    if not isinstance(value, Mapping):
        raise UsageError(f"{where}: expected a table, found {value!r}")
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    unknown = sorted(set(value) - set(fields))
    if unknown:
        raise UsageError(f"{where}: unknown key {unknown[0]!r}; known are {', '.join(fields)}")
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
    raise problem or UsageError(f"{where}: {value!r} is not allowed here")


def _convert_tuple(arguments: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise UsageError(f"{where}: expected a list, found {value!r}")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_convert(arguments[0], entry, f"{where}[{i}]") for i, entry in enumerate(value))
    if len(arguments) != len(value):
        raise UsageError(f"{where}: expected {len(arguments)} values, found {len(value)}")
    return tuple(_convert(kind, entry, f"{where}[{i}]") for i, (kind, entry) in enumerate(zip(arguments, value, strict=True)))
