"""The job of `evaluate`: leaks first, then features, numbers with intervals and floors, detectors, and a folder of results."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch

from fruitgan.addresses import place_of
from fruitgan.data.groups import merged_groups
from fruitgan.data.labelled import LabelledImage
from fruitgan.data.remote import SUFFIX, is_elsewhere
from fruitgan.device import choose_device, chosen_threads, using_threads
from fruitgan.errors import Stopped, UsageError
from fruitgan.evaluate.detection import detect, is_path
from fruitgan.evaluate.detectors import detectors_named
from fruitgan.evaluate.facts import Facts, inspect
from fruitgan.evaluate.leaks import find_leaks
from fruitgan.evaluate.numbers import build_features, build_metrics, claims, measure, number_keys
from fruitgan.evaluate.page import Exhibits, evaluation_report, exhibits
from fruitgan.evaluate.results import EvaluateResult, Gate
from fruitgan.evaluate.settings import FRUIT_EMBED, NO_DETECTOR, OUT, SHAPELESS, EvaluateSettings, Tell
from fruitgan.evaluate.sources import (
    Sources,
    Subject,
    dependent,
    find_sources,
    folders_of,
    preprocessing_of,
    read_images,
    sharing,
    sides,
    trained_against,
)
from fruitgan.files import check_writable, remove_abandoned, remove_file, write_atomically
from fruitgan.measures.contracts import MINIMUM_IMAGES, Features, Metric
from fruitgan.measures.features import Pictures
from fruitgan.networks.contracts import detectors
from fruitgan.parallel import connected
from fruitgan.progress import Event, OnProgress
from fruitgan.registry import suggestion
from fruitgan.runs.resume import environment

FILE = "evaluation.json"
REPORT = "report.html"
SMALL_SET = 100
"""With fewer images of a class, intervals are so wide that a note says so."""


Beside = Callable[[EvaluateResult, Sequence[Features]], Sequence[Mapping[str, Path]]]
"""Puts comparisons on these features into a result before it is written; gives images of all sides of some sources, by the
sides' names."""


def evaluate(settings: EvaluateSettings, on_progress: OnProgress | None = None, beside: Beside | None = None) -> EvaluateResult:
    """Evaluate the generated images, and write `evaluation.json` and `report.html`.

    A gate that fails is in the result, and raises nothing: the folder is written all the same.

    Raises:
        UsageError: an unknown name of features, metrics, detector or gate.
        DataError: a folder is missing or empty or holds too few images for a number, or both are one; weights that are not the
            right ones or cannot be had; a file that is not a detector.
        EnvironmentProblem: no such device, or a missing extra.
        Stopped: `on_progress` asked for it.
        FruitganError: the results cannot be written.
    """
    device = choose_device(settings.gpu, settings.device)
    with using_threads(chosen_threads(settings.threads).number) if device.type == "cpu" else nullcontext():
        return _evaluated(settings, device, telling(on_progress), beside)


def telling(on_progress: OnProgress | None) -> Tell:
    """A function for a job's parts that passes their progress on, and ends the job where it is if it was asked to stop.

    An evaluation's files are written at its end, whole, so that nothing has to be saved.
    """

    def tell(event: Event) -> None:
        if on_progress is not None and on_progress(event):
            raise Stopped("stopped; the same command begins again", exit_code=130)

    return tell


def _evaluated(settings: EvaluateSettings, device: torch.device, tell: Tell, beside: Beside | None) -> EvaluateResult:
    began = time.monotonic()
    chosen, left_out = build_metrics(settings)  # names first: a wrong one is said before a thousand images are read
    _check_names(settings, chosen)
    backends = [build_features(settings, name) for name in settings.features]
    fake_dir, real_dir, source_dir = folders_of(settings, tell)
    out = settings.out or OUT / _slug(settings.fake_dir)
    check_writable(out)
    read = read_images(fake_dir, real_dir, settings.seed)
    fakes, reals = sides(read.images)
    for metric in chosen.values():
        metric.check_counts(len(reals), len(fakes))
    sources = None if source_dir is None else find_sources(source_dir, fakes, real_dir, fake_dir, least=MINIMUM_IMAGES)
    notes = list(_limits(settings, fakes, reals, sources))
    files = [image.path for image in read.images]
    pictures = Pictures(preprocessing_of(settings, fake_dir, [*files, *(sources.paths if sources else ())]))
    seen = [sum(image.split == "train" for image in side) for side in (fakes, reals)]
    facts = inspect(files, [image.generated for image in read.images], tell)
    images = _grouped(read.images, facts, notes)
    subject = Subject(settings, images, sources, pictures, device, tell, [fact.look for fact in facts])
    result = EvaluateResult(
        fake_dir=settings.fake_dir,
        real_dir=real_dir,
        source_dir=settings.source_dir,
        n_fake=len(fakes),
        n_real=len(reals),
        n_fake_training=seen[0],
        n_real_training=seen[1],
        not_measured=left_out,
        trained_against=trained_against(fake_dir, fakes),
        leaks=find_leaks(facts, [image.group for image in images], [image.split for image in images]),
        notes=notes,
        warnings=(*read.warnings, *_seen(seen, len(fakes), len(reals))),
        quick=settings.quick,
        seed=settings.seed,
        environment=environment(device),
        out=out,
        file=out / FILE,
        report=out / REPORT,
    )
    with connected(settings.ray, settings.gpu, settings.device) if settings.ray else nullcontext() as subject.cluster:
        measure(subject, chosen, backends, result)
    subject.cluster = None
    detect(subject, backends, result)
    judges = _judges(backends, result)
    result.judges_sharing_training = sharing(judges, result.trained_against)
    result.claims = claims(result, dependent(judges, result.trained_against))
    rows = beside(result, backends) if beside else ()
    result.gates = _gates(result, settings)
    result.seconds = round(time.monotonic() - began, 3)
    _write(result, exhibits(result, subject, rows))
    return result


