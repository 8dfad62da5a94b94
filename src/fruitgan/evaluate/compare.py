"""Several generators on the same sources: each is evaluated in full, and the others are held against the first by pairs.

`--compare` may name bundles, which translate the data first, exported datasets, and folders of generated images.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fruitgan.bundle import FILE_NAME, load_card, locate, pinned
from fruitgan.data.labelled import ORIGINS, PREDICTED, LabelledImage
from fruitgan.data.remote import at_hand
from fruitgan.data.sources import find_source
from fruitgan.device import choose_device
from fruitgan.errors import DataError, UsageError
from fruitgan.evaluate.job import evaluate, telling
from fruitgan.evaluate.numbers import RESAMPLES, claim_of
from fruitgan.evaluate.results import EvaluateResult, Row
from fruitgan.evaluate.settings import OUT, RATIO, CompareSettings, EvaluateSettings, Tell
from fruitgan.evaluate.sources import (
    BESIDE,
    Subject,
    dependent,
    find_sources,
    folders_of,
    preprocessing_of,
    read_images,
    sharing,
    sides,
    unique,
)
from fruitgan.export_dataset.job import ExportSettings, export_dataset
from fruitgan.measures import distances
from fruitgan.measures.contracts import Features
from fruitgan.measures.features import Pictures
from fruitgan.measures.statistics import Difference, paired_shares, percentile_interval
from fruitgan.progress import Event, Note, OnProgress, Progress

BOOTSTRAP = "paired bootstrap over sources"
MCNEMAR = "McNemar, exact"
LEAST_PAIRS = 8
SHOWN_SOURCES = 6
RUNS_FOLDER = "runs"
DATASET = "dataset"
BETTER = "the images of {run} are nearer to the real ones than those of {first}"


def compare(settings: CompareSettings, judging: EvaluateSettings, on_progress: OnProgress | None = None) -> EvaluateResult:
    """Evaluate all of them by `judging`, whose `fake_dir` is replaced, and hold the others against the first.

    The first one's results go to `judging.out` with the comparisons among them; those of the others into folders below.

    Raises:
        UsageError: as `evaluate`; no such bundle, bundles without data.
        DataError: as `evaluate` and `export_dataset`; fewer than 8 sources in common.
    """
    tell = telling(on_progress)
    names = labels(settings.runs)
    out = judging.out or OUT / "-against-".join(names)
    (first, first_dir), *others = contestants(settings, names, out / RUNS_FOLDER, judging, tell).items()
    beside_them = [Path(os.path.normpath(folder / ".." / ORIGINS)) for folder in (first_dir, *dict(others).values())]
    real_dir = judging.real_dir or next((folder for folder in beside_them if folder.is_dir()), None)
    if real_dir is None:
        raise DataError(f"{first_dir}: none of those compared has real images; give them with --real-dir DIR")
    source_dir = judging.source_dir
    if source_dir is None and settings.data is not None:  # what the manifests' sources are relative to
        files = find_source(settings.data, domains=settings.domains).files
        source_dir = Path(os.path.commonpath([os.path.abspath(path.parent) for path in files]))
    judging = replace(judging, fake_dir=first_dir, real_dir=real_dir, source_dir=source_dir)
    # Pairs first: that there are too few is said before minutes of work.
    pairs = [_Pairs(judging, first, name, folder, tell) for name, folder in others]
    results = []
    for name, folder in others:
        its_own = replace(judging, fake_dir=folder, out=out / RUNS_FOLDER / name, fail_above={}, fail_below={})
        results.append(evaluate(its_own, _named(name, tell)))

    def beside(its: EvaluateResult, backends: Sequence[Features]) -> list[dict[str, Path]]:
        its.compare = [one.compared(its, result, backends) for one, result in zip(pairs, results, strict=True)]
        partners = {one.other: {a.path: b.path for a, b in zip(*one.fakes, strict=True)} for one in pairs}
        common = [image.path for image in pairs[0].fakes[0] if all(image.path in known for known in partners.values())]
        places = np.linspace(0, len(common) - 1, min(len(common), SHOWN_SOURCES)).round().astype(int)
        shown = [common[place] for place in places]  # some sources that all sides have
        return [{first: path} | {other: known[path] for other, known in partners.items()} for path in shown]

    return evaluate(replace(judging, out=out), _named(first, tell), beside)


def labels(runs: Sequence[str]) -> list[str]:
    """A short name for each, unlike all others, fit for a folder's name."""
    found: list[str] = []
    for run in runs:
        parts = [part for part in Path(os.path.abspath(run)).parts if part not in (PREDICTED, FILE_NAME)]
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", parts[-1].removesuffix(".safetensors")).strip(".") or "images"
        number, label = 2, name
        while label in found:
            number, label = number + 1, f"{name}-{number}"
        found.append(label)
    return found


