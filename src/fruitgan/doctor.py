"""`fruitgan doctor`: what this machine can do, and what is wrong with this installation."""

from __future__ import annotations

import contextlib
import importlib
import json as json_module
import os
import platform
import shutil
import sys
import tomllib
from collections import Counter
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from fruitgan.console import Console, options
from fruitgan.errors import FruitganError, reason_of
from fruitgan.machine import cache_folder, cores, spare_memory_bytes, total_memory_bytes
from fruitgan.registry import KINDS, Registry

SHOWN_PACKAGES = ("fruitgan", "torch", "torchvision", "kornia", "numpy", "pillow", "safetensors")
IMPORTED_PACKAGES = ("torch", "torchvision", "kornia")
"""Those whose builds must fit together, which only an import shows."""
GIB = 2**30
GROUP_PREFIX = "fruitgan."


@dataclass(frozen=True, kw_only=True)
class Gpu:
    name: str
    device: str
    memory_gib: float | None
    has_bf16: bool


@dataclass(frozen=True, kw_only=True)
class Cpu:
    name: str
    cores: int
    torch_threads: int | None
    instructions: str | None
    has_bf16: bool


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What `--json` prints. None stands for what could not be found out."""

    python: str
    platform: str
    packages: dict[str, str | None]
    cpu: Cpu
    gpus: list[Gpu]
    memory_gib: float | None
    memory_free_gib: float
    folder: str
    disk_free_gib: float
    cache: str
    cache_free_gib: float | None
    environment: dict[str, str]
    problems: list[str]


def doctor(json: options.Json = False) -> None:
    """Show what this machine can do, and what is wrong with this installation."""
    console = Console(json=json)
    diagnosis = diagnose()
    console.result(diagnosis)
    console.table("", ("what", "here"), _rows(diagnosis))
    console.out("")
    for problem in diagnosis.problems:
        console.out(f"problem: {problem}")
    if not diagnosis.problems:
        console.out("nothing is wrong with this installation")


def diagnose() -> Diagnosis:
    """Look at everything; imports torch and whatever is registered."""
    problems = [*_import_problems(), *unusable(), *stale()]
    total = total_memory_bytes()
    cache = cache_folder()
    return Diagnosis(
        python=f"{platform.python_version()} ({sys.executable})",
        platform=platform.platform(),
        packages={name: _version(name) for name in SHOWN_PACKAGES},
        cpu=_cpu(),
        gpus=_gpus(),
        memory_gib=None if total is None else round(total / GIB, 1),
        memory_free_gib=round(spare_memory_bytes() / GIB, 1),
        folder=str(Path.cwd()),
        disk_free_gib=_free_gib(Path.cwd()),
        cache=str(cache),
        cache_free_gib=_free_gib(cache),
        environment={name: value for name, value in sorted(os.environ.items()) if name.startswith("FRUITGAN_")},
        problems=problems,
    )


def _rows(found: Diagnosis) -> list[tuple[str, str]]:
    cpu = found.cpu
    threads = "" if cpu.torch_threads is None else f", {cpu.torch_threads} threads fastest now"
    fast = ", fast bf16" if cpu.has_bf16 else ""
    rows = [("python", found.python), ("platform", found.platform)]
    rows += [(name, version or "not installed") for name, version in found.packages.items()]
    rows.append(("cpu", f"{cpu.name}, {cpu.cores} cores{threads}{f', {cpu.instructions}' if cpu.instructions else ''}{fast}"))
    for gpu in found.gpus:
        size = "" if gpu.memory_gib is None else f", {gpu.memory_gib} GiB"
        rows.append(("gpu", f"{gpu.name} ({gpu.device}{size}{', fast bf16' if gpu.has_bf16 else ''})"))
    if not found.gpus:
        rows.append(("gpu", "none that torch can use"))
    if found.memory_gib is not None:
        rows.append(("memory", f"{found.memory_gib} GiB, {found.memory_free_gib} GiB free"))
    rows.append(("disk", f"{found.disk_free_gib} GiB free at {found.folder}"))
    rows.append(("cache", f"{found.cache} ({found.cache_free_gib} GiB free)"))
    return rows + list(found.environment.items())


def _import_problems() -> list[str]:
    problems = []
    for name in IMPORTED_PACKAGES:
        try:
            importlib.import_module(name)
        except Exception as error:  # a broken build raises what it likes
            problems.append(f"{name} {_version(name) or ''} cannot be imported: {type(error).__name__}: {reason_of(error)}")
    return problems


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> Cpu:
    threads, instructions, bf16 = None, None, False
    with contextlib.suppress(Exception):  # torch may be the very thing that is broken
        import torch

        from fruitgan.device import has_fast_bf16
        from fruitgan.threads import fastest_threads, fixed_threads

        threads = (fixed_threads(None) or fastest_threads(seconds=1)).number
        instructions = torch.backends.cpu.get_cpu_capability()
        bf16 = has_fast_bf16(torch.device("cpu"))
    return Cpu(name=_cpu_name(), cores=cores(), torch_threads=threads, instructions=instructions, has_bf16=bf16)


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        names = Counter(
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        )
        if names:
            return names.most_common(1)[0][0]
    return platform.processor() or platform.machine()


def _gpus() -> list[Gpu]:
    found = []
    with contextlib.suppress(Exception):  # as above; a driver may fail too
        import torch

        from fruitgan.device import has_fast_bf16

        for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
            device = torch.device("cuda", index)
            facts = torch.cuda.get_device_properties(device)
            memory = round(facts.total_memory / GIB, 1)
            found.append(Gpu(name=facts.name, device=str(device), memory_gib=memory, has_bf16=has_fast_bf16(device)))
        if torch.backends.mps.is_available():
            found.append(Gpu(name="Apple GPU", device="mps", memory_gib=None, has_bf16=False))
    return found


def _free_gib(folder: Path) -> float:
    """Room on the disk of the folder, or of the one that it would be made in."""
    while not folder.exists():
        folder = folder.parent
    return round(shutil.disk_usage(folder).free / GIB, 1)


def unusable() -> list[str]:
    """Names that two packages claim, and those whose package cannot be imported."""
    found = []
    for kind in KINDS:
        registry = Registry[Any](kind)
        for name in registry.names():
            try:
                registry.get(name)
            except FruitganError as error:
                found.append(str(error))
    return found


def stale() -> list[str]:
    """Editable installs whose entry points were written before the project's pyproject.toml was last changed."""
    found = []
    for distribution in metadata.distributions():
        project = _editable_project(distribution)
        if project is None:
            continue
        declared = _declared(project)
        if declared is None:
            found.append(f"{distribution.name} is installed from {project}, where no pyproject.toml can be read")
            continue
        registered = {
            (point.group, point.name, point.value)
            for point in distribution.entry_points
            if point.group.startswith(GROUP_PREFIX)
        }
        changed = sorted({f"{group.removeprefix(GROUP_PREFIX)}/{name}" for group, name, _ in declared ^ registered})
        if changed:
            found.append(
                f"the installed metadata of {distribution.name} differs from {project / 'pyproject.toml'} "
                f"in {', '.join(changed)}: pip install -e {project}"
            )
    return found


def _editable_project(distribution: metadata.Distribution) -> Path | None:
    """Where an editable install has its source; None for every other install."""
    text = distribution.read_text("direct_url.json")
    if not text:
        return None
    try:
        origin = json_module.loads(text)
        editable = origin.get("dir_info", {}).get("editable", False)
        return Path(url2pathname(urlsplit(origin["url"]).path)) if editable else None
    except (ValueError, KeyError, AttributeError):
        return None


def _declared(project: Path) -> set[tuple[str, str, str]] | None:
    """The fruitgan entry points (group, name, target) that a project's pyproject.toml declares."""
    try:
        table = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    groups = table.get("project", {}).get("entry-points", {})
    return {
        (group, name, target)
        for group, points in groups.items()
        if group.startswith(GROUP_PREFIX)
        for name, target in points.items()
    }
