"""Runs and checkpoints from strangers: gone on with, or refused in one line; nothing outside of the run's folder is touched."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hostile import examples
from hypothesis import given
from hypothesis import strategies as st
from picture_files import write_noise_domains
from safetensors.torch import load_file, save
from trainings import SMALL

from fruitgan.cli import main
from fruitgan.errors import DataError, FruitganError
from fruitgan.runs.checkpoint import SUMS, TENSORS, VALUES, Checkpoints, Snapshot, Stateful, snapshot
from fruitgan.train_gan import segment
from fruitgan.train_gan.job import train_gan
from fruitgan.train_gan.objectives.adversarial import ReplayBuffer
from fruitgan.train_gan.settings import TrainGanSettings
from fruitgan.train_gan.trainer import Trainer

pytestmark = pytest.mark.usefixtures("no_report")

Parts = Mapping[str, Stateful]


@dataclasses.dataclass(frozen=True)
class Good:
    """A finished run of two steps, and the parts that its checkpoint is of."""

    run: Path
    parts: Parts

    @property
    def checkpoint(self) -> Path:
        return self.run / "checkpoints" / "step-00000002"

    @property
    def trainer(self) -> Trainer:
        trainer = self.parts["trainer"]
        assert isinstance(trainer, Trainer)
        return trainer


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise_domains(tmp_path_factory.mktemp("data") / "dark2light", 2, (32, 32), lighter_b=90)


@pytest.fixture(scope="module")
def good(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Good:
    """With averages."""
    seen: list[Parts] = []

    def watched(step: int, parts: Parts, *rest: Any) -> Snapshot:
        seen.append(parts)
        return snapshot(step, parts, *rest)

    often = {"steps": 2, "log_every": 1, "save_every": 100, "sample_every": 100}
    asked = TrainGanSettings(data=str(data), out=tmp_path_factory.mktemp("runs"), name="good", **SMALL, **often)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segment, "snapshot", watched)
        result = train_gan(asked)
    return Good(result.run, seen[-1])


def signed(folder: Path) -> None:
    """Make the sums of a spoilt checkpoint right again, as a stranger would."""
    try:
        document = json.loads((folder / VALUES).read_text())
        del document[SUMS]
        document.pop("about", None)  # of which there is no sum
    except (ValueError, TypeError, KeyError, RecursionError):
        return
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    tensors = hashlib.sha256((folder / TENSORS).read_bytes()).hexdigest()
    sums = {TENSORS: tensors, VALUES: hashlib.sha256(text.encode()).hexdigest()}
    (folder / VALUES).write_text(json.dumps({**document, SUMS: sums}))


def fate(good: Good, folder: Path) -> str:
    """Restore from the folder of checkpoints and take a step: all is well, or there is an error of ours in one line."""
    said: FruitganError | None = None
    try:
        step, _ = Checkpoints(folder).restore_newest(good.parts)
        good.trainer.step = step
        if step:
            next(good.trainer.steps(until=step + 1))
    except FruitganError as error:
        said = error
    if said is None:
        return "whole"
    assert len(str(said).splitlines()) == 1, repr(said)
    assert len(str(said)) < 1000 + 2 * len(str(folder)), repr(said)
    return type(said).__name__


def copied(good: Good, folder: Path) -> Path:
    """The good checkpoint in another folder of checkpoints."""
    return Path(shutil.copytree(good.checkpoint, folder / "checkpoints" / good.checkpoint.name))


def test_the_good_checkpoint_is_restored_and_goes_on(good: Good, tmp_path: Path) -> None:
    assert fate(good, copied(good, tmp_path).parent) == "whole"
    assert {"ema", "trainer"} < set(good.parts)


def other_tensors(draw: Callable[..., Any], tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """One tensor of another shape, kind, or content; or missing."""
    name = draw(st.sampled_from(sorted(tensors)))
    tensor = tensors.pop(name)
    match draw(
        st.sampled_from(["missing", "renamed", "larger", "flat", "empty", "double", "whole", "nan", "huge", "negative"])
    ):
        case "renamed":
            tensors[f"{name}x"] = tensor
        case "larger":
            tensors[name] = torch.zeros(*(side + 1 for side in tensor.shape), 2)
        case "flat":
            tensors[name] = tensor.reshape(-1).clone()
        case "empty":
            tensors[name] = torch.zeros(0)
        case "double":
            tensors[name] = tensor.double()
        case "whole":
            tensors[name] = tensor.long()
        case "nan" | "huge" | "negative" as number:
            fill = {"nan": float("nan"), "huge": 3e38, "negative": -1}[number]
            tensors[name] = torch.full_like(tensor, fill if tensor.is_floating_point() else -1)
    return tensors


@examples(60)
@given(st.data())
def test_any_spoilt_checkpoint_is_restored_or_refused_in_one_line(
    hostile: SimpleNamespace, good: Good, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """In one of many ways; its sums may be made right again."""
    folder = tmp_path_factory.mktemp("spoilt")
    checkpoint = copied(good, folder)
    draw = data.draw
    values, tensors = (good.checkpoint / name for name in (VALUES, TENSORS))
    way = draw(st.sampled_from(["values", "values", "own values", "header", "tensors", "bytes"]))
    if way == "values":
        (checkpoint / VALUES).write_text(hostile.text(draw, hostile.json(draw, json.loads(values.read_text()))))
    elif way == "own values":
        document = json.loads(values.read_text())
        document["values"] = hostile.json(draw, document["values"])
        (checkpoint / VALUES).write_text(hostile.text(draw, document))
    elif way == "header":
        header, content = hostile.parts_of(tensors.read_bytes())
        name = draw(st.sampled_from(sorted(header)))
        spoilt = hostile.json(draw, {name: header.pop(name), **dict(list(header.items())[:3])})
        header |= spoilt if isinstance(spoilt, dict) else {name: spoilt}
        (checkpoint / TENSORS).write_bytes(hostile.tensor_file(hostile.text(draw, header), content))
    elif way == "tensors":
        (checkpoint / TENSORS).write_bytes(save(other_tensors(draw, load_file(tensors))))
    else:
        path = draw(st.sampled_from([VALUES, TENSORS]))
        (checkpoint / path).write_bytes(hostile.bytes(draw, (good.checkpoint / path).read_bytes()))
    if draw(st.booleans()):
        signed(checkpoint)
    with hostile.little_memory():
        fate(good, checkpoint.parent)
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("trainer", "step", "2"),
        ("trainer", "step", -1),
        ("trainer", "since_log", -5),
        ("trainer", "counts", {"unheard_of": 1}),
        ("trainer", "counts", {"cycle_a": 0}),
        ("trainer", "rollbacks", [1]),
        ("trainer", "rollbacks", [{"terms": "x"}]),
        ("ema", "updates", "many"),
        ("ema", "updates", -1),
    ],
)
def test_values_of_another_kind_are_refused_though_the_sums_are_right(
    part: str, key: str, value: Any, good: Good, tmp_path: Path
) -> None:
    checkpoint = copied(good, tmp_path)
    document = json.loads((checkpoint / VALUES).read_text())
    assert f"{part}/{key}" in document["values"]
    document["values"][f"{part}/{key}"] = value
    (checkpoint / VALUES).write_text(json.dumps(document))
    signed(checkpoint)
    with pytest.raises(DataError, match=f"does not fit this run's {part}"):
        Checkpoints(checkpoint.parent).restore_newest(good.parts)


@pytest.mark.parametrize("change", ["flat", "double", "nan", "missing"])
@pytest.mark.parametrize("part", ["network.generator_ab", "optimizer.generators", "ema"])
def test_tensors_of_another_kind_are_refused_though_the_sums_are_right(
    change: str, part: str, good: Good, tmp_path: Path
) -> None:
    checkpoint = copied(good, tmp_path)
    tensors = load_file(good.checkpoint / TENSORS)
    name = next(name for name, tensor in tensors.items() if name.startswith(f"{part}/") and tensor.ndim > 1)
    tensor = tensors.pop(name)
    changed = {"flat": tensor.reshape(-1), "double": tensor.double(), "nan": tensor * float("nan")}
    if change in changed:
        tensors[name] = changed[change].clone()
    (checkpoint / TENSORS).write_bytes(save(tensors))
    signed(checkpoint)
    with pytest.raises(DataError, match=f"does not fit this run's {re.escape(part)}"):
        Checkpoints(checkpoint.parent).restore_newest(good.parts)


@pytest.mark.parametrize(
    "state",
    [
        {"count": 1},
        {"count": -1, "images": torch.zeros(2, 3, 4, 4)},
        {"count": 3, "images": torch.zeros(2, 3, 4, 4)},
        {"count": 1, "images": torch.zeros(3, 3, 4, 4)},
        {"count": 1, "images": torch.zeros(2)},
        {"count": "1", "images": torch.zeros(2, 3, 4, 4)},
        {},
    ],
)
def test_a_pool_of_past_images_takes_only_its_own_kind(state: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):  # which restoring a checkpoint tells of
        ReplayBuffer(2).restore(state)


def test_a_pool_of_images_of_another_size_is_refused_at_the_first_step() -> None:
    pool = ReplayBuffer(2)
    pool.restore({"count": 1, "images": torch.zeros(2, 3, 4, 4)})
    with pytest.raises(DataError, match=r"holds \[3, 4, 4\], not \[3, 8, 8\]"):
        pool.query(torch.zeros(1, 3, 8, 8), torch.zeros(1, 2))


# Whole runs, from the command line


@pytest.fixture
def run(good: Good, tmp_path: Path) -> Path:
    """A copy of the run that has not ended."""
    path = Path(shutil.copytree(good.run, tmp_path / "runs" / "good"))
    (path / "result.json").unlink()
    return path


@pytest.fixture
def resume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Go on with the run in this process; the exit code and stderr, which may hold a line of ours and nothing unexpected."""

    def go(*more: str) -> tuple[int, str]:
        arguments = ["train-gan", "--resume", "good", "--out", str(tmp_path / "runs"), "--gpu", "none", "--steps", "3", *more]
        code = main(arguments)
        said = capsys.readouterr()
        assert "unexpected" not in said.err, said.err
        assert "Traceback" not in said.err
        errors = [line for line in said.err.splitlines() if line.startswith("error: ")]
        assert len(errors) == (code != 0), said.err
        return code, said.err

    return go


