"""Small jobs that train, make datasets and evaluate; what each leaves, and what must hold at any moment."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from picture_files import write_dataset, write_noise_domains, write_ramp_domains
from PIL import Image
from toy_bundles import save_small, save_toy
from training_events import is_saved, start_of

from fruitgan.data.labelled import MANIFEST, read_manifest
from fruitgan.evaluate.job import evaluate
from fruitgan.evaluate.settings import EvaluateSettings
from fruitgan.export_dataset.job import ExportSettings, export_dataset
from fruitgan.progress import Event, Note, Progress
from fruitgan.runs.run import step_folders
from fruitgan.train_detector.detector import load_detector
from fruitgan.train_detector.job import train_detector
from fruitgan.train_detector.settings import TrainDetectorSettings
from fruitgan.train_gan.job import train_gan
from fruitgan.train_gan.settings import TrainGanSettings
from fruitgan.translate.job import TranslateSettings, translate

Tell = Callable[..., None]
"""Tells the process that forked this one something, by name."""
NOT_COMPARED = ("seconds", "created", "run", "file", "out", "report")
"""Times, and the folder that each case has for itself."""


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def comparable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: comparable(entry) for key, entry in value.items() if key not in NOT_COMPARED}
    return [comparable(entry) for entry in value] if isinstance(value, list) else value


class Job:
    """What is tried, in a folder of its own; `data` is shared."""

    def __init__(self, data: Path) -> None:
        self.data = data

    def before(self, folder: Path) -> None:
        """What lies there already."""

    def run(self, folder: Path, tell: Tell) -> dict[str, Any]:
        """Do it, or go on with it; what is worth telling at the end."""
        raise NotImplementedError

    def wrong(self, folder: Path) -> Iterator[str]:
        """What is not as promised at any moment."""
        raise NotImplementedError

    def whole(self, folder: Path) -> list[Path]:
        """The files that need not be made again."""
        return []

    def end(self, folder: Path) -> Any:
        """All that it leaves, but for its times."""
        raise NotImplementedError

    def cache(self, folder: Path) -> Path:
        """For the cases in this folder alone."""
        return self.data / "caches" / f"{folder.parent.name}-{folder.name}"


class Export(Job):
    def __init__(self, data: Path, earlier: str = "", **changes: Any) -> None:
        super().__init__(data)
        self.earlier = earlier
        self.changes = changes

    def before(self, folder: Path) -> None:
        if self.earlier == "another dataset":
            self.export(folder, format="webp")
        elif self.earlier:
            self.export(folder)
            (folder / "dataset" / "predicted" / "000001.png").unlink()
            (folder / "dataset" / "origins" / "000002.png").write_bytes(b"damaged")

    def export(self, folder: Path, **changes: Any) -> dict[str, Any]:
        bundle, fruit = str(self.data / "bundle.safetensors"), str(self.data / "fruit")
        given = {"bundle": bundle, "data": fruit, "out": folder / "dataset", "engine": "torch", "gpu": "none", **changes}
        result = export_dataset(ExportSettings(**given))
        return {"made": result.made, "kept": result.kept}

    def run(self, folder: Path, tell: Tell) -> dict[str, Any]:
        return self.export(folder, **self.changes)

    def pictures(self, folder: Path) -> list[Path]:
        return sorted(path for name in ("predicted", "origins") for path in (folder / "dataset" / name).glob("[0-9]*"))

    def wrong(self, folder: Path) -> Iterator[str]:
        dataset = folder / "dataset"
        for path in self.pictures(folder):
            if self.earlier == "damaged" and sha256(path) == hashlib.sha256(b"damaged").hexdigest():
                continue
            with Image.open(path) as image:
                image.load()
        if (dataset / "dataset.json").exists() and not (dataset / MANIFEST).exists():
            yield "a card without a manifest"
        if (dataset / MANIFEST).exists() and not self.earlier:
            rows = {row.file: row.sha256 for row in read_manifest(dataset / MANIFEST)}
            if rows != {path.relative_to(dataset).as_posix(): sha256(path) for path in self.pictures(folder)}:
                yield "the manifest disagrees with the folder"

    def whole(self, folder: Path) -> list[Path]:
        return self.pictures(folder) if not self.earlier else []

    def end(self, folder: Path) -> Any:
        return {path.relative_to(folder).as_posix(): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


TREE = ("a.png", "b.jpg", "c.webp", "sub/a.png", "sub/b.gif", "sub/deep/a.bmp", "sub/deep/b.png")
TINY: dict[str, Any] = {
    "recipe": "fast",
    "image_size": 32,
    "batch_size": 1,
    "generator_options": {"base_channels": "4", "blocks": "1"},
    "discriminator": "patch-multiscale",
    "discriminator_options": {"base_channels": "4", "scales": "1"},
    "gpu": "none",
    "precision": "fp32",
    "seed": 3,
    "name": "run",
}
OFTEN: dict[str, Any] = {"log_every": 1, "save_every": 1, "sample_every": 2}


class GanTraining(Job):
    """Begun with the settings `new`, and gone on with by `--resume` and the settings `later`.

    Args:
        steps_before: of a finished run that lies there already, made under another torch.
    """

    def __init__(self, data: Path, new: dict[str, Any], later: dict[str, Any], steps_before: int = 0) -> None:
        super().__init__(data)
        self.new = {**TINY, **new, "data": str(data / "ramps")}
        self.later = {"resume": "run", "gpu": "none", **later}
        self.steps_before = steps_before

    def before(self, folder: Path) -> None:
        if self.steps_before:
            train_gan(TrainGanSettings(**{**self.new, "steps": self.steps_before, "keep": 2}, out=folder))
            environment = folder / "run" / "environment.json"
            environment.write_text(environment.read_text().replace('"torch": "', '"torch": "1.'))

    def run(self, folder: Path, tell: Tell) -> dict[str, Any]:
        """Tells where it starts, and what is saved."""

        def on_progress(event: Event) -> None:
            if start_of(event) >= 0:
                tell(started=start_of(event))
            elif isinstance(event, Note) and is_saved(event):
                tell(saved=int(event.text[-8:]))

        os.environ["FRUITGAN_CACHE"] = str(self.cache(folder))
        tell(saved=0)
        there = (folder / "run" / "config.json").exists()
        train_gan(TrainGanSettings(**self.later if there else self.new, out=folder), on_progress)
        return {}

    def wrong(self, folder: Path) -> Iterator[str]:
        return iter(())

    def end(self, folder: Path) -> Any:
        run = folder / "run"
        result = json.loads((run / "result.json").read_text())
        checkpoints = sorted((run / "checkpoints").iterdir())
        lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        return {
            "step": result["step"],
            "weights_sha256": result["weights_sha256"],
            "bundle": sha256(run / "bundle.safetensors"),
            "tensors": sha256(checkpoints[-1] / "state.safetensors"),
            "values": json.loads((checkpoints[-1] / "state.json").read_text())["values"],
            "log": [{key: value for key, value in line.items() if "second" not in key} for line in lines],
            "checkpoints": [path.name for path in checkpoints],
            "samples": sorted(path.name for path in (run / "samples").iterdir()),
        }


class Translation(Job):
    """Of the pictures in a tree, worked on one after the other, or of many copies of one, worked on at once."""

    def __init__(self, data: Path, copies: int = 0) -> None:
        super().__init__(data)
        self.copies = copies

    def before(self, folder: Path) -> None:
        (folder / "in" / "sub" / "deep").mkdir(parents=True)
        y, x = np.mgrid[:64, :64]
        names = [f"{number:05}.png" for number in range(self.copies)] or TREE
        for number, name in enumerate(names):
            pixels = np.stack([x * 4, y * 4, x + y + number * (not self.copies)], axis=-1).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "in" / name)

    def run(self, folder: Path, tell: Tell) -> dict[str, Any]:
        asked = {"bundle": str(self.data / "toy.safetensors"), "engine": "torch", "gpu": "none", "recursive": True}
        result = translate(TranslateSettings(sources=(str(folder / "in"),), output=str(folder / "out"), **asked))
        assert result.exit_code == 0
        return {"made": result.translated, "kept": len(self.whole(folder)) - result.translated}

    def wrong(self, folder: Path) -> Iterator[str]:
        for path in self.whole(folder):
            with Image.open(path) as image:
                if image.size != (64, 64):
                    yield f"{path} of {image.size} px"
                image.load()

    def whole(self, folder: Path) -> list[Path]:
        return sorted(path for path in (folder / "out").rglob("[!.]*") if path.is_file())

    def end(self, folder: Path) -> Any:
        return {path.relative_to(folder).as_posix(): sha256(path) for path in sorted((folder / "out").rglob("*.*"))}


class DetectorTraining(Job):
    def __init__(self, data: Path, epochs_before: int = 0, **settings: Any) -> None:
        super().__init__(data)
        self.epochs_before = epochs_before
        self.settings = {"image_size": 16, "batch_size": 8, "gpu": "none", "seed": 3, **settings}

    def before(self, folder: Path) -> None:
        if self.epochs_before:
            self.train(folder, name="run", **{**self.settings, "epochs": self.epochs_before})

    def train(self, folder: Path, **settings: Any) -> dict[str, Any]:
        told: dict[str, Any] = {}

        def on_progress(event: Event) -> None:
            if isinstance(event, Progress) and "run" in event.details:
                told["rounds_taken_up"] = event.details["epoch"]

        os.environ["FRUITGAN_CACHE"] = str(self.cache(folder))
        train_detector(TrainDetectorSettings(data=self.data / "dataset", out=folder, **settings), on_progress)
        return told

    def run(self, folder: Path, tell: Tell) -> dict[str, Any]:
        there = (folder / "run" / "config.json").exists()
        return self.train(folder, **{"resume" if there else "name": "run"}, **self.settings)

    def wrong(self, folder: Path) -> Iterator[str]:
        run = folder / "run"
        for path in run.glob("*.json"):
            json.loads(path.read_text())
        if (run / "detector.safetensors").exists():
            load_detector(run)
        elif (run / "metrics.json").exists():
            yield "numbers without a detector"

    def end(self, folder: Path) -> Any:
        run = folder / "run"
        log = [comparable(json.loads(line)) for line in (run / "log.jsonl").read_text().splitlines()]
        (*_, newest) = step_folders(run / "checkpoints").values()
        values = json.loads((newest / "state.json").read_text())["values"]
        return {
            "files": sorted(path.name for path in run.iterdir()),
            "detector": sha256(run / "detector.safetensors"),
            "metrics": comparable(json.loads((run / "metrics.json").read_text())),
            "config": comparable(json.loads((run / "config.json").read_text())),
            "log": log,
            "tensors": sha256(newest / "state.safetensors"),
            "values": comparable(values),
        }


class Evaluation(Job):
    def before(self, folder: Path) -> None:
        self.judge(folder, seed=7)

    def judge(self, folder: Path, seed: int) -> dict[str, Any]:
        evaluate(
            EvaluateSettings(
                fake_dir=self.data / "dataset" / "predicted",
                features=("colour",),
                metrics=("kid",),
                detector="none",
                quick=True,
                out=folder / "evaluation",
                seed=seed,
                gpu="none",
            )
        )
        return {}

    def run(self, folder: Path, tell: Tell) -> dict[str, Any]:
        return self.judge(folder, seed=3)

    def wrong(self, folder: Path) -> Iterator[str]:
        page, numbers = folder / "evaluation" / "report.html", folder / "evaluation" / "evaluation.json"
        told = json.loads(page.read_text())
        if numbers.exists() and comparable(json.loads(numbers.read_text())) != told:
            yield "the numbers are not those of the report"

    def end(self, folder: Path) -> Any:
        files = {path.name: path.read_text() for path in (folder / "evaluation").iterdir()}
        return {name: comparable(json.loads(text)) for name, text in files.items()}


def draw(data: Path) -> None:
    """Pictures of two domains, smooth and of noise, a bundle, and a dataset of noise, in the generated class with a grid."""
    write_noise_domains(data / "fruit", 4, (20, 20))
    write_ramp_domains(data / "ramps")
    (data / "caches").mkdir()  # now, so that no case has it to make, and the changes of all are the same
    write_dataset(data / "dataset", 15, planted=20)
    save_toy(data / "toy.safetensors", directions=("a2b",))
    save_small(data / "bundle.safetensors", directions=("a2b",), image_size_px=16)


def jobs(data: Path) -> dict[str, Job]:
    small = {"detector": "small-cnn", "detector_options": {"base_channels": "4"}}
    return {
        "export": Export(data),
        "export-overwriting": Export(data, "another dataset", overwrite=True),
        "export-repairing": Export(data, "damaged"),
        "gan": GanTraining(data, {**OFTEN, "steps": 3, "keep": 1}, {**OFTEN, "keep": 1}),
        "gan-longer": GanTraining(data, {**OFTEN, "steps": 4, "keep": 1}, {**OFTEN, "steps": 4, "keep": 1}, steps_before=2),
        "translation": Translation(data),
        "translation-of-many": Translation(data, copies=24),
        "network": DetectorTraining(data, **small, epochs=2),
        "network-longer": DetectorTraining(data, epochs_before=1, **small, epochs=2),
        "regression": DetectorTraining(data, detector="spectrum", detector_options={"bins": "4"}),
        "evaluation": Evaluation(data),
    }
