"""The evaluation's report: one self-contained page with the verdict, numbers, pictures, and how to check and cite it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fruitgan.evaluate.plots import Panel, detector_panels, spectrum_panel, whisker
from fruitgan.evaluate.wording import (
    FEATURES,
    Row,
    claim_sentence,
    compare_rows,
    detector_meaning,
    figure,
    meaning,
    number_rows,
    robustness_rows,
    verdict,
)
from fruitgan.images import Pixels
from fruitgan.report.page import duration, inline_images, render, thousands

PICTURES_LIMIT_BYTES = 2_200_000
GALLERY_COLUMNS = 4
READ_MORE = (
    "KID: Binkowski, Sutherland, Arbel, Gretton: Demystifying MMD GANs. ICLR 2018.",
    "FID: Heusel, Ramsauer, Unterthiner, Nessler, Hochreiter: GANs trained by a two time-scale update rule. NeurIPS 2017.",
    "Classifier two-sample tests: Lopez-Paz, Oquab: Revisiting classifier two-sample tests. ICLR 2017.",
    "Permutation p-values: Phipson, Smyth: Permutation p-values should never be zero. SAGMB 2010.",
)


@dataclass(frozen=True)
class Shown:
    """A generated picture, what the detector said of it, and what it was made of and goes back to where that is known."""

    file: str
    logit: float
    source: Pixels | None
    fake: Pixels
    cycled: Pixels | None


@dataclass(frozen=True)
class Looked:
    """A generated picture beside itself with the places marked where the detector looked; `kind` as in `LookedAt`."""

    file: str
    kind: str
    logit: float
    picture: Pixels


@dataclass(frozen=True, kw_only=True)
class Exhibits:
    """What is shown beside the numbers."""

    galleries: Mapping[str, Sequence[Pixels]]
    """Some of each kind, at random."""
    most_convincing: Sequence[Shown] = ()
    least_convincing: Sequence[Shown] = ()
    looked: Sequence[Looked] = ()
    spectra: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """By kind, mean decibels at even frequencies up to 1/2 cycle a pixel."""


def evaluation_report(result: Mapping[str, Any], shown: Exhibits) -> str:
    """The page as HTML text, of about 3 MB at most, from the result's JSON values."""
    rows = number_rows(result)
    uris = iter(inline_images(list(_pictures(shown)), PICTURES_LIMIT_BYTES))
    return render(
        "evaluation.html",
        result=result,
        verdict=verdict(result),
        headline=_headline(rows),
        facts=_facts(result, rows),
        rows=[_texts(row) for row in rows],
        meanings=[meaning(row) for row in rows if row.says_more],
        claims=[claim_sentence(claim) for claim in result["claims"]],
        compared=[(each, claim_sentence(each["claim"]), compare_rows(each)) for each in result["compare"]],
        detector=detector_meaning(result["detector"]) if result["detector"] else None,
        attackers=_attackers(result),
        controls=_controls(result),
        leaks=_leaks(result),
        robustness=robustness_rows(result),
        readings=_readings(result),
        charts=[_chart(row) for row in rows if row.says_more],
        curves=[*detector_panels(result), *([spectrum_panel(shown.spectra)] if shown.spectra else [])],
        # in the order of _pictures
        convincing=[(title, [_with_uris(picture, uris) for picture in group]) for title, group in _convincing(shown)],
        looked=[(seen, next(uris), _said(seen.logit)) for seen in shown.looked],
        galleries=[(kind, _in_rows([next(uris) for _ in pictures])) for kind, pictures in shown.galleries.items()],
        settings=_settings(result, rows),
        citation=citation(result, rows),
        read_more=READ_MORE,
    )


def _convincing(shown: Exhibits) -> list[tuple[str, Sequence[Shown]]]:
    return [("Most convincing", shown.most_convincing), ("Least convincing", shown.least_convincing)]


def _pictures(shown: Exhibits) -> Iterator[Pixels]:
    """Every picture once; all are encoded alike, so that none looks worse for its encoding."""
    for _, group in _convincing(shown):
        for one in group:
            yield from (picture for picture in (one.source, one.fake, one.cycled) if picture is not None)
    for seen in shown.looked:
        yield seen.picture
    for pictures in shown.galleries.values():
        yield from pictures


def _with_uris(one: Shown, uris: Iterator[str]) -> tuple[str, str, list[tuple[str, str]]]:
    """File, what was said of it, and its pictures with their words."""
    kinds = (("source", one.source), ("generated", one.fake), ("cycled", one.cycled))
    return one.file, _said(one.logit), [(kind, next(uris)) for kind, picture in kinds if picture is not None]


def _said(logit: float) -> str:
    return f"taken for {'generated' if logit > 0 else 'real'} ({logit:+.1f})"


def _in_rows(uris: Sequence[str]) -> list[Sequence[str]]:
    return [uris[start : start + GALLERY_COLUMNS] for start in range(0, len(uris), GALLERY_COLUMNS)]


def _chart(row: Row) -> Panel:
    return Panel(title=f"{row.title}, {row.features}", plot=whisker(row), caption="")


