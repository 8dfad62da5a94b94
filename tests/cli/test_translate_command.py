"""`fruitgan translate` as it is typed."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from picture_files import save_noise
from PIL import Image
from toy_bundles import save_small
from typed_commands import Cli, typed

from fruitgan.cli import main


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs the command in a folder with a finished run and a few pictures; gives exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FRUITGAN_GPU", "none")
    monkeypatch.setenv("FRUITGAN_ENGINE", "torch")
    save_small(Path("runs/train-gan/first/bundle.safetensors"), name="first")
    save_noise("in/a.jpg", 30, 41)
    save_noise("in/sub/b.png", 7, 3)
    Path("in/notes.txt").write_text("not a picture")
    return typed("translate", capsys)


def test_each_path_is_printed_on_stdout_and_the_rest_on_stderr(cli: Cli) -> None:
    code, out, err = cli("in", "-r")
    assert code == 0
    assert out.splitlines() == [str(Path("translated/a.png")), str(Path("translated/sub/b.png"))]
    assert "notes.txt: not an image" in err
    assert f"first ({Path('runs/train-gan/first/bundle.safetensors')}) to orange, a2b, trained for 10 steps" in err
    with Image.open("translated/a.png") as image:
        assert image.size == (41, 30)
    assert cli("in", "-r", "-q") == (0, out, "")
    assert "0 results made, 2 were there already" in cli("in", "-r")[2]


def test_json_is_one_object_with_every_picture_in_it(cli: Cli) -> None:
    code, out, _ = cli("in", "missing.png", "--json")
    value = json.loads(out)
    assert code == 3
    assert value["translated"] == 1
    assert value["outputs"] == [str(Path("translated/a.png"))]
    assert value["failed"] == [{"path": "missing.png", "reason": "no such file or folder"}]
    assert {entry["path"] for entry in value["skipped"]} == {str(Path("in/notes.txt")), str(Path("in/sub"))}
    assert value["seconds"] > 0
    assert value["images_per_second"] > 0
    counted = {"translated", "skipped", "failed", "outputs", "seconds", "images_per_second", "engine", "notes", "contact_sheet"}
    assert set(value) == {"bundle", "direction", "step", *counted}
    assert (value["engine"], value["direction"], value["step"]) == ("torch", "a2b", 10)
    assert Path(value["bundle"]) == Path("runs/train-gan/first/bundle.safetensors")


def test_one_failure_is_the_error_line_and_several_have_a_line_each(cli: Cli) -> None:
    assert cli("missing.png") == (3, "", "error: missing.png: no such file or folder\n")
    code, _, err = cli("missing.png", "gone.png", "in/a.jpg")
    assert code == 3
    assert err.splitlines()[-3:] == [
        "warning: missing.png: no such file or folder",
        "warning: gone.png: no such file or folder",
        "error: 2 images failed, as said above; 1 are translated",
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["in", "--bundle", "frist"], 2, "did you mean first?"),
        (["in", "--bundle", "in/a.jpg"], 3, "not a bundle"),
        (["in", "--to", "pear"], 2, "known are apple, orange"),
        (["in", "--scale", "big"], 2, "expected auto, native, or a number"),
        (["in", "--engine", "troch"], 2, "did you mean torch?"),
        (["in", "--format", "bmp"], 2, "format"),
        (["in", "--gpu", "none", "--device", "cpu"], 2, "give one of them"),
        (["in", "--device", "cuda:77"], 4, "GPU"),
        (["in/notes.txt", "-q"], 3, "in/notes.txt: not an image"),
        (["-", "--json"], 2, "standard output cannot hold both"),
        ([], 2, "PICTURE"),
    ],
)
def test_errors_are_one_line_with_their_exit_code_and_leave_nothing(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, message: str
) -> None:
    if "--device" in arguments:
        monkeypatch.delenv("FRUITGAN_GPU")
    result, out, err = cli(*arguments)
    assert (result, out) == (code, "")
    errors = [line for line in err.splitlines() if not line.startswith("skipped: ")]
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert message in errors[0]
    assert not Path("translated").exists()


def test_a_picture_goes_through_from_stdin_to_stdout(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(Path("in/a.jpg").read_bytes())))
    monkeypatch.setattr(sys, "stdout", out)
    assert main(["translate", "-", "--to", "apple"]) == 0
    with Image.open(out.buffer) as image:
        assert (image.format, image.size) == ("PNG", (41, 30))
    assert not Path("translated").exists()


def test_no_picture_is_poured_into_a_terminal(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    code, out, err = cli("in/a.jpg", "-o", "-")
    assert (code, out) == (2, "")
    assert "give -o FILE" in err


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_being_stopped_says_how_to_go_on(cli: Cli, monkeypatch: pytest.MonkeyPatch, name: str, code: int) -> None:
    def stop(*_: Any) -> None:
        signal.raise_signal(getattr(signal, name))

    monkeypatch.setattr(os, "fsync", stop)
    result, out, err = cli("in")
    assert (result, out) == (code, "")
    assert err.endswith("\nstopped; every result is whole, and the same command does the rest\n")
    assert list(Path("translated").iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_name_with_a_line_break_is_one_line(cli: Cli) -> None:
    if sys.platform == "win32":
        pytest.skip("no such names here")
    Path("in/two\nlines.jpg").write_bytes(Path("in/a.jpg").read_bytes())
    assert cli("in/two\nlines.jpg")[1] == "translated/two\\nlines.png\n"
