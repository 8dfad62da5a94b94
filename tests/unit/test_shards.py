"""Work shared between the jobs of an array: every picture is one job's, and what they make is what one makes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from picture_files import write_noise
from toy_bundles import Negative, save_toy

from fruitgan.engines.contracts import engines
from fruitgan.errors import UsageError
from fruitgan.parallel import Shard, parse_shard
from fruitgan.translate.job import TranslateResult, TranslateSettings, translate


def test_every_name_is_in_one_shard_and_the_shards_are_alike_in_size() -> None:
    names = [f"folder-{i % 7}/picture {i}.jpg" for i in range(4000)] + ["ö\udce4.png"]
    owners = Counter(next(i for i in range(8) if Shard(i, 8).has(name)) for name in names)
    assert all(sum(Shard(i, 8).has(name) for i in range(8)) == 1 for name in names)
    assert max(owners.values()) < 1.2 * min(owners.values())  # 500 expected, standard deviation 21


@pytest.mark.parametrize("text", ["", "0", "2/2", "-1/2", "0/0", "1/2/3", "a/b", "0/2x", "auto", "1/1_"])
def test_a_wrong_shard_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(UsageError, match="--shard"):
        parse_shard(text)


def test_auto_is_the_task_of_the_array_or_the_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert parse_shard("auto") == Shard(1, 4)
    for name, value in (("ID", "7"), ("MIN", "3"), ("COUNT", "5"), ("STEP", "2")):  # --array=3-11:2
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    assert parse_shard("auto") == Shard(2, 5)
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "seven")
    with pytest.raises(UsageError, match="--shard auto"):
        parse_shard("auto")
    assert parse_shard("0/3") == Shard(0, 3)


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(engines, "get", lambda name: Negative)
    save_toy(Path("toy.safetensors"))
    for folder in ("in", "in/sub"):
        write_noise(Path(folder), [(9, 9)] * 9)
    Path("in/words.txt").write_text("no picture")
    Path("in/broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    return tmp_path


def run(output: str, shard: Shard | None = None, source: str = "in") -> TranslateResult:
    settings = TranslateSettings(sources=(source,), bundle="toy.safetensors", output=output, recursive=True, shard=shard)
    return translate(settings)


def test_shards_translate_each_picture_once_under_the_names_of_one_job(pictures: Path) -> None:
    whole, parts = run("whole"), [run("parts", Shard(i, 4)) for i in range(4)]
    assert sorted(path for part in parts for path in part.outputs) == sorted(
        path.replace("whole", "parts") for path in whole.outputs
    )
    assert sum(part.translated for part in parts) == whole.translated == 18
    assert [remark.path for part in parts for remark in part.failed] == [remark.path for remark in whole.failed]
    assert [remark.path for part in parts for remark in part.skipped] == [remark.path for remark in whole.skipped]
    for path in Path("whole").rglob("*.png"):
        assert path.read_bytes() == (Path("parts") / path.relative_to("whole")).read_bytes()


def test_an_empty_shard_is_no_failure_and_the_split_does_not_depend_on_where_the_folder_lies(pictures: Path) -> None:
    only = write_noise(Path("one"), [(9, 9)])[0]
    owner = next(i for i in range(2) if Shard(i, 2).has(only.name))
    assert (run("a", Shard(1 - owner, 2), "one").exit_code, Path("a").exists()) == (0, False)
    assert run("b", Shard(owner, 2), str(pictures / "one")).translated == 1
