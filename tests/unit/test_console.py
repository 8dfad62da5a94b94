from __future__ import annotations

import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from fruitgan.console import Console
from fruitgan.progress import Note, Progress


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def a_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """One that stands for both streams from now on; no fixture, whose streams pytest would set back before the test."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "stderr", terminal)
    return terminal


@dataclass(frozen=True)
class Outcome:
    path: Path
    loss: float


def test_a_result_is_exactly_one_json_object_and_quiet_keeps_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(json=True)
    console.out("for people")
    console.table("t", ("a",), [(1,)])
    console.say("on the way")
    console.result({"outcome": Outcome(Path("x"), 0.5), "not finite": [float("inf"), float("nan"), 1.0]})
    said = capsys.readouterr()
    assert json.loads(said.out) == {"outcome": {"path": "x", "loss": 0.5}, "not finite": [None, None, 1.0]}
    assert said.err == "on the way\n"
    quiet = Console(quiet=True)
    quiet.say("on the way")
    quiet.warn("mind the gap")
    assert capsys.readouterr().err == "warning: mind the gap\n"


def test_no_name_moves_the_cursor_of_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = a_terminal(monkeypatch)
    name = "\x1b[2J\x9b\x07\r\u202eapple"
    Console().out(name)
    Console().warn(name)
    Console().table(name, (name,), [(name,)])
    with Console().events() as show:
        show(Progress(name, 0, 1))
        show(Note(name))
    said = terminal.getvalue()
    assert said.count(r"\x1b[2J\x9b\x07\r\u202eapple") >= 5
    assert not {"\x07", "\x9b", "\u202e"} & set(said)
    assert "\x1b[2J" not in said


def test_a_name_that_is_no_text_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    Console().out(name)
    Console().say(name)
    Console().table("", ("name",), [(name,)])
    Console(json=True).result({"name": name})
    said = capsys.readouterr()
    assert said.out.count(r"caf\udce9.jpg") == 3
    assert said.err == "caf\\udce9.jpg\n"


def test_off_a_terminal_a_table_is_plain_and_never_folded(capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 300
    Console().table("Title", ("name", "count"), [(long, 1), ("[red]b", 20), (None, 3)])
    assert capsys.readouterr().out.splitlines() == [
        "Title",
        "name" + " " * 298 + "count",
        long + "      1",
        "[red]b" + " " * 294 + "     20",
        " " * 302 + "    3",
    ]


@pytest.mark.parametrize("no_color", [False, True])
def test_no_color_is_honoured_on_a_terminal(monkeypatch: pytest.MonkeyPatch, no_color: bool) -> None:
    terminal = a_terminal(monkeypatch)
    monkeypatch.setenv("TERM", "xterm-256color")
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    Console().table("", ("name",), [("[red]plum",)])
    assert "[red]plum" in terminal.getvalue()
    assert "\x1b[3" not in terminal.getvalue()  # no colour of ours in either case


def test_off_a_terminal_a_line_comes_every_half_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr("fruitgan.console.time.monotonic", lambda: now)
    with Console().events() as show, Console(quiet=True).events() as silent:
        for done in range(101):
            details = {"seconds_to_stop": 7.0} if done >= 60 else {}
            for each in (show, silent):
                each(Progress("training", 1000 + 10 * done, 2000, {**details, "shown": {"cycle": "0.5"}}))
            now += 1
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "training: 1,300 of 2,000 (65%), 1 min 10 s left, cycle 0.5",
        "training: 1,600 of 2,000 (80%), 7.0 s left, cycle 0.5",
        "training: 1,900 of 2,000 (95%), 7.0 s left, cycle 0.5",
    ]


def test_a_bar_on_a_terminal_counts_to_its_total_lets_lines_through_and_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = a_terminal(monkeypatch)
    console = Console()
    with console.events("step") as show, Console(quiet=True).events() as silent:
        for done, details in ((4, {}), (6, {}), (10, {"seconds_to_stop": 75.0, "shown": {"loss": "0.25"}})):
            show(Progress("decoding", done, 10))
            show(Progress("training", done, 10, details))
            silent(Progress("silent", done, 10))
            console.say("a line between")
        assert console.bar is not None
        console.bar.refresh()
    shown = terminal.getvalue()
    assert "decoding:" in shown
    assert "silent" not in shown
    assert "a line between\n" in shown
    assert "10/10" in shown
    assert "1 min 15 s left, loss 0.25" in shown
    assert shown.rpartition("\n")[2].split("\r")[-2].strip() == ""  # nothing is left in the line
