"""Option > environment > settings file > default, and what a settings file must not say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fruitgan.cli import load, main
from fruitgan.console.options import REFERENCE, option_meant, parse_domains
from fruitgan.errors import UsageError
from fruitgan.train_gan.recipe import resolve_recipe


def read(*arguments: str, command: str = "distill") -> dict[str, Any]:
    """What a command would be called with."""
    found: dict[str, Any] = load(command).make_context(command, list(arguments)).params
    return found


def write(folder: Path, text: str) -> str:
    file = folder / "settings.toml"
    file.write_text(text)
    return str(file)


def test_an_option_wins_over_the_environment_and_that_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def picked(*arguments: str) -> list[Any]:
        found = read(*arguments, command="train-gan")
        return [found[key] for key in ("batch_size", "seed", "learning_rate")]

    assert picked() == [None, None, None]
    file = write(tmp_path, "batch-size = 2\nseed = 2\nlearning-rate = 2\n")
    assert picked("--config", file) == [2, 2, 2.0]
    for variable, value in (("BATCH_SIZE", "3"), ("SEED", "3"), ("CONFIG", file)):
        monkeypatch.setenv(f"FRUITGAN_{variable}", value)
    assert picked() == [3, 3, 2.0]
    assert picked("-b", "4", "--config", file) == [4, 3, 2.0]


def test_every_kind_of_option_can_stand_in_a_file(tmp_path: Path) -> None:
    text = """
    data = "apple2orange"
    gpu = 0
    precision = "bf16"
    image_size = 64
    out = "here/there"
    quiet = true
    [student-option]
    base_channels = 32
    mask = false
    """
    picked = read("--config", write(tmp_path, text))
    assert [picked[key] for key in ("data", "gpu", "precision", "image_size")] == ["apple2orange", "0", "bf16", 64]
    assert (picked["out"], picked["quiet"]) == (Path("here/there"), True)
    assert picked["student_option"] == ["base_channels=32", "mask=false"]
    assert read("--config", write(tmp_path, 'student-option = ["a=1", "b=2"]'))["student_option"] == ["a=1", "b=2"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--gpu", "0,1"), "--gpu 0,1: give auto, none or one number"),
        (("--batch-size", "many"), "--batch-size many: expected a whole number"),
        (("--batch-szie", "3"), "did you mean --batch-size?"),
        (("--batch_size", "3"), "no such option: --batch_size; here that is --batch-size"),
        (("--batch-size",), "option '--batch-size' requires an argument"),
        (("a",), "unexpected extra argument(s) (a) (see fruitgan distill --help)"),
    ],
)
def test_a_wrong_word_is_a_usage_error_that_names_it(
    arguments: tuple[str, ...], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["distill", *arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert named in said


def test_an_argument_typed_as_an_option_is_named_as_the_help_names_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "draw", "--out", "x"]) == 2
    assert "no such option: --out; here that is DIR (see" in capsys.readouterr().err


def test_an_option_of_the_reference_code_is_answered_with_one_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train-gan", "--dataroot", "x"]) == 2
    said = "error: no such option: --dataroot; here that is --data (see fruitgan train-gan --help)\n"
    assert capsys.readouterr().err == said
    commands = [load(name).params for name in ("train-gan", "export-dataset")]
    known = [[name for option in options for name in option.opts] for options in commands]
    for word, meant in REFERENCE.items():
        assert meant in [option_meant(f"--{word}", options) for options in known], word
    fields = [meant.removeprefix("--set ").partition(",")[0] for meant in REFERENCE.values() if meant.startswith("--set ")]
    assert len(fields) == 4
    resolve_recipe("cyclegan", dict(field.split("=") for field in fields))


@pytest.mark.parametrize(
    "arguments",
    [
        ("translate", "a.jpg", "--bundle", "https://example.org/b.safetensors"),
        ("train-gan", "--data", "https://example.org/apples.zip"),
        ("evaluate", "--fake-dir", "https://example.org/fakes"),
        ("export-dataset", "--data-a", "https://example.org/a", "--data-b", "b"),
    ],
)
def test_an_address_for_a_file_says_what_to_do(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(list(arguments)) == 2
    said = capsys.readouterr().err
    address = next(word for word in arguments if "://" in word)
    assert f" {address}: an address, which is not opened here; fetch it first (curl -LO {address})" in said


def test_domains_are_two_names_with_a_comma_between_them() -> None:
    assert parse_domains("apple, orange") == ("apple", "orange")
    for text in ("apple", "apple,", "apple,apple", "a,b,c", ","):
        with pytest.raises(UsageError, match="apple,orange"):
            parse_domains(text)


def test_of_two_options_that_say_the_same_the_nearer_one_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def both(*arguments: str, names: tuple[str, str] = ("gpu", "device")) -> list[Any]:
        return [read(*arguments)[name] for name in names]

    file = write(tmp_path, 'device = "cuda:1"\n')
    assert both("--gpu", "none", "--config", file) == ["none", None]
    monkeypatch.setenv("FRUITGAN_DEVICE", "cpu")
    assert both() == [None, "cpu"]
    assert both("--gpu", "0") == ["0", None]
    monkeypatch.delenv("FRUITGAN_DEVICE")
    monkeypatch.setenv("FRUITGAN_GPU", "0")
    assert both("--config", file) == ["0", None]
    assert both("--device", "cpu") == [None, "cpu"]
    # Both from one place are a contradiction, which the jobs refuse.
    assert both("--device", "cpu", "--gpu", "none") == ["none", "cpu"]
    for variable, typed, left in (("DATA", ("--data-a", "x"), [None, "x"]), ("DATA_A", ("--data", "demo"), ["demo", None])):
        monkeypatch.setenv(f"FRUITGAN_{variable}", "demo")
        assert both(*typed, names=("data", "data_a")) == left
        monkeypatch.delenv(f"FRUITGAN_{variable}")
