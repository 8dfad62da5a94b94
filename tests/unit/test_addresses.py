"""Pictures and shards at addresses: the same results as from folders, whole, once, and refused in words where it cannot be."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from picture_files import pixels_of, write_noise
from PIL import Image
from toy_bundles import Negative, save_toy

from fruitgan.addresses import Address
from fruitgan.engines.contracts import engines
from fruitgan.errors import DataError, UsageError
from fruitgan.parallel import Shard
from fruitgan.translate.job import TranslateResult, TranslateSettings, translate

Run = Callable[..., TranslateResult]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Translates in a folder with nine pictures, of which two lie deeper, by an engine that gives the negative."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(engines, "get", lambda name: Negative)
    save_toy(Path("toy.safetensors"))
    write_noise(Path("in"), [(9, 9)] * 7)
    write_noise(Path("in/sub"), [(8, 8)] * 2)

    def run(*sources: str, **settings: Any) -> TranslateResult:
        return translate(TranslateSettings(sources=sources, **{"bundle": "toy.safetensors", "recursive": True, **settings}))

    return run


@pytest.fixture
def memory() -> Iterator[Any]:
    from fsspec.implementations.memory import MemoryFileSystem

    files = MemoryFileSystem()
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


def put(files: Any, folder: str, root: str = "/in") -> None:
    for path in Path(folder).rglob("*"):
        if path.is_file():
            files.pipe_file(f"{root}/{path.relative_to(folder).as_posix()}", path.read_bytes())


def shard(members: dict[str, bytes], path: str = "shard.tar") -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(data)
            tar.addfile(about, io.BytesIO(data))


def members(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


def test_results_at_an_address_are_those_of_a_folder_and_are_made_once(run: Run, memory: Any) -> None:
    put(memory, "in")
    memory.pipe_file("/in/words.txt", b"no picture")
    memory.pipe_file("/in/.hidden.png", b"hidden")
    here, there = run("in", output="out"), run("memory://in", output="memory://made/out")
    assert there.translated == here.translated == 9
    assert there.outputs == tuple(f"memory://made/out/{Path(path).relative_to('out').as_posix()}" for path in here.outputs)
    for path in Path("out").rglob("*.png"):
        assert memory.cat_file(f"/made/out/{path.relative_to('out').as_posix()}") == path.read_bytes()
    assert sorted(remark.path.rpartition("/")[2] for remark in there.skipped) == [".hidden.png", "words.txt"]
    assert memory.cat_file("/made/out.failed.jsonl") == b""
    memory.rm_file("/made/out/sub/0001.png")
    again = run("memory://in", output="memory://made/out")
    assert (again.translated, again.outputs, again.exit_code) == (1, there.outputs, 0)


def test_other_results_at_an_address_are_in_the_way(run: Run, memory: Any) -> None:
    put(memory, "in")
    run("memory://in/*.png", output="memory://made/out")
    with pytest.raises(UsageError, match=r"memory://made/out/0000\.png \(made with another compare\) is in the way"):
        run("memory://in/0000.png", output="memory://made/out", compare=True)
    assert run("memory://in/0000.png", output="memory://made/out", compare=True, overwrite=True).translated == 1


def test_a_picture_that_fails_is_a_row_beside_the_folder_and_no_end(run: Run, memory: Any) -> None:
    put(memory, "in")
    memory.pipe_file("/in/0003.png", memory.cat_file("/in/0003.png")[:60])
    result = run("memory://in", output="memory://results/a")
    assert (result.translated, result.exit_code) == (8, 3)
    rows = [json.loads(line) for line in memory.cat_file("/results/a.failed.jsonl").splitlines()]
    assert [row["path"].rpartition("/")[2] for row in rows] == ["0003.png"]
    assert rows[0]["reason"] == result.failed[0].reason


def test_the_results_at_an_address_are_no_sources_and_replace_none(run: Run, memory: Any) -> None:
    put(memory, "in")
    assert run("memory://in", output="memory://in/out").translated == 9
    assert run("memory://in", output="memory://in/out").outputs == run("memory://in", output="memory://in/out").outputs
    with pytest.raises(UsageError, match="replace their sources"):
        run("memory://in", output="memory://in/")


def test_a_file_address_is_a_path(run: Run, tmp_path: Path) -> None:
    result = run(f"file://{tmp_path}/in", output=f"file://{tmp_path}/out")
    assert result.outputs[0] == str(tmp_path / "out" / "0000.png")
    assert (pixels_of("out/0000.png") == 255 - pixels_of("in/0000.png")).all()


def test_shards_of_the_work_at_an_address_make_the_whole(run: Run, memory: Any) -> None:
    put(memory, "in")
    parts = [run("memory://in", output="memory://made/out", shard=Shard(i, 3)) for i in range(3)]
    assert sum(part.translated for part in parts) == len(memory.find("/made/out")) == 9
    assert {name for name in memory.store if "failed" in name} == {f"/made/out.failed-{i}-of-3.jsonl" for i in range(3)}


def test_a_tar_shard_becomes_one_of_the_same_samples(run: Run) -> None:
    first, second = (Path(f"in/000{i}.png").read_bytes() for i in range(2))
    given = {"a/1.png": first, "a/1.json": b'{"label": 3}', "a/2.seg.png": second, "a/2.png": first, "a/3.png": first[:60]}
    # The last one's folder has a dot, and its name has none.
    shard({**given, "a/3.txt": b"of a broken picture", "../evil.png": first, "v1.0/4": first})
    result = run("shard.tar", output="out")
    assert (result.translated, result.exit_code) == (4, 3)
    assert [remark.path for remark in result.failed] == ["shard.tar/a/3.png"]
    assert result.outputs == (str(Path("out/shard.tar")),)
    made = members(Path("out/shard.tar").read_bytes())
    assert list(made) == ["a/1.png", "a/1.json", "a/2.seg.png", "a/2.png", "v1.0/4.png"]
    assert made["a/1.json"] == given["a/1.json"]
    with Image.open(io.BytesIO(made["a/2.seg.png"])) as image, Image.open("in/0001.png") as source:
        assert image.tobytes() == bytes(255 - value for value in source.tobytes())
    before = Path("out/shard.tar").stat().st_mtime_ns
    again = run("shard.tar", output="out")
    assert (again.translated, again.failed, again.exit_code) == (0, result.failed, 3)  # told again, made once
    assert Path("out/shard.tar").stat().st_mtime_ns == before
    with pytest.raises(UsageError, match="another compare"):
        run("shard.tar", output="out", compare=True)


def test_a_shard_from_an_address_has_the_bytes_of_one_from_a_folder(run: Run, memory: Any) -> None:
    shard({path.name: path.read_bytes() for path in sorted(Path("in").glob("*.png"))}, "one.tar")
    memory.pipe_file("/shards/one.tar", Path("one.tar").read_bytes())
    run("one.tar", output="out")
    assert run("memory://shards/*.tar", output="memory://made/out").translated == 7
    assert memory.cat_file("/made/out/one.tar") == Path("out/one.tar").read_bytes()
    assert run("memory://shards/*.tar", output="memory://made/out").translated == 0


@pytest.mark.parametrize("data", [b"", b"no tar at all", b"x" * 512])
def test_what_is_no_shard_fails_alone(run: Run, data: bytes) -> None:
    Path("bad.tar").write_bytes(data)
    result = run("bad.tar", "in/0000.png")
    assert ([remark.path for remark in result.failed], result.translated) == (["bad.tar"], 1)


def test_a_shard_that_is_cut_short_fails_and_its_beginning_does_not_pass_for_the_whole(run: Run) -> None:
    picture = Path("in/0000.png").read_bytes()
    shard({f"{number}.png": picture for number in range(3)})
    whole = Path("shard.tar").read_bytes()
    third = whole.index(b"2.png")
    for end in (third - 1, third, third + 100):  # in the padding, before a header, within it
        Path("shard.tar").write_bytes(whole[:end])
        result = run("shard.tar", output=f"out-{end}")
        assert (result.translated, result.exit_code, result.outputs) == (0, 3, ())
        assert "cut short" in result.failed[0].reason or "unexpected end" in result.failed[0].reason


def test_a_name_with_signs_of_a_pattern_is_that_file_where_there_is_one(run: Run, memory: Any) -> None:
    picture = Path("in/0000.png").read_bytes()
    for name in ("a[1].png", "a1.png", "b[1]/c.png", "b2.png"):
        memory.pipe_file(f"/in/{name}", picture)
    assert run("memory://in/a[1].png", output="memory://made/one").outputs == ("memory://made/one/a[1].png",)
    assert run("memory://in/b[1]", output="memory://made/two").outputs == ("memory://made/two/c.png",)
    assert run("memory://in/b[2].png", output="memory://made/three").outputs == ("memory://made/three/b2.png",)


def test_a_tar_amid_the_pictures_of_a_folder_is_none_of_them(run: Run) -> None:
    shard({"a.png": Path("in/0000.png").read_bytes()}, "in/backup.tar")
    result = run("in")
    assert (result.translated, [remark.path for remark in result.skipped]) == (9, [str(Path("in/backup.tar"))])


def test_addresses_that_cannot_be_had_say_why(run: Run, memory: Any) -> None:
    with pytest.raises(UsageError, match="no such kind of address"):
        run("nosuchthing://in")
    assert run("memory://nothing").exit_code == 3
    with pytest.raises(DataError, match="memory://nothing/x: cannot be read"):
        Address("memory://nothing/x").read()


def test_plain_paths_import_no_fsspec() -> None:
    code = "import sys; import fruitgan.translate.job; from fruitgan.addresses import *; place_of('in'); place_of('file:///a')"
    done = subprocess.run([sys.executable, "-c", f"{code}; assert 'fsspec' not in sys.modules"], check=False)
    assert done.returncode == 0
