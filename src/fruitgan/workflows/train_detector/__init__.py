"""Train a classifier of real against generated images, and say how often it is right."""

from fruitgan.workflows.train_detector.job import train_detector
from fruitgan.workflows.train_detector.settings import TrainDetectorResult, TrainDetectorSettings

__all__ = ["TrainDetectorResult", "TrainDetectorSettings", "train_detector"]