def _texts(row: Row) -> tuple[str, str, str, str, str]:
    floor = "" if row.floor is None else f"{figure(row.floor[1])} to {figure(row.floor[2])}"
    return f"{row.title}, {row.features}", figure(row.value), f"{figure(row.low)} to {figure(row.high)}", floor, row.images


def _headline(rows: Sequence[Row]) -> str | None:
    """The meaning of the number that says most: R, else the first."""
    chosen = next((row for row in rows if row.key == "r"), next(iter(rows), None))
    return meaning(chosen) if chosen else None


def _facts(result: Mapping[str, Any], rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    """Title, value, and what stands small beside it: the attackers and the headline numbers of the first features."""
    facts = []
    if detector := result["detector"]:
        facts.append(("Told right", f"{detector['accuracy']:.1%}", detector["name"]))
        facts.append(("AUC", f"{detector['auc']:.3f}", "0.5 is a coin"))
    first = rows[0].features if rows else ""
    facts += [(row.title, figure(row.value), row.features) for row in rows if row.features == first and row.says_more]
    facts.append(("Leaks", str(len(result["leaks"])), "found"))
    return facts


def _attackers(result: Mapping[str, Any]) -> list[tuple[str, str, str, str, str, str, str]]:
    return [
        (
            each["name"],
            f"{each['image_size_px']} px",
            f"{each['accuracy']:.1%}",
            f"{each['interval'][0]:.1%} to {each['interval'][1]:.1%}",
            f"{each['auc']:.3f}",
            thousands(each["chosen_folds"]),
            duration(each["seconds"]),
        )
        for each in result["attackers"]
    ]


def _controls(result: Mapping[str, Any]) -> list[tuple[str, str, str, str, str, str]]:
    return [
        (
            each["name"],
            each["detail"],
            thousands(each["n"]),
            "" if each["auc"] is None else f"{each['auc']:.3f}",
            f"{each['p_value']:.2g}",
            "told apart" if each["told_apart"] else "not told apart",
        )
        for each in result["controls"]
    ]


def _readings(result: Mapping[str, Any]) -> list[tuple[str, str, str, str, str, str]]:
    return [
        (
            f"{each['view']}, {each['features']}",
            f"{each['share']:.1%}",
            f"{each['interval'][0]:.1%} to {each['interval'][1]:.1%}",
            f"{each['sources_share']:.1%}",
            f"{each['reals_share']:.1%}",
            f"{each['accuracy']:.1%}",
        )
        for each in result["reads_as_target"]
    ]


def _leaks(result: Mapping[str, Any]) -> list[tuple[str, str, str, str, str]]:
    return [
        (
            each["kind"],
            each["detail"],
            "" if each["effect"] is None else f"{each['effect']:.0%}",
            "" if each["p_value"] is None else f"{each['p_value']:.1g}",
            "spoils a detector's number" if each["spoils_detector"] else "is borne in mind",
        )
        for each in result["leaks"]
    ]


def _settings(result: Mapping[str, Any], rows: Sequence[Row]) -> list[tuple[str, list[tuple[str, str]]]]:
    resizes = {row.features: row.resize for row in rows}
    judged = [
        ("generated images", f"{thousands(result['n_fake'])} in {result['fake_dir']}"),
        ("real images", f"{thousands(result['n_real'])} in {result['real_dir']}"),
        ("source images", str(result["source_dir"] or "not given")),
        ("intervals", "95%, over images" + (", few resamples (quick)" if result["quick"] else "")),
        ("seed", str(result["seed"])),
        ("time", duration(result["seconds"])),
    ]
    features = [(name, f"{FEATURES.get(name, name)}; pictures: {resize}") for name, resize in resizes.items()]
    machine = dict(result["environment"])
    packages = machine.pop("packages", {})
    versions = [(name, str(version)) for name, version in packages.items()]
    rest = [(key.replace("_", " "), str(value)) for key, value in machine.items() if value is not None]
    tables = [("Images", judged), ("Features", features), ("Versions", versions), ("Machine", rest)]
    if detector := result["detector"]:
        detection = [("protocol", detector["protocol"]), ("judged", f"{thousands(detector['n'])} images, each once")]
        detection.append(("image size", f"{detector['image_size_px']} px"))
        detection.append(("test", "one permutation test of the maximum over all attackers, told apart at p of at most 0.001"))
        tables.insert(1, ("Detector", detection))
    return tables


def citation(result: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """A sentence for a paper: no number without what it was measured with."""
    version = result["environment"]["packages"]["fruitgan"]
    said = [f"{thousands(result['n_fake'])} generated against {thousands(result['n_real'])} real images"]
    if detector := result["detector"]:
        low, high = detector["interval"]
        said.append(
            f"{detector['name']} told {detector['accuracy']:.1%} right (95% interval {low:.1%} to {high:.1%}, "
            f"n = {thousands(detector['n'])}, AUC {detector['auc']:.3f}, p = {detector['p_value']:.2g})"
        )
    else:
        said.append("no detector's number")
    said += [
        f"{row.title} ({row.features} features) {figure(row.value)} ({figure(row.low)} to {figure(row.high)})"
        for row in rows
        if row.says_more
    ]
    return f"Evaluated with fruitgan {version} (evaluate, seed {result['seed']}): {'; '.join(said)}."
