"""What options take: values, read from text, the environment or a settings file, and names, checked and completed.

The reading stands in for typer's own, whose import (pydantic) takes longer than the rest of a command's start. An unknown name
is refused before anything heavy is imported; a job checks it again. What is here reads package metadata and folder names alone.
"""

from __future__ import annotations

import os
import re
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fruitgan.errors import UsageError, about_address, shown
from fruitgan.registry import Registry, suggestion
from fruitgan.settings import SHIPPED, from_json

FILES = {"": "config.json", "train-gan": "bundle.safetensors", "train-detector": "detector.safetensors"}
"""What a run of a kind has, by the folder that its kind's runs lie in; of any kind: a config."""
LARGEST = 2**63 - 1
"""Of a whole number without a bound of its own: what seeds, counts and torch's sizes can be."""
WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def registered(kind: str, *besides: str, several: bool = False) -> dict[str, Any]:
    """For an option that takes a registered name: its check and its completion, as keywords of `typer.Option`.

    Args:
        besides: words that are no names.
        several: the option takes several names with commas; it gives them one by one.
    """
    registry = Registry[Any](kind)

    def check(value: str | list[str] | None) -> str | list[str] | None:
        texts = [value] if isinstance(value, str) else value or []
        found = [name.strip() for text in texts for name in (text.split(",") if several else [text])]
        for name in found:
            if name not in besides and not _is_path(name):
                registry.owner(name)
        return found if several else value

    return {"callback": check, **completed(registry.names, lambda: besides)}


def one_of(what: str, *sources: Callable[[], Iterable[str]]) -> dict[str, Any]:
    """For an option that takes a name from these sources, a run's name, a path or an address: its check and its completion."""

    def check(value: str | None) -> str | None:
        here = [path.name for path in Path("runs").glob("*/*")]
        if value and not _is_path(value) and not {":", "@"} & set(value) and value not in here:
            known = sorted({name for source in sources for name in source()})
            if value not in known:
                raise UsageError(f"no {what} named {value!r}: {suggestion(value, known)}")
        return value

    return {"callback": check, **completed(*sources)}


def completed(*sources: Callable[[], Iterable[str]]) -> dict[str, Any]:
    """For an option that takes a name from these sources, or several with commas, or a path: its completion."""

    def complete(incomplete: str) -> list[str]:
        before, comma, begun = incomplete.rpartition(",")
        found = sorted({name for source in sources for name in source()})
        return [f"{before}{comma}{name}" for name in found if name.startswith(begun)]

    return {"autocompletion": complete}


def bundles() -> list[str]:
    """The bundles that ship."""
    return [path.stem for path in SHIPPED.glob("*.safetensors")]


def runs(kind: str = "") -> Callable[[], list[str]]:
    """The names of the runs here: of `train-gan` and so on, or of all kinds."""
    return lambda: [path.name for path in Path("runs").glob(f"{kind or '*'}/*") if (path / FILES[kind]).exists()]


def _is_path(name: str) -> bool:
    """Whether a name is a file's or a folder's where such may stand for it."""
    return os.sep in name or "/" in name or Path(name).suffix in (".toml", ".safetensors") or Path(name).exists()


@dataclass(frozen=True)
class Kind:
    """What an option wants: text, a path, a number within bounds, true or false, or one of a few words; one or several."""

    annotation: Any
    least: float | None
    most: float | None
    many: bool

    @classmethod
    def of(cls, parameter: Any) -> Kind | None:
        """The kind of typer's parameter; None for what only plug-ins have, which typer reads itself."""
        annotation, about = parameter.type_descriptor.annotation, parameter.type_descriptor.parameter_info
        many = bool(parameter.multiple or parameter.nargs == -1)
        if many and typing.get_origin(annotation) is list:
            (annotation,) = typing.get_args(annotation)
        is_known = annotation in (str, int, float, bool, Path) or typing.get_origin(annotation) is typing.Literal
        is_special = about.parser is not None or about.clamp or about.exists or about.resolve_path or about.allow_dash
        if is_special or not is_known or parameter.nargs not in (1, -1):
            return None
        return cls(annotation, about.min, about.max, many)

    @property
    def expected(self) -> str:
        """In words."""
        if self.annotation in (int, float):
            noun = "a whole number" if self.annotation is int else "a number"
            if self.most is not None:
                return f"{noun} from {self.least or 0:,} to {self.most:,}"
            return noun if self.least is None else f"{noun} of {self.least:,} or more"
        if self.annotation in (bool, str, Path):
            return {bool: "true or false", str: "text", Path: "a path"}[self.annotation]
        *first, last = map(str, typing.get_args(self.annotation))
        return f"{', '.join(first)} or {last}" if first else last

    def read_text(self, text: str) -> Any:
        """The value of what was typed or set in the environment. Raises: ValueError if it is none."""
        word = text.strip()
        if self.annotation is bool:
            return self.checked(WORDS.get(word.lower()))
        if self.annotation in (int, float):
            return self.checked(int(word) if re.fullmatch(r"[+-]?[0-9]{1,30}", word) else float(word))
        return self.checked(text)

    def checked(self, value: Any) -> Any:
        """The value as the option wants it, as strict as TOML itself. Raises: ValueError if it does not fit."""
        if "\0" in str(value) or (self.annotation is Path and not str(value)):
            raise ValueError
        try:
            found = from_json(self.annotation, value)
        except UsageError as error:  # the option has its own words for what is expected
            raise ValueError from error
        if self.annotation in (int, float):
            least, most = (-LARGEST if self.least is None else self.least), (LARGEST if self.most is None else self.most)
            if not least <= found <= most:
                raise ValueError
        return found

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """The option's value, asked for by typer as of its own runtime parameter.

        Raises:
            UsageError: it does not fit; names the option or the variable.
        """
        if value is None:
            return () if self.many else None
        read = []
        for entry in value if self.many else [value]:
            if self.annotation is Path and (advice := about_address(str(entry))):  # a path would swallow a stroke of it
                raise UsageError(f"{_where(entry, param, ctx)}: {advice}")
            try:
                read.append(self.read_text(entry) if isinstance(entry, str) else self.checked(entry))
            except ValueError as error:
                raise UsageError(f"{_where(entry, param, ctx)}: expected {self.expected}") from error
        return read if self.many else read[0]


def _where(value: Any, param: Any, ctx: Any) -> str:
    """What was said and where: `--batch-size many` or `FRUITGAN_BATCH_SIZE=many`."""
    is_plain = isinstance(value, str) and value.isprintable() and " " not in value and 0 < len(value) <= 80
    said = value if is_plain else shown(value)
    if getattr(ctx.get_parameter_source(param.name), "name", "") == "ENVIRONMENT":
        return f"{param.envvar}={said}"
    names = [option for option in param.opts if option.startswith("--")] or param.opts
    return f"{names[0] if param.param_type_name == 'option' else param.metavar or param.name.upper()} {said}"
