"""Bundles and data of the Hugging Face Hub: huggingface_hub itself, against a server on loopback that answers its HTTP API."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import yaml
from hub_server import TOKEN, Hub, loopback_hub
from huggingface_hub import constants
from picture_files import encoded
from PIL import Image
from toy_bundles import save_small, save_toy
from typed_commands import run_json

from fruitgan import bundle as bundles
from fruitgan.cli import main
from fruitgan.data.hub import fetched, hub_source, pinned
from fruitgan.data.sources import find_source
from fruitgan.errors import DataError, EnvironmentProblem, FruitganError, UsageError
from fruitgan.hub import PushSettings, pushed
from fruitgan.train_gan.settings import TrainGanSettings, located
from fruitgan.translate.pictures import read_mark


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("FRUITGAN_CACHE", str(tmp_path / "cache"))
    with loopback_hub(tmp_path, monkeypatch) as found:
        yield found


@pytest.fixture
def login(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return save_toy(tmp_path / "toy.safetensors")


def png(level: int) -> bytes:
    return encoded(Image.new("RGB", (20, 20), (level, 0, 0)))


FOLDERS = {
    f"{split}/{i}.png": png(10 * i + n) for n, split in enumerate(("trainA", "trainB", "testA", "testB")) for i in range(3)
}


def test_a_bundle_of_the_hub_is_located_at_a_branch_and_at_a_commit(hub: Hub, toy: Path, tmp_path: Path) -> None:
    repo = hub.model("ann/fruit")
    first = repo.add({bundles.FILE_NAME: toy.read_bytes(), "README.md": b"# fruit"})
    second = repo.add({bundles.FILE_NAME: save_toy(tmp_path / "other.safetensors", weight=2.0).read_bytes()})
    assert bundles.pinned("hf:ann/fruit") == f"hf:ann/fruit@{second}"
    assert bundles.pinned(str(toy)) is None
    assert bundles.load(bundles.locate("hf:ann/fruit")).weights["a2b"]["w"] == 2
    assert bundles.load(bundles.locate(f"hf:ann/fruit@{first}")).weights["a2b"]["w"] == 1
    assert not any("README" in asked for asked in hub.asked)  # nothing that nobody needs


def test_what_was_fetched_is_not_fetched_again_and_serves_offline(hub: Hub, toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = hub.model("ann/fruit").add({bundles.FILE_NAME: toy.read_bytes()})
    path = bundles.locate("hf:ann/fruit")
    hub.asked.clear()
    assert bundles.locate(f"hf:ann/fruit@{commit}") == path
    monkeypatch.setenv("FRUITGAN_OFFLINE", "1")
    assert bundles.locate("hf:ann/fruit") == path
    monkeypatch.delenv("FRUITGAN_OFFLINE")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert bundles.locate("hf:ann/fruit") == path
    pear = hub.model("ann/pear").add({bundles.FILE_NAME: toy.read_bytes()})
    for address in ("hf:ann/pear", f"hf:ann/pear@{pear}"):
        with pytest.raises(EnvironmentProblem, match="HF_HUB_OFFLINE"):
            bundles.locate(address)
    assert hub.asked == []


@pytest.mark.parametrize(
    ("address", "error"),
    [
        ("hf:ann/nothing", DataError),
        ("hf:ann/fruit@no-such-branch", DataError),
        ("hf:ann/empty", DataError),
        ("hf:ann/gated", EnvironmentProblem),
        ("hf:fruit", UsageError),
        ("hf:ann/..", UsageError),
    ],
)
def test_what_cannot_be_had_is_said_with_its_address(hub: Hub, toy: Path, address: str, error: type[FruitganError]) -> None:
    hub.model("ann/fruit").add({bundles.FILE_NAME: toy.read_bytes()})
    hub.model("ann/empty").add({"README.md": b""})
    hub.model("ann/gated", gated=True).add({bundles.FILE_NAME: toy.read_bytes()})
    with pytest.raises(error) as raised:
        bundles.locate(address)
    assert raised.value.exit_code == error.exit_code
    assert address in str(raised.value)


def test_a_private_repository_needs_the_login(hub: Hub, toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.model("ann/secret", private=True).add({bundles.FILE_NAME: toy.read_bytes()})
    with pytest.raises(DataError, match="hf auth login"):
        bundles.locate("hf:ann/secret")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert bundles.load(bundles.locate("hf:ann/secret")).card.name == "toy"


@pytest.mark.parametrize("name", [bundles.FILE_NAME, "notes.txt"], ids=["in the large file storage", "in Git"])
def test_a_file_with_another_sum_is_refused_and_not_kept(hub: Hub, toy: Path, name: str) -> None:
    data = toy.read_bytes()
    address = f"hf:ann/fruit@{hub.model('ann/fruit').add({name: data})}"
    hub.served_as[name] = data[:-1] + bytes([data[-1] ^ 1])
    with pytest.raises(DataError, match="damaged"):
        fetched(address, [name])
    hub.served_as.clear()
    assert fetched(address, [name])[name].read_bytes() == data


def test_results_name_the_commit_that_made_them(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commit = hub.model("ann/fruit").add({bundles.FILE_NAME: save_small(tmp_path / "small.safetensors").read_bytes()})
    (tmp_path / "a.png").write_bytes(png(100))
    command = ("translate", tmp_path / "a.png", "-o", tmp_path / "out", "--engine", "torch")
    assert run_json(capsys, *command, "--bundle", "hf:ann/fruit")["bundle"] == f"hf:ann/fruit@{commit}"
    mark = read_mark(tmp_path / "out" / "a.png")
    assert mark is not None
    assert mark["address"] == f"hf:ann/fruit@{commit}"
    again = run_json(capsys, *command, "--bundle", tmp_path / "small.safetensors")  # the same generator from elsewhere
    assert again["translated"] == 0


def test_a_training_keeps_the_commits_that_it_began_with(hub: Hub, toy: Path) -> None:
    data = hub.dataset("ann/plum2pear").add(FOLDERS)
    first = hub.model("ann/fruit").add({bundles.FILE_NAME: toy.read_bytes()})
    asked = TrainGanSettings(data="hf:ann/plum2pear", init_from="hf:ann/fruit")
    kept = located(asked)
    assert (kept.data, kept.init_from) == (f"hf:ann/plum2pear@{data}", f"hf:ann/fruit@{first}")
    hub.model("ann/fruit").add({"README.md": b"later"})
    assert located(kept) == kept
    assert located(TrainGanSettings(data="demo")).data == "demo"


def test_a_missing_package_is_named_with_the_line_that_installs_it(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    assert main(["show", "hf:ann/fruit"]) == EnvironmentProblem.exit_code
    assert 'pip install "fruitgan[hub]"' in capsys.readouterr().err


def test_two_folders_of_a_repository_are_a_data_set(hub: Hub) -> None:
    commit = hub.dataset("ann/plum2pear").add({**FOLDERS, "README.md": b"no image", "extra/x.png": png(200)})
    source = find_source("hf:ann/plum2pear")
    assert (source.name, source.a.name, source.b.name) == ("plum2pear", "plum", "pear")
    for domain, side in ((source.a, "A"), (source.b, "B")):
        assert [path.read_bytes() for path in domain.train] == [FOLDERS[f"train{side}/{i}.png"] for i in range(3)]
        assert [path.read_bytes() for path in domain.test] == [FOLDERS[f"test{side}/{i}.png"] for i in range(3)]
    assert pinned("hf:ann/plum2pear", "dataset") == f"hf:ann/plum2pear@{commit}"


Cell = bytes | dict[str, object] | None


def table(**columns: list[Cell] | list[int]) -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), file)
    return file.getvalue()


@pytest.mark.parametrize("in_a_struct", [True, False], ids=["the Hub's form", "bare bytes"])
def test_two_columns_of_images_are_a_data_set(hub: Hub, in_a_struct: bool) -> None:
    def cells(levels: range, count: int) -> list[Cell]:
        found: list[Cell] = [{"bytes": png(i), "path": f"{i}.PNG"} if in_a_struct else png(i) for i in levels]
        return found + [None] * (count - len(found))

    first = table(imageA=cells(range(3), 4), number=[1, 2, 3, 4], imageB=cells(range(50, 54), 4))
    second = table(imageA=cells(range(3, 4), 1), imageB=cells(range(54, 55), 1))
    test = table(imageA=cells(range(90, 91), 1), imageB=cells(range(95, 96), 1))
    names = ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001")
    hub.dataset("ann/fruit").add(
        {f"data/{name}.parquet": data for name, data in zip(names, (first, second, test), strict=True)}
    )
    source = hub_source("hf:ann/fruit", ("plum", "pear"))
    assert (source.a.name, source.b.name) == ("plum", "pear")
    assert [path.read_bytes() for path in source.a.train] == [png(i) for i in range(4)]
    assert [path.read_bytes() for path in source.b.train] == [png(i) for i in range(50, 55)]
    assert [path.read_bytes() for path in (*source.a.test, *source.b.test)] == [png(90), png(95)]
    hub.asked.clear()
    assert hub_source("hf:ann/fruit", ("plum", "pear")) == source
    assert len(hub.asked) == 1  # which commit it is now


HOSTILE: dict[str, Callable[[], dict[str, bytes]]] = {
    "three columns": lambda: {"a.parquet": table(a=[png(1)], b=[png(2)], c=[png(3)])},
    "no Parquet": lambda: {"a.parquet": b"PAR1" + b"\xff" * 100 + b"PAR1"},
    "neither form": lambda: {"README.md": b"", "images/a.png": png(1)},
    "one folder": lambda: {"trainA/a.png": png(1)},
    "a bomb": lambda: {"a.parquet": table(a=[bytes(60_000), None], b=[bytes(60_000), None])},
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_data_of_another_form_are_refused_and_leave_nothing(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Callable[[], dict[str, bytes]]
) -> None:
    monkeypatch.setattr("fruitgan.data.hub.SMALL_BYTES", 100_000)
    hub.dataset("eve/fruit").add(content())
    with pytest.raises(DataError):
        hub_source("hf:eve/fruit")
    assert not list((tmp_path / "cache").rglob("*.*"))


def test_what_is_pushed_is_private_and_comes_back_the_same(
    hub: Hub, toy: Path, login: None, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run_json(capsys, "push", toy, "ann/fruit")
    repo = hub.model("ann/fruit")
    assert repo.private
    assert result["private"]
    assert result["address"] == f"hf:ann/fruit@{repo.sha}"
    assert set(repo.files) == {".gitattributes", "README.md", bundles.FILE_NAME}
    assert bundles.locate(result["address"]).read_bytes() == toy.read_bytes()
    commits = len(repo.commits)
    assert run_json(capsys, "push", toy, "ann/fruit")["address"] == result["address"]
    assert len(repo.commits) == commits


def test_the_readme_tells_the_hub_what_the_card_says(hub: Hub, tmp_path: Path, login: None) -> None:
    own = "Research only,\nnot for <b>trade</b>"
    path = save_toy(tmp_path / "toy.safetensors", licence=own, measured={"kid_a": 0.5, "odd": 1.0, "how": "by | eye"})
    pushed(PushSettings(bundle=str(path), repository="ann/fruit", public=True))
    text = hub.model("ann/fruit").files["README.md"].decode()
    assert not hub.model("ann/fruit").private
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["library_name"] == "fruitgan"
    assert head["pipeline_tag"] == "image-to-image"
    assert (head["license"], head["datasets"], head["metrics"]) == ("other", ["drawn"], ["kid"])
    assert "not for &lt;b&gt;trade" in text
    assert "--bundle hf:ann/fruit" in text
    assert "ångström" in text
    pushed(PushSettings(bundle=str(save_toy(path, licence="Apache-2.0")), repository="ann/fruit", public=True))
    assert yaml.safe_load(hub.model("ann/fruit").files["README.md"].decode().split("---\n")[1])["license"] == "apache-2.0"


def test_samples_go_along_only_when_asked_for(hub: Hub, tmp_path: Path, login: None) -> None:
    run = tmp_path / "runs" / "plums"
    save_toy(run / bundles.FILE_NAME)
    (run / "config.json").write_text(json.dumps({"settings": {"data": "hf:ann/plum2pear@" + "a" * 40}}))
    settings = {"bundle": "plums", "repository": "ann/fruit", "runs": tmp_path / "runs"}
    with pytest.raises(UsageError, match="samples"):
        pushed(PushSettings(**settings, samples=True))
    (run / "samples").mkdir()
    for step in ("000001", "000002"):
        (run / "samples" / f"step-{step}.png").write_bytes(png(int(step)))
    pushed(PushSettings(**settings))
    assert "samples.png" not in hub.model("ann/fruit").files
    pushed(PushSettings(**settings, samples=True))
    assert hub.model("ann/fruit").files["samples.png"] == png(2)
    head = hub.model("ann/fruit").files["README.md"].decode().split("---\n")[1]
    assert yaml.safe_load(head)["datasets"] == ["ann/plum2pear"]
    for foreign in ("{}", "[]", '{"settings": 3}', "no JSON"):  # beside a bundle any program's may lie
        (run / "config.json").write_text(foreign)
        assert pushed(PushSettings(**settings)).address.startswith("hf:ann/fruit@")


def test_nothing_is_pushed_where_it_would_be_seen_by_others_than_asked(hub: Hub, toy: Path, login: None) -> None:
    for public in (False, True):
        repo = hub.model(f"ann/public-is-{public}", private=not public)
        repo.add({"README.md": b"own words"})
        with pytest.raises(UsageError, match="public"):
            pushed(PushSettings(bundle=str(toy), repository=f"ann/public-is-{public}", public=not public))
        assert repo.files == {"README.md": b"own words"}


def test_without_a_login_or_a_right_nothing_is_pushed(hub: Hub, toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = PushSettings(bundle=str(toy), repository="bob/fruit")
    with pytest.raises(EnvironmentProblem, match="hf auth login"):
        pushed(settings)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(EnvironmentProblem, match="hf auth login"):
        pushed(settings)
    monkeypatch.setenv("FRUITGAN_OFFLINE", "1")
    with pytest.raises(EnvironmentProblem, match="OFFLINE"):
        pushed(settings)
    assert not hub.repos
