"""What the numbers of an evaluation say, row by row and in sentences: for the table, the terminal and the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fruitgan.measures.statistics import ALPHA
from fruitgan.report.page import number, thousands

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
    verbs = {
        "agreeing": ("says so", "say so"),
        "contrary": ("says the contrary", "say the contrary"),
        "undecided": ("cannot tell",) * 2,
    }
    says = [
        f"{' and '.join(claim[kind])} {several if len(claim[kind]) > 1 else one}"
        for kind, (one, several) in verbs.items()
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
    if detector["p_value"] <= ALPHA:
        sure = "it tells them apart"
    elif low <= detector["chance"]:
        sure = "it is no better than guessing"
    else:
        sure = f"better than a guess, but not beyond doubt, for which the one test of all attackers must give p <= {ALPHA:g}"
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


def verdict(result: Mapping[str, Any]) -> str:
    """The whole in one sentence: whether the two kinds can be told apart, by whom, how often, and how sure that is."""
    detector = result["detector"]
    if detector is None:
        return f"Whether a detector tells the generated images from real ones is not said: {result['withheld']}."
    low, high = detector["interval"]
    many = len(result["attackers"])
    who = f"{detector['name']}, the strongest of {many} attackers," if many > 1 else f"the detector {detector['name']}"
    right = (
        f"is right about {detector['accuracy']:.1%} of {thousands(detector['n'])} images (95% interval {low:.1%} to {high:.1%})"
    )
    guess = f"where guessing gives {detector['chance']:.0%}"
    if detector["p_value"] <= ALPHA:
        return f"The generated images can be told from real ones: {who} {right}, {guess}."
    doubt = f"(p = {detector['p_value']:.2g}, and {ALPHA:g} is asked)"
    return f"It is not shown that the generated images can be told from real ones {doubt}: {who} {right}, {guess}."


def robustness_rows(result: Mapping[str, Any]) -> list[tuple[str, str, str, str, str]]:
    """Change, accuracy, interval, AUC and average precision of the detector on changed images."""
    return [
        (
            change_in_words(row["change"], row["amount"]),
            f"{row['accuracy']:.1%}",
            f"{row['interval'][0]:.1%} to {row['interval'][1]:.1%}",
            f"{row['auc']:.3f}",
            f"{row['average_precision']:.3f}",
        )
        for row in result["robustness"]
    ]


def change_in_words(change: str, amount: float) -> str:
    """`JPEG, quality 75`."""
    words = {
        "jpeg": f"JPEG, quality {amount:g}",
        "blur": f"blurred, sigma {amount:g} px",
        "resize": f"resized to {amount:.0%} and back",
        "crop": f"cropped to {amount:.0%} of the side",
        "noise": f"noise of {amount:g} grey levels",
        "none": "as they are",
    }
    return words.get(change, f"{change} {amount:g}")


COMPARED = {"kid": KID, "fid": FID, "r": "R", "recognised": "fakes recognised", "accuracy": "accuracy of the attackers"}


def compare_rows(comparison: Mapping[str, Any]) -> list[tuple[str, str, str, str, str, str, str]]:
    """Number, of the first, of the run, difference, its interval, p and the test; KIDs times 100, shares in percent."""
    rows = []
    for row in comparison["rows"]:
        scale = 100 if row["name"] == "kid" else 1
        share = row["name"] in ("recognised", "accuracy")

        def text(value: float, scale: int = scale, share: bool = share) -> str:
            return f"{value:.1%}" if share else figure(scale * value)

        def points(value: float, scale: int = scale, share: bool = share) -> str:
            return f"{100 * value:.1f}" if share else figure(scale * value)

        rows.append(
            (
                f"{COMPARED[row['name']]}, {row['features']}",
                text(row["first"]),
                text(row["value"]),
                points(row["difference"]) + (" points" if share else ""),
                f"{points(row['interval'][0])} to {points(row['interval'][1])}",
                f"{row['p_value']:.2g}",
                f"{row['test']}, {thousands(row['n'])} pairs",
            )
        )
    return rows
