"""The evaluation's report: one self-contained page with the pictures, each number with its meaning, and what spoils it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from fruitgan.images import Pixels
from fruitgan.report.page import duration, inline_images, number, render, thousands

PICTURES_LIMIT_BYTES = 3_000_000
GALLERY_COLUMNS = 4

TITLES = {
    "kid": "KID x 100",
    "fid": "FID",
    "kernel_inception_distance_mean": "KID x 100",
    "frechet_inception_distance": "FID",
    "kid-subsets": "KID x 100, subsets",
    "fid-infinity": "FID, infinite",
    "r": "R",
}
UNITS = {
    "colour-lab": "colour distance, Lab",
    "spectrum": "spectrum, dB",
    "spectrum-high": "spectrum above 3/8, dB",
    "upsampling-peaks": "upsampling peaks, dB",
    "background": "background change, Lab",
    "nearest-training": "nearest training image, ratio",
}
"""Titles of the numbers that have a unit, for the table."""
FEATURES = {
    "fruit-embed": "a small network of our own, trained on real apples and oranges in false colours: shape and texture",
    "random": "five fixed random networks, which see texture and contrasts of colour",
    "colour": "histograms and moments of Lab colours, whatever they show",
    "inception": "the network of published FIDs and KIDs",
}
SEEN = {
    "fruit-embed": "fruit-embed features (shape and texture)",
    "random": "random features (texture and colour)",
    "colour": "colour features (colours alone)",
}
KID = "KID x 100"
FID = "FID"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One number for people; KIDs are times 100."""

    key: str
    title: str
    features: str
    value: float
    low: float
    high: float
    floor: tuple[float, float, float] | None
    """Value and interval of real images against real ones."""
    floor_images: int | None
    """How many real images each half of the floor had."""
    at_size: float | None
    """The value with as few images as a half of the floor."""
    images: str
    resize: str

    @property
    def says_more(self) -> bool:
        """Whether its meaning says more than its line of the table does."""
        return self.title in (KID, FID, TITLES["r"])


def number_rows(result: Mapping[str, Any]) -> list[Row]:
    """The numbers of an evaluation's JSON: distances in its order, ratios, then what has no floor."""
    return [*_distance_rows(result), *_ratio_rows(result), *_other_rows(result)]


def _distance_rows(result: Mapping[str, Any]) -> Iterator[Row]:
    for key, floor in result["floor"].items():
        entry = result[key]
        name = key if key in TITLES else key.removesuffix(f"_{entry['features']}")
        title = TITLES.get(name) or UNITS.get(name, name)
        scale = 100 if title.startswith(KID) else 1
        at_size = floor["value_at_size"]
        yield Row(
            key=key,
            title=title,
            features=entry["features"],
            value=scale * entry["value"],
            low=scale * entry["interval"][0],
            high=scale * entry["interval"][1],
            floor=(scale * floor["value"], scale * floor["interval"][0], scale * floor["interval"][1]),
            floor_images=floor["n_real"],
            at_size=None if at_size is None else scale * at_size,
            images=f"{thousands(entry['n_fake'])} generated, {thousands(entry['n_real'])} real",
            resize=entry["resize"],
        )


def _ratio_rows(result: Mapping[str, Any]) -> Iterator[Row]:
    for key, entry in result.items():
        if (key == "r" or key.startswith("r_")) and isinstance(entry, Mapping):
            yield Row(
                key=key,
                title=TITLES["r"],
                features=entry["features"],
                value=entry["value"],
                low=entry["interval"][0],
                high=entry["interval"][1],
                floor=None,
                floor_images=None,
                at_size=None,
                images=f"{thousands(entry['n_fake'])} generated, {thousands(entry['n_real'])} real, "
                f"{thousands(entry['n_source'])} source",
                resize=entry["resize"],
            )


def _other_rows(result: Mapping[str, Any]) -> Iterator[Row]:
    """What has no floor: the numbers of pairs and of training images."""
    for key, entry in result.items():
        is_number = isinstance(entry, Mapping) and {"value", "interval", "details"} <= entry.keys()
        if not is_number or key in result["floor"] or "source_value" in entry:
            continue
        yield Row(
            key=key,
            title=UNITS.get(key, key),
            features=entry["features"],
            value=entry["value"],
            low=entry["interval"][0],
            high=entry["interval"][1],
            floor=None,
            floor_images=None,
            at_size=None,
            images=f"{thousands(entry['n_fake'])} generated",
            resize=entry["resize"],
        )


