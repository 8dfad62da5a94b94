"""What the audit says of images of which the answer is known: the table of docs/results.md, row by row.

    python benchmarks/audit_table.py --data apple2orange --bundle apple2orange --out /tmp/audit [--quick] [--attackers NAME,...]

Rows: real target images in two groups, real sources, sources with their hue shifted, a bundle's translations, the same as
JPEG 75, the same stretched to full contrast one by one (as Keras' save_img does). All but the last two go by export-dataset's
path. A row that is finished is not made again; `--rows` makes some alone.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fruitgan.bundle import load_card, locate
from fruitgan.console.options import parse_domains
from fruitgan.data.decode import decode
from fruitgan.data.groups import look_of, near_groups
from fruitgan.data.labelled import LABELS, MANIFEST, ORIGINS, PREDICTED, read_manifest
from fruitgan.data.sources import find_source
from fruitgan.engines.padding import translate_pixels
from fruitgan.evaluate.job import evaluate
from fruitgan.evaluate.settings import EvaluateSettings
from fruitgan.export_dataset.job import ExportSettings, Unchanged, encode, export_dataset
from fruitgan.images import Pixels, resize

HUE_DEGREES = 25
"""From the red of most apples to orange."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="apple2orange")
    parser.add_argument("--domains", default="apple,orange")
    parser.add_argument("--bundle", default="apple2orange")
    parser.add_argument("--count", type=int, help="images a side; all test images by default")
    parser.add_argument("--attackers", default="", help="as of evaluate; its default ones by default")
    parser.add_argument("--rows", default="", help="names with commas; all by default")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("audit-table"))
    options = parser.parse_args()
    folders = prepare(options)
    wanted = options.rows.split(",") if options.rows else list(folders)
    for name in wanted:
        results = options.out / name
        if not (results / "evaluation.json").is_file():
            fake_dir, source_dir = folders[name]
            evaluate(
                EvaluateSettings(
                    fake_dir=fake_dir,
                    source_dir=source_dir,
                    attackers=tuple(text for text in options.attackers.split(",") if text),
                    quick=options.quick,
                    out=results,
                    device="cpu",
                )
            )
        print(line(name, json.loads((results / "evaluation.json").read_text())), flush=True)


def prepare(options: argparse.Namespace) -> dict[str, tuple[Path, Path | None]]:
    """The folders of each row: generated images (real ones lie beside them), and their sources under equal names."""
    made, names = (
        options.out / "images",
        ("oranges-oranges", "apples", "hue-shifted", "fakes", "fakes-jpeg75", "fakes-stretched"),
    )
    found = {name: (made / name / PREDICTED, made / "sources") for name in names}
    rows = {**found, "oranges-oranges": (found["oranges-oranges"][0], None), "apples": (found["apples"][0], None)}
    if made.is_dir():
        return rows
    building = options.out / "images.unfinished"
    shutil.rmtree(building, ignore_errors=True)
    exported = building / "export"
    export_dataset(
        ExportSettings(
            bundle=options.bundle,
            data=options.data,
            domains=parse_domains(options.domains),
            count=options.count,
            out=exported,
            device="cpu",
        )
    )
    source = find_source(options.data, domains=parse_domains(options.domains))
    by_name = {path.name: path for path in (*source.a.test, *source.a.train)}
    rows_of = read_manifest(exported / MANIFEST)
    made_of = {Path(row.file).name: by_name[Path(row.source).name] for row in rows_of if row.label == LABELS[True]}
    card = load_card(locate(options.bundle))
    engine, side_px = Unchanged(), card.image_size_px
    sources = {
        stem: translate_pixels(engine, card, resize(decode(path).pixels, side_px, side_px), "native")
        for stem, path in made_of.items()
    }
    fakes = {path.name: decode(path).pixels for path in sorted((exported / PREDICTED).iterdir())}
    reals = {path.name: decode(path).pixels for path in sorted((exported / ORIGINS).iterdir())}
    halves = split(reals)
    write(building / "sources", sources, png)
    write(building / "oranges-oranges" / PREDICTED, halves[0], png)
    write(building / "oranges-oranges" / ORIGINS, halves[1], png)
    ways: dict[str, tuple[dict[str, Pixels], Callable[[Pixels], bytes]]] = {
        "apples": (sources, png),
        "hue-shifted": ({name: hue_shifted(pixels) for name, pixels in sources.items()}, png),
        "fakes": (fakes, png),
        "fakes-jpeg75": (fakes, jpeg_75),
        "fakes-stretched": ({name: stretched(pixels) for name, pixels in fakes.items()}, png),
    }
    for name, (pictures, as_file) in ways.items():
        write(building / name / PREDICTED, pictures, as_file)
        write(building / name / ORIGINS, reals, png)
    building.rename(made)
    return rows


