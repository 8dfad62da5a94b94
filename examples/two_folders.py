"""Train on any two folders of images for a given time, and go on where it stopped when it is run again.

python two_folders.py FOLDER_A FOLDER_B [MINUTES]
"""

import sys
from pathlib import Path

from fruitgan.runs.run import CONFIG
from fruitgan.train_gan.job import train_gan
from fruitgan.train_gan.settings import TrainGanSettings

RUNS = Path("two-folders")


def main(folder_a: Path, folder_b: Path, minutes: float) -> None:
    if (RUNS / "run" / CONFIG).is_file():
        settings = TrainGanSettings(resume="run", out=RUNS, max_seconds=60 * minutes)
    else:
        settings = TrainGanSettings(data_a=folder_a, data_b=folder_b, name="run", out=RUNS, max_seconds=60 * minutes)
    result = train_gan(settings)
    print(f"step {result.step}, {'finished' if result.finished else 'to be continued'}: {result.bundle}")
    print(f"look at {result.run / 'report.html'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]) if len(sys.argv) > 3 else 10)