def claim_sentence(claim: Mapping[str, Any]) -> str:
    """What may be said, and which features say so; or that nothing may be."""
    says = [
        f"{' and '.join(claim[kind])} {verb}"
        for kind, verb in (("agreeing", "say so"), ("contrary", "say the contrary"), ("undecided", "cannot tell"))
        if claim[kind]
    ]
    evidence = "; ".join(says)
    if claim["holds"] is True:
        return f"{claim['claim'].capitalize()}: {evidence}."
    if claim["holds"] is False:
        return f"It does not hold that {claim['claim']}: {evidence}."
    return f"No claim is made whether {claim['claim']}, for which two kinds of features must agree: {evidence}."


def meaning(row: Row) -> str:
    """What a number says, in a sentence or three."""
    value, low, high = figure(row.value), figure(row.low), figure(row.high)
    start = f"{row.title} on {SEEN.get(row.features, f'{row.features} features')} is {value} (95% interval {low} to {high})"
    if row.title == "R":
        if row.value < 0:
            return f"{start}: nothing is left of the distance between the sources and the real images."
        rest = "0 is perfect, 1 has changed nothing that counts, and above 1 it would have been better not to translate."
        return f"{start}: {row.value:.0%} of the distance between the sources and the real images is left. {rest}"
    if row.floor is None:
        return f"{start}."
    floor_value, floor_low, floor_high = map(figure, row.floor)
    if row.title == KID:
        verdict = (
            "lies above that, so these features tell them apart" if row.low > 0 else "reaches that, so these features do not"
        )
        return (
            f"{start}. A perfect generator scores 0 on average, and the interval {verdict}; two random halves of the real "
            f"images ({row.floor_images} each) score {floor_low} to {floor_high}."
        )
    if row.at_size is not None:
        return (
            f"{start}. It comes out too high where images are few: two halves of the real images ({row.floor_images} each) are "
            f"{floor_value} apart, though both are real, and the generated images are {figure(row.at_size)} from as many. "
            f"Compare it with numbers of the same images and features alone."
        )
    return f"{start}. Two halves of the real images ({row.floor_images} each) score {floor_value}."


def detector_meaning(detector: Mapping[str, Any]) -> str:
    """What a detector's accuracy says."""
    low, high = detector["interval"]
    sure = "it is no better than guessing" if low <= detector["chance"] else "it tells them apart better than a guess would"
    return (
        f"The detector {detector['name']} told {detector['accuracy']:.1%} of {thousands(detector['n'])} images right "
        f"(95% interval {low:.1%} to {high:.1%}), where guessing gives {detector['chance']:.0%}: {sure} "
        f"(p = {detector['p_value']:.2g}, AUC {detector['auc']:.3f}). The nearer to guessing, the better the generated images. "
        f"It was {detector['protocol']}."
    )


def figure(value: float) -> str:
    """Three significant digits, and no more than three behind the point; what rounds to nothing is 0."""
    text = number(value) if abs(value) >= 1 else f"{value:.3f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def evaluation_report(result: Mapping[str, Any], galleries: Mapping[str, Sequence[Pixels]]) -> str:
    """The page as HTML text, of about 4 MB at most."""
    rows = number_rows(result)
    return render(
        "evaluation.html",
        result=result,
        rows=[_texts(row) for row in rows],
        headline=_headline(result, rows),
        facts=_facts(result, rows),
        meanings=[meaning(row) for row in rows if row.says_more],
        claims=[claim_sentence(claim) for claim in result["claims"]],
        detector=detector_meaning(result["detector"]) if result["detector"] else None,
        charts=[
            (f"{row.title}, {row.features}", _whisker(row), _whisker_caption(row))
            for row in rows
            if row.floor or row.title == TITLES["r"]
        ],
        galleries=_galleries(galleries),
        settings=_settings(result, rows),
    )


def _texts(row: Row) -> tuple[str, str, str, str, str]:
    floor = "" if row.floor is None else f"{figure(row.floor[1])} to {figure(row.floor[2])}"
    return f"{row.title}, {row.features}", figure(row.value), f"{figure(row.low)} to {figure(row.high)}", floor, row.images


