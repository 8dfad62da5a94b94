"""Words for the numbers of an evaluation, row by row and in sentences: for the table, the terminal and the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fruitgan.evaluate.settings import SHAPELESS
from fruitgan.measures.statistics import ALPHA
from fruitgan.report.page import number

KID, FID, R = "KID x 100", "FID", "R"
TITLES = {
    "kid": KID,
    "fid": FID,
    "kernel_inception_distance_mean": KID,
    "frechet_inception_distance": FID,
    "kid-subsets": "KID x 100, subsets",
    "r": R,
    "colour-lab": "colour distance, Lab",
    "spectrum": "spectrum, dB",
    "upsampling-peaks": "upsampling peaks, dB",
    "background": "background change, Lab",
    "nearest-training": "nearest training image, ratio",
    "recognised": "fakes recognised",
    "accuracy": "accuracy of the detectors",
}
FEATURES = {
    "fruit-embed": "a small network of our own, trained on real apples and oranges in false colours: shape and texture",
    "random": "five fixed random networks, which see texture and contrasts of colour",
    "colour": "histograms and moments of Lab colours, whatever they show",
    "inception": "the network of published FIDs and KIDs",
    "lab-distribution": "the Lab colours of all pixels",
    "power-spectrum": "the power of the brightness over frequency, the mean over all directions",
}
CHANGES = {
    "jpeg": "JPEG, quality {:g}",
    "blur": "blurred, sigma {:g} px",
    "resize": "resized to {:.0%} and back",
    "crop": "cropped to {:.0%} of the side",
    "noise": "noise of {:g} grey levels",
    "none": "as they are",
}
STRIDES = {4: "colours", 8: "textures", 16: "parts of things"}
"""What a backbone's features show, by how many px one of their places stands for."""
SHARED = " (shared training)"
LEAST_P = 0.0001
"""A smaller p of a normal distribution that some hundred resamples were fitted with says no more than that it is small."""


@dataclass(frozen=True, kw_only=True)
class NumberRow:
    """One number for people; KIDs are times 100."""

    title: str
    features: str
    judge: str
    """The features, marked where they share training with a network that judged the generator."""
    value: float
    low: float
    high: float
    floor: Mapping[str, Any] | None
    """Of real images against real ones, as in the result but for the scale."""
    images: str
    resize: str

    @property
    def says_more(self) -> bool:
        """Whether its meaning says more than its line of the table does."""
        return self.title in (KID, FID, R)

    @property
    def texts(self) -> tuple[str, str, str]:
        """Value, interval and floor; a biased number's is of fewer images, so that the generated ones' of as many stands by."""
        floor = "" if self.floor is None else "{} to {}".format(*map(figure, self.floor["interval"]))
        if self.floor is not None and self.floor["value_at_size"] is not None:
            floor += f" (from {self.floor['n_real']:,} each; generated: {figure(self.floor['value_at_size'])})"
        return figure(self.value), f"{figure(self.low)} to {figure(self.high)}", floor

    @property
    def cells(self) -> tuple[str, ...]:
        """Of the report's table."""
        return f"{self.title}, {self.judge}", *self.texts, self.images


def number_rows(result: Mapping[str, Any]) -> list[NumberRow]:
    """The numbers of an evaluation's JSON: distances in its order, ratios, then those of pairs and of training images."""
    floors = result["floor"]
    found = {key: entry for key, entry in result.items() if isinstance(entry, Mapping) and "n_fake" in entry}
    others = sorted((key for key in found if key not in floors), key=lambda key: "n_source" not in found[key])
    return [_row(key, found[key], floors.get(key)) for key in (*floors, *others)]


def _row(key: str, entry: Mapping[str, Any], floor: Mapping[str, Any] | None) -> NumberRow:
    features = entry["features"]
    asked = features.partition(":")[0]  # `clip` of `clip:vit-b-32`, as which it may have been asked for
    name = key if key in TITLES else key.removesuffix(f"_{features}").removesuffix(f"_{asked}")
    title = TITLES.get(name, name)
    scale = 100 if title.startswith(KID) else 1
    if floor is not None:
        floor = {**floor, "value": scale * floor["value"], "interval": [scale * end for end in floor["interval"]]}
    counted = ["fake", *(["real"] if floor or "n_source" in entry else []), *(["source"] if "n_source" in entry else [])]
    images = (f"{entry[f'n_{kind}']:,} {'generated' if kind == 'fake' else kind}" for kind in counted)
    value, low, high = (scale * number for number in (entry["value"], *entry["interval"]))
    return NumberRow(
        title=title,
        features=features,
        judge=features + (SHARED if entry.get("shares_training") else ""),
        value=value,
        low=low,
        high=high,
        floor=floor,
        images=", ".join(images),
        resize=entry["resize"],
    )


