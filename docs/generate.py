"""Write docs/commands.md and docs/models.md from what is registered; with --check, say what is stale instead.

    python docs/generate.py [--check]

Only what fruitgan itself registers is written down, so that an installed plug-in does not change the pages.
"""

from __future__ import annotations

import difflib
import html
import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from fruitgan import cli
from fruitgan.registry import KINDS, OWN_PACKAGE, Registry
from fruitgan.settings import to_json

FOLDER = Path(__file__).parent
NOTE = "<!-- Written by docs/generate.py; do not edit. -->"
INTERNAL = {"install_completion", "show_completion", "help"}
COUNTED = ("generators", "discriminators", "detectors")
"""Kinds whose builders give a network, the size of which is worth knowing."""


def own_names(kind: str) -> list[str]:
    return [entry.name for entry in Registry[Any](kind).entries() if entry.package == OWN_PACKAGE]


def commands_page() -> str:
    root = cli.command_line()
    lines = [
        NOTE,
        "",
        "# Commands",
        "",
        "What `fruitgan COMMAND --help` shows. Options you leave out come from the environment (`--batch-size` from",
        "`FRUITGAN_BATCH_SIZE` and so on; `--set` from `FRUITGAN_SET_FIELD`), then the file that `--config` names, then the",
        "recipe.",
        "",
    ]
    lines += table(("option", "value", "meaning"), [(opts, value, help) for opts, value, _, help in options(root)])
    for name in root.list_commands(None):
        if name in own_names("commands"):
            lines += command_lines(cli.load(name), f"fruitgan {name}")
    return "\n".join(lines) + "\n"


def command_lines(command: Any, path: str) -> Iterator[str]:
    yield from ("", f"## {path}", "", inspect.cleandoc(command.help or ""), "")
    inner = getattr(command, "commands", {})
    for name, subcommand in inner.items():
        yield from command_lines(subcommand, f"{path} {name}")
    if inner:
        return
    arguments = [
        (
            f"`{parameter.metavar}{'...' * (parameter.nargs != 1)}`",
            "" if parameter.required else "optional",
            parameter.help or "",
        )
        for parameter in command.params
        if parameter.param_type_name == "argument"
    ]
    if arguments:
        yield from table(("argument", "", "meaning"), arguments)
        yield ""
    yield from table(("option", "value", "default", "meaning"), options(command))


def options(command: Any) -> list[tuple[str, str, str, str]]:
    """Names, value, default and meaning of every option."""
    rows = []
    for parameter in command.params:
        if parameter.param_type_name != "option" or parameter.hidden or parameter.name in INTERNAL:
            continue
        names = ", ".join(f"`{name}`" for name in sorted((*parameter.opts, *parameter.secondary_opts), key=len, reverse=True))
        value = "" if parameter.is_flag else parameter.metavar or parameter.display_type(None).strip("<>")
        rows.append((names, f"`{value}`" if value else "", default_of(parameter), parameter.help or ""))
    return rows


def default_of(parameter: Any) -> str:
    if isinstance(parameter.show_default, str):
        return str(parameter.show_default)
    if parameter.required:
        return "required"
    if parameter.default in (None, False, [], ()):
        return ""
    return f"`{parameter.default}`"


def models_page() -> str:
    lines = [NOTE, "", "# What is registered", "", "Names for `--recipe`, `--generator` and the like, with their options"]
    lines += ["(`--generator-option base_channels=32`) and their defaults. Plug-ins add to them: `fruitgan list`."]
    for kind in KINDS:
        if kind != "commands" and own_names(kind):
            lines += ["", f"## {kind.capitalize()}"]
            for name in own_names(kind):
                lines += thing_lines(kind, name)
    return "\n".join(lines) + "\n"