def split(reals: dict[str, Pixels]) -> tuple[dict[str, Pixels], dict[str, Pixels]]:
    """Two halves; pictures that look alike stay together. Names are by content already, so their order says nothing."""
    looks = {name: look_of(pixels) for name, pixels in reals.items()}
    groups = near_groups(looks.values())
    halves: tuple[dict[str, Pixels], dict[str, Pixels]] = ({}, {})
    side_of: dict[str, int] = {}
    for name, pixels in reals.items():
        side = side_of.setdefault(groups[looks[name].content], int(len(halves[0]) > len(halves[1])))
        halves[side][name] = pixels
    return halves


def hue_shifted(pixels: Pixels) -> Pixels:
    hue, saturation, value = Image.fromarray(pixels).convert("HSV").split()
    turned = Image.fromarray(((np.asarray(hue, dtype=np.int64) + round(HUE_DEGREES * 256 / 360)) % 256).astype(np.uint8))
    return np.array(Image.merge("HSV", (turned, saturation, value)).convert("RGB"), dtype=np.uint8)


def stretched(pixels: Pixels) -> Pixels:
    """Less its minimum, over its maximum, cut to whole numbers."""
    values = pixels.astype(np.float64) - pixels.min()
    full: Pixels = (values / max(float(values.max()), 1.0) * 255).astype(np.uint8)
    return full


def png(pixels: Pixels) -> bytes:
    return encode(pixels, "png")


def jpeg_75(pixels: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=75)
    return buffer.getvalue()


def write(folder: Path, pictures: dict[str, Pixels], as_file: Callable[[Pixels], bytes]) -> None:
    folder.mkdir(parents=True)
    for name, pixels in pictures.items():
        data = as_file(pixels)
        (folder / Path(name).with_suffix(".png" if data.startswith(b"\x89PNG") else ".jpg")).write_bytes(data)


def line(name: str, found: dict[str, Any]) -> str:
    """One row in Markdown: n, leaks with their effect, the detector, KIDs and R."""
    leaks = (
        ", ".join(leak["kind"] + (f" ({leak['effect']:.0%})" if leak["effect"] else "") for leak in found["leaks"]) or "none"
    )
    detector = found["detector"]
    if detector is None:
        told = "withheld"
    else:
        low, high = detector["interval"]
        told = f"{detector['name']} {detector['accuracy']:.1%} ({low:.1%} to {high:.1%}), p {detector['p_value']:.1g}"
    kids = [key for key in found["floor"] if key == "kid" or key.startswith("kid_")]
    numbers = [
        f"{100 * found[key]['value']:.2f} ({', '.join(f'{100 * end:.2f}' for end in found[key]['interval'])})" for key in kids
    ]
    ratios = [f"{found[key]['value']:.2f}" if found.get(key) else "-" for key in ("r", *(f"r_{key[4:]}" for key in kids[1:]))]
    cells = (name, f"{found['n_fake']} / {found['n_real']}", leaks, told, *numbers, " / ".join(ratios))
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
