"""What a training log says, as panels: losses by kind, the learning rate, the weights of the losses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from fruitgan.registry import Choice
from fruitgan.report.page import number, thousands
from fruitgan.report.plots import Line, Panel, line_plot, smoothed
from fruitgan.train_gan.judge import JUDGE, UNTRANSLATED
from fruitgan.train_gan.recipe import Clock, Recipe, Schedule, constant

SCHEDULE_POINTS = 200
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
LABELS = {
    "adversarial_ab": "{a} → {b}",
    "adversarial_ba": "{b} → {a}",
    "cycle_a": "{a} → {b} → {a}",
    "cycle_b": "{b} → {a} → {b}",
    "nce_a": "{a} → {b}",
    "identity_nce_b": "{b} → {b}",
    "identity_a": "{a} → {a}",
    "identity_b": "{b} → {b}",
    "discriminator_a": "judging {a}",
    "discriminator_b": "judging {b}",
}


@dataclass(frozen=True, kw_only=True)
class Story:
    """What a log is about, for the names and the levels of its curves."""

    recipe: Recipe
    objective: Choice
    discriminator: Choice
    domains: tuple[str, str]
    total_steps: int
    steps_per_epoch: int

    @property
    def is_ours(self) -> bool:
        """Whether we know what the objective's terms mean; another package's may be anything."""
        return _is_ours(self.objective)

    @property
    def gan_mode(self) -> str | None:
        return str(self.objective.options.get("gan_mode")) if self.is_ours else None

    @property
    def maps(self) -> int | None:
        return _maps(self.discriminator)

    @property
    def undecided(self) -> float | None:
        """What a discriminator loses that cannot tell, if that is known."""
        return undecided_loss(self.objective, self.discriminator)

    def clock(self, step: int) -> Clock:
        return Clock(step, self.total_steps, self.steps_per_epoch)


def undecided_loss(objective: Choice, discriminator: Choice, maps_of_strangers: int | None = None) -> float | None:
    """What a discriminator loses that cannot tell; None where another package's objective may call its terms as it likes.

    Of another package's discriminator it is not known how many logit maps it gives, unless a number is assumed.
    """
    maps, mode = _maps(discriminator) or maps_of_strangers, str(objective.options.get("gan_mode"))
    return UNDECIDED[mode] * maps if _is_ours(objective) and mode in UNDECIDED and maps else None


def _is_ours(objective: Choice) -> bool:
    return (objective.package, objective.name) in KNOWN_OBJECTIVES


def _maps(discriminator: Choice) -> int | None:
    """How many logit maps it gives, whose losses are summed; None where it is another package's."""
    options = discriminator.options
    if discriminator.package != "fruitgan":
        return None
    if "strides" in options:
        return len(set(str(options["strides"]).split(","))) + int(options["pixel_scales"])
    return int(options.get("scales", 1))


@dataclass(frozen=True)
class Track:
    """One term of the losses over the log: as it is, and smoothed (the same list where there is too little to smooth)."""

    label: str
    steps: list[int]
    values: list[float]
    smooth: list[float]


@dataclass(frozen=True, kw_only=True)
class LogPanel(Panel):
    """A panel of the log, with the numbers behind its lines."""

    tracks: Sequence[Track] = ()


def loss_panels(entries: Sequence[Mapping[str, Any]], story: Story) -> list[LogPanel]:
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


