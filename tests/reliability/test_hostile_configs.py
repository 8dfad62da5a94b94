"""Settings files and environments: what does not fit is refused by its key, in our words and in one line."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest
from hostile import examples
from hypothesis import given
from hypothesis import strategies as st

from fruitgan.cli import commands, load, main

NOT_OURS = re.compile(
    r"pydantic|typer|click|traceback|input should|value error|unable to|invalid value for|requires an argument|"
    r"missing (option|argument|parameter)|got unexpected|<class|\btype=|literal_error|unexpected \w+error",
    re.IGNORECASE,
)

Complaint = Callable[..., str]


@pytest.fixture
def complaint(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Complaint:
    """What a command line says on stderr when it is refused: one line of ours, and nothing on stdout."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, code: int = 2) -> str:
        found = main(list(arguments))
        said = capsys.readouterr()
        assert found == code, said
        assert said.out == ""
        assert re.fullmatch(r"error: [^\n]+\n", said.err), said.err
        assert not NOT_OURS.search(said.err), said.err
        assert len(said.err) < 1000
        return said.err.strip()

    return run


def write(text: str | bytes) -> str:
    Path("settings.toml").write_bytes(text.encode() if isinstance(text, str) else text)
    return "settings.toml"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("btach-size = 3", "unknown key 'btach-size': did you mean batch-size"),
        ("[trian]\nx = 1", "unknown key 'trian'"),
        ('"" = 1', "unknown key ''"),
        ('"\\u001b[31m" = 1', "unknown key '\\x1b[31m'"),
        ("batch-size = 3\nbatch_size = 4", "batch_size and batch-size are the same option"),
        ("batch-size = 3\nbatch-size = 4", "is not TOML"),
        ("batch-size = true", "batch-size: expected a whole number from 1 to 65,536, found True"),
        ("batch-size = 0", "batch-size: expected a whole number from 1 to 65,536, found 0"),
        ("batch-size = 2025-01-01", "batch-size: expected a whole number from 1 to 65,536, found datetime.date(2025, 1, 1)"),
        ("[batch-size]\nvalue = 3", "batch-size: expected a whole number from 1 to 65,536, found {'value': 3}"),
        ("steps = 0x" + "f" * 5000, "steps: expected a whole number of 1 or more, found a number of thousands of digits"),
        ("steps = " + "9" * 5000, "is not TOML"),
        ("data = 2025-01-01", "data: expected text, found datetime"),
        ('data = "a\\u0000b"', "data: expected text"),
        ("out = 3", "out: expected a path, found 3"),
        ('out = "a\\u0000b"', "out: expected a path"),
        ('precision = "fp8"', "precision: expected auto, fp32 or bf16, found 'fp8'"),
        ('deterministic = "yes"', "deterministic: expected true or false, found 'yes'"),
        ("generator-option = [[1]]", "generator-option: expected a list of text, found [[1]]"),
        ("gpu = 0.5", "gpu"),
        ("debug = true", "unknown key 'debug'"),
        ('config = "other.toml"', "unknown key 'config'"),
        ("data = " + "[" * 100_000 + "]" * 100_000, "is not TOML: nested too deeply"),
        (".".join("a" * 3000) + " = 1", "unknown key 'a'"),
        ("x" * 100_000 + " = 1", "unknown key 'xxx"),
        ("\0", "is not TOML"),
        ("\ufeffseed = 1", "is not TOML"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_settings_file_is_refused_by_its_key(text: str, named: str, complaint: Complaint) -> None:
    said = complaint("train-gan", "--config", write(text))
    assert named in said
    assert "settings.toml" in said or "--gpu" in said


@pytest.mark.parametrize("data", [b"seed = 1 # \xff", b"\xff\xfe" + "seed = 1".encode("utf-16-le"), b"#" * 1_100_000])
def test_a_settings_file_that_is_no_text_or_far_too_long_is_a_data_error(data: bytes, complaint: Complaint) -> None:
    assert re.search("not UTF-8|more than 1,048,576 bytes", complaint("train-gan", "--config", write(data), code=3))


def test_a_settings_file_that_is_no_file_is_a_data_error(complaint: Complaint) -> None:
    Path("folder").mkdir()
    assert "folder" in complaint("train-gan", "--config", "folder", code=3)
    assert "none.toml: cannot be read (no such file" in complaint("train-gan", "--config", "none.toml", code=3)
    if Path("/dev/zero").exists():
        assert "not a regular file" in complaint("train-gan", "--config", "/dev/zero", code=3)


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("BATCH_SIZE", "many", "FRUITGAN_BATCH_SIZE=many: expected a whole number from 1 to 65,536"),
        ("BATCH_SIZE", "1_000", "FRUITGAN_BATCH_SIZE=1_000: expected a whole number"),
        ("BATCH_SIZE", "٣", "FRUITGAN_BATCH_SIZE=٣: expected a whole number"),
        ("BATCH_SIZE", "9" * 5000, "expected a whole number"),
        ("PRECISION", "FP32", "FRUITGAN_PRECISION=FP32: expected auto, fp32 or bf16"),
        ("DETERMINISTIC", "maybe", "FRUITGAN_DETERMINISTIC=maybe: expected true or false"),
        ("JSON", "2", "FRUITGAN_JSON=2: expected true or false"),
        ("IMAGE_SIZE", "\x1b[31m", "expected a whole number from 1 to 8,192"),
        ("DEVICE", "tpu", "tpu"),
        ("MAX_TIME", "soon", "--max-time soon"),
    ],
)
def test_a_value_from_the_environment_is_refused_by_its_variable(
    name: str, value: str, named: str, complaint: Complaint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"FRUITGAN_{name}", value)
    assert named in complaint("train-gan", "--data", "demo")  # a name that is known: unknown ones are refused first


