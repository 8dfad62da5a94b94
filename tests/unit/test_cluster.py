"""Work by actors of Ray: what it makes is what one process makes, whatever dies on the way; and errors without a cluster."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loopback_server import loopback_s3
from picture_files import write_noise, write_noise_domains
from toy_bundles import save_small

from fruitgan import __version__, parallel
from fruitgan.cli import main
from fruitgan.errors import EnvironmentProblem, FruitganError, UsageError
from fruitgan.evaluate.job import evaluate
from fruitgan.evaluate.settings import EvaluateSettings
from fruitgan.export_dataset.job import ExportSettings, export_dataset
from fruitgan.files import PART_PREFIX, PART_SUFFIX
from fruitgan.progress import Event, Progress
from fruitgan.translate import job
from fruitgan.translate.job import TranslateResult, TranslateSettings, translate
from fruitgan.translate.pipeline import built

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own
HERE = {"engine": "torch", "gpu": "none"}


def test_without_ray_the_line_for_pip_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["translate", str(write_noise(tmp_path, [(9, 9)])[0]), "-o", str(tmp_path / "out"), "--ray"]) == 4
    assert 'pip install "fruitgan[ray]"' in capsys.readouterr().err


@pytest.mark.parametrize("address", ["head", "head:port", "http://head:80", "head:99999", ":1", "ray://head:10001"])
def test_what_is_no_address_of_a_cluster_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="--ray"), parallel.connected(address, None, None):
        pass


def test_a_cluster_that_cannot_be_reached_is_told_of_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "ANSWER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        with pytest.raises(EnvironmentProblem, match=f"--ray {address}"), parallel.connected(address, None, None):
            pass
    with pytest.raises(EnvironmentProblem, match="no cluster answers"), parallel.connected(address, None, None):
        pass


def test_actors_see_no_memory_and_no_standard_input() -> None:
    for sources, output in ((("-",), None), (("in",), "-"), (("memory://in",), "out"), (("in",), "memory://out")):
        with pytest.raises(UsageError, match="--ray"):
            TranslateSettings(sources=sources, output=output, ray="local")


@pytest.fixture(scope="module")
def s3() -> Iterator[None]:
    with loopback_s3():
        yield


@pytest.fixture(scope="module")
def nodes(s3: None) -> Iterator[Any]:
    """A cluster of two nodes of one core each, on loopback."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("RAY_USAGE_STATS_ENABLED", "0"), ("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")):
            patch.setenv(name, value)
        import ray
        from ray.cluster_utils import Cluster

        node = {"num_cpus": 1, "object_store_memory": parallel.STORE_BYTES, "include_dashboard": False}
        started = Cluster(initialize_head=True, head_node_args=node)
        try:
            ray.init(address=started.address, log_to_driver=False, logging_level="ERROR")
            started.add_node(num_cpus=1, object_store_memory=parallel.STORE_BYTES)
            yield started
        finally:
            ray.shutdown()
            started.shutdown()


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """300 small pictures in a tree, one of them broken."""
    monkeypatch.chdir(tmp_path)
    save_small(Path("small.safetensors"), image_size_px=32)
    write_noise(Path("in"), [(32, 32), (20, 44)] * 100)
    write_noise(Path("in/deeper"), [(24, 24)] * 100)
    Path("in/0007.png").write_bytes(Path("in/0007.png").read_bytes()[:60])
    return tmp_path


def run(*sources: str, output: str, on_progress: Any = None, **settings: Any) -> TranslateResult:
    asked = {"bundle": "small.safetensors", "recursive": True, **HERE, **settings}
    return translate(TranslateSettings(sources=sources, output=output, **asked), on_progress)


def same_files(first: str, second: str) -> bool:
    files = sorted(path.relative_to(first) for path in Path(first).rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(second) for path in Path(second).rglob("*") if path.is_file())
    return all((Path(first) / file).read_bytes() == (Path(second) / file).read_bytes() for file in files)


def test_an_actor_of_another_version_makes_nothing() -> None:
    actor = parallel._Actor(lambda device: lambda item: item, "none", ".", "0.0.1")
    assert json.loads(actor({"at": 3, "item": "5"})["told"])[2] == EnvironmentProblem.exit_code
    same = parallel._Actor(lambda device: lambda item: item, "none", ".", __version__)
    assert (same({"at": 3, "item": "5"})) == {"at": 3, "told": "[5]"}


@pytest.mark.ray
def test_a_node_that_is_lost_on_the_way_changes_nothing(pictures: Path, nodes: Any) -> None:
    node = next(node for node in nodes.list_all_nodes() if node is not nodes.head_node)
    events: list[Progress] = []

    def on_progress(event: Event) -> None:
        if isinstance(event, Progress):
            events.append(event)
            if event.done == 1:
                Path(f"there/{PART_PREFIX}0123456789abcdef{PART_SUFFIX}").touch()  # as an actor leaves that was killed
                nodes.remove_node(node, allow_graceful=False)

    here = run("in", output="here")
    there = run("in", output="there", on_progress=on_progress, ray="auto")
    assert node not in nodes.list_all_nodes()
    nodes.add_node(num_cpus=1, object_store_memory=parallel.STORE_BYTES)
    assert [event.done for event in events] == list(range(1, 301))
    assert (there.translated, there.failed, there.exit_code) == (299, here.failed, 3)
    assert there.outputs == tuple(path.replace("here", "there", 1) for path in here.outputs)
    assert list(Path().rglob(".*")) == []
    assert same_files("here", "there")
    assert [json.loads(line)["path"] for line in Path("there.failed.jsonl").read_text().splitlines()] == [here.failed[0].path]
    Path("there/0003.png").unlink()
    again = run("in", output="there", ray="auto")
    assert (again.translated, again.outputs, again.failed) == (1, there.outputs, there.failed)
    with pytest.raises(FruitganError, match="another compare") as raised:
        run("in", output="there", ray="auto", compare=True)
    assert raised.value.exit_code == UsageError.exit_code


