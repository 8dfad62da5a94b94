"""Numbers of an evaluation: features once for each backend, then metric by metric, each with its interval and its floor."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from fruitgan.data.remote import at_hand
from fruitgan.errors import DataError, UsageError
from fruitgan.evaluate.results import EvaluateResult, Row
from fruitgan.evaluate.settings import ALL, DEFAULT_METRICS, INCEPTION_KEYS, RATIO, SHAPELESS, EvaluateSettings
from fruitgan.evaluate.sources import Subject, images_of
from fruitgan.images import resize
from fruitgan.measures.contracts import Features, Metric, PairMetric, SetMetric, TrainingMetric, features, metrics
from fruitgan.measures.metrics.fid_kid import translation_ratio
from fruitgan.parallel import in_order
from fruitgan.progress import Progress

RESAMPLES = {
    **dict.fromkeys(("kid", "kid-subsets", "structure", "background", "nearest-training"), (1000, 200)),
    **dict.fromkeys(("fid", "precision", "recall", "density", "coverage"), (200, 50)),
    **dict.fromkeys(("colour-lab", "spectrum", "upsampling-peaks"), (200, 50)),
}
"""Usually, and with `quick`. Metrics of other packages keep their own."""
LEAST_AGREEING = 2
"""How many feature backends have to agree before anything is claimed."""
DIFFERENT = "the generated images differ from the real ones"
NEARER = "the generated images are nearer to the real ones than their sources are, by a tenth of the way or more"
NEARER_RATIO = 0.9
"""The R that is a tenth of the way: apples of another hue alone get nearly as far on features that should not see it."""


def build_metrics(settings: EvaluateSettings) -> tuple[dict[str, Metric], dict[str, str]]:
    """The metrics asked for, by name, and why those that cannot be measured here are left out.

    Raises:
        UsageError: one that there is not, or one that was named and lacks the images that it needs.
    """
    names = tuple(metrics.names()) if settings.metrics == (ALL,) else settings.metrics
    found: dict[str, Metric] = {}
    left_out: dict[str, str] = {}
    for name in names:
        options = {"resamples": RESAMPLES[name][settings.quick], "seed": settings.seed} if name in RESAMPLES else {}
        metric = metrics.build(metrics.choose(name, options))
        if isinstance(metric, PairMetric) and settings.source_dir is None:
            left_out[name] = "needs the images that the generated ones were made of: --source-dir DIR"
        elif isinstance(metric, TrainingMetric) and settings.training_dir is None:
            left_out[name] = "needs the real images that the generator was trained on: --training-dir DIR"
        else:
            found[name] = metric
    if settings.metrics not in ((ALL,), DEFAULT_METRICS) and left_out:
        name, reason = next(iter(left_out.items()))
        raise UsageError(f"--metrics {name}: {reason}")
    return found, left_out


def number_keys(settings: EvaluateSettings, chosen: Mapping[str, Metric]) -> set[str]:
    """The names of all numbers that these metrics and R will have, with the short names that a gate may use."""
    keys = {settings.key(RATIO, name) for name in settings.features} | set(chosen)
    for name, metric in chosen.items():
        every = isinstance(metric, SetMetric) and metric.every_features
        keys |= {settings.key(name, backend) for backend in (settings.features if every else settings.features[:1])}
    return keys


def build_features(settings: EvaluateSettings, name: str) -> Features:
    """One feature backend.

    Raises:
        UsageError: there is no such one.
        DataError, EnvironmentProblem: its weights or its package are missing.
    """
    options = {"weights": str(settings.weights[name])} if name in settings.weights else {}
    backend: Features = features.build(features.choose(name, options))
    return backend


def claim_of(claim: str, below_zero: Mapping[str, tuple[float, float]], dependent: frozenset[str] = frozenset()) -> Row:
    """What the intervals of one difference, by backend, allow to be said; the claim is that the difference is below 0.

    `holds` is true or false where several backends say so and none the contrary, else None. Those that see no things count as
    one witness however many of them agree, and one witness at least must not be of `dependent`.
    """
    agreeing = [name for name, (_, high) in below_zero.items() if high < 0]
    contrary = [name for name, (low, _) in below_zero.items() if low > 0]
    undecided = [name for name in below_zero if name not in agreeing and name not in contrary]
    saying = agreeing or contrary
    witnesses = len(set(saying) - SHAPELESS) + bool(SHAPELESS.intersection(saying))
    is_sure = witnesses >= LEAST_AGREEING and not dependent.issuperset(saying) and not (agreeing and contrary)
    found: Row = {"claim": claim, "holds": bool(agreeing) if is_sure else None, "agreeing": agreeing, "contrary": contrary}
    return found | {"undecided": undecided, "dependent": [name for name in below_zero if name in dependent]}


def claims(result: EvaluateResult, dependent: frozenset[str] = frozenset()) -> list[Row]:
    """Sentences on which several backends agree; those of `dependent` alone support none."""
    kid_keys = ("kid", INCEPTION_KEYS["kid"])
    kids = {n.features: n.interval for key, n in result.numbers.items() if key in kid_keys or key.startswith("kid_")}
    ratios = {ratio.features: ratio.interval for ratio in result.ratios.values() if ratio is not None}
    below_zero = {
        # Independent images cannot be nearer than alike: an interval below 0 is of copies, and no word against a difference.
        DIFFERENT: {name: (min(-high, 0.0), -low) for name, (low, high) in kids.items()},
        NEARER: {name: (low - NEARER_RATIO, high - NEARER_RATIO) for name, (low, high) in ratios.items()},
    }
    return [claim_of(claim, sides, dependent) for claim, sides in below_zero.items() if sides]


def measure(subject: Subject, chosen: Mapping[str, Metric], backends: Sequence[Features], result: EvaluateResult) -> None:
    """Put all numbers on these backends into the result; the first gives the headline.

    Raises:
        DataError: an image cannot be decoded, too few of a kind, features that are not finite, no training images.
    """
    settings = subject.settings
    asked_for = list(zip(settings.features, backends, strict=True))  # where `clip` stands for `clip:vit-b-32`
    for name, metric in chosen.items():
        if isinstance(metric, SetMetric):
            own = metric.own_features() if metric.own_features else None
            named = [(settings.key(name, asked), backend) for asked, backend in asked_for]
            for key, backend in [(name, own)] if own else named if metric.every_features else named[:1]:
                real, fake = subject.both(backend)
                with _step(subject, f"{name} on {backend.name}"):
                    result.numbers[key], result.floor[key] = metric(real, fake), metric.floor(real, fake)
        elif isinstance(metric, TrainingMetric):
            training = images_of("--training-dir", at_hand(settings.training_dir or "", subject.tell))
            seen = subject.features(backends[0], "training", training)
            result.numbers[name] = metric(*subject.both(backends[0]), seen)
        elif isinstance(metric, PairMetric):
            _measure_pairs(subject, name, metric, result)
    _measure_ratios(subject, asked_for, result)


@contextmanager
def _step(subject: Subject, label: str) -> Iterator[None]:
    """Progress of what is done in one step."""
    subject.tell(Progress(label, 0, 1))
    yield
    subject.tell(Progress(label, 1, 1))


def _measure_ratios(subject: Subject, asked_for: Sequence[tuple[str, Features]], result: EvaluateResult) -> None:
    """R on each backend; None, and why, where there are no sources or they cannot be distinguished from the real images."""
    settings, sources = subject.settings, subject.sources
    if sources is None:
        result.ratios = {RATIO: None}
        result.r_withheld = "R needs the images that the generated ones were made of: --source-dir DIR"
        return
    missing, resamples = [], RESAMPLES["kid"][settings.quick]
    for name, backend in asked_for:
        source = subject.features(backend, "source", sources.paths)
        with _step(subject, f"R on {backend.name}"):
            real, fake = subject.both(backend)
            ratio = translation_ratio(real, fake, source, paired=sources.paired, resamples=resamples, seed=settings.seed)
        is_apart = ratio.source_interval[0] > 0
        result.ratios[settings.key(RATIO, name)] = ratio if is_apart else None
        missing += [] if is_apart else [backend.name]
    if missing:
        result.r_withheld = (
            f"on {' and '.join(missing)} the sources cannot be distinguished from the real images (the interval of their "
            "distance is not above 0), so there is nothing to divide by; more images may help"
        )


def _measure_pairs(subject: Subject, name: str, metric: PairMetric, result: EvaluateResult) -> None:
    """A metric of each source and its translation; none where a translation's source is not known."""
    assert subject.sources is not None  # else the metric would not have been chosen
    if not subject.sources.paired:
        result.not_measured[name] = f"needs to know which image each generated one was made of, and {subject.sources.missing}"
        return

    def of_pair(pair: tuple[Path, Path]) -> float:
        source, fake = (subject.pictures(path) for path in pair)
        return metric.of_pair(resize(source, fake.shape[0], fake.shape[1]), fake)

    pairs = list(zip(subject.sources.paths, [image.path for image in subject.fakes], strict=True))
    began, label = time.monotonic(), f"{name} of sources and their translations"
    values = [value for _, value in in_order(of_pair, pairs, what=label, tell=subject.tell)]
    try:
        result.numbers[name] = metric.result(values, time.monotonic() - began)
    except DataError as error:
        result.not_measured[name] = str(error)
