"""Trackio's dashboard (`trackio show`), whose interface is that of wandb."""

from __future__ import annotations

from collections.abc import Mapping

from fruitgan.images import Pixels
from fruitgan.runs.trackers import TrackedRun, Tracker


class Trackio(Tracker):
    """Curves and samples in a trackio project on this machine; its version of today wants an older Pillow than fruitgan."""

    def __init__(self) -> None:
        import trackio  # only where it is used

        self.trackio = trackio

    def begin(self, run: TrackedRun) -> str:
        name = f"{run.name}-{run.id[:6]}"  # by its name a run is found again
        self.run = self.trackio.init(project="fruitgan", name=name, config=dict(run.config), resume="allow", embed=False)
        return "trackio show --project fruitgan"

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def image(self, step: int, name: str, pixels: Pixels) -> None:
        self.run.log({name: self.trackio.Image(pixels)}, step=step)

    def end(self) -> None:
        self.run.finish()
