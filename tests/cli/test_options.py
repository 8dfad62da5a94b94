"""Option > environment > settings file > default, and what a settings file must not say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fruitgan.cli import main
from fruitgan.console.options import REFERENCE, parse_domains
from fruitgan.errors import UsageError
from fruitgan.train_gan.recipe import resolve_recipe

Install = Callable[..., Path]

PICK = '''
from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from fruitgan.console import options
from fruitgan.console import Console


def pick(
    fruit: Annotated[str, typer.Argument()] = "plum",
    data: options.Data = None,
    gpu: options.Gpu = "auto",
    device: options.Device = None,
    seed: options.Seed = 0,
    precision: options.Precision = "auto",
    image_size: options.ImageSize = None,
    batch_size: options.BatchSize = None,
    rate: Annotated[float, typer.Option()] = 0.5,
    out: Annotated[Path | None, typer.Option()] = None,
    generator_option: Annotated[list[str] | None, typer.Option()] = None,
    quiet: options.Quiet = False,
    json: options.Json = False,
    config: options.Config = None,
) -> None:
    """Pick a fruit."""
    Console(json=True).result({key: value for key, value in locals().items()})
'''


@pytest.fixture
def pick(install: Install, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    install("fruit-picker", {"commands": {"pick": "fruit_picker:pick"}}, PICK)

    def run(*arguments: str, code: int = 0) -> dict[str, Any]:
        found = main(["pick", *arguments])
        said = capsys.readouterr()
        assert found == code, said
        if code:
            assert said.err.startswith("error: ")
            assert said.err.count("\n") == 1
            return {"error": said.err.strip()}
        picked: dict[str, Any] = json.loads(said.out)
        return picked

    return run


def write(folder: Path, text: str) -> str:
    file = folder / "settings.toml"
    file.write_text(text)
    return str(file)


def test_an_option_wins_over_the_environment_and_that_over_the_file(
    pick: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [pick()[key] for key in ("batch_size", "seed", "rate")] == [None, 0, 0.5]
    file = write(tmp_path, "batch-size = 2\nseed = 2\nrate = 2\n")
    assert [pick("--config", file)[key] for key in ("batch_size", "seed", "rate")] == [2, 2, 2.0]
    monkeypatch.setenv("FRUITGAN_BATCH_SIZE", "3")
    monkeypatch.setenv("FRUITGAN_SEED", "3")
    monkeypatch.setenv("FRUITGAN_CONFIG", file)
    assert [pick()[key] for key in ("batch_size", "seed", "rate")] == [3, 3, 2.0]
    assert [pick("-b", "4", "--config", file)[key] for key in ("batch_size", "seed", "rate")] == [4, 3, 2.0]


def test_every_kind_of_option_can_stand_in_a_file(pick: Any, tmp_path: Path) -> None:
    text = """
    data = "apple2orange"
    gpu = 0
    precision = "bf16"
    image_size = 64
    out = "here/there"
    quiet = true
    [generator-option]
    base_channels = 32
    mask = false
    """
    picked = pick("--config", write(tmp_path, text))
    assert picked["gpu"] == "0"
    assert [picked[key] for key in ("data", "precision", "image_size", "out")] == ["apple2orange", "bf16", 64, "here/there"]
    assert picked["quiet"] is True
    assert picked["generator_option"] == ["base_channels=32", "mask=false"]
    assert pick("--config", write(tmp_path, 'generator-option = ["a=1", "b=2"]'))["generator_option"] == ["a=1", "b=2"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--gpu", "0,1"), "--gpu 0,1: give auto, none or one number"),
        (("--gpu", "fast"), "--gpu fast"),
        (("--device", "tpu"), "--device tpu"),
        (("-b", "0"), "--batch-size 0: expected a whole number from 1 to 65,536"),
        (("--batch-size", "many"), "--batch-size many: expected a whole number"),
        (("--precision", "fp8"), "--precision fp8: expected auto, fp32 or bf16"),
        (("--seed", "-1"), "--seed -1: expected a whole number of 0 or more"),
        (("--batch-szie", "3"), "did you mean --batch-size?"),
        (("--batch_size", "3"), "no such option: --batch_size; here that is --batch-size"),
        (("-x",), "no such option: -x"),
        (("--batch-size",), "option '--batch-size' requires an argument"),
        (("a", "b"), "unexpected extra argument(s) (b) (see fruitgan pick --help)"),
    ],
)
def test_a_wrong_word_is_a_usage_error_that_names_it(pick: Any, arguments: tuple[str, ...], named: str) -> None:
    error = pick(*arguments, code=2)["error"]
    assert named in error


@pytest.mark.parametrize("word", REFERENCE)
def test_an_option_of_the_reference_code_is_answered_with_ours(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = "export-dataset" if word in ("num_test", "results_dir") else "train-gan"
    assert main([command, f"--{word}", "1"]) == 2
    said = capsys.readouterr().err
    assert said == f"error: no such option: --{word}; here that is {REFERENCE[word]} (see fruitgan {command} --help)\n"


def test_the_fields_that_the_reference_codes_options_lead_to_are_those_of_a_recipe() -> None:
    fields = [meant.removeprefix("--set ").partition(",")[0] for meant in REFERENCE.values() if meant.startswith("--set ")]
    assert len(fields) == 4
    resolve_recipe("cyclegan", dict(field.split("=") for field in fields))


@pytest.mark.parametrize(
    "arguments",
    [
        ("translate", "a.jpg", "--bundle", "https://example.org/b.safetensors"),
        ("train-gan", "--data", "https://example.org/apples.zip"),
        ("train-gan", "--data-a", "https://example.org/a", "--data-b", "b"),
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


def test_data_that_is_typed_wins_over_the_other_way_to_say_it_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for variable, typed in (("DATA", ("--data-a", "./here", "--data-b", "./b")), ("DATA_A", ("--data", "./here"))):
        monkeypatch.setenv(f"FRUITGAN_{variable}", "demo")
        assert main(["export-dataset", *typed]) == 3
        assert "error: here: no such folder" in capsys.readouterr().err
        monkeypatch.delenv(f"FRUITGAN_{variable}")


def test_of_gpu_and_device_the_nearer_one_wins(pick: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, 'device = "cuda:1"\n')
    both = ("gpu", "device")
    assert [pick("--gpu", "none", "--config", file)[key] for key in both] == ["none", None]
    monkeypatch.setenv("FRUITGAN_DEVICE", "cpu")
    assert [pick()[key] for key in both] == ["auto", "cpu"]
    assert [pick("--gpu", "0")[key] for key in both] == ["0", None]
    monkeypatch.delenv("FRUITGAN_DEVICE")
    monkeypatch.setenv("FRUITGAN_GPU", "0")
    assert [pick("--config", file)[key] for key in both] == ["0", None]
    assert [pick("--device", "cpu")[key] for key in both] == [None, "cpu"]
    # Both from one place are a contradiction, which the jobs refuse.
    assert [pick("--device", "cpu", "--gpu", "none")[key] for key in both] == ["none", "cpu"]
