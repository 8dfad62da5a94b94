"""What a training log says, as panels: losses by kind, KID, the learning rate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fruitgan.report.page import number, thousands
from fruitgan.report.plots import Line, Panel, line_plot, smoothed
from fruitgan.train_gan.recipe import Clock, Schedule, constant
from fruitgan.train_gan.samples import JUDGE, UNTRANSLATED
from fruitgan.train_gan.settings import RunConfig

WEIGHT_SAMPLES = 64
LINES_TO_SMOOTH = 12
# The loss of a discriminator that answers every image alike, for each map: with the best such answer (0.5; bce 50%; hinge 0).
UNDECIDED = {"lsgan": 0.25, "bce": math.log(2), "hinge": 1.0}
COLOURS = 3
PEAKS_KEPT = 1.5
KNOWN_OBJECTIVES = {("fruitgan", "cyclegan"), ("fruitgan", "cut")}
"""By package and name: those whose terms are captioned here."""
KINDS = {
    "adversarial": ("Generators: adversarial", "How far the discriminators are from calling the fakes real."),
    "discriminator": ("Discriminators", "How often, and how surely, they are wrong about real and generated images."),
    "cycle": (
        "Generators: cycle",
        "How far a picture that went there and back lands from where it started: mean absolute difference on [-1, 1].",
    ),
    "identity": (
        "Generators: identity",
        "How much a generator changes what is already of its target domain: mean absolute difference on [-1, 1].",
    ),
    "mask_roughness": (
        "Generators: roughness of the masks",
        "How ragged the masks are that say what may change: mean difference of neighbouring pixels, down plus across.",
    ),
    "mask_area": ("Generators: area of the masks", "How much of a picture the masks let change, 0 to 1."),
    "nce": (
        "Generator: content",
        "How hard it is to tell where in the source a feature of the output belongs: half the cross entropy, in nats.",
    ),
    "identity_nce": (
        "Generator: identity by content",
        "The same for what is already of the target domain: half the cross entropy, in nats.",
    ),
}
"""Title and caption of the known kinds of losses, in the order of their panels."""
LABELS = {"ab": "{a} → {b}", "ba": "{b} → {a}", "a": "{a}", "b": "{b}"}
"""How their terms end: by direction, or by the domain of the images."""


class Story:
    """What a log is about, for the names and the levels of its curves."""

    def __init__(self, config: RunConfig) -> None:
        self.recipe, self.objective, self.discriminator = config.plan.recipe, config.plan.objective, config.plan.discriminator
        self.domains, self.total_steps, self.steps_per_epoch = config.domains, config.total_steps, config.steps_per_epoch

    @property
    def is_ours(self) -> bool:
        """Whether we know what the objective's terms mean; another package's may be anything."""
        return (self.objective.package, self.objective.name) in KNOWN_OBJECTIVES

    @property
    def gan_mode(self) -> str:
        return str(self.objective.options.get("gan_mode", "")) if self.is_ours else ""

    @property
    def maps(self) -> int | None:
        """How many logit maps the discriminator gives, whose losses are summed; None where it is another package's."""
        options = self.discriminator.options
        if self.discriminator.package != "fruitgan":
            return None
        if "strides" in options:
            return len(set(str(options["strides"]).split(","))) + int(options["pixel_scales"])
        return int(options.get("scales", 1))

    @property
    def undecided(self) -> float | None:
        """What a discriminator loses that cannot tell, if that is known."""
        return UNDECIDED[self.gan_mode] * self.maps if self.gan_mode in UNDECIDED and self.maps else None

    def clock(self, step: int) -> Clock:
        return Clock(step, self.total_steps, self.steps_per_epoch)


@dataclass(frozen=True)
class Track:
    """One term of the losses over the log: as it is, and smoothed (the same list where there is too little to smooth)."""

    label: str
    steps: list[int]
    values: list[float]
    smooth: list[float]


@dataclass(frozen=True, kw_only=True)
class Curves(Panel):
    """A panel of terms over the log."""

    tracks: Sequence[Track]


def loss_panels(entries: Sequence[Mapping[str, Any]], story: Story) -> list[Curves]:
    """A panel for each kind of loss in the log; none for an empty log."""
    terms = sorted({term for entry in entries for term in entry["losses"]})
    order = list(KINDS)
    stems = sorted({_stem(term) for term in terms}, key=lambda stem: (order.index(stem) if stem in KINDS else len(order), stem))
    weights = story.recipe.weights if story.is_ours and _as_planned(entries, story) else {}
    panels = []
    for index, stem in enumerate(stems, 1):
        tracks = [_track(term, entries, story, weights.get(stem)) for term in terms if _stem(term) == stem]
        if any(value for track in tracks for value in track.values):  # else it weighs nothing, as the settings say
            panels.append(_loss_panel(f"loss-{index}", stem, tracks, story, weights.get(stem), entries[-1]["step"]))
    return panels


