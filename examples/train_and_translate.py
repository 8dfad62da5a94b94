"""The Python API: train on two folders of images (here: drawn fruit), then translate a picture with the result.

    python train_and_translate.py [FOLDER]

The steps are few so that it ends within a minute; for something to look at take away `steps` and `image_size`.
"""

import sys
from pathlib import Path

from fruitgan.progress import Event, Progress
from fruitgan.train_gan.job import train_gan
from fruitgan.train_gan.settings import TrainGanSettings
from fruitgan.translate.job import TranslateSettings, translate


def show(event: Event) -> bool:
    """Called with each event; a True would stop the training after its step, saved."""
    if isinstance(event, Progress) and event.details.get("losses"):
        losses = ", ".join(f"{term} {value:.2f}" for term, value in event.details["losses"].items())
        print(f"step {event.done}: {losses}")
    return False


def main(folder: Path) -> None:
    trained = train_gan(
        TrainGanSettings(data="demo", recipe="fast", image_size=48, steps=20, log_every=5, out=folder / "runs"),
        on_progress=show,
    )
    print(f"{trained.bundle}: {trained.images} images, {trained.images_per_second:.1f} a second")
    samples = sorted((trained.run / "samples").glob("*.png"))
    made = translate(
        TranslateSettings(sources=(str(samples[-1]),), bundle=str(trained.bundle), output=str(folder / "translated"))
    )
    print(*made.outputs, sep="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "example-results"))