def test_the_good_run_goes_on(run: Path, resume: Callable[..., tuple[int, str]]) -> None:
    assert resume()[0] == 0
    assert (run / "checkpoints" / "step-00000003").is_dir()


def around(folder: Path) -> dict[str, str]:
    """Everything in a folder, links as links, with its content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        about = path.lstat()
        if stat.S_ISLNK(about.st_mode):
            found[str(path)] = str(path.readlink())
        elif stat.S_ISREG(about.st_mode):
            found[str(path)] = f"{about.st_mode} {path.read_bytes().hex()}"
        else:
            found[str(path)] = str(about.st_mode)
    return found


LINKED = (
    *("checkpoints", "samples", "run.lock", "log.jsonl"),
    *("bundle.safetensors", "report.html", "environment.json", "config.json", "result.json"),
)


@pytest.mark.parametrize("name", [*LINKED, "checkpoints/step-00000002", f"checkpoints/step-00000002/{VALUES}"])
def test_no_link_in_a_run_leads_to_a_change_elsewhere(
    name: str, run: Path, resume: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    """What the link leads to is what the run would have there, or a file of the user's own."""
    private = tmp_path / "private"
    private.mkdir()
    place = run / name
    if place.exists():
        place.rename(private / "target")
    elif name != "result.json":
        (private / "target").write_text("mine")
    if (private / "target").is_dir():
        for mine in ("step-00000001.png", "step-00000009.png", "note.txt"):
            (private / "target" / mine).write_text("mine")
        (private / "target" / "step-00000001").mkdir(exist_ok=True)
        (private / "target" / "step-00000001" / "mine.txt").write_text("mine")
    place.symlink_to(private / "target")
    before = around(private)
    resume()
    assert around(private) == before


