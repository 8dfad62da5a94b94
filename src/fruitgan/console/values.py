"""What is typed, set in the environment or written in a settings file, read as the value that an option wants.

In place of typer's reading: its messages are those of a library for programmers, and its import a third of a command's start.
"""

from __future__ import annotations

import math
import re
import typing
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import typer

from fruitgan.errors import UsageError, shown

LARGEST = 2**63 - 1
"""Of a whole number without a bound of its own: what seeds, counts and torch's sizes can be."""
WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


class Refused(Exception):
    """The value is not what the option wants; its text, if it has one, says more than `Kind.expected`."""


@dataclass(frozen=True)
class Kind:
    """What an option wants: text, a path, a number within bounds, true or false, or one of a few words; one or several."""

    annotation: Any
    least: float | None = None
    most: float | None = None
    many: bool = False

    @classmethod
    def of(cls, parameter: Any) -> Kind | None:
        """That of typer's parameter; None if it is of none of these kinds, which a plug-in may have."""
        about = parameter.type_descriptor.parameter_info
        annotation = parameter.type_descriptor.annotation
        many = bool(parameter.multiple or parameter.nargs == -1)
        if many:
            annotation = typing.get_args(annotation)[0] if typing.get_origin(annotation) is list else annotation
        is_word = typing.get_origin(annotation) is typing.Literal or (
            isinstance(annotation, type) and issubclass(annotation, Enum)
        )
        is_plain = annotation in (str, int, float, bool) or (annotation is Path and not _is_examined(about))
        is_usual = about.parser is None and not about.clamp and (about.case_sensitive or not is_word)
        if not (is_plain or is_word) or not is_usual or (parameter.nargs != 1 and not many):
            return None
        return cls(annotation, about.min, about.max, many)

    @property
    def expected(self) -> str:
        """In words."""
        if self.annotation in (int, float):
            return ("a whole number" if self.annotation is int else "a number") + self._bounds()
        if self.annotation is bool:
            return "true or false"
        if self.annotation in (str, Path):
            return "text" if self.annotation is str else "a path"
        *first, last = self._words()
        return f"{', '.join(first)} or {last}" if first else last

    def _bounds(self) -> str:
        if self.most is not None:
            return f" from {self.least or 0:,} to {self.most:,}"
        return "" if self.least is None else f" of {self.least:,} or more"

    def _words(self) -> dict[str, Any]:
        if isinstance(self.annotation, type) and issubclass(self.annotation, Enum):
            return {str(member.value): member for member in self.annotation}
        return {str(word): word for word in typing.get_args(self.annotation)}

    def read_text(self, value: Any) -> Any:
        """The value of what was typed or set in the environment; a default, which is one already, stays itself.

        Raises:
            Refused: it is none.
        """
        if not isinstance(value, str):
            return self._checked(value)
        if self.annotation is bool:
            if value.strip().lower() not in WORDS:
                raise Refused
            return WORDS[value.strip().lower()]
        if self.annotation in (int, float):
            number = value.strip()
            is_whole = re.fullmatch(r"[+-]?[0-9]{1,30}", number)
            try:
                return self._checked(int(number) if is_whole else float(number))
            except ValueError:
                raise Refused from None
        return self._checked(value)

    def read_typed(self, value: Any) -> Any:
        """The value of what a settings file says, as strict as TOML itself; but text may be a number, such as `gpu = 0`.

        Raises:
            Refused: it is none.
        """
        if self.annotation is str and type(value) in (int, float):
            return self._checked(str(value) if abs(value) <= LARGEST else "")
        return self._checked(value)

    def _checked(self, value: Any) -> Any:
        if self.annotation in (int, float):
            fits = type(value) is int or (type(value) is float and self.annotation is float and math.isfinite(value))
            if not fits or (self.least is not None and value < self.least) or (self.most is not None and value > self.most):
                raise Refused
            if type(value) is int and abs(value) > LARGEST:
                raise Refused("a number of 64 bits at most")
            return self.annotation(value)
        if self.annotation in (bool, str):
            if type(value) is not self.annotation or (self.annotation is str and "\0" in value):
                raise Refused
            return value
        if self.annotation is Path:
            if not isinstance(value, (str, Path)) or not str(value) or "\0" in str(value):
                raise Refused
            return Path(value)
        words = self._words()
        if type(value) is str and value in words:
            return words[value]
        if isinstance(value, Enum) and value in words.values():  # a default
            return value
        raise Refused


def _is_examined(about: Any) -> bool:
    """Whether typer is to look at what is at a path."""
    usual = about.file_okay and about.dir_okay and not about.resolve_path and about.path_type is None
    return about.exists or about.writable or about.allow_dash or not usual


class Reader:
    """Stands in the place of typer's reader of an option's value; the others of its kinds, a plug-in's, are left to typer."""

    def __init__(self, parameter: Any) -> None:
        self.kind = Kind.of(parameter)

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Typer's own signature. Raises: UsageError in our words."""
        if value is None:
            return () if param.multiple or param.nargs == -1 else None
        if self.kind is None:
            return typers(value, param, ctx, _where(value, param, ctx))
        if not self.kind.many:
            return self._read(self.kind.read_text, value, param, ctx)
        return [self._read(self.kind.read_text, entry, param, ctx) for entry in value]

    def _read(self, read: Callable[[Any], Any], value: Any, param: Any, ctx: Any) -> Any:
        assert self.kind is not None
        try:
            return read(value)
        except Refused as refused:
            raise UsageError(f"{_where(value, param, ctx)}: expected {str(refused) or self.kind.expected}") from None


def typers(value: Any, param: Any, ctx: Any, where: str) -> Any:
    """The value as typer reads it. Raises: UsageError, if it does not."""
    ours, param._runtime_param = param._runtime_param, None
    try:
        return param.get_runtime_param().coerce(value, param=param, ctx=ctx)
    except typer.BadParameter as error:
        raise UsageError(f"{where}: expected {param.display_type(ctx).strip('<>')}") from error
    finally:
        param._runtime_param = ours


def _where(value: Any, param: Any, ctx: Any) -> str:
    """What was said and where: `--batch-size many` or `FRUITGAN_BATCH_SIZE=many`."""
    plain = isinstance(value, str) and value.isprintable() and " " not in value and 0 < len(value) <= 80
    said = value if plain else shown(value)
    source = ctx.get_parameter_source(param.name) if ctx is not None else None
    if getattr(source, "name", "") == "ENVIRONMENT":
        return f"{param.envvar}={said}"
    return f"{name_of(param)} {said}"


def name_of(param: Any) -> str:
    """`--batch-size`, or an argument's `PICTURE...`."""
    long = [option for option in param.opts if option.startswith("--")]
    return str((long or param.opts)[0] if param.param_type_name == "option" else param.metavar or param.name.upper())