def _headline(result: Mapping[str, Any], rows: Sequence[Row]) -> str:
    ratio = next((row for row in rows if row.key == "r"), None)
    kid = next((row for row in rows if row.title == KID), None)
    chosen = ratio or kid or (rows[0] if rows else None)
    return meaning(chosen) if chosen else "No number was asked for."


def _facts(result: Mapping[str, Any], rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    """Title, value, and what stands small beside it."""
    first = rows[0].features if rows else ""
    facts = [(f"{row.title}", figure(row.value), row.features) for row in rows if row.features == first]
    if result["detector"]:
        facts.append(("Detector accuracy", f"{result['detector']['accuracy']:.1%}", result["detector"]["name"]))
    return facts


def _galleries(galleries: Mapping[str, Sequence[Pixels]]) -> list[tuple[str, list[list[str]]]]:
    """For each kind rows of picture URIs; all kinds encoded alike, so that none looks worse for its encoding."""
    uris = iter(inline_images([picture for pictures in galleries.values() for picture in pictures], PICTURES_LIMIT_BYTES))
    tables = []
    for kind, pictures in galleries.items():
        mine = [next(uris) for _ in pictures]
        tables.append((kind, [mine[start : start + GALLERY_COLUMNS] for start in range(0, len(mine), GALLERY_COLUMNS)]))
    return tables


def _settings(result: Mapping[str, Any], rows: Sequence[Row]) -> list[tuple[str, list[tuple[str, str]]]]:
    resizes = {row.features: row.resize for row in rows}
    judged = [
        ("generated images", f"{result['n_fake']:,} in {result['fake_dir']}"),
        ("real images", f"{result['n_real']:,} in {result['real_dir']}"),
        ("source images", str(result["source_dir"] or "not given")),
        ("intervals", "95%, by the bootstrap over images" + (", few resamples (quick)" if result["quick"] else "")),
        ("seed", str(result["seed"])),
        ("time", duration(result["seconds"])),
    ]
    features = [(name, f"{FEATURES.get(name, name)}; pictures: {resize}") for name, resize in resizes.items()]
    return [("Images", judged), ("Features", features)]


WIDTH_PX, HEIGHT_PX, MARGIN_PX = 440, 84, 16


def _whisker(row: Row) -> Markup:
    """The value with its interval, over the band of the floor (or over 0 to 1, for R), as inline SVG."""
    low_band, high_band = (row.floor[1], row.floor[2]) if row.floor else (0.0, 1.0)
    start = min(0.0, row.low, low_band)
    end = max(row.high, high_band, start + 1e-9)
    width = WIDTH_PX - 2 * MARGIN_PX

    def x(value: float) -> str:
        return f"{MARGIN_PX + width * (value - start) / (end - start):.1f}"

    band = f"{max(2.0, float(x(high_band)) - float(x(low_band))):.1f}"
    marks = "".join(
        f'<text x="{x(value)}" y="76" text-anchor="{anchor}" font-size="11" fill="var(--plot-ink)">{figure(value)}</text>'
        for value, anchor in ((start, "start"), (end, "end"))
    )
    return Markup(
        f'<svg class="plot" role="img" aria-label="{figure(row.value)}, interval {figure(row.low)} to {figure(row.high)}" '
        f'viewBox="0 0 {WIDTH_PX} {HEIGHT_PX}">'
        f'<rect x="{x(low_band)}" y="12" width="{band}" height="44" fill="var(--line-3)" opacity=".28"/>'
        f'<line x1="{MARGIN_PX}" x2="{WIDTH_PX - MARGIN_PX}" y1="60" y2="60" stroke="var(--plot-grid)"/>'
        f'<line x1="{x(0)}" x2="{x(0)}" y1="10" y2="60" stroke="var(--plot-ink)" stroke-dasharray="2 2"/>'
        f'<line x1="{x(row.low)}" x2="{x(row.high)}" y1="34" y2="34" stroke="var(--line-1)" stroke-width="3"/>'
        f'<circle cx="{x(row.value)}" cy="34" r="6" fill="var(--line-1)"/>{marks}</svg>'
    )


def _whisker_caption(row: Row) -> str:
    if row.floor is None:
        return "Dot and line: R with its interval. Band: from perfect (0) to nothing done (1)."
    band = f"the real images among themselves, in halves of {row.floor_images}"
    return f"Dot and line: the generated images with their interval. Band: {band}."