def kid_panels(entries: Sequence[Mapping[str, Any]], story: Story) -> list[Curves]:
    """KID on the held-out images, beside that of the images as they are; none where no line of the log has it."""
    judged = [entry for entry in entries if entry.get("kid")]
    if not judged:
        return []
    steps, (a, b) = [entry["step"] for entry in judged], story.domains
    tracks = []
    for direction, label in (("a2b", f"{a} → {b}"), ("b2a", f"{b} → {a}")):
        if values := [entry["kid"][direction] for entry in judged if direction in entry["kid"]]:
            tracks.append(Track(label, steps[-len(values) :], values, values))
    level = judged[-1]["kid"].get(UNTRANSLATED)
    caption = (
        "How far fakes of images that nobody trained on are from real ones, by texture and colour (features "
        f"{JUDGE}, which no discriminator trains against): 0 is perfect. A guide; evaluate has intervals."
    )
    return [_curves("kid", "KID on held-out images", caption, tracks, entries[-1]["step"], level, "untranslated")]


def _stem(term: str) -> str:
    """`cycle` of `cycle_a`."""
    return term.rpartition("_")[0] or term


def _as_planned(entries: Sequence[Mapping[str, Any]], story: Story) -> bool:
    """Whether the log follows the schedules: one that was lengthened or changed began with other weights."""
    if any("changes" in entry for entry in entries):
        return False
    rate = next(iter(story.recipe.optimizers.values())).learning_rate
    planned = (rate * story.recipe.learning_rate.at(story.clock(entry["step"] - 1)) for entry in entries)
    return all(math.isclose(entry["learning_rate"], p, rel_tol=1e-6) for entry, p in zip(entries, planned, strict=True))


def _track(term: str, entries: Sequence[Mapping[str, Any]], story: Story, weight: Schedule | None) -> Track:
    """The values of a term, each divided by the mean weight of the steps that its line is the mean of."""
    steps, values, before = [], [], 0
    for entry in entries:
        if term in entry["losses"]:
            divisor = 1.0
            if weight is not None:
                among = range(before, max(entry["step"], before + 1), max(1, (entry["step"] - before) // WEIGHT_SAMPLES))
                divisor = sum(weight.at(story.clock(step)) for step in among) / len(among)
            steps.append(entry["step"])
            values.append(entry["losses"][term] / (divisor or 1.0))
        before = entry["step"]
    a, b = story.domains
    stem, _, end = term.rpartition("_")
    label = LABELS[end].format(a=a, b=b) if stem in KINDS and end in LABELS else term
    return Track(label, steps, values, smoothed(np.array(values), reach(len(entries))).tolist())


def reach(count: int) -> int:
    """How many lines to either side a smoothed value takes in."""
    return max(2, count // 30) if count >= LINES_TO_SMOOTH else 0


def _loss_panel(name: str, stem: str, tracks: Sequence[Track], story: Story, weight: Schedule | None, end: int) -> Curves:
    # The generators' loss of hinge has no such level.
    fools = stem == "adversarial" and weight is not None and story.gan_mode != "hinge"
    level = story.undecided if stem == "discriminator" or fools else None
    title, caption = KINDS.get(stem, (stem, "As the objective names it."))
    if stem != "discriminator" and weight is None:
        caption += " Times its weight, as minimised."
    elif stem != "discriminator" and weight != constant(1):
        caption += " Divided by its weight."
    last = max(track.steps[-1] for track in tracks)
    if last < end:
        caption += f" Off after step {thousands(last)}."
    return _curves(name, title, caption, tracks, end, level, "cannot tell")


def _curves(
    name: str, title: str, caption: str, tracks: Sequence[Track], end: int, level: float | None, level_name: str
) -> Curves:
    """Terms up to the step `end`: faint as they are, strong where they are smoothed, with a dotted level."""
    raw = [value for track in tracks for value in track.values]
    # A few far peaks of raw values may be cut off; the smoothed lines and the level may not.
    top = 1.1 * max([value for track in tracks for value in track.smooth] + [level or 0.0])
    top = max(top, 1.04 * (max(raw) if max(raw) <= PEAKS_KEPT * top else float(np.percentile(raw, 99))))
    if above := sum(value > top for value in raw):
        caption += f" Cut off by the frame: {above} of {len(raw)} raw values."
    lines, legend = [], []
    for index, track in enumerate(tracks):
        colour = 1 + index % COLOURS
        legend.append((track.label, colour))
        if track.smooth != track.values:
            lines.append(Line(x=track.steps, y=track.values, colour=colour, style="raw"))
        lines.append(Line(x=track.steps, y=track.smooth, colour=colour))
    told = "; ".join(
        f"{track.label}: {number(track.smooth[0])} at step {thousands(track.steps[0])}, "
        f"{number(track.smooth[-1])} at step {thousands(track.steps[-1])}"
        for track in tracks
    )
    plot = line_plot(name, lines, description=f"{title}, over steps. {told}.", x_end=end, y_end=top, level=level)
    level_text = "" if level is None else f"{level_name} ({number(level)})"
    return Curves(title=title, caption=caption, plot=plot, legend=legend, level=level_text, tracks=tracks)


def rate_panels(entries: Sequence[Mapping[str, Any]], story: Story) -> list[Curves]:
    """The learning rate; none for an empty log."""
    rates = [entry["learning_rate"] for entry in entries]
    rate = Track(next(iter(story.recipe.optimizers)), [entry["step"] for entry in entries], rates, rates)
    caption = "The other networks' keeps its ratio to it. The recipe below has the schedules, of the losses' weights too."
    return [_curves("rate", "Learning rate", caption, [rate], rate.steps[-1], None, "")] if entries else []
