"""The report of an evaluation: one self-contained page with the verdict, numbers, pictures, and how to check and cite it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fruitgan.evaluate import wording
from fruitgan.evaluate.exhibits import Exhibits, detector_panels, spectrum_panel
from fruitgan.evaluate.wording import SHARED, Row
from fruitgan.progress import duration
from fruitgan.report.page import inline_images, render

PICTURES_LIMIT_BYTES = 2_200_000
FOLDERS = ("fake_dir", "real_dir", "source_dir")
READ_MORE = (
    "KID: Binkowski, Sutherland, Arbel, Gretton: Demystifying MMD GANs. ICLR 2018.",
    "FID: Heusel, Ramsauer, Unterthiner, Nessler, Hochreiter: GANs trained by a two time-scale update rule. NeurIPS 2017.",
    "Classifier two-sample tests (C2ST): Lopez-Paz, Oquab: Revisiting classifier two-sample tests. ICLR 2017.",
    "Permutation p-values: Phipson, Smyth: Permutation p-values should never be zero. SAGMB 2010.",
)

Cells = Sequence[tuple[str, ...]]


def evaluation_report(result: Mapping[str, Any], shown: Exhibits) -> str:
    """The page as HTML text, of about 3 MB at most, from the result's JSON values."""
    result = without_places(result)
    rows = wording.number_rows(result)
    said = wording.meanings(rows)
    galleries = shown.galleries.items()
    pictures = [picture for group in shown.cards.values() for one in group for picture in one.pictures.values()]
    pictures += [picture for _, gallery in galleries for picture in gallery]
    pictures += [picture for row in shown.sides for picture in row.values()]
    uris = iter(inline_images(pictures, PICTURES_LIMIT_BYTES))  # all alike, so that none looks worse for its encoding
    return render(
        "evaluation.html",
        result=result,
        verdict=wording.verdict(result),
        headline=next(iter(said.values()), None),  # of R, if there is one
        trained_against=wording.trained_against_sentence(result),
        facts=_facts(result, rows),
        rows=[(f"{row.title}, {row.judge}", *row.texts, row.images) for row in rows],
        meanings=list(said.values()),
        claims=[wording.claim_sentence(claim) for claim in result["claims"]],
        compared=[(each, wording.claim_sentence(each["claim"]), wording.compare_rows(each)) for each in result["compare"]],
        detector=wording.detector_details(result) if result["detector"] else None,
        **_tables(result),
        curves=[*detector_panels(result), spectrum_panel(shown.spectra)],
        # in the order of the pictures
        cards=[
            (title, [(one.file, _answer(one.logit), [(kind, next(uris)) for kind in one.pictures]) for one in group])
            for title, group in shown.cards.items()
        ],
        galleries=[(kind, [next(uris) for _ in gallery]) for kind, gallery in galleries],
        sides=[[(kind, next(uris)) for kind in row] for row in shown.sides],
        names=[
            each[key]
            for key, each in [("first", each) for each in result["compare"][:1]] + [("run", each) for each in result["compare"]]
        ],
        settings=_settings(result, rows),
        citation=citation(result, rows),
        read_more=READ_MORE,
    )


def _tables(result: Mapping[str, Any]) -> dict[str, Cells]:
    """The rows of the page's tables, by the template's names for them."""
    scores: dict[str, Any] = {"accuracy": "{:.1%}", "interval": wording.percent_interval, "auc": "{:.3f}"}
    depths = [row | {"shows": wording.STRIDES.get(row["stride"], "")} for row in result["by_depth"]]
    changes = [row | {"change": wording.change_in_words(row["change"], row["amount"])} for row in result["robustness"]]
    one_class = {"accuracy_reals_changed": "{:.1%}", "accuracy_generated_changed": "{:.1%}"}
    said = ("cannot be distinguished", "distinguished"), ("leaves a detector's number valid", "spoils a detector's number")
    return {
        "detectors": _cells(
            result["detectors"], name="{}", image_size_px="{} px", **scores, chosen_folds="{:,}", seconds=duration
        ),
        "depths": _cells(depths, name="{}", stride="{}", shows="{}", **scores),
        "robustness": _cells(changes, change="{}", **scores, **one_class),
        "learning": _cells(result["learning_curve"], n_training="{:,}", **scores),
        "controls": _cells(
            result["controls"],
            **{"name": "{}", "detail": "{}", "n": "{:,}", "auc": "{:.3f}", "p_value": "{:.2g}"},
            distinguished=lambda yes: said[0][yes],
        ),
        "leaks": _cells(
            result["leaks"],
            **{"kind": "{}", "detail": "{}", "effect": "{:.0%}", "p_value": "{:.1g}"},
            spoils_detector=lambda yes: said[1][yes],
        ),
    }


