"""Pictures and their translations as a dataset of real and generated images, made by one path."""

from fruitgan.workflows.export_dataset.job import export_dataset
from fruitgan.workflows.export_dataset.settings import ExportResult, ExportSettings

__all__ = ["ExportResult", "ExportSettings", "export_dataset"]
