"""Small jobs that make datasets, train detectors and judge; what each leaves, and what must hold at any moment."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from picture_files import write_dataset, write_noise_domains
from PIL import Image
from toy_bundles import save_small

from fruitgan.data.labelled import MANIFEST, read_manifest
from fruitgan.evaluate.job import evaluate
from fruitgan.evaluate.settings import EvaluateSettings
from fruitgan.export_dataset.job import ExportSettings, export_dataset
from fruitgan.progress import Event, Progress
from fruitgan.runs.run import step_folders
from fruitgan.train_detector.detector import load_detector
from fruitgan.train_detector.job import train_detector
from fruitgan.train_detector.settings import TrainDetectorSettings

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

    def run(self, folder: Path) -> dict[str, Any]:
        """Do it, or go on with it; what is worth telling."""
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
        given = {"bundle": bundle, "data": fruit, "out": folder / "dataset", "gpu": "none", **changes}
        result = export_dataset(ExportSettings(**given))
        return {"made": result.made, "kept": result.kept}

    def run(self, folder: Path) -> dict[str, Any]:
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


class Training(Job):
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

        train_detector(TrainDetectorSettings(data=self.data / "dataset", out=folder, **settings), on_progress)
        return told

    def run(self, folder: Path) -> dict[str, Any]:
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

    def run(self, folder: Path) -> dict[str, Any]:
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
    """Pictures of two domains, a bundle, and a dataset of noise, in the generated class with a grid."""
    write_noise_domains(data / "fruit", 4, (20, 20))
    write_dataset(data / "dataset", 15, planted=20)
    save_small(data / "bundle.safetensors", directions=("a2b",), image_size_px=16)


def jobs(data: Path) -> dict[str, Job]:
    small = {"detector": "small-cnn", "detector_options": {"base_channels": "4"}}
    return {
        "export": Export(data),
        "export-overwriting": Export(data, "another dataset", overwrite=True),
        "export-repairing": Export(data, "damaged"),
        "network": Training(data, **small, epochs=2),
        "network-longer": Training(data, epochs_before=1, **small, epochs=2),
        "regression": Training(data, detector="spectrum", detector_options={"bins": "4"}),
        "evaluation": Evaluation(data),
    }
