"""Names to things: one registry a kind, fed by entry points, ours and a stranger's alike.

Listing reads package metadata and imports nothing; `get` imports the one thing asked for.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib.util
import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from fruitgan.errors import EnvironmentProblem, UsageError, is_out_of_memory, reason_of, shown

T = TypeVar("T")

BUILDERS_ERRORS = (ValueError, TypeError, ArithmeticError, RuntimeError, LookupError, AttributeError, AssertionError)
"""What a builder may raise that was not made for such options."""
OWN_PACKAGE = "fruitgan"
OWN_PROGRAM = "own-program"
"""Stands for a package where `Registry.register` was used."""
GROUPS = "fruitgan."
"""What the names of our groups of entry points begin with."""
MEMBER = "network"
"""The option of a builder that stands for a whole family; `torchvision:resnet34` gives it behind a colon."""
OWN_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
PACKAGE_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")
KINDS = (
    "recipes",
    "generators",
    "discriminators",
    "backbones",
    "detectors",
    "objectives",
    "augmentations",
    "datasets",
    "features",
    "metrics",
    "engines",
    "trackers",
    "commands",
)
DOCSTRING = re.compile(r'^    """(.+?)(?:"""|\n\s*\n)', re.MULTILINE | re.DOTALL)
SUMMARIES = (
    *((f"{word} {{}}{end}", DOCSTRING) for word in ("def", "class") for end in "(:"),
    ("{} = ", re.compile(r'(?:help|summary)="(.+?)"')),
    ('    "{}": "', re.compile(r': "(.+?)"')),
)
"""How the source text of a registered thing begins, and where behind that its summary stands."""


@dataclass(frozen=True, order=True)
class Entry:
    """One registered name: where it comes from and the `module:attribute` it stands for."""

    kind: str
    name: str
    package: str
    version: str
    target: str

    @property
    def summary(self) -> str:
        """A line on what it is, read from its source text, since importing every module would take seconds; empty if not found.

        That is the first paragraph of the docstring of a function or a class, what `name = Thing(help="...")` or
        `summary="..."` says, or the text beside the name in a table.
        """
        module, _, attribute = self.target.partition(":")
        source = _source(module)
        for beginning, words in SUMMARIES:
            at = source.find("\n" + beginning.format(attribute))
            if at >= 0 and (found := words.search(source, at)):
                return " ".join(found[1].split())
        return ""


@functools.cache
def _source(module: str) -> str:
    """A module's source text, without importing it or what lies above it; empty where there is none."""
    package, *parts = module.split(".")
    with contextlib.suppress(OSError, ValueError, ImportError):
        if (spec := importlib.util.find_spec(package)) is not None:
            places = [Path(folder, *parts) for folder in spec.submodule_search_locations or ()]
            files = [file for place in places for file in (place.with_suffix(".py"), place / "__init__.py")]
            there = (file for file in (files if parts else [Path(spec.origin or "")]) if file.is_file())
            return next((file.read_text(encoding="utf-8") for file in there), "")
    return ""


@dataclass(frozen=True)
class Choice:
    """A registered thing with *all* its options resolved: what configs, checkpoints and bundles store."""

    name: str
    package: str
    version: str
    options: Mapping[str, Any] = field(default_factory=dict)


@functools.cache
def _scan() -> tuple[Entry, ...]:
    """Every entry point of ours, the same distribution found twice on the path counted once.

    One pass over the installed packages, and one look at the metadata of each package that has any: the start of the command
    line waits for this.
    """
    found: set[Entry] = set()
    about: dict[int, tuple[str, str]] = {}
    points = metadata.entry_points()
    for group in points.groups:
        for point in points.select(group=group) if group.startswith(GROUPS) else ():
            distribution = point.dist
            if distribution and id(distribution) not in about:
                about[id(distribution)] = distribution.name, distribution.version
            package, version = about.get(id(distribution), ("unknown", "0"))
            found.add(Entry(group.removeprefix(GROUPS), point.name, package, version, point.value))
    return tuple(sorted(found))


_own: dict[Entry, Any] = {}
"""What this program registered itself."""


def forget() -> None:
    """Read the installed packages anew at the next look (after an install in the same process)."""
    _scan.cache_clear()


def suggestion(name: str, known: Sequence[str]) -> str:
    """The end of an unknown-name message: what is near, or else all there is."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return "did you mean " + " or ".join(near) + "?"
    return "known are " + ", ".join(known) if known else "there is none"


def known_kind(kind: str) -> str:
    """The name of a kind; the singular will do. Raises: UsageError if there is none of that name."""
    for known in KINDS:
        if kind in (known, known.removesuffix("s")):
            return known
    raise UsageError(f"no kind {kind!r}: {suggestion(kind, KINDS)}")


class Registry(Generic[T]):
    """The things of one kind, by kebab-case name, from the entry-point group `fruitgan.<kind>`."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    @property
    def noun(self) -> str:
        return self.kind.removesuffix("s")

    def entries(self) -> list[Entry]:
        return [entry for entry in (*_scan(), *_own) if entry.kind == self.kind]

    def register(self, name: str, thing: T) -> T:
        """Give a thing of this program, such as a class of a notebook, a name until the program ends; again for another.

        Runs and bundles remember the name alone: a program that reads them registers it, too. A package does better there.

        Raises:
            UsageError: a package has the name, or it is none.
        """
        if not OWN_NAME.fullmatch(name):
            raise UsageError(f"{self.kind}.register({shown(name)}): a name is of small letters, digits and hyphens")
        if owners := [entry.package for entry in _scan() if (entry.kind, entry.name) == (self.kind, name)]:
            raise UsageError(f"{self.kind}.register({shown(name)}): {owners[0]} has that name")
        for entry in [entry for entry in _own if (entry.kind, entry.name) == (self.kind, name)]:
            del _own[entry]
        module, of_what = getattr(thing, "__module__", ""), getattr(thing, "__qualname__", name)
        _own[Entry(self.kind, name, OWN_PROGRAM, "0", f"{module}:{of_what}")] = thing
        return thing

    def names(self) -> list[str]:
        return sorted({entry.name for entry in self.entries()})

    def owner(self, name: str) -> Entry:
        """Who registered the name; of `FAMILY:MEMBER` the family counts.

        Raises:
            UsageError: unknown name (says what is near), or two packages claim it (names both).
        """
        name, _, _ = name.partition(":")
        owners = [entry for entry in self.entries() if entry.name == name]
        if not owners:
            raise UsageError(f"no {self.noun} named {shown(name)}: {suggestion(name, self.names())}")
        if len(owners) > 1:
            claims = " and ".join(f"{entry.package} {entry.version} ({entry.target})" for entry in owners)
            raise UsageError(f"two packages register the {self.noun} {name!r}: {claims}; uninstall one of them")
        return owners[0]

    def get(self, name: str) -> T:
        """Import the thing behind the name, and nothing else.

        Raises:
            UsageError: as `owner`.
            EnvironmentProblem: its package fails to import; names the package and the reason.
        """
        owner = self.owner(name)
        if owner in _own:
            return cast(T, _own[owner])
        try:
            return cast(T, metadata.EntryPoint(owner.name, owner.target, f"{GROUPS}{self.kind}").load())
        except (Exception, SystemExit) as error:  # a stranger's module may raise anything at import; it must break only itself
            where = f"the {self.noun} {name!r} of package {owner.package} {owner.version}"
            reason = f"{type(error).__name__}: {reason_of(error)}"
            raise EnvironmentProblem(f"{where} cannot be imported: {reason}") from error

    def choose(self, name: str, options: Mapping[str, Any] | None = None) -> Choice:
        """The name with all its options: those given, checked, and the builder's own defaults.

        `FAMILY:MEMBER` is the family with its option `network` given, and is stored as such.

        Raises:
            UsageError: an option that the builder's signature does not have, or a value of another type.
        """
        owner = self.owner(name)
        builder = cast(Callable[..., Any], self.get(name))
        given = dict(options or {})
        name, colon, member = name.partition(":")
        if colon:
            if MEMBER not in inspect.signature(builder).parameters:
                raise UsageError(f"{self.noun} {name} is no family: nothing can stand behind a colon ({shown(member)})")
            given[MEMBER] = member
        return Choice(name, owner.package, owner.version, resolve_options(builder, given, f"{self.noun} {name}"))

    def build(self, choice: Choice) -> Any:
        """Call the builder with the options of the choice.

        Raises:
            EnvironmentProblem: the package that registered the name is not installed here.
            UsageError: it cannot be built with these options; the cause is what the builder raised.
        """
        if choice.name not in self.names():
            raise EnvironmentProblem(f"the {self.noun} {shown(choice.name)} {_from_package(choice)}")
        builder = cast(Callable[..., Any], self.get(choice.name))
        options = resolve_options(builder, choice.options, f"{self.noun} {choice.name}")
        try:
            return builder(**options)
        except BUILDERS_ERRORS as error:
            if is_out_of_memory(error):  # which is not the options' fault
                raise
            what = f"the {self.noun} {choice.name} cannot be built with {shown(options)}"
            raise UsageError(f"{what}: {reason_of(error)}") from error


def _from_package(choice: Choice) -> str:
    """Where a thing comes from that is not installed; only a real package's name is ever offered as a thing to install."""
    if choice.package == OWN_PROGRAM:
        return "is the program's that made this: register it in this one (Registry.register)"
    if not PACKAGE_NAME.fullmatch(choice.package):
        return f"is not registered here, and the package named with it, {shown(choice.package)}, cannot be one"
    named = f"comes from {choice.package} {shown(choice.version)[1:-1]}"
    try:
        here = metadata.version(choice.package)
    except metadata.PackageNotFoundError:
        return f"{named}, which is not installed: pip install {choice.package}, if you trust it"
    return f"{named}, and the {here} that is installed does not have it: pip install -U {choice.package}"


def resolve_options(builder: Callable[..., Any], given: Mapping[str, Any], what: str) -> dict[str, Any]:
    """All options of a builder: its signature is the schema, so each is keyword-only, typed and has a default.

    A string is read as the type of the default (`"32"` for an int), so that a command line can give it.

    Raises:
        UsageError: naming the option.
    """
    parameters = inspect.signature(builder).parameters
    unknown = sorted(set(given) - set(parameters))
    if unknown:
        raise UsageError(f"{what} has no option {shown(unknown[0])}: {suggestion(unknown[0], sorted(parameters))}")
    return {
        name: _as_type_of(parameter.default, given.get(name, parameter.default), f"{what}, option {name}")
        for name, parameter in parameters.items()
    }


def _as_type_of(default: Any, value: Any, what: str) -> Any:
    kind = type(default)
    if type(value) is kind and (kind is not float or math.isfinite(value) or value == default):
        return value
    if kind is bool and isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    is_number = type(value) is str if kind is int else type(value) in (str, int)
    if kind in (int, float) and is_number:
        try:
            number = kind(value)
            if math.isfinite(number):
                return number
        except (ValueError, OverflowError):
            pass
    raise UsageError(f"{what}: {shown(value)} is not of type {kind.__name__}")