def without_places(result: Mapping[str, Any]) -> dict[str, Any]:
    """The result with absolute folders shortened to their last two names, in every text: a page may be passed on."""
    folders = [Path(result[key]) for key in FOLDERS if result.get(key)]
    parents = {str(folder.parent.parent).rstrip("/\\") for folder in folders if folder.is_absolute()} - {""}
    prefixes = re.compile(
        "|".join(f"{re.escape(parent)}[/\\\\]" for parent in sorted(parents, key=len, reverse=True)) or "(?!)"
    )

    def shortened(value: Any) -> Any:
        if isinstance(value, str):
            return prefixes.sub("", value)
        if isinstance(value, Mapping):
            return {key: shortened(entry) for key, entry in value.items()}
        return [shortened(entry) for entry in value] if isinstance(value, (list, tuple)) else value

    found: dict[str, Any] = shortened(result)
    return found


def _answer(logit: float) -> str:
    return f"taken for {'generated' if logit > 0 else 'real'} ({logit:+.1f})"


def _facts(result: Mapping[str, Any], rows: Sequence[Row]) -> Cells:
    """Title, value, and small print: the detectors and the headline numbers of the first features."""
    facts = []
    if detector := result["detector"]:
        facts.append(("Test accuracy", f"{detector['accuracy']:.1%}", detector["name"]))
        facts.append(("AUC", f"{detector['auc']:.3f}", "0.5 is a coin"))
    first = rows[0].features if rows else ""
    facts += [(row.title, wording.figure(row.value), row.judge) for row in rows if row.features == first and row.says_more]
    facts.append(("Leaks", str(len(result["leaks"])), "found"))
    return facts


def _cells(entries: Sequence[Mapping[str, Any]], **columns: str | Callable[[Any], str]) -> Cells:
    """A row an entry: of each column's key the value as its format or function writes it; the first is marked if it shares
    training, and None is empty.
    """
    rows = []
    for entry in entries:
        values = [(entry[key], form) for key, form in columns.items()]
        row = ["" if value is None else form(value) if callable(form) else form.format(value) for value, form in values]
        rows.append((row[0] + (SHARED if entry.get("shares_training") else ""), *row[1:]))
    return rows


def _settings(result: Mapping[str, Any], rows: Sequence[Row]) -> list[tuple[str, list[tuple[str, str]]]]:
    against = result["trained_against"]
    images = [
        ("generated images", f"{result['n_fake']:,} in {result['fake_dir']}"),
        ("trained against", "not known" if against is None else ", ".join(against) or "no pretrained network"),
        ("real images", f"{result['n_real']:,} in {result['real_dir']}"),
        ("source images", str(result["source_dir"] or "not given")),
        ("intervals", "95%, over images" + (", few resamples (quick)" if result["quick"] else "")),
        ("random seed", str(result["seed"])),
        ("time", duration(result["seconds"])),
    ]
    resizes = {row.features: row.resize for row in rows}
    features = [(name, f"{wording.FEATURES.get(name, name)}; pictures: {resize}") for name, resize in resizes.items()]
    detection = []
    if detector := result["detector"]:
        detection = [
            ("protocol", detector["protocol"]),
            ("test images", f"{detector['n']:,}, each once"),
            ("images", f"every image {detector['resize']}"),
            ("test", "one permutation test of the maximum over all detectors, distinguished at p of at most 0.001"),
        ]
    machine = dict(result["environment"])
    versions = [(name, str(version)) for name, version in machine.pop("packages", {}).items()]
    rest = [(key.replace("_", " "), str(value)) for key, value in machine.items() if value is not None]
    tables = {"Images": images, "Detector": detection, "Features": features, "Versions": versions, "Machine": rest}
    return [(title, table) for title, table in tables.items() if table]


def citation(result: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """A sentence for a paper: no number without what it was measured with."""
    version = result["environment"]["packages"]["fruitgan"]
    parts = [f"{result['n_fake']:,} generated against {result['n_real']:,} real images"]
    if detector := result["detector"]:
        parts.append(
            f"{detector['name']} has a test accuracy of {detector['accuracy']:.1%} (95% interval "
            f"{wording.percent_interval(detector['interval'])}, n = {detector['n']:,}, AUC {detector['auc']:.3f}, "
            f"p = {detector['p_value']:.2g})"
        )
    else:
        parts.append("no detector's number")
    for row in rows:
        if row.says_more:
            value, interval, _ = row.texts
            parts.append(f"{row.title} ({row.features} features) {value} ({interval})")
    return f"Evaluated with fruitgan {version} (evaluate, seed {result['seed']}): {'; '.join(parts)}."