def thing_lines(kind: str, name: str) -> Iterator[str]:
    thing = Registry[Any](kind).get(name)
    yield from ("", f"### {name}", "", summary(thing))
    if not callable(thing):
        if kind == "recipes":
            yield ""
            yield from recipe_table(thing)
        return
    if kind in COUNTED:
        with torch.device("meta"):  # counted without its 540 MB, where it is the lab report's detector
            network = thing()
        yield from ("", f"{sum(parameter.numel() for parameter in network.parameters()):,} parameters.{size_of(network)}")
    rows = [
        (f"`{parameter.name}`", f"`{parameter.default}`")
        for parameter in inspect.signature(thing).parameters.values()
        if parameter.default is not inspect.Parameter.empty
    ]
    if rows:
        yield ""
        yield from table(("option", "default"), rows)


def size_of(network: Any) -> str:
    rule = getattr(network, "size_rule", None)
    if rule is None:
        side_px = getattr(network, "image_size_px", None)
        return f" Looks at images of {side_px} x {side_px} px." if side_px else ""
    multiple = f", in multiples of {rule.multiple_of_px}" if rule.multiple_of_px > 1 else ""
    return f" Images of {rule.minimum_px} px or more a side{multiple}."


def recipe_table(recipe: Any) -> Iterator[str]:
    rows = [
        (field, shown(value), recipe.why.get(field, ""))
        for field, value in to_json(recipe).items()
        if field not in ("summary", "why") and (value is not None or field in recipe.why)
    ]
    return table(("setting", "value", "why"), rows)


def shown(value: Any) -> str:
    """A recipe's value for people: a part by name and options, a schedule in words."""
    if not isinstance(value, dict):
        return "none" if value is None else f"`{value}`"
    if "name" in value:
        return f"`{value['name']}`" + "".join(f", {key} `{entry}`" for key, entry in value["options"].items())
    if "begin" in value:
        if value["start"] == value["end"]:
            return f"`{value['start']:g}`"
        course = f"{value['shape']} from {value['begin']:.0%} to {value['finish']:.0%} of the training"
        return f"`{value['start']:g}` to `{value['end']:g}`, {course}, by {value['unit']}"
    return "; ".join(f"{key} {shown(entry)}" for key, entry in value.items())


def summary(thing: Any) -> str:
    """What a thing says of itself: its summary, or the text of its docstring up to the first empty line."""
    text = getattr(thing, "summary", None) or inspect.getdoc(thing) or ""
    return " ".join(str(text).split("\n\n")[0].split())


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"|{'|'.join(' --- ' for _ in columns)}|"
    for row in rows:
        yield f"| {' | '.join(map(in_table, row))} |"


def in_table(cell: str) -> str:
    """The cell with its bars as GitHub and the site both show them: within backticks the site keeps a backslash."""
    cell = re.sub(r"`([^`]*[|][^`]*)`", lambda code: f"<code>{html.escape(code[1])}</code>", cell)
    return cell.replace("|", "&#124;")


def with_files(page: Path) -> str:
    """The page with the files that it names between its markers, as they are."""

    def filled(match: re.Match[str]) -> str:
        file = FOLDER.parent / match["file"]
        language = {".py": "python", ".toml": "toml"}[file.suffix]
        return f"<!-- from {match['file']} -->\n```{language}\n{file.read_text(encoding='utf-8').strip()}\n```\n<!-- end -->"

    return re.sub(r"<!-- from (?P<file>\S+) -->\n.*?<!-- end -->", filled, page.read_text(encoding="utf-8"), flags=re.DOTALL)


def main() -> int:
    plugins = FOLDER / "plugins.md"
    pages = {
        FOLDER / "commands.md": commands_page(),
        FOLDER / "models.md": models_page(),
        plugins: with_files(plugins),
    }
    stale = False
    for path, page in pages.items():
        found = path.read_text(encoding="utf-8") if path.exists() else ""
        if "--check" not in sys.argv[1:]:
            path.write_text(page, encoding="utf-8")
        elif found != page:
            stale = True
            lines = difflib.unified_diff(found.splitlines(), page.splitlines(), str(path), "as it should be", lineterm="", n=1)
            print("\n".join(lines))
    if stale:
        print("stale: run python docs/generate.py", file=sys.stderr)
    return int(stale)


if __name__ == "__main__":
    sys.exit(main())
