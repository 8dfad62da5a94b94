"""Data at addresses and in shards: the dataset that is exported of them has the bytes of that of the folder."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from loopback_server import loopback_s3
from picture_files import write_noise_domains
from toy_bundles import Negative, save_toy

from fruitgan.cache import CACHE_LIMITS_BYTES, hold
from fruitgan.cli import main
from fruitgan.data.remote import Member, at_hand, samples
from fruitgan.engines.contracts import engines
from fruitgan.errors import DataError, EnvironmentProblem, UsageError
from fruitgan.export_dataset.job import ExportResult, ExportSettings, export_dataset
from fruitgan.machine import cache_folder
from fruitgan.train_gan.settings import TrainGanSettings, located

Export = Callable[..., ExportResult]


@pytest.fixture
def export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Export:
    """Exports in a folder with data of two domains, by an engine that gives the negative."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FRUITGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(engines, "get", lambda name: Negative)
    save_toy(Path("toy.safetensors"), image_size_px=16)
    write_noise_domains(Path("apple2orange"), 3, (20, 24))

    def export(out: str, **settings: Any) -> ExportResult:
        return export_dataset(ExportSettings(bundle="toy.safetensors", out=Path(out), **{"count": 5, **settings}))

    return export


@pytest.fixture
def put(request: pytest.FixtureRequest) -> Iterator[Callable[[str, bytes], str]]:
    """Puts an object into a bucket, in memory if nothing else is asked for; gives its address."""
    import fsspec

    kind = getattr(request, "param", "memory")
    with loopback_s3() if kind == "s3" else nullcontext():
        files = fsspec.filesystem(kind, skip_instance_cache=True)
        files.makedirs("bucket", exist_ok=True)

        def put(name: str, data: bytes) -> str:
            files.pipe_file(f"bucket/{name}", data)
            return f"{kind}://bucket/{name}"

        yield put
        files.rm("bucket", recursive=True)
        files.clear_instance_cache()


def put_folder(put: Callable[[str, bytes], str], folder: str) -> str:
    for path in Path(folder).rglob("*.*"):
        address = put(path.as_posix(), path.read_bytes())
    return address.partition(f"/{folder}/")[0] + f"/{folder}"


