"""The demo's report: one page that tells how apples became oranges, and how far one can believe it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fruitgan.data.decode import decode
from fruitgan.images import Pixels
from fruitgan.report.grid import grid
from fruitgan.report.page import inline_images, number, render
from fruitgan.train_detector.page import percent
from fruitgan.train_gan.curves import loss_panels, story_of

PICTURES_LIMIT_BYTES = 2_500_000
SHOWN = 8
REPORTS = (
    ("training", "runs/gan/report.html"),
    ("detector", "runs/detector/report.html"),
    ("evaluation", "evaluation/report.html"),
)


def demo_report(
    folder: Path,
    trained: Mapping[str, Any],
    config: Mapping[str, Any],
    entries: Sequence[Mapping[str, Any]],
    detected: Mapping[str, Any],
    judged: Mapping[str, Any],
    seconds: float,
) -> str:
    """The page as HTML text, of about 3 MB at most: from the files below `folder` and the jobs' results as JSON values.

    `config` and `entries` are the training run's, its settings and the lines of its log.
    """
    sheets = {
        "apples": _sheet(folder / "fruit" / "trainA"),
        "oranges": _sheet(folder / "fruit" / "trainB"),
        "translated": _sheet(folder / "translated", columns=4),
        "predicted": _sheet(folder / "dataset" / "predicted"),
        "origins": _sheet(folder / "dataset" / "origins"),
    }
    return render(
        "demo.html",
        pictures=dict(zip(sheets, inline_images(list(sheets.values()), PICTURES_LIMIT_BYTES), strict=True)),
        trained=trained,
        size_px=config["plan"]["recipe"]["image_size_px"],
        panels=loss_panels(entries, story_of(config)),
        detected=detected,
        accuracy=percent(detected["accuracy"]),
        interval=" to ".join(percent(end) for end in detected["interval"]),
        judged=judged,
        r=number(judged["r"]["value"]),
        verdict=_verdict(judged["r"]["value"], detected),
        numbers=_numbers(judged),
        seconds=seconds,
        reports=REPORTS,
    )


def _verdict(r: float, detected: Mapping[str, Any]) -> str:
    """The result in one sentence."""
    far = f"{number(r)} times as far from oranges as" if r < 1 else "no nearer to oranges than"
    start = f"In colour and texture the fakes are {far} the apples were (R: 0 would be perfect)"
    share = f"classifies {percent(detected['accuracy'])} of fakes and real ones correctly"
    if detected["interval"][0] <= detected["majority_baseline"]:
        return f"{start}, and a detector, which {share}, may only have guessed."
    return f"{start}. That does not make them real: a detector {share}, by traces that these numbers do not see."


def _numbers(judged: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Name, value, 95% interval and meaning of each number."""
    kid = "kernel distance to the real images, times 100: near the floor is good, and few images don't bias it"
    fid = "Fréchet distance to the real images: compare only at the same number of images"
    rows = [("r", "R", "distance of the fakes over that of the sources: 0 is perfect, 1 is as if nothing had been done", 1)]
    rows += [(key, "KID on {}", kid, 100) for key in ("kid", "kid_colour")]
    rows += [(key, "FID on {}", fid, 1) for key in ("fid", "fid_colour")]
    return [
        (
            name.format(judged[key].get("features")),
            number(judged[key]["value"] * scale),
            " to ".join(number(end * scale) for end in judged[key]["interval"]),
            meaning,
        )
        for key, name, meaning, scale in rows
        if key in judged
    ]


def _sheet(folder: Path, columns: int = SHOWN) -> Pixels:
    """The first pictures of a folder in rows."""
    pictures = [decode(path).pixels for path in sorted(folder.glob("*.png"))[:SHOWN]]
    return grid([pictures[start : start + columns] for start in range(0, len(pictures), columns)])