def test_every_option_of_every_command_refuses_nonsense_in_our_words(
    complaint: Complaint, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = 0
    for name in commands.names():
        command = load(name)
        inner = getattr(command, "commands", {}) or {"": command}
        for word, one in inner.items():
            arguments = [name, word] if word else [name]
            for parameter in one.params:
                if parameter.required:
                    choices = get_args(parameter.type_descriptor.annotation)
                    value = choices[0] if choices and isinstance(choices[0], str) else "demo"
                    arguments += [value] if parameter.param_type_name == "argument" else [parameter.opts[0], value]
            for parameter in one.params:
                kind = parameter.type_descriptor.annotation
                if parameter.param_type_name != "option" or parameter.required or kind in (str, Path) or "list" in str(kind):
                    continue
                if parameter.name == "debug":  # anything but a no asks for the traceback, of its own refusal too
                    continue
                monkeypatch.setenv(parameter.envvar, "no such thing")
                assert f"{parameter.envvar}='no such thing': expected" in complaint(*arguments)
                monkeypatch.delenv(parameter.envvar)
                tried += 1
    assert tried > 50


@examples(120)
@given(st.data())
def test_any_spoilt_settings_file_is_refused_in_our_words(
    hostile: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    good = b"""
data = "nowhere"
domains = "apple,orange"
gpu = 0
precision = "bf16"
image_size = 64
batch-size = 4
max-time = "10m"
quiet = true
[generator-option]
base_channels = 32
mask = false
"""
    file = tmp_path_factory.mktemp("configs") / "settings.toml"
    file.write_bytes(hostile.bytes(data.draw, good))
    with contextlib.redirect_stderr(io.StringIO()) as err, contextlib.redirect_stdout(io.StringIO()):
        code = main(["train-gan", "--config", str(file)])
    said = err.getvalue()
    assert code in (2, 3, 4)
    assert re.fullmatch(r"error: [^\n]+\n", said), said
    assert not NOT_OURS.search(said), said
