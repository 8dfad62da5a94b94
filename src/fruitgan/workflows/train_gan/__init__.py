"""Training an unpaired translation."""

from fruitgan.workflows.train_gan.job import train_gan
from fruitgan.workflows.train_gan.settings import TrainGanResult, TrainGanSettings

__all__ = ["TrainGanResult", "TrainGanSettings", "train_gan"]
