"""Teaching a small generator what a large one does."""

from fruitgan.workflows.distill.job import DistillResult, DistillSettings, distill

__all__ = ["DistillResult", "DistillSettings", "distill"]
