"""`fruitgan export-dataset` as it is typed."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest
from picture_files import write_noise_domains
from PIL import Image
from toy_bundles import save_small
from typed_commands import Cli, typed

from fruitgan import bundle as bundles
from fruitgan.data.labelled import read_dataset
from fruitgan.export_dataset import job


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs the command in a folder with a finished run and data of two domains; gives exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FRUITGAN_GPU", "none")
    monkeypatch.setenv("FRUITGAN_ENGINE", "torch")
    save_small(Path("runs/train-gan/first/bundle.safetensors"), name="first", image_size_px=16)
    write_noise_domains(Path("fruit"), 4, (20, 20), suffix=".jpg")
    return typed("export-dataset", capsys)


def test_the_table_is_the_result_and_all_else_stands_on_stderr(cli: Cli) -> None:
    code, out, err = cli("--data", "fruit", "--domains", "apple,orange")
    assert code == 0
    assert out.splitlines() == [
        "first to orange, 16 px, png",
        "folder             images  of test  of training",
        "dataset/predicted       4        4            0",
        "dataset/origins         4        4            0",
    ]
    assert err.startswith("8 images made, 0 were there already")
    assert len(read_dataset(Path("dataset")).images) == 8
    with Image.open("dataset/predicted/000000.png") as image:
        assert image.size == (16, 16)
    assert cli("--data", "fruit", "--domains", "apple,orange", "-q") == (0, out, "")


def test_json_is_one_object(cli: Cli) -> None:
    Path("fruit/testA/torn.jpg").write_bytes(b"\xff\xd8\xff")
    code, out, err = cli(
        *("--data", "fruit", "--domains", "apple,orange", "--to", "apple", "--bundle", "first", "--json"),
        *("--count", "5", "--out", "there", "--image-size", "20", "--format", "webp", "--origins", "source"),
    )
    value = json.loads(out)
    assert code == 0
    assert "torn.jpg: a damaged or truncated image" in err
    assert "warning: 1 generated and 1 real images come from the training split" in err
    assert value["left_out"]["unreadable"][0]["path"] == str(Path("fruit/testA/torn.jpg"))
    assert (value["dataset"], value["predicted"], value["origins"], value["made"], value["kept"]) == ("there", 5, 5, 10, 0)
    assert value["splits"] == {"predicted": {"test": 4, "train": 1}, "origins": {"test": 4, "train": 1}}
    assert (value["direction"], value["target"], value["image_size_px"], value["format"]) == ("b2a", "apple", 20, "webp")
    assert value["weights_sha256"] == bundles.weights_sha256(bundles.load(bundles.locate("first")))
    assert value["seconds"] > 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "no data given: use --data NAME|DIR, or --data-a DIR and --data-b DIR"),
        (("--data", "./nowhere"), 3, "nowhere: no such folder"),
        (("--data", "fruti"), 2, "no folder and no data set named 'fruti'"),
        (("--data-a", "fruit/testA"), 2, "give either --data NAME|DIR or both --data-a DIR and --data-b DIR"),
        (("--data", "fruit/testA"), 3, "has no folder trainA"),
        (("--data", "fruit", "--bundle", "none"), 2, "no file, run or shipped bundle named 'none'"),
        (("--data", "fruit", "--bundle", "fruit/testA/0000.jpg"), 3, "not a bundle"),
        (("--data", "fruit", "--to", "pear"), 2, "--to pear: no domain of the bundle first"),
        (("--data", "fruit", "--count", "9"), 3, "9 images are wanted, 4 test and 4 training images can be used"),
        (("--data", "fruit", "--count", "0"), 2, "--count"),
        (("--data", "fruit", "--format", "gif"), 2, "--format"),
        (("--data", "fruit", "--gpu", "none", "--device", "cpu"), 2, "--gpu and --device say the same thing"),
        (("--data", "fruit", "--gpu", "99"), 4, "GPU 99"),
        (("--data", "fruit", "--engine", "trch"), 2, "no engine named 'trch': did you mean torch?"),
        (("--data", "fruit", "--out", "fruit/testA"), 2, "among its own sources"),
    ],
)
def test_bad_input_is_one_line_with_its_exit_code_and_leaves_nothing(
    cli: Cli, arguments: tuple[str, ...], code: int, message: str
) -> None:
    got, out, err = cli(*arguments)
    assert (got, out) == (code, "")
    assert message in err.splitlines()[-1]
    assert err.splitlines()[-1].startswith("error: ")
    assert not Path("dataset").exists()
    assert not Path("fruit/testA/predicted").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_whole_images_and_no_manifest_and_the_same_command_goes_on(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    write = job.write_atomically
    written: list[Path] = []

    def signalled(path: Path, data: bytes) -> None:
        write(path, data)
        written.append(path)
        if len(written) == 5:
            signal.raise_signal(number)

    with monkeypatch.context() as patch:
        patch.setattr(job, "write_atomically", signalled)
        got, out, err = cli("--data", "fruit")
    assert (got, out) == (code, "")
    assert err.splitlines()[-1].endswith("every image is whole, and the same command does the rest")
    assert not Path("dataset/manifest.csv").exists()
    made = len(list(Path("dataset").rglob("*.png")))
    assert made == 5
    code, _, err = cli("--data", "fruit")
    assert code == 0
    assert f"{8 - made} images made, {made} were there already" in err
    assert len(read_dataset(Path("dataset")).images) == 8


def test_options_come_from_a_settings_file(cli: Cli) -> None:
    Path("export.toml").write_text('data = "fruit"\ncount = 2\nimage-size = 8\n')
    assert cli("--config", "export.toml", "--count", "3")[0] == 0
    card = json.loads(Path("dataset/dataset.json").read_text())
    assert (card["image_size_px"], card["settings"]["count"]) == (8, 3)