def kid_panels(entries: Sequence[Mapping[str, Any]], story: Story) -> list[LogPanel]:
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
    top = 1.08 * max([value for track in tracks for value in track.values] + [level or 0.0])
    told = "; ".join(f"{track.label}: {number(track.values[0])} first, {number(track.values[-1])} last" for track in tracks)
    lines = [Line(x=track.steps, y=track.values, colour=colour) for colour, track in enumerate(tracks, 1)]
    return [
        LogPanel(
            title="KID on held-out images",
            caption="How far fakes of images that nobody trained on are from real ones, by texture and colour (features "
            f"{JUDGE}, which no discriminator trains against): 0 is perfect. A guide; evaluate has intervals.",
            legend=[(track.label, colour) for colour, track in enumerate(tracks, 1)],
            plot=line_plot(
                "kid", lines, description=f"KID over steps. {told}.", x_end=entries[-1]["step"], y_end=top, level=level
            ),
            level="" if level is None else f"untranslated ({number(level)})",
            tracks=tracks,
        )
    ]


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
                among = range(before, entry["step"], max(1, (entry["step"] - before) // WEIGHT_SAMPLES))
                divisor = sum(weight.at(story.clock(step)) for step in among) / len(among)
            steps.append(entry["step"])
            values.append(entry["losses"][term] / (divisor or 1.0))
        before = entry["step"]
    a, b = story.domains
    label = LABELS[term].format(a=a, b=b) if term in LABELS else term
    return Track(label, steps, values, smoothed(np.array(values), reach(len(entries))).tolist())


def reach(count: int) -> int:
    """How many lines to either side a smoothed value takes in."""
    return max(2, count // 30) if count >= LINES_TO_SMOOTH else 0


def _loss_panel(name: str, stem: str, tracks: Sequence[Track], story: Story, weight: Schedule | None, end: int) -> LogPanel:
    # The generators' loss of hinge has no such level.
    fools = stem == "adversarial" and weight is not None and story.gan_mode != "hinge"
    level = story.undecided if stem == "discriminator" or fools else None
    raw = [value for track in tracks for value in track.values]
    # A few far peaks of raw values may be cut off; the smoothed lines and the level may not.
    top = 1.1 * max([value for track in tracks for value in track.smooth] + [level or 0.0])
    top = 1.04 * max(raw) if max(raw) <= PEAKS_KEPT * top else max(top, 1.04 * float(np.percentile(raw, 99)))
    lines = []
    for index, track in enumerate(tracks):
        colour = 1 + index % COLOURS
        if track.smooth != track.values:
            lines.append(Line(x=track.steps, y=track.values, colour=colour, style="raw"))
        lines.append(Line(x=track.steps, y=track.smooth, colour=colour))
    title, caption = KINDS.get(stem, (stem, "As the objective names it."))
    if stem != "discriminator" and weight is None:
        caption += " Times its weight, as minimised."
    elif stem != "discriminator" and weight != constant(1):
        caption += " Divided by its weight."
    last = max(track.steps[-1] for track in tracks)
    if last < end:
        caption += f" Off after step {thousands(last)}."
    if above := sum(value > top for value in raw):
        caption += f" Cut off by the frame: {above} of {len(raw)} raw values."
    told = "; ".join(
        f"{track.label}: {number(track.smooth[0])} at step {thousands(track.steps[0])}, "
        f"{number(track.smooth[-1])} at step {thousands(track.steps[-1])}"
        for track in tracks
    )
    return LogPanel(
        title=title,
        caption=caption,
        legend=[(track.label, 1 + index % COLOURS) for index, track in enumerate(tracks)],
        plot=line_plot(name, lines, description=f"{title}, over steps. {told}.", x_end=end, y_end=top, level=level),
        level="" if level is None else f"cannot tell ({number(level)})",
        tracks=tracks,
    )


def schedule_panels(entries: Sequence[Mapping[str, Any]], story: Story) -> list[Panel]:
    """The learning rate and, where they move, the weights of the losses: solid so far, dashed to come."""
    done = entries[-1]["step"] if entries else 0
    rate = next(iter(story.recipe.optimizers.values())).learning_rate
    factor = story.recipe.learning_rate
    said = f"{in_words(factor, rate)}."
    to_come = " Dashed: to come." if done < story.total_steps else ""
    panels = [
        Panel(
            title="Learning rate",
            caption=said.capitalize() + to_come,
            plot=_schedule_plot(
                "rate", {"": story.recipe.learning_rate}, rate, done, story, f"Learning rate over steps: {said}"
            ),
        )
    ]
    weights = story.recipe.weights
    if any(schedule.start != schedule.end for schedule in weights.values()):
        told = ", ".join(f"{name} {in_words(schedule)}" for name, schedule in weights.items())
        panels.append(
            Panel(
                title="Weights of the losses",
                caption="What each term counts for." + to_come,
                legend=[(name, 1 + index % COLOURS) for index, name in enumerate(weights)],
                plot=_schedule_plot("weights", weights, 1.0, done, story, f"Weights over steps: {told}."),
            )
        )
    return panels


def _schedule_plot(
    name: str, schedules: Mapping[str, Schedule], unit: float, done: int, story: Story, description: str
) -> Markup:
    """Schedules over the training, solid up to the step `done` and dashed behind it."""
    steps = sorted({round(story.total_steps * i / SCHEDULE_POINTS) for i in range(SCHEDULE_POINTS + 1)} | {done})
    turn = steps.index(done)
    lines = []
    for index, schedule in enumerate(schedules.values()):
        values, colour = [unit * schedule.at(story.clock(step)) for step in steps], 1 + index % COLOURS
        lines.append(Line(x=steps[: turn + 1], y=values[: turn + 1], colour=colour))
        lines.append(Line(x=steps[turn:], y=values[turn:], colour=colour, style="dashed"))
    drawn = [line for line in lines if len(line.x) > 1]
    return line_plot(name, drawn, description=description, x_end=max(done, story.total_steps))


def in_words(schedule: Schedule, unit: float = 1.0) -> str:
    """`8`, or `8, from 60% of the training towards 2`."""
    start, end = f"{schedule.start * unit:.4g}", f"{schedule.end * unit:.4g}"
    if schedule.start == schedule.end:
        return start
    if schedule.begin == schedule.finish:
        return f"{start}, then {end} from {schedule.begin:.0%} of the training on"
    until = "" if schedule.finish == 1 else f", reached at {schedule.finish:.0%}"
    since = "" if schedule.begin == 0 else f" for the first {schedule.begin:.0%} of the training"
    return f"{start}{since}, {'' if schedule.begin == 0 else 'then '}{schedule.shape} to {end}{until}"
