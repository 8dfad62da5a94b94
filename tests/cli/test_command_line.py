"""The command as a whole: help, version, errors and their exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fruitgan import __version__, cli
from fruitgan.cli import main
from fruitgan.registry import OWN_PACKAGE, Registry

Install = Callable[..., Path]
Captured = pytest.CaptureFixture[str]
MODULE = [sys.executable, "-m", "fruitgan"]

TROUBLE = '''
from __future__ import annotations

from errno import EACCES, ENOENT, ENOSPC

import typer

from fruitgan.errors import DataError, EnvironmentProblem, FruitganError, GateFailed, Stopped, UsageError


def trouble(error: str) -> None:
    """Make trouble."""
    raise eval(error)
'''


@pytest.fixture
def trouble(install: Install) -> None:
    install("trouble-maker", {"commands": {"trouble": "trouble_maker:trouble"}}, TROUBLE)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        ("FruitganError('x')", 1, "error: x"),
        ("UsageError('x')", 2, "error: x"),
        ("DataError('no images in pears/')", 3, "error: no images in pears/"),
        ("EnvironmentProblem('x')", 4, "error: x"),
        ("GateFailed('x')", 5, "error: x"),
        (r"DataError('first\nsecond \x1b[31mred')", 3, r"error: first second \x1b[31mred"),
        ("Stopped('stopped; go on with: x', 143)", 143, "stopped; go on with: x"),
        ("MemoryError()", 1, "error: out of memory: try a smaller --image-size or --batch-size"),
        ("OSError(ENOSPC, 'x', 'log.jsonl')", 1, "error: the disk is full (log.jsonl): make room, or write elsewhere"),
        ("PermissionError(EACCES, 'Denied', '/etc/x')", 1, "error: not allowed to read or write (/etc/x): Denied"),
        ("FileNotFoundError(ENOENT, 'No such file', 'a.png')", 1, "error: No such file (a.png)"),
        ("KeyError('a')", 1, "error: unexpected KeyError: 'a' (run again with --debug to see where, and please report it)"),
        ("KeyboardInterrupt()", 130, "error: interrupted"),
        ("typer.Abort()", 1, "error: aborted"),
        ("typer.Exit(5)", 5, ""),
    ],
)
def test_every_error_is_one_line_and_an_exit_code(trouble: None, capsys: Captured, error: str, code: int, line: str) -> None:
    assert main(["trouble", error]) == code
    said = capsys.readouterr()
    assert said.err.rstrip("\n") == line
    assert said.out == ""


@pytest.mark.parametrize(("error", "code"), [("DataError('x')", 3), ("KeyError('x')", 1)])
def test_debug_shows_the_traceback_too(
    trouble: None, capsys: Captured, monkeypatch: pytest.MonkeyPatch, error: str, code: int
) -> None:
    for word, variable, is_shown in (("--debug", "", True), ("", "1", True), ("", "0", False)):
        monkeypatch.setenv("FRUITGAN_DEBUG", variable)
        assert main(["trouble", error, *filter(None, [word])]) == code
        assert ("raise eval(error)" in capsys.readouterr().err) == is_shown


def test_an_unknown_command_says_what_is_near(capsys: Captured) -> None:
    assert main(["lits"]) == 2
    assert capsys.readouterr().err == "error: no command 'lits': did you mean list?\n"


def test_without_a_word_it_shows_the_help(capsys: Captured) -> None:
    assert main([]) == 2
    assert "Usage: fruitgan" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["--help", "-h"])
def test_the_help_names_every_built_in_command_with_its_summary(capsys: Captured, word: str) -> None:
    assert main([word]) == 0
    shown = capsys.readouterr().out
    for entry in Registry("commands").entries():
        if entry.package == OWN_PACKAGE:
            assert f" {entry.name} " in shown
    assert "\x1b" not in shown


def leaves(command: Any, path: list[str]) -> list[tuple[list[str], Any]]:
    inner = getattr(command, "commands", None)
    return [(path, command)] if inner is None else [leaf for name, sub in inner.items() for leaf in leaves(sub, [*path, name])]


OWN = {entry.name: cli.load(entry.name) for entry in Registry("commands").entries() if entry.package == OWN_PACKAGE}
BUILT_IN = [leaf for name, command in OWN.items() for leaf in leaves(command, [name])]


def test_a_summary_is_the_first_line_of_the_commands_own_help() -> None:
    for name, command in OWN.items():
        assert cli.commands.owner(name).summary == command.help.strip().partition("\n")[0] != ""


@pytest.mark.parametrize(("path", "command"), BUILT_IN, ids=[" ".join(path) for path, _ in BUILT_IN])
def test_every_subcommand_has_help_an_example_debug_and_environment_variables(
    path: list[str], command: Any, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 400)  # nothing is folded
    assert main([*path, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--debug" in shown
    for parameter in command.params:
        assert parameter.help, f"{parameter.name} has no help"
        assert parameter.help in shown or parameter.hidden  # also: what stands in brackets was not taken for markup
        if parameter.param_type_name == "option":
            assert parameter.envvar == f"FRUITGAN_{parameter.name.upper()}"
    words = command.help.partition("Example: ")[2].split()
    assert words[: 1 + len(path)] == ["fruitgan", *path]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= known


@pytest.mark.parametrize(
    ("source", "said"), [("raise RuntimeError('imported')", "imported: RuntimeError: imported"), ("rot = 3", "used: ")]
)
def test_a_command_that_cannot_be_imported_or_run_breaks_only_itself(
    source: str, said: str, install: Install, capsys: Captured
) -> None:
    install("rotten-plum", {"commands": {"rot": "rotten_plum:rot"}}, source)
    assert main(["--help"]) == 0
    assert "from rotten-plum 1.0" in capsys.readouterr().out
    assert "rotten_plum" not in sys.modules
    assert main(["rot"]) == 4
    assert f"'rot' of package rotten-plum 1.0 cannot be {said}" in capsys.readouterr().err


def test_a_group_of_commands_is_one_entry(install: Install, capsys: Captured) -> None:
    source = """
import typer
app = typer.Typer(help="Orchards.")
@app.command()
def grow(trees: int = 1) -> None:
    "Grow."
    print("trees", trees)
@app.command()
def cut() -> None:
    "Cut."
"""
    install("orchard", {"commands": {"orchard": "orchard:app"}}, source)
    assert main(["orchard", "grow", "--trees", "3", "--debug"]) == 0
    assert capsys.readouterr().out == "trees 3\n"
    assert main(["orchard", "grwo"]) == 2
    assert "no such command 'grwo'. Did you mean 'grow'?" in capsys.readouterr().err
    assert main(["orchard"]) == 2
    assert "missing command (see fruitgan orchard --help)" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*MODULE, "list", "--json"], stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert done.stderr == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_under_stdout_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*MODULE, "list"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "error: the disk is full: make room, or write elsewhere\n")


def test_the_command_runs_as_a_module_and_as_a_script() -> None:
    for command in (MODULE, [Path(sys.executable).with_name("fruitgan")]):
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
        assert done.stdout == f"fruitgan {__version__}\n"