def contestants(
    settings: CompareSettings, names: Sequence[str], out: Path, judging: EvaluateSettings, tell: Tell
) -> dict[str, Path]:
    """The generated images of each by its name, the bundles' translations made below `out`.

    Raises:
        UsageError: no such bundle; bundles and no data.
        DataError: a file that is no bundle, and what `export_dataset` raises.
    """
    wanted = dict(zip(names, settings.runs, strict=True))
    folders = {name: at_hand(run, tell, BESIDE) for name, run in wanted.items()}
    bundles = {
        name: locate(str(folder)) for name, folder in folders.items() if not folder.is_dir() or (folder / FILE_NAME).is_file()
    }
    if bundles and settings.data is None:
        raise UsageError(f"--compare {next(iter(bundles))}: a bundle needs images to translate: --data NAME|DIR")
    sizes = {name: load_card(path).image_size_px for name, path in bundles.items()}
    size_px = settings.image_size
    if size_px is None and len(set(sizes.values())) > 1:
        size_px = min(sizes.values())
        listed = ", ".join(f"{name} {size} px" for name, size in sizes.items())
        tell(Note(f"the bundles were trained at different sizes ({listed}): all are compared at {size_px} px (--image-size)"))
    for name, bundle in bundles.items():
        folders[name] = out / name / DATASET
        export = ExportSettings(
            bundle=pinned(wanted[name]) or str(bundle),
            to=settings.to,
            data=settings.data,
            domains=settings.domains,
            count=settings.count,
            image_size=size_px,
            out=folders[name],
            gpu=judging.gpu,
            device=judging.device,
            overwrite=True,
        )
        export_dataset(export, _named(name, tell))
    return {name: folder / PREDICTED if (folder / PREDICTED).is_dir() else folder for name, folder in folders.items()}


def _named(label: str, tell: Tell) -> Callable[[Event], None]:
    """Progress with whose it is."""

    def on_event(event: Event) -> None:
        if isinstance(event, Progress):
            tell(replace(event, what=f"{label}: {event.what}"))

    return on_event