def claim_sentence(claim: Mapping[str, Any]) -> str:
    """The claim with the features that agree; or that none is made."""
    verbs = {
        "agreeing": ("says so", "say so"),
        "contrary": ("says the contrary", "say the contrary"),
        "undecided": ("cannot tell",) * 2,
        "dependent": ("shares training with what judged the generator, or may",) * 2,
    }
    says = [f"{_listed(claim[kind])} {forms[len(claim[kind]) > 1]}" for kind, forms in verbs.items() if claim[kind]]
    evidence = "; ".join(says)
    if claim["holds"] is not None:
        start = claim["claim"].capitalize() if claim["holds"] else f"It does not hold that {claim['claim']}"
        return f"{start}: {evidence}."
    needed = "two kinds of features must agree"
    if len(blind := [name for name in claim["agreeing"] or claim["contrary"] if name in SHAPELESS]) > 1:
        needed += f", and {_listed(blind)} count as one"
    needed += ", one of them without shared training" if claim["dependent"] else ""
    return f"No claim is made whether {claim['claim']}, for which {needed}: {evidence}."


def _listed(names: Sequence[str]) -> str:
    """As in "random, colour and fruit-embed"."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def trained_against(result: Mapping[str, Any]) -> str:
    """The pretrained networks that judged the generator in training."""
    names = result["trained_against"]
    return "not known" if names is None else ", ".join(names) or "no pretrained network"


def trained_against_sentence(result: Mapping[str, Any]) -> str:
    """Which pretrained networks judged the generator in training, and which judges here share training with them."""
    sentence, sharing = f"The generator was trained against: {trained_against(result)}.", result["judges_sharing_training"]
    if not sharing:
        return sentence
    verb = "shares" if len(sharing) == 1 else "share"
    flatters = f"training data or weights with that, so the numbers marked{SHARED} flatter it."
    return f"{sentence} {_listed(sharing)} {verb} {flatters}"


def meanings(rows: Sequence[NumberRow]) -> dict[str, str]:
    """By title, what R, KID and FID say on all features together."""
    said = {R: _ratio_meaning, KID: _kid_meaning, FID: _fid_meaning}
    by_title = {title: [row for row in rows if row.title == title] for title in said}
    return {title: said[title](mine) for title, mine in by_title.items() if mine}


def _ratio_meaning(rows: Sequence[NumberRow]) -> str:
    left = ", ".join(f"{max(0, row.value):.0%} on {row.features}" for row in rows)
    return (
        f"R says how much of the distance between the sources and the real images is left: {left}. 0 is perfect, 1 has "
        "changed nothing that counts, and above 1 it would have been better not to translate."
    )


def _kid_meaning(rows: Sequence[NumberRow]) -> str:
    said = {
        1: "lies above that on {}, where the images can be distinguished",
        0: "holds it on {}, where it tells no difference",
        -1: "lies below it on {}, where the generated images are nearer to the real ones than others can be (copies?)",
    }
    on = {side: [row.features for row in rows if (row.low > 0) - (row.high < 0) == side] for side in said}
    parts = [said[side].format(_listed(names)) for side, names in on.items() if names]
    return f"{KID}: a perfect generator scores 0 on average; the interval {', and '.join(parts)}."


def _fid_meaning(rows: Sequence[NumberRow]) -> str:
    start = f"{FID} comes out too high where images are few: compare it with FIDs of as many images on the same features alone."
    biased = [(row, row.floor) for row in rows if row.floor and row.floor["value_at_size"] is not None]
    if not biased:
        return start
    pairs = (f"{figure(of['value_at_size'])} and {figure(of['value'])} on {row.features}" for row, of in biased)
    return f"{start} From {biased[0][1]['n_real']} images each, generated and real ones score {', '.join(pairs)}."


def detector_details(result: Mapping[str, Any]) -> str:
    """What stands behind the numbers of an evaluation's detector, which are of two different tests."""
    detector, rows = result["detector"], result["detectors"]
    test = "one permutation test of its AUC"
    if rows:
        best = max(rows, key=lambda row: row["held_out_auc"])
        test = (
            "another test, by permutation, of the largest AUC of all detectors, trained on one half of the images, tested on "
            f"the other ({best['held_out_auc']:.3f}, {best['name']})"
        )
    by_depth = [f"{STRIDES.get(row['stride'], row['stride'])} {row['auc']:.3f}" for row in result["by_depth"]]
    depths = f" What gives the images away, as AUC by depth: {', '.join(by_depth)}." if by_depth else ""
    low, high = detector["auc_interval"]
    return (
        f"AUC {detector['auc']:.3f} ({low:.3f} to {high:.3f}). p = {detector['p_value']:.2g} is of {test}. The nearer the "
        "accuracy is to the majority baseline, the better the generated images. The detector was "
        f"{detector['protocol']}; for {detector['name']} every image was {detector['resize']}.{depths}"
    )


