"""Going on with a detector's run: what may change and what may not."""

from __future__ import annotations

import dataclasses
import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from fruitgan.errors import DataError, FruitganError, UsageError
from fruitgan.registry import Choice
from fruitgan.runs.resume import find_run, resume_command
from fruitgan.runs.run import CONFIG, LOCK, Run
from fruitgan.settings import to_json, typed
from fruitgan.train_detector.detector import LabelledImageDataset
from fruitgan.train_detector.protocols import Split
from fruitgan.train_detector.settings import OUT, TrainDetectorResult, TrainDetectorSettings

KIND = "train-detector"
METRICS = "metrics.json"
FORMAT = 2
# What decides the mathematics: a resumed run cannot change these.
FIXED = ("detector", "detector_options", "protocol", "augment", "batch_size", "seed")
LENGTHS = ("epochs", "patience")
"""These say only when to stop, so that a run may go on with others."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A detector's `config.json`."""

    format: int
    kind: str
    settings: TrainDetectorSettings
    """With its defaults filled in; of a finished run `data` is a name alone: where its maker keeps files is not passed on."""
    detector: Choice
    data_fingerprint: str
    split: str
    """sha256 of which images train, choose and judge."""


def read_config(run: Run) -> RunConfig:
    """Raises: DataError if the run is of another kind, was made by a newer fruitgan, or its config is damaged."""
    file, table = run.path / CONFIG, run.config
    if table.get("kind") != KIND:
        raise DataError(f"{run.path}: not a run of {KIND}")
    version = table.get("format")
    if type(version) is int and version > FORMAT:
        raise DataError(f"{file}: its format {version} is newer than this fruitgan's {FORMAT}; update fruitgan")
    if type(version) is int and version < FORMAT:
        raise DataError(
            f"{run.path}: a run of an earlier fruitgan (format {version}), which this one cannot go on with; its "
            "detector.safetensors works as before"
        )
    return typed(RunConfig, table, file)


def named_run(settings: TrainDetectorSettings) -> Run:
    """The run that `--resume` means.

    Raises:
        UsageError: there is no such run, or it was given another name.
        RunInUse: all that are not finished are in use.
    """
    assert settings.resume is not None
    run = find_run(settings.out, settings.resume, METRICS)
    if settings.name not in (None, run.path.name):
        raise UsageError(f"--name {settings.name} with --resume: {run.path} keeps its name; leave out one of the two")
    return run


def merged_settings(asked: TrainDetectorSettings, run: Run) -> TrainDetectorSettings:
    """The run's settings with what may change taken from the new ones.

    Raises:
        UsageError: something that decides the mathematics was given another value.
        DataError: no config of a detector's run.
    """
    config = read_config(run)
    stored = config.settings
    was = {name: getattr(stored, name) for name in FIXED}
    was["image_size"] = stored.image_size or config.detector.options.get("image_size_px")
    for name, old in was.items():
        new = getattr(asked, name)
        if new not in (None, {}) and new != old:
            option, has = name.replace("_", "-"), "the detector's own" if old in (None, {}) else old
            raise UsageError(f"--{option} cannot change in a resumed run ({run.path} has {has}); start a new one for {new}")
    lengths = {name: new if (new := getattr(asked, name)) is not None else getattr(stored, name) for name in LENGTHS}
    return dataclasses.replace(
        stored, data=asked.data or stored.data, out=asked.out, resume=asked.resume, gpu=asked.gpu, device=asked.device,
        threads=asked.threads or stored.threads, save_every_seconds=asked.save_every_seconds, **lengths,
    )  # fmt: skip


def found_result(run: Run, settings: TrainDetectorSettings) -> TrainDetectorResult | None:
    """What the finished run gave, wherever it lies now; None if it is not finished, or the settings ask for more of it.

    Raises:
        DataError: its file says something else.
    """
    file = run.path / METRICS
    if not file.is_file():
        return None
    result = typed(TrainDetectorResult, run.read(METRICS), file)
    fitting, before = settings.fitting, read_config(run).settings.fitting
    asks = (fitting.epochs, fitting.patience) != (before.epochs, before.patience)
    if asks and result.rounds < fitting.epochs and result.rounds - result.best_round < fitting.patience:
        return None
    return dataclasses.replace(result, run=run.path, file=run.path / result.file.name)


def data_folder(settings: TrainDetectorSettings) -> Path:
    """Raises: UsageError if the run has forgotten where its images lie."""
    assert settings.data is not None
    if settings.resume is not None and not settings.data.is_absolute() and not settings.data.exists():
        raise UsageError(f"a finished run keeps the name of its data alone ({settings.data}): give --data DIR to go on with it")
    return settings.data


def split_sha256(parts: Split) -> str:
    digest = hashlib.sha256()
    for part in dataclasses.astuple(parts):
        digest.update(f"{len(part)} images\n".encode())
        digest.update(np.asarray(part).astype("<i8").tobytes())
    return digest.hexdigest()


def refuse_other_images(run: Run, album: LabelledImageDataset, parts: Split) -> None:
    """Raises: DataError unless they are those of the run, split as there."""
    config = read_config(run)
    if (config.data_fingerprint, config.split) != (album.fingerprint, split_sha256(parts)):
        raise DataError(
            f"{run.path}: the images, or how they are grouped, are not those of the run; resume with the same dataset"
        )


def take_up(run: Run, settings: TrainDetectorSettings) -> list[str]:
    """Keep in the run's folder with what it goes on; what of that is new, in sentences."""
    stored = read_config(run).settings
    changed = [name for name in LENGTHS if getattr(settings, name) != getattr(stored, name)]
    lengths = {name: getattr(settings, name) for name in LENGTHS}
    kept = dataclasses.replace(stored, data=settings.data, threads=settings.threads, **lengths)
    if kept != stored:
        run.write_config(run.config | {"settings": to_json(kept)})
    said = ", ".join(f"--{name} {getattr(settings, name)} instead of {getattr(stored, name)}" for name in changed)
    return [f"goes on with {said}"] if said else []


def forget_place(run: Run) -> None:
    """Of a finished run: where its images lay is taken out of its config."""
    config: dict[str, Any] = run.config
    data = Path(config["settings"]["data"])
    if data.is_absolute():
        run.write_config(config | {"settings": config["settings"] | {"data": data.name}})


def tidy(run: Run) -> None:
    """Of a finished run, where it can be written: what a death right after its end has left."""
    if (run.path / LOCK).is_file() or Path(run.config["settings"]["data"]).is_absolute():
        with suppress(FruitganError), run.taken():
            forget_place(run)


def resume_line(run: Path, settings: TrainDetectorSettings) -> str:
    """The command that goes on with a run where this one was asked to compute."""
    device = ("--gpu", settings.gpu) if settings.gpu is not None else ("--device", settings.device)
    return resume_command(run, [word for word in device if word is not None] if device[1] is not None else [], OUT)