@pytest.mark.ray
def test_shards_in_and_out_of_an_object_store_are_those_of_a_folder(pictures: Path, nodes: Any) -> None:
    import s3fs

    files = s3fs.S3FileSystem()
    files.mkdir("fruit")
    for number in range(4):
        with tarfile.open(f"part-{number}.tar", "w") as tar:
            for path in sorted(Path("in").glob(f"00{number}*.png")):
                tar.add(path)
        files.put_file(f"part-{number}.tar", f"fruit/shards/part-{number}.tar")
    here = run("part-*.tar", output="here")
    there = run("s3://fruit/shards/*.tar", output="s3://fruit/made", ray="auto")
    assert (there.translated, len(there.failed), there.exit_code) == (here.translated, 1, 3) == (39, 1, 3)
    for path in Path("here").iterdir():
        assert files.cat_file(f"fruit/made/{path.name}") == path.read_bytes()
    assert json.loads(files.cat_file("fruit/made.failed.jsonl"))["path"] == "s3://fruit/shards/part-0.tar/in/0007.png"
    assert run("s3://fruit/shards/*.tar", output="s3://fruit/made", ray="auto").translated == 0
    files.put("in/deeper", "fruit/in", recursive=True)
    assert run("s3://fruit/in", output="s3://fruit/out").translated == 100
    with pytest.raises(FruitganError, match="s3://absent") as raised:
        run("s3://absent/in", output="out")
    assert raised.value.exit_code == 3


@pytest.mark.ray
def test_an_export_by_actors_has_the_bytes_of_one_here(pictures: Path, nodes: Any) -> None:
    write_noise_domains(Path("data"), 12, (40, 40))
    asked: dict[str, Any] = {"bundle": "small.safetensors", "data": "data", "count": 20, **HERE}
    export_dataset(ExportSettings(out=Path("here"), **asked))
    made = export_dataset(ExportSettings(out=Path("there"), ray="auto", **asked))
    assert (made.made, made.engine, made.finished) == (40, "torch", True)
    assert same_files("here", "there")


@pytest.mark.ray
def test_an_error_of_the_work_keeps_its_words_and_its_exit_code(nodes: Any) -> None:
    def refusing(device: str) -> Any:  # in here, so that it travels with all that it is
        def work(item: Any) -> Any:
            raise UsageError(f"no \udcff but {device}")

        return work

    with pytest.raises(FruitganError, match="no \udcff but none") as raised:
        list(parallel.Cluster(2, 0).each(refusing, [1, 2]))
    assert raised.value.exit_code == UsageError.exit_code


@pytest.mark.ray
def test_what_kills_its_actors_is_given_up_and_the_rest_is_done(nodes: Any) -> None:
    def deadly(device: str) -> Any:
        def work(item: Any) -> Any:
            if item in (5, 7):
                os.kill(os.getpid(), signal.SIGKILL)
            return item

        return work

    with pytest.raises(FruitganError, match="every actor died that had 5"):
        list(parallel.Cluster(2, 0).each(deadly, [5]))
    numbers = list(parallel.Cluster(2, 0).each(deadly, range(20), at_once=20, given_up=lambda item: -item))
    assert numbers == [-item if item in (5, 7) else item for item in range(20)]


@pytest.mark.ray
def test_a_picture_that_kills_is_a_row_of_those_that_failed(
    pictures: Path, nodes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deadly(*given: Any) -> Any:
        attempt = built(*given)
        return lambda row: os.kill(os.getpid(), signal.SIGSEGV) if row[0].endswith("0003.png") else attempt(row)

    monkeypatch.setattr(job, "built", deadly)
    there = run("in/000*.png", output="there", ray="auto")
    failed = [json.loads(line) for line in Path("there.failed.jsonl").read_text().splitlines()]
    assert {Path(row["path"]).name: row["reason"] for row in failed}.keys() == {"0003.png", "0007.png"}
    assert (there.translated, there.exit_code, len(list(Path("there").iterdir()))) == (8, 3, 8)


@pytest.mark.ray
def test_numbers_from_features_by_actors_are_those_from_here(
    pictures: Path, nodes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_noise(Path("real"), [(32, 32)] * 40)
    write_noise(Path("fake"), [(32, 40)] * 37)
    asked: dict[str, Any] = {
        "fake_dir": Path("fake"),
        "real_dir": Path("real"),
        "detector": "none",
        "quick": True,
        "gpu": "none",
    }
    results = []
    for name, ray in (("here", None), ("there", "auto")):
        monkeypatch.setenv("FRUITGAN_CACHE", str(pictures / f"cache-{name}"))  # else the second finds the first's features
        results.append(evaluate(EvaluateSettings(out=Path(name), ray=ray, threads=1, metrics=("kid", "fid"), **asked)))
    here, there = (result.numbers for result in results)
    assert here.keys() == there.keys()
    assert len(here) == 6
    for key, number in here.items():
        values = ([each.value, *each.interval] for each in (number, there[key]))
        np.testing.assert_allclose(*values, rtol=1e-9, atol=1e-9)