def detector_name(result: Mapping[str, Any]) -> str:
    """Whose number an evaluation's detector is; where others won folds too, in how many the named one did."""
    name, won = result["detector"]["name"], {row["name"]: row["chosen_folds"] for row in result["detectors"]}
    folds = sum(won.values())
    return f"{name} in {won[name]} of {folds} folds" if won and won[name] < folds else str(name)


def verdict(result: Mapping[str, Any]) -> str:
    """Whether generated and real images can be distinguished, by which detector, and how sure that is."""
    detector = result["detector"]
    if detector is None:
        return f"Whether a detector distinguishes the generated images from real ones is not said: {result['withheld']}."
    low, high = detector["interval"]
    many = len(result["detectors"])
    shared = SHARED if detector.get("shares_training") else ""
    strongest = f"the strongest of {many} detectors in each fold ({detector_name(result).removesuffix(' folds')})"
    who = (strongest if many > 1 else f"the detector {detector['name']}") + shared
    accuracy = (
        f"{who} classifies {detector['accuracy']:.1%} of {detector['n']:,} images correctly (95% interval {low:.1%} "
        f"to {high:.1%}; majority baseline {detector['majority_baseline']:.0%})"
    )
    permuted = f"p = {detector['p_value']:.2g}, where {ALPHA:g} is asked"
    is_above = low > detector["majority_baseline"] or detector["auc_interval"][0] > 0.5
    if detector["p_value"] <= ALPHA:
        but = f" (the permutation test shows it, {permuted}; the accuracy, another test, does not)" if not is_above else ""
        return f"The generated images can be distinguished from real ones: {accuracy}{but}."
    if is_above:
        return (
            f"It is open whether the generated images can be distinguished from real ones, for two tests differ: {accuracy}, "
            f"AUC {detector['auc']:.3f}, which is better than chance; the permutation test gives {permuted}."
        )
    return f"The generated images cannot be distinguished from real ones here ({permuted}): {accuracy}."


def figure(value: float) -> str:
    """Three significant digits, and no more than three behind the point; what rounds to nothing is 0."""
    text = number(value) if abs(value) >= 1 else f"{value:.3f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def percent_interval(interval: Sequence[float]) -> str:
    """`75.5% to 85.7%`."""
    return f"{interval[0]:.1%} to {interval[1]:.1%}"


def change_in_words(row: Mapping[str, Any]) -> str:
    """`JPEG, quality 75`."""
    change, amount = row["change"], row["amount"]
    return CHANGES[change].format(amount) if change in CHANGES else f"{change} {amount:g}"


def compare_rows(comparison: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Number, of the first, of the run, difference, its interval, p and the test; KIDs times 100, shares in percent."""
    rows: list[tuple[str, ...]] = []
    for row in comparison["rows"]:
        is_share = row["name"] in ("recognised", "accuracy")
        scale, percent, points = (100, "%", " points") if is_share else (100 if row["name"] == "kid" else 1, "", "")
        numbers = (scale * x for x in (row["first"], row["value"], row["difference"], *row["interval"]))
        first, value, difference, low, high = (f"{x:.1f}" if is_share else figure(x) for x in numbers)
        name = f"{TITLES[row['name']]}, {row['features']}{SHARED if row.get('shares_training') else ''}"
        p_value = f"{row['p_value']:.2g}" if row["p_value"] >= LEAST_P else f"< {LEAST_P:g}"
        test = f"{row['test']}, {row['n']:,} pairs"
        rows.append((name, first + percent, value + percent, difference + points, f"{low} to {high}", p_value, test))
    return rows