def _limits(
    settings: EvaluateSettings, fakes: Sequence[LabelledImage], reals: Sequence[LabelledImage], sources: Sources | None
) -> Iterator[str]:
    """What these numbers cannot say."""
    if SHAPELESS.issuperset(settings.features):
        yield (
            "these features see colours and textures, not things: a distance or an R near 0 says that those fit, not that "
            "the pictures show what they should; look at them, and add --features inception where its weights can be had"
        )
    if settings.features[0] == FRUIT_EMBED:
        yield "fruit-embed learnt from photographs of apples and oranges: of other things it knows textures at best"
    if min(len(fakes), len(reals)) < SMALL_SET:
        yield (
            f"{len(fakes)} generated and {len(reals)} real images are few: expect wide intervals, and compare no FID with "
            "one of another number of images"
        )
    if sources is not None and not sources.paired:
        yield f"{sources.missing}, so R takes all {len(sources.paths)} images there as sources, and its interval is wider"


def _seen(training: Sequence[int], fakes: int, reals: int) -> Iterator[str]:
    """How many generated and real images are none that the generator has not seen."""
    if any(training):
        yield (
            f"the sources of {training[0]} of {fakes} generated images and {training[1]} of {reals} real ones are of the "
            "training split, which the generator has seen if these data trained it; a number for unseen pictures needs "
            "test images alone"
        )


def _grouped(images: Sequence[LabelledImage], facts: Sequence[Facts], notes: list[str]) -> list[LabelledImage]:
    """The images with near-duplicates in one group, which no split takes apart."""
    groups, joined = merged_groups([image.group for image in images], [fact.look for fact in facts])
    if joined:
        notes.append(f"{joined} images are near-duplicates of others or made of one source, and stay together")
    return [replace(image, group=group) for image, group in zip(images, groups, strict=True)]


def _judges(backends: Sequence[Features], result: EvaluateResult) -> dict[str, str]:
    """The data that each judge was trained on elsewhere, by its name: features, the detectors on them, and a given detector."""
    judges = {backend.name: backend.trained_on for backend in backends}
    judges |= {row["name"]: row["trained_on"] for row in result.detectors}
    if result.detector is not None:
        judges.setdefault(result.detector.name, result.detector_trained_on)
    return judges


def _check_names(settings: EvaluateSettings, chosen: Mapping[str, Metric]) -> None:
    """Raises: UsageError for a detector or a gate that there is not."""
    detectors_named(settings.attackers, settings.quick)
    if settings.detector not in (None, NO_DETECTOR) and not is_path(settings.detector):
        try:
            detectors.owner(settings.detector)
        except UsageError as error:
            raise UsageError(f"{error} (or {NO_DETECTOR}, or a detector's file)") from error
    known = number_keys(settings, chosen) | {"accuracy", "auc"}
    for option, name, _ in settings.bounds:
        if name not in known:
            raise UsageError(f"{option}: no number named {name!r}: {suggestion(name, sorted(known))}")


def _gates(result: EvaluateResult, settings: EvaluateSettings) -> tuple[Gate, ...]:
    """Every bound, held against its number; one that was withheld passes none."""
    gates = []
    for option, name, bound in settings.bounds:
        value, above = result.value(settings.key(name, settings.features[0])), option == "--fail-above"
        passed = value is not None and math.isfinite(value) and (value <= bound if above else value >= bound)
        gates.append(Gate(name=name, above=above, bound=bound, value=value, passed=passed))
    return tuple(gates)


def _write(result: EvaluateResult, shown: Exhibits) -> None:
    values = result.as_json()
    page = evaluation_report(values, shown)
    remove_abandoned(result.out)
    remove_file(result.file)  # killed between the two files, it must not leave numbers beside the report of others
    write_atomically(result.report, page.encode())
    write_atomically(result.file, (json.dumps(values, indent=2, allow_nan=False) + "\n").encode())


def _slug(place: Path | str) -> str:
    """A name for the results of these images: `dataset-predicted`."""
    folder = Path(str(place_of(str(place)))) if is_elsewhere(place) else Path(place).absolute().resolve()
    names = [name.removesuffix(SUFFIX) for name in folder.parts[-2:] if name.strip("/\\:*")]
    return re.sub(r"[^A-Za-z0-9._-]+", "_", "-".join(names)).strip(".") or "images"