@pytest.mark.parametrize("name", [*LINKED, f"checkpoints/step-00000002/{VALUES}", f"checkpoints/step-00000002/{TENSORS}"])
def test_a_pipe_in_a_run_is_not_waited_for(name: str, run: Path, resume: Callable[..., tuple[int, str]]) -> None:
    place = run / name
    if place.is_dir():
        shutil.rmtree(place)
    place.unlink(missing_ok=True)
    os.mkfifo(place)
    code, _ = resume()
    assert code in (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"settings": {"out": "/etc", "colour": "blue"}}, "unknown key 'colour'"),
        ({"settings": None}, "settings: expected a table, found None"),
        ({"plan": {"recipe_name": "x"}}, "config.json"),
        ({"total_steps": "many"}, "total_steps: expected int, found 'many'"),
        ({"domains": ["a"]}, "domains: expected 2 values, found 1"),
    ],
)
def test_a_config_that_is_none_is_a_data_error_and_names_the_key(
    change: dict[str, Any], said: str, run: Path, resume: Callable[..., tuple[int, str]]
) -> None:
    file = run / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    code, err = resume()
    assert code == 3
    assert said in err


def test_names_in_a_plan_are_looked_up_and_never_imported(run: Path, resume: Callable[..., tuple[int, str]]) -> None:
    config = json.loads((run / "config.json").read_text())
    config["plan"]["generator"] |= {"name": "os:system", "package": "x; rm -rf ~"}
    (run / "config.json").write_text(json.dumps(config))
    code, err = resume()
    assert code == 4
    assert "is not registered here" in err


