"""`fruitgan data`: what is printed where, and the exit codes."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import pytest
from picture_files import write_noise_domains

from fruitgan.cli import main
from fruitgan.data import named


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return write_noise_domains(tmp_path / "pear2plum", 2, (16, 16))


def test_check_prints_a_table_and_what_is_wrong(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pictures / "trainA" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    (pictures / "trainA" / "text.png").write_text("no picture")
    assert main(["data", "check", str(pictures)]) == 0
    out, err = capsys.readouterr()
    assert "train pear" in out
    assert "test plum" in out
    assert f"broken: {pictures / 'trainA' / 'broken.jpg'}: a damaged or truncated image" in out
    assert "problem: train pear: 1 file cannot be decoded and will be left out" in out
    assert "problem: pear: left out 1 not an image (text.png)" in out
    assert "too few to learn a domain from" in out
    assert err == ""


@pytest.mark.parametrize("form", ["argument", "option", "loose"])
def test_check_prints_exactly_one_json_object(form: str, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loose = ["--data-a", str(pictures / "trainA"), "--data-b", str(pictures / "trainB"), "--domains", "pear,plum"]
    arguments = {"argument": [str(pictures)], "option": ["--data", str(pictures)], "loose": loose}[form]
    assert main(["data", "check", *arguments, "--json"]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert result["domains"] == ["pear", "plum"]
    assert [split["split"] for split in result["splits"]] == ["train", "train", "test", "test"]
    assert err == ""


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["check"], 2, "no data given"),
        (["check", "./nowhere"], 3, "nowhere: no such folder"),
        (["check", "apple2orang"], 2, "did you mean apple2orange"),
        (["check", "--data-a", "x"], 2, "--data-a DIR and --data-b DIR"),
        (["check", "demo", "--data-a", "x"], 2, "not both"),
        (["check", "demo", "--domains", "apple"], 2, "apple,orange"),
        (["fetch", "horse2zebr"], 2, "did you mean horse2zebra"),
        (["fetch", "horse2zebra"], 3, "a74d9d392eecca9966b51287a76ca126af473d9de4f3e8fc0e9cda08fa1730a1"),
        (["split", "--out", "out"], 2, "Give a folder"),
        (["split", "there", "--out", "there/out"], 2, "would lie among its own sources in there"),
        (["draw", "out", "--image-size", "8"], 2, "16 to 4096"),
        (["draw", "out", "--count", "0"], 2, "--count"),
        (["draw", "there"], 2, "there exists already"),
    ],
)
def test_an_error_is_one_line_with_its_exit_code(
    arguments: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FRUITGAN_OFFLINE", "1")
    (tmp_path / "there").mkdir()
    assert main(["data", *arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_draw_makes_a_folder_of_data_and_check_likes_what_is_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "fruit"
    small = ["--count", "1", "--test-count", "0", "--image-size", "16"]
    assert main(["data", "draw", str(folder), *small]) == 0
    assert capsys.readouterr() == (f"{folder}\n", "")
    assert main(["data", "check", str(folder), "--domains", "apple,orange"]) == 0
    assert "problem: train orange: 1 image, too few" in capsys.readouterr().out
    other = str(tmp_path / "other")
    assert main(["data", "draw", other, *small, "--json"]) == 0
    drawn = json.loads(capsys.readouterr().out)
    assert (drawn["folder"], drawn["images"]) == (other, {"trainA": 1, "trainB": 1})
    write_noise_domains(tmp_path / "whole", 20, (64, 64))
    assert main(["data", "check", str(tmp_path / "whole")]) == 0
    assert "nothing is wrong with these data" in capsys.readouterr().out


def test_list_shows_every_set_and_whether_it_is_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "list"]) == 0
    out = capsys.readouterr().out
    assert "summer2winter_yosemite" in out
    assert main(["data", "list", "--json"]) == 0
    sets = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)["datasets"]}
    assert sets["apple2orange"]["domains"] == ["apple", "orange"]
    assert sets["apple2orange"]["package"] == "fruitgan"
    assert sets["maps"]["is_present"] is False


def test_fetch_takes_a_zip_that_lies_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], pictures: Path
) -> None:
    monkeypatch.setenv("FRUITGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FRUITGAN_OFFLINE", "1")
    zip_file = tmp_path / "cache" / "downloads" / "maps.zip"
    zip_file.parent.mkdir(parents=True)
    with zipfile.ZipFile(zip_file, "w") as archive:
        for path in sorted(pictures.rglob("*.png")):
            archive.write(path, f"maps/{path.relative_to(pictures).as_posix()}")
    content = zip_file.read_bytes()
    tiny = named.ArchivedSet("maps", ("aerial", "map"), "tiny", len(content), hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(named, "maps", tiny)
    assert main(["data", "fetch", "maps", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["folder"] == str(tmp_path / "cache" / "datasets" / "maps")
    assert result["images"] == {"trainA": 2, "trainB": 2, "testA": 2, "testB": 2}
    assert zip_file.exists()  # what a person put there stays
    assert main(["data", "fetch", "maps"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'cache' / 'datasets' / 'maps'}\n"
    assert main(["data", "list", "--json"]) == 0
    assert {entry["name"] for entry in json.loads(capsys.readouterr().out)["datasets"] if entry["is_present"]} == {"maps"}