@dataclass
class _Pairs:
    """Two sets of fakes, put in pairs by their sources: by the manifests, or else by the files' names."""

    settings: EvaluateSettings
    """Its `fake_dir` has the first one's images."""
    first: str
    other: str
    other_dir: Path
    tell: Tell

    def __post_init__(self) -> None:
        self.first_dir, real_dir, self.source_dir = folders_of(self.settings, self.tell)
        folders = self.first_dir, self.other_dir
        read = [read_images(folder, real_dir, self.settings.seed).images for folder in folders]
        fakes, reals = zip(*map(sides, read), strict=True)
        self.reals: list[LabelledImage] = reals[0]
        has_manifests = all(image.source for side in fakes for image in side)
        known = [unique((image.source if has_manifests else image.path.stem, image) for image in side) for side in fakes]
        common = sorted(known[0].keys() & known[1].keys())
        if len(common) < LEAST_PAIRS:
            raise DataError(
                f"{folders[0]} and {folders[1]}: {len(common)} images are of the same source by "
                f"{'the manifests' if has_manifests else 'their names'}, and {LEAST_PAIRS} are needed for a comparison"
            )
        self.fakes = [[side[source] for source in common] for side in known]
        self.notes = []
        if left_out := sum(map(len, fakes)) - 2 * len(common):
            self.notes.append(f"{left_out} images have no partner of the same source and are left out of the comparison")

    def compared(self, first: EvaluateResult, other: EvaluateResult, backends: Sequence[Features]) -> Row:
        """All rows, and the claim that the run is better."""
        settings, mine, sources = self.settings, self.fakes[0], None
        if self.source_dir is not None:
            sources = find_sources(self.source_dir, mine, *{image.path.parent for image in (*self.reals, *mine)})
        files = [image.path for side in (self.reals, *self.fakes) for image in side]
        pictures = Pictures(preprocessing_of(settings, self.first_dir, files))
        device = choose_device(settings.gpu, settings.device)
        subject = Subject(settings, [*mine, *self.reals], sources, pictures, device, self.tell)
        rows: list[Row] = []
        below_zero: dict[str, tuple[float, float]] = {}
        for name, backend in zip(settings.features, backends, strict=True):
            has_ratio = first.ratios.get(settings.key(RATIO, name)) is not None
            found = list(self._on_backend(backend, subject, has_ratio))
            below_zero[backend.name] = found[0]["interval"]
            rows += found
        rows += self._by_detectors(first, other)
        judges = {backend.name: backend.trained_on for backend in backends}
        against = [*(first.trained_against or ()), *(other.trained_against or ())]
        shared = (*sharing(judges, against), *first.judges_sharing_training, *other.judges_sharing_training)
        better = BETTER.format(run=self.other, first=self.first)
        return {
            "first": self.first,
            "run": self.other,
            "first_dir": settings.fake_dir,
            "run_dir": self.other_dir,
            "n_sources": len(mine),
            "rows": rows,
            "claim": claim_of(better, below_zero, dependent(judges, against)),
            "judges_sharing_training": list(dict.fromkeys(shared)),
            "notes": self.notes,
            "report": other.report,
        }

    def _on_backend(self, backend: Features, subject: Subject, has_ratio: bool) -> Iterator[Row]:
        """KID first, FID, and R where the first one has it."""
        kid, fid = self._drawn("kid"), self._drawn("fid")
        real, first = (features.values for features in subject.both(backend))
        other = subject.features(backend, self.other, [image.path for image in self.fakes[1]]).values
        kids = [distances.kernel_distance(real, side) for side in (first, other)]
        fids = [distances.frechet_distance(real, side) for side in (first, other)]
        yield _row("kid", backend.name, kids, distances.kid_difference(real, first, other, **kid), BOOTSTRAP)
        yield _row("fid", backend.name, fids, distances.fid_difference(real, first, other, **fid), BOOTSTRAP)
        if has_ratio and subject.sources is not None:
            source = subject.features(backend, "source", subject.sources.paths).values
            drawn = [
                distances.all_then_resampled(len(x), **kid, stream=what) for x, what in ((real, "real"), (source, "source"))
            ]
            below, *resampled = distances.kernel_distances(real, source, *drawn)
            if percentile_interval(resampled).low > 0:  # of these pairs too, not of all images alone
                ratio = distances.ratio_difference(real, first, other, source, sources_paired=subject.sources.paired, **kid)
                yield _row("r", backend.name, [value / below for value in kids], ratio, BOOTSTRAP)

    def _by_detectors(self, first: EvaluateResult, other: EvaluateResult) -> list[Row]:
        """Whether the strongest detector of each finds its fakes more or less often."""
        if first.detector is None or other.detector is None:
            one, result = (self.first, first) if first.detector is None else (self.other, other)
            self.notes.append(f"no detectors are compared, since {one} has none: {result.withheld}")
            return []
        names = ", ".join(dict.fromkeys((first.detector.name, other.detector.name)))
        mine, theirs = _correct(first.judged), _correct(other.judged)
        fakes = [((True, a.path.name), (True, b.path.name), a.group) for a, b in zip(*self.fakes, strict=True)]
        reals = [((False, image.path.name), (False, image.path.name), image.group) for image in self.reals]
        rows = []
        for name, pairs in (("recognised", fakes), ("accuracy", fakes + reals)):
            both = [(mine[a], theirs[b], group) for a, b, group in pairs if a in mine and b in theirs]
            if not both:
                self.notes.append("no detectors are compared: they judged no pair of images of one source")
                return []
            answers = [np.array([pair[place] for pair in both]) for place in (0, 1)]
            found = paired_shares(answers[0], answers[1], [pair[2] for pair in both], **self._drawn("kid"))
            rows.append(_row(name, names, [float(answer.mean()) for answer in answers], found, MCNEMAR))
        return rows

    def _drawn(self, name: str) -> dict[str, int]:
        """How often a number of this name is resampled, and from which seed."""
        return {"resamples": RESAMPLES[name][self.settings.quick], "seed": self.settings.seed}


def _row(name: str, features: str, values: Sequence[float], found: Difference, test: str) -> Row:
    """`values` are the first one's and the run's."""
    first, value = values
    row: Row = {"name": name, "features": features, "first": first, "value": value, "difference": value - first}
    return row | {"interval": found.interval, "p_value": found.p_value, "test": test, "n": found.n}


def _correct(judged: Sequence[Row]) -> dict[tuple[bool, str], bool]:
    """By class and file name, whether the answer was correct; names that stand twice are left out."""
    return unique(((row["generated"], row["file"]), (row["logit"] > 0) == row["generated"]) for row in judged)