@pytest.mark.parametrize("place", ["../elsewhere", "runs/../../..", "ABSOLUTE"])
def test_paths_in_a_run_are_never_written_to(
    place: str, run: Path, resume: Callable[..., tuple[int, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the run lies is where it stays, whatever its own files say."""
    here = tmp_path / "some" / "where"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    config = json.loads((run / "config.json").read_text())
    config["settings"] |= {"out": place.replace("ABSOLUTE", str(tmp_path / "elsewhere")), "name": "escaped"}
    (run / "config.json").write_text(json.dumps(config))
    before = around(tmp_path)
    assert resume()[0] == 0
    changed = {path for path, content in around(tmp_path).items() if before.get(path) != content}
    assert changed
    assert all(Path(path).is_relative_to(run) for path in changed)


def test_a_result_tells_where_the_run_lies_and_not_where_it_says(
    good: Good, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(good.run, tmp_path / "runs" / "good"))
    result = json.loads((run / "result.json").read_text()) | {"run": "/etc; rm -rf ~", "bundle": "/etc/passwd"}
    (run / "result.json").write_text(json.dumps(result))
    assert main(["train-gan", "--resume", "good", "--out", str(tmp_path / "runs"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["run"], told["bundle"]) == (str(run), str(run / "bundle.safetensors"))


@examples(15)
@given(st.data())
def test_any_spoilt_run_is_gone_on_with_or_refused_in_one_line(
    hostile: SimpleNamespace, good: Good, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """One of its JSON files is spoilt; then its folder is shown and gone on with."""
    folder = tmp_path_factory.mktemp("spoilt")
    run = Path(shutil.copytree(good.run, folder / "runs" / "good"))
    name = data.draw(st.sampled_from(["config.json", "config.json", "result.json", "environment.json", "log.jsonl"]))
    if name != "result.json":
        (run / "result.json").unlink()
    text = (run / name).read_text()
    if name == "log.jsonl":
        lines = [json.loads(line) for line in text.splitlines()]
        spoilt = "\n".join(hostile.text(data.draw, hostile.json(data.draw, line)) for line in lines)
    else:
        document = json.loads(text)
        part = data.draw(st.sampled_from(["whole", "settings", "plan"])) if name == "config.json" else "whole"
        if part == "whole":
            document = hostile.json(data.draw, document)
        else:
            document[part] = hostile.json(data.draw, document[part])
        spoilt = hostile.text(data.draw, document)
    (run / name).write_bytes(spoilt.encode("utf-8", "surrogatepass"))
    before = set(folder.rglob("*"))
    with hostile.little_memory(1 << 30):
        out = ["--out", str(folder / "runs")]
        for arguments in (["show", str(run)], ["train-gan", "--resume", "good", "--gpu", "none", "--steps", "3", *out]):
            with contextlib.redirect_stderr(io.StringIO()) as err, contextlib.redirect_stdout(io.StringIO()):
                code = main(arguments)
            errors = [line for line in err.getvalue().splitlines() if line.startswith("error: ")]
            assert "unexpected" not in err.getvalue(), err.getvalue()
            assert len(errors) == (code != 0), err.getvalue()
            assert code in (0, 1, 2, 3, 4)
    assert all(path.is_relative_to(run) for path in set(folder.rglob("*")) - before)
    shutil.rmtree(folder)