def shard(folder: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for path in sorted(Path(folder).rglob("*.png")):
            tar.add(path, path.relative_to(folder).as_posix())
            label = tarfile.TarInfo(path.relative_to(folder).with_suffix(".json").as_posix())
            label.size = 2
            tar.addfile(label, io.BytesIO(b"{}"))
    return file.getvalue()


def contents(folder: str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


@pytest.mark.parametrize("put", ["memory", "s3"], indirect=True)
def test_a_folder_at_an_address_gives_the_bytes_of_the_folder_and_is_copied_once(
    export: Export, put: Callable[[str, bytes], str]
) -> None:
    export("here", data="apple2orange")
    address = put_folder(put, "apple2orange")
    put("apple2orange/trainA/.hidden.png", b"hidden")
    put("apple2orange/trainA/words.txt", b"no image")
    assert export("there", data=address).made == 10
    assert contents("there") == contents("here")
    assert export("there", data=address).made == 0
    assert len(list((cache_folder() / "addresses").iterdir())) == 1
    put("apple2orange/testA/0000.png", Path("apple2orange/trainB/0000.png").read_bytes())
    with pytest.raises(UsageError, match="not the same"):  # what lies there now is looked at
        export("there", data=address)


@pytest.mark.parametrize("put", ["memory", "s3"], indirect=True)
def test_shards_give_the_bytes_of_their_samples_as_folders(export: Export, put: Callable[[str, bytes], str]) -> None:
    for split in ("trainA", "trainB", "testA", "testB"):
        shutil.copytree(f"apple2orange/{split}", f"set/{split}/first")
        put(f"set/{split}/first.tar", shard(f"apple2orange/{split}"))
    export("here", data="set")
    export("there", data=put("set/x.txt", b"").removesuffix("/x.txt"))
    assert contents("there") == contents("here")
    address = put("a.tar", shard("apple2orange/trainA"))
    loose: dict[str, Any] = {"domains": ("apple", "orange"), "count": 3}
    export("loose", data_a=address, data_b=address.replace("a.tar", "set/trainB/*.tar"), **loose)
    export("plain", data_a=Path("apple2orange/trainA"), data_b=Path("set/trainB/first"), **loose)
    names = [name for name in contents("plain") if name.endswith(".png")]
    assert len(names) == 6
    assert all(contents("loose")[name] == contents("plain")[name] for name in names)


def test_a_shard_here_and_an_address_of_a_file_are_data_of_the_command_too(
    export: Export, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export("here", data="apple2orange")
    Path("apple2orange.tar").write_bytes(shard("apple2orange"))
    for number, data in enumerate(("apple2orange.tar", f"file://{tmp_path}/apple2orange")):
        given = ["--data", data, "--bundle", "toy.safetensors", "--count", "5", "--engine", "torch", "--gpu", "none"]
        assert main(["export-dataset", *given, "--out", f"there-{number}", "-q"]) == 0, capsys.readouterr().err
        pictures = {name: data for name, data in contents(f"there-{number}").items() if name.endswith(".png")}
        assert pictures.items() <= contents("here").items()
    capsys.readouterr()
    folders = [f"file://{tmp_path}/apple2orange/train{letter}" for letter in "AB"]
    assert main(["data", "check", "--data-a", folders[0], "--data-b", folders[1], "--json", "-q"]) == 0
    assert sum(split["files"] for split in json.loads(capsys.readouterr().out)["splits"]) == 6


def test_a_run_keeps_addresses_as_they_are_and_folders_as_whole_paths(tmp_path: Path) -> None:
    kept = located(TrainGanSettings(data_a="s3://bucket/apples", data_b=tmp_path))
    assert (kept.data_a, kept.data_b) == ("s3://bucket/apples", str(tmp_path.resolve()))


def test_what_cannot_be_had_is_refused_and_nothing_is_kept(
    export: Export, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for data, error in (("memory://nothing", DataError), ("none.tar", DataError), ("nosuchthing://x", UsageError)):
        with pytest.raises(error):
            at_hand(data)
    Path("bad.tar").write_bytes(b"no tar at all")
    for data, code, said in (("s3://key:secret@bucket/a", 2, "error: s3://: "), ("bad.tar", 3, "error: bad.tar: not a tar")):
        assert main(["export-dataset", "--data-a", data, "--data-b", "b", "--bundle", "toy.safetensors"]) == code
        told = capsys.readouterr().err
        assert said in told
        assert "secret" not in told

    def missing(*anything: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(EnvironmentProblem, match="pip install s3fs"):
        at_hand("s3://bucket/in")
    assert not list((cache_folder() / "addresses").iterdir())


def test_what_is_wrong_is_told_of_the_place_that_was_named(
    export: Export, put: Callable[[str, bytes], str], capsys: pytest.CaptureFixture[str]
) -> None:
    for place in ("trainA", "testB"):
        broken = Path("apple2orange", place, "0000.png")
        broken.write_bytes(broken.read_bytes()[:60])
    data = put_folder(put, "apple2orange")
    lone = f"{data}/testB/0000.png"
    put("apple2orange/trainA/first.tar", shard("apple2orange/trainA"))
    given = ["--bundle", "toy.safetensors", "--engine", "torch", "--gpu", "none", "--count", "3"]
    assert main(["export-dataset", *given, "--data", data, "--json"]) == 0
    said = capsys.readouterr()
    assert f"left out: {data}/trainA/first.tar/0000.png: " in said.err
    assert f"left out: {lone}: " in said.err
    assert f'"{lone}"' in said.out
    Path("apples.tar").write_bytes(shard("apple2orange/trainA"))
    assert main(["export-dataset", *given, "--data-a", "apples.tar", "--data-b", "apples.tar"]) == 3
    assert capsys.readouterr().err == "error: apples.tar: both domains are the same folder; give two\n"
    assert str(cache_folder()) not in said.err + said.out


WRITERS: dict[str, dict[str, Any]] = {
    "pax": {"format": tarfile.PAX_FORMAT},
    "gnu": {"format": tarfile.GNU_FORMAT},
    "ustar": {"format": tarfile.USTAR_FORMAT},
    "webdataset": {"mode": "w|"},  # as its TarWriter opens it
}


@pytest.mark.parametrize("options", WRITERS.values(), ids=WRITERS)
def test_no_sample_of_a_shard_is_lost_without_a_word_wherever_it_is_cut(options: dict[str, Any]) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, **{"mode": "w", **options}) as tar:
        for name, size in (("0.jpg", 1), ("1.jpg", 512), (f"{'long' * 24}.jpg", 700), ("3.jpg", 0)):
            about = tarfile.TarInfo(name)
            about.size = size
            tar.addfile(about, io.BytesIO(b"x" * size))
    data = file.getvalue()

    def read(end: int) -> list[list[Member]] | None:
        try:
            return [*samples(data[:end])]
        except DataError:
            return None

    whole = read(len(data))
    assert whole is not None
    assert len(whole) == 4
    assert all(read(end) in (None, whole) for end in range(0, len(data), 64))
    after_the_files = data.rindex(b"3.jpg") + 512
    for end in (after_the_files, after_the_files + 100, len(data) - 1):
        with pytest.raises(DataError, match="cut short"):
            [*samples(data[:end])]


@pytest.mark.parametrize("names", [("x.jpg", "x.jpg/y.jpg"), ("x.jpg/y.jpg", "x.jpg"), (f"{'x' * 300}.jpg",), ("x\0.jpg",)])
def test_names_in_a_shard_that_no_files_can_have_are_a_fault_of_the_shard(export: Export, names: tuple[str, ...]) -> None:
    picture = Path("apple2orange/trainA/0000.png").read_bytes()
    with tarfile.open("bad.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for name in names:
            about = tarfile.TarInfo("path")
            about.size, about.pax_headers = len(picture), {"path": name}
            tar.addfile(about, io.BytesIO(picture))
    with pytest.raises(DataError, match=r"bad\.tar: 'x.* can be no file here"):
        at_hand("bad.tar")
    assert not list((cache_folder() / "addresses").iterdir())


def test_what_exists_goes_before_what_a_pattern_matches(export: Export, put: Callable[[str, bytes], str]) -> None:
    address = put("data[1]/trainA/0.png", b"a picture")
    put("data1/trainA/1.png", b"another")
    found = at_hand(address.removesuffix("/trainA/0.png"))
    assert [path.relative_to(found).as_posix() for path in found.rglob("*.png")] == ["trainA/0.png"]
    Path("a[1].tar").write_bytes(shard("apple2orange/testA"))
    assert len(list(at_hand("a[1].tar").rglob("*.png"))) == 3


def test_files_of_one_name_in_two_folders_that_a_pattern_matches_are_two(
    export: Export, put: Callable[[str, bytes], str]
) -> None:
    for name in ("fruit/red/0.png", "fruit/green/0.png", "fruit/green/1.tar"):
        address = put(name, shard("apple2orange/testA") if name.endswith("tar") else name.encode())
    found = at_hand(address.replace("green/1.tar", "*"))
    names = {path.relative_to(found).as_posix() for path in found.rglob("*.png")}
    assert names == {"red/0.png", "green/0.png", *(f"green/1/000{number}.png" for number in range(3))}


def test_above_the_limit_the_copies_go_that_were_used_longest_ago_and_none_that_is_in_use(
    export: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CACHE_LIMITS_BYTES, "addresses", 1)
    for name in ("old", "used"):
        (cache_folder() / "addresses" / name / "set").mkdir(parents=True)
        (cache_folder() / "addresses" / name / "set" / "0.png").write_bytes(b"a copy")
        os.utime(cache_folder() / "addresses" / name, (1e9, 1e9))
    assert hold(cache_folder() / "addresses" / "used")
    copies = []
    for name in ("apples", "oranges"):
        Path(f"{name}.tar").write_bytes(shard(f"apple2orange/{'testA' if name == 'apples' else 'testB'}"))
        copies.append(at_hand(f"{name}.tar"))
    kept = {path.name for path in (cache_folder() / "addresses").iterdir()}
    assert kept == {"used", *(copy.parent.name for copy in copies)}
