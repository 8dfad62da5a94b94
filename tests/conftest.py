"""What every test stands on: an environment without the user's settings, and packages made up on the spot."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from fruitgan import registry

# Before torch is imported, and for the processes that tests start: on tensors this small, and on a busy machine, a second
# thread costs far more than it gives.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell ignores Ctrl-C for what it runs in the background, and what it starts inherits that: tests of stops would see none.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

Install = Callable[..., Path]


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One cache for the whole run, for the fixtures of modules too: what is drawn or unpacked is drawn or unpacked once."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FRUITGAN_CACHE", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch, cache_folder: Path) -> None:
    """None of the user's FRUITGAN_ variables, no colours, a width that is always the same, and never the user's cache."""
    for name in list(os.environ):
        if name.startswith("FRUITGAN_") or name in ("FORCE_COLOR", "NO_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "PYTHONWARNINGS"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("FRUITGAN_CACHE", str(cache_folder))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "dumb")


@pytest.fixture
def repeatable() -> Iterator[None]:
    """What torch draws is the same each time, and the next test draws as if nothing had been drawn."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(1)
        yield


@pytest.fixture(scope="module")
def no_report() -> Iterator[None]:
    """No page at the end of a training: it takes longer than a few small steps, and is another test's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fruitgan.train_gan.segment.training_report", lambda *_: "")
        yield


@pytest.fixture(scope="module")
def no_detector_report() -> Iterator[None]:
    """The same of a detector: neither page nor plots."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fruitgan.train_detector.page.plot_files", lambda *_: {})
        patch.setattr("fruitgan.train_detector.page.detector_report", lambda *_: "a page")
        yield


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put a made-up distribution on this process' path: its entry points, and its one module's text."""

    def put(
        package: str,
        entry_points: Mapping[str, Mapping[str, str]],
        source: str = "",
        *,
        version: str = "1.0",
        folder: str = "site",
    ) -> Path:
        site = tmp_path / folder
        about = site / f"{package.replace('-', '_')}-{version}.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        lines = []
        for group, points in entry_points.items():
            lines += [f"[fruitgan.{group}]", *(f"{name} = {target}" for name, target in points.items())]
        (about / "entry_points.txt").write_text("\n".join(lines) + "\n")
        (site / f"{package.replace('-', '_')}.py").write_text(source)
        monkeypatch.syspath_prepend(site)
        registry.forget()
        return site

    before = set(sys.modules)
    yield put
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]
    monkeypatch.undo()
    registry.forget()
