"""The job: a lesson, which is a training like any other, and then what the student is worth beside its teacher."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from fruitgan import bundle as bundles
from fruitgan.data.sources import find_source
from fruitgan.device import choose_device
from fruitgan.distill.gates import Gate, OnMeasure, measure
from fruitgan.errors import UsageError
from fruitgan.files import write_atomically
from fruitgan.runs.resume import find_run
from fruitgan.runs.run import CONFIG
from fruitgan.settings import to_json
from fruitgan.train_gan.job import train_gan
from fruitgan.train_gan.resume import stored_settings
from fruitgan.train_gan.settings import OnProgress, TrainGanResult, TrainGanSettings

OUT = Path("runs/distill")
RECIPE = "lesson"
STUDENTS = ("lite-u", "lite", "mobile-resnet")
GATES = "gates.json"


@dataclass(frozen=True, kw_only=True)
class DistillSettings:
    """Who teaches whom, and how the lesson is to be trained."""

    teacher: str | None = None
    """A run, a bundle's file or the name of one that ships; a resumed run keeps its own."""
    training: TrainGanSettings
    """The lesson; None in it means what the teacher or the recipe `lesson` says."""
    images_per_direction: int = 200
    """How many test images the gates look at, at most."""


@dataclass(frozen=True)
class DistillResult:
    """The lesson and, where it is over, the student's numbers."""

    training: TrainGanResult
    gates: tuple[Gate, ...]

    @property
    def passed(self) -> bool:
        """Whether no gate is shut; one that could not be measured is not shut."""
        return all(gate.passed is not False for gate in self.gates)


def distill(
    settings: DistillSettings, on_progress: OnProgress | None = None, on_measure: OnMeasure | None = None
) -> DistillResult:
    """Train a student on a teacher's pictures, or go on with that, and measure both on the test images.

    Raises:
        As `train_gan`; UsageError also where there is no teacher, or it has one direction alone.
    """
    asked = settings.training
    if asked.resume is None:
        asked = _first_settings(settings)
    elif settings.teacher is not None:
        asked = dataclasses.replace(asked, teacher=_located(settings.teacher))
    trained = train_gan(asked, on_progress)
    if not trained.finished:
        return DistillResult(trained, ())
    stored = stored_settings(find_run(asked.out, str(trained.run)))
    source = find_source(stored.data, stored.data_a, stored.data_b, stored.domains)
    gates = measure(
        teacher=bundles.load(bundles.locate(stored.teacher)),
        student=bundles.load(trained.bundle),
        source=source,
        limit=settings.images_per_direction,
        device=choose_device(asked.gpu, asked.device),
        seed=stored.seed or 0,
        on_measure=on_measure or (lambda *_: None),
    )
    write_atomically(trained.run / GATES, json.dumps(to_json(gates), indent=1).encode())
    return DistillResult(trained, gates)


def _first_settings(settings: DistillSettings) -> TrainGanSettings:
    """The lesson's settings, with the data and the size of the teacher where nothing else is asked for."""
    asked = settings.training
    if settings.teacher is None:
        raise UsageError("who teaches? Give --teacher RUN|FILE|NAME")
    found = bundles.locate(settings.teacher)
    card = bundles.load_card(found)
    if asked.data is None and asked.data_a is None and asked.data_b is None:
        run = _run_of(found, settings.teacher)
        asked = dataclasses.replace(asked, data=run.data, data_a=run.data_a, data_b=run.data_b, domains=run.domains)
    return dataclasses.replace(
        asked,
        recipe=RECIPE,
        generator=asked.generator or STUDENTS[0],
        image_size=asked.image_size or card.image_size_px,
        teacher=_located(settings.teacher),
    )


def _located(teacher: str) -> str:
    """The bundle's file, so that a lesson can go on from another folder."""
    return str(bundles.locate(teacher).resolve())


def _run_of(bundle: Path, teacher: str) -> TrainGanSettings:
    """The settings of the teacher's run.

    Raises:
        UsageError: it is no run, but a bundle alone.
    """
    if not (bundle.parent / CONFIG).is_file():
        raise UsageError(f"--teacher {teacher}: a bundle does not hold its images; give --data, or the run that made it")
    return stored_settings(find_run(bundle.parent.parent, str(bundle.parent)))
