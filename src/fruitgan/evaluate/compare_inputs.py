"""What `--compare` may name: bundles, which translate the data first, exported datasets, and folders of generated images."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fruitgan.bundle import FILE_NAME, load_card, locate
from fruitgan.data.labelled import ORIGINS, PREDICTED
from fruitgan.data.sources import find_source
from fruitgan.errors import UsageError
from fruitgan.evaluate.compare_settings import CompareSettings
from fruitgan.export_dataset.job import export_dataset
from fruitgan.export_dataset.settings import ExportSettings

OnStep = Callable[[str, int, int], None]
DATASET = "dataset"


@dataclass(frozen=True)
class Contestant:
    """Whose images they are, and where they lie."""

    label: str
    fake_dir: Path
    real_dir: Path | None
    """None where it has no real images of its own."""


def labels(runs: Sequence[str]) -> list[str]:
    """A short name for each, unlike all others, fit for a folder's name."""
    found: list[str] = []
    for run in runs:
        parts = [part for part in Path(os.path.abspath(run)).parts if part not in (PREDICTED, FILE_NAME)]
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", parts[-1].removesuffix(".safetensors")).strip(".") or "images"
        number, label = 2, name
        while label in found:
            number, label = number + 1, f"{name}-{number}"
        found.append(label)
    return found


def contestants(
    settings: CompareSettings, names: Sequence[str], out: Path, gpu: str | None, device: str | None, tell: OnStep
) -> list[Contestant]:
    """All of them, the bundles' translations made below `out`, a folder for each.

    Raises:
        UsageError: no such bundle; bundles and no data; bundles of several image sizes.
        DataError: a file that is no bundle, and what `export_dataset` raises.
    """
    bundles = {
        name: locate(run, settings.runs_dir) for name, run in zip(names, settings.runs, strict=True) if not _is_images(run)
    }
    if bundles and settings.data is None:
        raise UsageError(f"--compare {next(iter(bundles))}: a bundle needs images to translate: --data NAME|DIR")
    sizes = {name: load_card(path).image_size_px for name, path in bundles.items()}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{name} {size} px" for name, size in sizes.items())
        raise UsageError(
            f"--compare: the bundles were trained at different sizes ({told}); export each with export-dataset --image-size N "
            "and compare the datasets"
        )
    found = []
    for name, run in zip(names, settings.runs, strict=True):
        folder = Path(run)
        if name in bundles:
            folder = out / name / DATASET
            _export(settings, bundles[name], folder, gpu, device, partial(_told, tell, name))
        if (folder / PREDICTED).is_dir():
            found.append(Contestant(name, folder / PREDICTED, folder / ORIGINS if (folder / ORIGINS).is_dir() else None))
        else:
            beside = folder.absolute().parent / ORIGINS
            found.append(Contestant(name, folder, beside if beside.is_dir() else None))
    return found


def _told(tell: OnStep, name: str, what: str, done: int, total: int) -> None:
    tell(f"{name}: {what}", done, total)


def _is_images(run: str) -> bool:
    """Whether it is a folder of images, or of a dataset, rather than a bundle or a run."""
    return Path(run).is_dir() and not (Path(run) / FILE_NAME).is_file()


def _export(settings: CompareSettings, bundle: Path, out: Path, gpu: str | None, device: str | None, tell: OnStep) -> None:
    export_dataset(
        ExportSettings(
            bundle=str(bundle),
            to=settings.to,
            direction=settings.direction,
            data=settings.data,
            domains=settings.domains,
            count=settings.count,
            out=out,
            gpu=gpu,
            device=device,
            overwrite=True,
        ),
        tell,
    )


def data_folder(settings: CompareSettings) -> Path | None:
    """What the manifests' sources are relative to, where the data are known."""
    if settings.data is None:
        return None
    source = find_source(settings.data, domains=settings.domains)
    files = [path for domain in (source.a, source.b) for path in (*domain.train, *domain.test)]
    return Path(os.path.commonpath([os.path.abspath(path.parent) for path in files]))
