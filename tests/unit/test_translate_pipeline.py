"""Many pictures at once: the same results as one after the other, in their order, in bounded memory, and stopped when asked."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from picture_files import drawn, pixels_of, write_noise
from PIL import Image
from toy_bundles import Negative

from fruitgan.engines import contracts
from fruitgan.engines.contracts import Engine, Images, engines
from fruitgan.progress import Event, Progress
from fruitgan.translate import pipeline
from fruitgan.translate.job import TranslateResult, TranslateSettings, translate

Run = Callable[..., TranslateResult]
SIZES = ((20, 30), (20, 30), (31, 17), (20, 30), (8, 8))


class AtOnce(Negative):
    """The negative by several threads beside each other; where there is a meeting, each call waits for another."""

    concurrent = True
    meeting: ClassVar[threading.Barrier | None] = None

    def translate(self, images: Images) -> Images:
        if self.meeting is not None:
            self.meeting.wait(timeout=60)
        return super().translate(images)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Translates with the shipped bundle's card and an engine that gives the negative; two cores."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(contracts, "cores", lambda: 2)

    def run(*sources: str, engine: type[Engine] = AtOnce, on_progress: Any = None, **settings: Any) -> TranslateResult:
        monkeypatch.setattr(engines, "get", lambda name: engine)
        return translate(
            TranslateSettings(sources=sources, bundle="apple2orange", engine="torch", gpu="none", **settings), on_progress
        )

    return run


def pictures(count: int, sizes: Any = SIZES) -> list[Path]:
    return write_noise(Path("in"), [sizes[index % len(sizes)] for index in range(count)])


def sums(folder: str) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(Path(folder).iterdir())}


@pytest.mark.parametrize("engine", [AtOnce, Negative])
def test_many_pictures_come_out_as_one_after_the_other(run: Run, engine: type[Engine], monkeypatch: pytest.MonkeyPatch) -> None:
    paths = pictures(37)
    told: list[Any] = []
    result = run("in", output="many", engine=engine, on_progress=told.append)
    assert (result.translated, result.failed) == (37, ())
    assert [Path(output).name for output in result.outputs] == [path.name for path in paths]
    done = [(event.done, event.details["path"]) for event in told if isinstance(event, Progress)]
    assert done == [(i, str(path)) for i, path in enumerate(paths, start=1)]
    monkeypatch.setattr(contracts, "FEW_IMAGES", 1000)
    run("in", output="one", engine=engine)
    assert sums("many") == sums("one")
    assert (pixels_of("many/0002.png") == 255 - pixels_of("in/0002.png")).all()


def test_a_concurrent_engine_is_called_by_all_workers_at_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures(32, sizes=((20, 30),))
    monkeypatch.setattr(AtOnce, "meeting", threading.Barrier(2))
    assert run("in").translated == 32


def test_only_as_many_pictures_are_held_as_there_are_workers(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    held, most, lock = 0, 0, threading.Lock()
    decode, write = vars(pipeline)["decode_frames"], vars(pipeline)["write_whole"]

    def counted(change: int) -> None:
        nonlocal held, most
        with lock:
            held += change
            most = max(most, held)

    def decoding(data: bytes, **asked: Any) -> Any:
        counted(1)
        return decode(data, **asked)

    def writing(path: Path, data: bytes) -> None:
        write(path, data)
        counted(-1)

    monkeypatch.setattr(pipeline, "decode_frames", decoding)
    monkeypatch.setattr(pipeline, "write_whole", writing)
    pictures(80)
    assert run("in", engine=Negative).translated == 80
    assert most <= 3


def test_being_stopped_leaves_whole_results_and_nothing_running(run: Run) -> None:
    pictures(100)

    def stop(progress: Event) -> None:
        if isinstance(progress, Progress) and progress.done == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("in", on_progress=stop)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("images")]
    made = sums("translated")
    assert 9 <= len(made) < 60
    for name in made:
        pixels_of(Path("translated", name))
    assert run("in").translated == 100 - len(made)


def test_the_shipped_generator_gives_the_same_pictures_together_as_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(contracts, "cores", lambda: 2)
    Path("in").mkdir()
    for index in range(14):
        Image.fromarray(drawn("apple", 24 if index % 3 else 20, 0, index)).save(f"in/{index}.png")
    settings: dict[str, Any] = {"sources": ("in",), "bundle": "apple2orange", "gpu": "none"}
    for engine in ("onnx", "torch"):
        assert translate(TranslateSettings(**settings, engine=engine, output=engine)).engine == engine
    monkeypatch.setattr(contracts, "FEW_IMAGES", 1000)
    translate(TranslateSettings(**settings, engine="torch", output="one"))
    for path in Path("one").iterdir():
        alone = pixels_of(path).astype(int)
        for engine in ("onnx", "torch"):
            assert np.abs(alone - pixels_of(Path(engine, path.name))).max() <= 1
