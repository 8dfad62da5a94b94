"""Several generators on the same sources: each is evaluated in full, and the others are held against the first by pairs.

`--compare` may name bundles, which translate the data first, exported datasets, and folders of generated images.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fruitgan.bundle import FILE_NAME, load_card, locate, pinned
from fruitgan.data.labelled import ORIGINS, PREDICTED, LabelledImage, read_folders
from fruitgan.data.sources import find_source
from fruitgan.device import choose_device
from fruitgan.errors import DataError, UsageError
from fruitgan.evaluate.job import Beside, evaluate, telling
from fruitgan.evaluate.numbers import RESAMPLES, build_features, ratio_key
from fruitgan.evaluate.results import CompareRow, Comparison, EvaluateResult, JudgedImage, RatioResult
from fruitgan.evaluate.settings import OUT, SHAPELESS, CompareSettings, EvaluateSettings, Tell
from fruitgan.evaluate.sources import dependent, find_sources, preprocessing_of, sharing, unique
from fruitgan.export_dataset.job import ExportSettings, export_dataset
from fruitgan.measures import distances
from fruitgan.measures.contracts import Features, Values
from fruitgan.measures.distances import Difference
from fruitgan.measures.features import Pictures, extract
from fruitgan.measures.statistics import PairedShares, paired_shares
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
    judging = replace(judging, fake_dir=first_dir, real_dir=real_dir, source_dir=judging.source_dir or data_folder(settings))
    # Pairs first: that there are too few is said before minutes of work.
    pairs = [_Pairing(judging, real_dir, first, name, folder, tell) for name, folder in others]
    results = []
    for name, folder in others:
        its_own = replace(judging, fake_dir=folder, out=out / RUNS_FOLDER / name, fail_above={}, fail_below={})
        results.append(evaluate(its_own, _named(name, tell)))

    def beside(first_result: EvaluateResult) -> Beside:
        compared = tuple(pairing.compared(first_result, result) for pairing, result in zip(pairs, results, strict=True))
        return Beside(compared, _rows_of_all(first, pairs))

    return evaluate(replace(judging, out=out), _named(first, tell), beside)


def _rows_of_all(first: str, pairs: Sequence[_Pairing]) -> tuple[dict[str, Path], ...]:
    """Of some sources that all sides have, the images of each side by its name, the first one's first."""
    partners = [{a.path: b.path for a, b in zip(*pairing.fakes, strict=True)} for pairing in pairs]
    common = [image.path for image in pairs[0].fakes[0] if all(image.path in known for known in partners)]
    places = np.linspace(0, len(common) - 1, min(len(common), SHOWN_SOURCES)).round().astype(int)
    sides = [{first: path} | {one.other: known[path] for one, known in zip(pairs, partners, strict=True)} for path in common]
    return tuple(sides[place] for place in places)


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
    folders = {name: Path(run) for name, run in wanted.items()}
    bundles = {
        name: locate(str(folder), settings.runs_dir)
        for name, folder in folders.items()
        if not folder.is_dir() or (folder / FILE_NAME).is_file()
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


def data_folder(settings: CompareSettings) -> Path | None:
    """What the manifests' sources are relative to, where the data are known."""
    if settings.data is None:
        return None
    source = find_source(settings.data, domains=settings.domains)
    files = [path for domain in (source.a, source.b) for path in (*domain.train, *domain.test)]
    return Path(os.path.commonpath([os.path.abspath(path.parent) for path in files]))


def _named(label: str, tell: Tell) -> Callable[[Event], None]:
    """Progress with whose it is."""

    def on_event(event: Event) -> None:
        if isinstance(event, Progress):
            tell(replace(event, what=f"{label}: {event.what}"))

    return on_event


@dataclass
class _Pairing:
    """Two sets of fakes, put in pairs by their sources."""

    settings: EvaluateSettings
    """Its `fake_dir` has the first one's images."""
    real_dir: Path
    first: str
    other: str
    other_dir: Path
    tell: Tell

    def __post_init__(self) -> None:
        folders = self.settings.fake_dir, self.other_dir
        sides = [read_folders(folder, self.real_dir).images for folder in folders]
        self.reals = [image for image in sides[0] if not image.generated]
        fakes = [[image for image in side if image.generated] for side in sides]
        by_source = all(image.source for side in fakes for image in side)
        known = [_by_source(side, by_source) for side in fakes]
        common = sorted(known[0].keys() & known[1].keys())
        if len(common) < LEAST_PAIRS:
            raise DataError(
                f"{folders[0]} and {folders[1]}: {len(common)} images are of the same source by "
                f"{'the manifests' if by_source else 'their names'}, and {LEAST_PAIRS} are needed for a comparison"
            )
        self.fakes = [[side[source] for source in common] for side in known]
        self.notes = []
        if left_out := sum(map(len, fakes)) - 2 * len(common):
            self.notes.append(f"{left_out} images have no partner of the same source and are left out of the comparison")

    def compared(self, first: EvaluateResult, other: EvaluateResult) -> Comparison:
        """All rows, and the claim that the run is better."""
        notes = list(self.notes)
        paths = [image.path for side in (self.reals, *self.fakes) for image in side]
        pictures = Pictures(preprocessing_of(self.settings, paths))
        rows: list[CompareRow] = []
        below_zero: dict[str, tuple[float, float]] = {}
        judges: dict[str, str] = {}
        for name in self.settings.features:
            label = f"{self.other} against {self.first} on {name}"
            self.tell(Progress(label, 0, 1))
            backend = build_features(self.settings, name)
            judges[name] = backend.trained_on
            found = self._on_backend(backend, pictures, first.ratios.get(ratio_key(self.settings, name)))
            below_zero[name] = found[0].interval
            rows += found
            self.tell(Progress(label, 1, 1))
        rows += self._by_detectors(first, other, notes)
        against = [*(first.trained_against or ()), *(other.trained_against or ())]
        shared = (*sharing(judges, against), *first.judges_sharing_training, *other.judges_sharing_training)
        better = BETTER.format(run=self.other, first=self.first)
        return Comparison(
            first=self.first,
            run=self.other,
            first_dir=self.settings.fake_dir,
            run_dir=self.other_dir,
            n_sources=len(self.fakes[0]),
            rows=tuple(rows),
            claim=distances.claim_of(better, below_zero, SHAPELESS, dependent(judges, against)),
            judges_sharing_training=tuple(dict.fromkeys(shared)),
            notes=tuple(notes),
            report=other.report,
        )

    def _on_backend(self, backend: Features, pictures: Pictures, r_of_first: RatioResult | None) -> list[CompareRow]:
        """KID first, FID, and R where the first one has it."""
        settings, name = self.settings, backend.name
        device = choose_device(settings.gpu, settings.device)

        def described(paths: Sequence[Path]) -> Values:
            return extract(backend, paths, device, read=pictures).values

        def drawn(metric: str) -> dict[str, int]:
            return {"resamples": RESAMPLES[metric][settings.quick], "seed": settings.seed}

        real = described([image.path for image in self.reals])
        first, other = (described([image.path for image in side]) for side in self.fakes)
        kids = [distances.kernel_distance(real, side) for side in (first, other)]
        fids = [distances.frechet_distance(real, side) for side in (first, other)]
        kid = distances.kid_difference(real, other, first, **drawn("kid"))
        fid = distances.fid_difference(real, other, first, **drawn("fid"))
        rows = [_row("kid", name, kids, kid, BOOTSTRAP), _row("fid", name, fids, fid, BOOTSTRAP)]
        if r_of_first is None or settings.source_dir is None:
            return rows
        folders = {image.path.parent for image in (*self.reals, *self.fakes[0])}
        sources = find_sources(settings.source_dir, self.fakes[0], *folders)
        source = described(sources.paths)
        below = distances.kernel_distance(real, source)
        ratio = distances.ratio_difference(real, other, first, source, sources_paired=sources.paired, **drawn("kid"))
        return [*rows, _row("r", name, [value / below for value in kids], ratio, BOOTSTRAP)]

    def _by_detectors(self, first: EvaluateResult, other: EvaluateResult, notes: list[str]) -> list[CompareRow]:
        """Whether the strongest detector of each finds its fakes more or less often."""
        if first.detector is None or other.detector is None:
            one, result = (self.first, first) if first.detector is None else (self.other, other)
            notes.append(f"no detectors are compared, since {one} has none: {result.withheld}")
            return []
        names = ", ".join(dict.fromkeys((first.detector.name, other.detector.name)))
        mine, theirs = _correct(first.judged), _correct(other.judged)
        fakes = [((True, a.path.name), (True, b.path.name), a.group) for a, b in zip(*self.fakes, strict=True)]
        reals = [((False, image.path.name), (False, image.path.name), image.group) for image in self.reals]
        rows = []
        for name, pairs in (("recognised", fakes), ("accuracy", fakes + reals)):
            both = [(mine[a], theirs[b], group) for a, b, group in pairs if a in mine and b in theirs]
            if not both:
                notes.append("no detectors are compared: they judged no pair of images of one source")
                return []
            answers = [np.array([pair[place] for pair in both]) for place in (0, 1)]
            drawn = {"resamples": RESAMPLES["kid"][self.settings.quick], "seed": self.settings.seed}
            found = paired_shares(answers[0], answers[1], [pair[2] for pair in both], **drawn)
            rows.append(_row(name, names, [found.first, found.second], found, MCNEMAR))
        return rows


def _row(name: str, features: str, values: Sequence[float], found: Difference | PairedShares, test: str) -> CompareRow:
    """`values` are the first one's and the run's."""
    first, value = values
    return CompareRow(
        name=name,
        features=features,
        first=first,
        value=value,
        difference=value - first,
        interval=found.interval,
        p_value=found.p_value,
        test=test,
        n=found.n,
    )


def _by_source(images: Sequence[LabelledImage], by_manifest: bool) -> dict[str, LabelledImage]:
    """The images by their source, by the manifest or else by the file's name; what stands twice is left out."""
    return unique((image.source if by_manifest else image.path.stem, image) for image in images)


def _correct(judged: Sequence[JudgedImage]) -> dict[tuple[bool, str], bool]:
    """By class and file name, whether the answer was correct; names that stand twice are left out."""
    return unique(((image.generated, image.file), (image.logit > 0) == image.generated) for image in judged)
