"""Several generators on the same sources: each is evaluated in full, and the others are held against the first by pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fruitgan.data.labelled import LabelledImage, read_folders
from fruitgan.device import choose_device
from fruitgan.errors import DataError
from fruitgan.evaluate.compare_inputs import Contestant, contestants, data_folder, labels
from fruitgan.evaluate.compare_settings import BOOTSTRAP, MCNEMAR, CompareRow, CompareSettings, Comparison
from fruitgan.evaluate.detector_results import JudgedImage
from fruitgan.evaluate.job import evaluate, evaluate_beside
from fruitgan.evaluate.metrics import RESAMPLES, build_features, ratio_key
from fruitgan.evaluate.settings import (
    OUT,
    SHAPELESS,
    EvaluateProgress,
    EvaluateResult,
    EvaluateSettings,
    OnProgress,
    RatioResult,
)
from fruitgan.evaluate.sources import find_sources
from fruitgan.measures.contracts import Features, FeatureSet
from fruitgan.measures.distances import (
    Difference,
    claim_of,
    fid_difference,
    frechet_distance,
    kernel_distance,
    kid_difference,
    ratio_difference,
)
from fruitgan.measures.features import extract
from fruitgan.measures.statistics import PairedShares, paired_shares

LEAST_PAIRS = 8
RUNS_FOLDER = "runs"
BETTER = "the images of {run} are nearer to the real ones than those of {first}"


def compare(settings: CompareSettings, judging: EvaluateSettings, on_progress: OnProgress | None = None) -> EvaluateResult:
    """Evaluate all of them by `judging`, whose `fake_dir` is replaced, and hold the others against the first.

    The first one's results go to `judging.out` with the comparisons among them; those of the others into folders below.

    Raises:
        UsageError: as `evaluate`; no such bundle, bundles without data.
        DataError: as `evaluate` and `export_dataset`; fewer than 8 sources in common.
    """

    def tell(what: str, done: int, total: int) -> None:
        if on_progress is not None:
            on_progress(EvaluateProgress(what, done, total))

    names = labels(settings.runs)
    out = judging.out or OUT / "-against-".join(names)
    found = contestants(settings, names, out / RUNS_FOLDER, judging.gpu, judging.device, tell)
    real_dir = judging.real_dir or next((one.real_dir for one in found if one.real_dir is not None), None)
    judging = replace(judging, real_dir=real_dir, source_dir=judging.source_dir or data_folder(settings))
    pairs = [_Pairing(judging, found[0], other, tell) for other in found[1:]]  # too few pairs: said before minutes of work
    results = []
    for one in found[1:]:
        its_own = replace(judging, fake_dir=one.fake_dir, out=out / RUNS_FOLDER / one.label, fail_above={}, fail_below={})
        results.append(evaluate(its_own, _named(one.label, on_progress)))

    def beside(first: EvaluateResult) -> tuple[Comparison, ...]:
        return tuple(pairing.compared(first, result) for pairing, result in zip(pairs, results, strict=True))

    first = replace(judging, fake_dir=found[0].fake_dir, out=out)
    return evaluate_beside(first, beside, _named(found[0].label, on_progress))


def _named(label: str, on_progress: OnProgress | None) -> OnProgress | None:
    """Progress with whose it is."""
    if on_progress is None:
        return None
    return lambda event: on_progress(replace(event, what=f"{label}: {event.what}"))


@dataclass
class _Pairing:
    """Two sets of fakes, put in pairs by their sources."""

    settings: EvaluateSettings
    first: Contestant
    other: Contestant
    tell: Callable[[str, int, int], None]

    def __post_init__(self) -> None:
        real_dir = self.settings.real_dir
        if real_dir is None:
            raise DataError(f"{self.first.fake_dir}: none of those compared has real images; give them with --real-dir DIR")
        sides = [read_folders(one.fake_dir, real_dir).images for one in (self.first, self.other)]
        self.reals = [image for image in sides[0] if not image.generated]
        fakes = [[image for image in side if image.generated] for side in sides]
        by_source = all(image.source for side in fakes for image in side)
        known = [_by_source(side, by_source) for side in fakes]
        common = sorted(known[0].keys() & known[1].keys())
        if len(common) < LEAST_PAIRS:
            raise DataError(
                f"{self.first.fake_dir} and {self.other.fake_dir}: {len(common)} images are of the same source by "
                f"{'the manifests' if by_source else 'their names'}, and {LEAST_PAIRS} are needed for a comparison"
            )
        self.fakes = [[side[source] for source in common] for side in known]
        self.notes = []
        if left_out := sum(map(len, fakes)) - 2 * len(common):
            self.notes.append(f"{left_out} images have no partner of the same source and are left out of the comparison")

    def compared(self, first: EvaluateResult, other: EvaluateResult) -> Comparison:
        """All rows, and what may be said."""
        notes = list(self.notes)
        rows: list[CompareRow] = []
        below_zero: dict[str, tuple[float, float]] = {}
        for name in self.settings.features:
            self.tell(f"{self.other.label} against {self.first.label} on {name}", 0, 1)
            found = self._on_backend(build_features(self.settings, name), first.ratios.get(ratio_key(self.settings, name)))
            below_zero[name] = found[0].interval
            rows += found
            self.tell(f"{self.other.label} against {self.first.label} on {name}", 1, 1)
        rows += self._by_attackers(first, other, notes)
        return Comparison(
            first=self.first.label,
            run=self.other.label,
            first_dir=self.first.fake_dir,
            run_dir=self.other.fake_dir,
            n_sources=len(self.fakes[0]),
            rows=tuple(rows),
            claim=claim_of(BETTER.format(run=self.other.label, first=self.first.label), below_zero, SHAPELESS),
            notes=tuple(notes),
            report=other.report,
        )

    def _on_backend(self, backend: Features, r_of_first: RatioResult | None) -> list[CompareRow]:
        """KID first, FID, and R where the first one has it."""
        settings = self.settings
        device = choose_device(settings.gpu, settings.device)

        def described(paths: Sequence[Path]) -> FeatureSet:
            return extract(backend, paths, device)

        real = described([image.path for image in self.reals]).values
        first, other = (described([image.path for image in side]).values for side in self.fakes)
        quick, seed, name = settings.quick, settings.seed, backend.name
        kid = kid_difference(real, other, first, features=name, paired=True, resamples=RESAMPLES["kid"][quick], seed=seed)
        fid = fid_difference(real, other, first, features=name, paired=True, resamples=RESAMPLES["fid"][quick], seed=seed)
        rows = [
            _row("kid", kernel_distance(real, first), kernel_distance(real, other), kid),
            _row("fid", frechet_distance(real, first), frechet_distance(real, other), fid),
        ]
        if r_of_first is None or settings.source_dir is None:
            return rows
        sources = find_sources(
            settings.source_dir, self.fakes[0], *{image.path.parent for image in (*self.reals, *self.fakes[0])}
        )
        source = described(sources.paths).values
        below = kernel_distance(real, source)
        ratio = ratio_difference(
            real,
            other,
            first,
            source,
            features=name,
            sources_paired=sources.paired,
            resamples=RESAMPLES["kid"][quick],
            seed=seed,
        )
        return [*rows, _row("r", rows[0].first / below, rows[0].value / below, ratio)]

    def _by_attackers(self, first: EvaluateResult, other: EvaluateResult, notes: list[str]) -> list[CompareRow]:
        """Whether the strongest attacker of each finds its fakes more or less often."""
        for one, result in ((self.first, first), (self.other, other)):
            if result.detector is None:
                notes.append(f"no attackers are compared, since {one.label} has none: {result.withheld}")
                return []
        assert first.detector is not None
        assert other.detector is not None
        names = ", ".join(dict.fromkeys((first.detector.name, other.detector.name)))
        mine, theirs = _right(first.judged), _right(other.judged)
        fakes = [((True, a.path.name), (True, b.path.name), a.group) for a, b in zip(*self.fakes, strict=True)]
        reals = [((False, image.path.name), (False, image.path.name), image.group) for image in self.reals]
        rows = []
        for name, pairs in (("recognised", fakes), ("accuracy", fakes + reals)):
            both = [(mine[a], theirs[b], group) for a, b, group in pairs if a in mine and b in theirs]
            if not both:
                notes.append("no attackers are compared: they judged no pair of images of one source")
                return []
            right = [np.array([pair[place] for pair in both]) for place in (0, 1)]
            groups = [pair[2] for pair in both]
            found = paired_shares(
                right[0], right[1], groups, resamples=RESAMPLES["kid"][self.settings.quick], seed=self.settings.seed
            )
            rows.append(_attacked(name, names, found))
        return rows


def _row(name: str, first: float, value: float, difference: Difference) -> CompareRow:
    return CompareRow(
        name=name,
        features=difference.features,
        first=first,
        value=value,
        difference=difference.value,
        interval=difference.interval,
        p_value=difference.p_value,
        test=BOOTSTRAP,
        n=difference.n_first,
    )


def _attacked(name: str, attackers: str, found: PairedShares) -> CompareRow:
    return CompareRow(
        name=name,
        features=attackers,
        first=found.first,
        value=found.second,
        difference=found.difference,
        interval=found.interval,
        p_value=found.p_value,
        test=MCNEMAR,
        n=found.n,
    )


def _by_source(images: Sequence[LabelledImage], by_manifest: bool) -> dict[str, LabelledImage]:
    """The images by what they were made of, by the manifest or else by the file's name; what stands twice is left out."""
    keys = [image.source if by_manifest else image.path.stem for image in images]
    counts = Counter(keys)
    return {key: image for key, image in zip(keys, images, strict=True) if counts[key] == 1}


def _right(judged: Sequence[JudgedImage]) -> Mapping[tuple[bool, str], bool]:
    """By whether it is generated and the file's name, whether it was told right; names that stand twice are left out."""
    counts = Counter((image.generated, image.file) for image in judged)
    return {
        (image.generated, image.file): (image.logit > 0) == image.generated
        for image in judged
        if counts[image.generated, image.file] == 1
    }
