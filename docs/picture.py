"""Make docs/demo.png of a demo's folder: drawn apples, their translations, drawn oranges. `python docs/picture.py DEMO`."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from fruitgan.report.page import grid, png_bytes

COLUMNS, SIDE_PX = 8, 112


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image.convert("RGB").resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS))


def main(demo: Path) -> None:
    with (demo / "dataset" / "manifest.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    fakes = [row for row in rows if row["label"] == "generated"][:COLUMNS]
    reals = [row for row in rows if row["label"] == "real"][:COLUMNS]
    sheet = [
        [picture(demo / "fruit" / row["source"]) for row in fakes],
        [picture(demo / "dataset" / row["file"]) for row in fakes],
        [picture(demo / "dataset" / row["file"]) for row in reals],
    ]
    Path(__file__).with_name("demo.png").write_bytes(png_bytes(grid(sheet)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
