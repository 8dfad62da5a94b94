"""Records two trainings on drawn fruit that go well, for the test that the watch is silent over them.

python tests/reliability/record_trainings.py            # a quarter of an hour on one core; writes recorded/*.json anew
python tests/reliability/record_trainings.py cyclegan   # one of them
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from fruitgan.runs.run import Run
from fruitgan.train_gan.curves import Story
from fruitgan.train_gan.job import train_gan
from fruitgan.train_gan.settings import TrainGanSettings, read_config

RECORDED = Path(__file__).parent / "recorded"
TRAININGS: dict[str, dict[str, Any]] = {
    "fast": {"generator_options": {"base_channels": "16"}, "discriminator_options": {"base_channels": "16"}},
    "cyclegan": {
        "generator": "resnet-6",
        "generator_options": {"base_channels": "16"},
        "discriminator_options": {"base_channels": "16"},
    },
}
STEPS = 1500
"""Half as many again as the watch is patient for at least."""


def record(name: str, out: Path) -> dict[str, Any]:
    common = {"data": "demo", "gpu": "none", "image_size": 48, "steps": STEPS, "precision": "fp32", "seed": 0}
    run = Run(train_gan(TrainGanSettings(recipe=name, out=out, name=name, **common, **TRAININGS[name])).run)
    lines = run.entries()
    throughout = [term for term in lines[-1]["losses"] if all(term in line["losses"] for line in lines)]
    return {
        "total_steps": STEPS,
        "undecided": Story(read_config(run)).undecided,
        "steps": [line["step"] for line in lines],
        "losses": {term: [round(line["losses"][term], 4) for line in lines] for term in throughout},
        "outputs": {str(line["step"]): line["outputs"] for line in lines if "outputs" in line},
    }


def main() -> None:
    RECORDED.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in sys.argv[1:] or TRAININGS:
            (RECORDED / f"{name}.json").write_text(json.dumps(record(name, Path(folder)), indent=0) + "\n")


if __name__ == "__main__":
    main()
