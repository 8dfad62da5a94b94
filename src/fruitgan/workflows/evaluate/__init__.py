"""How real generated images are: distances, a detector's accuracy, and what would make either of them meaningless."""

from fruitgan.workflows.evaluate.compare import compare
from fruitgan.workflows.evaluate.compare_settings import CompareSettings
from fruitgan.workflows.evaluate.job import evaluate
from fruitgan.workflows.evaluate.settings import EvaluateResult, EvaluateSettings

__all__ = ["CompareSettings", "EvaluateResult", "EvaluateSettings", "compare", "evaluate"]
