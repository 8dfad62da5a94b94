"""`fruitgan doctor`: what this machine can do, and what is wrong with this installation."""

from __future__ import annotations

import contextlib
import importlib
import os
import platform
import shutil
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from fruitgan.cache import CACHE_LIMITS_BYTES
from fruitgan.console import Console, options
from fruitgan.errors import FruitganError, reason_of
from fruitgan.files import size_bytes
from fruitgan.machine import cache_folder, cores, cpu_name, spare_memory_bytes, total_memory_bytes
from fruitgan.registry import KINDS, Registry

SHOWN_PACKAGES = ("fruitgan", "torch", "torchvision", "kornia", "numpy", "pillow", "safetensors")
IMPORTED_PACKAGES = ("torch", "torchvision", "kornia")
"""Those whose builds must fit together, which only an import shows."""
SECRETS = ("FRUITGAN_AUTH",)
"""What is printed here ends in public reports of faults."""
GIB = 2**30


def doctor(json: options.Json = False) -> None:
    """Show what this machine can do, and what is wrong with this installation.

    Example: fruitgan doctor
    """
    console = Console(json=json)
    found = diagnose()
    console.result(found)
    console.table("", ("what", "here"), _rows(found))
    console.out("")
    for problem in found["problems"]:
        console.out(f"problem: {problem}")
    if not found["problems"]:
        console.out("nothing is wrong with this installation")


def diagnose() -> dict[str, Any]:
    """What `--json` prints; imports torch and whatever is registered. None stands for what could not be found out."""
    problems = _problems()
    total = total_memory_bytes()
    cpu, gpus = _processors()
    return {
        "python": f"{platform.python_version()} ({sys.executable})",
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in SHOWN_PACKAGES},
        "cpu": cpu,
        "gpus": gpus,
        "memory_gib": None if total is None else round(total / GIB, 1),
        "memory_free_gib": round(spare_memory_bytes() / GIB, 1),
        "folder": str(Path.cwd()),
        "disk_free_gib": _free_gib(Path.cwd()),
        "cache": str(cache_folder()),
        "cache_free_gib": _free_gib(cache_folder()),
        "caches": {
            name: {"gib": round(size_bytes(cache_folder() / name) / GIB, 1), "limit_gib": limit / GIB}
            for name, limit in CACHE_LIMITS_BYTES.items()
        },
        "environment": {
            name: "set, and not shown" if name in SECRETS else value
            for name, value in sorted(os.environ.items())
            if name.startswith("FRUITGAN_")
        },
        "problems": problems,
    }


def _rows(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    cpu = found["cpu"]
    facts = [f"{cpu['name']}", f"{cpu['cores']} cores"]
    if cpu["torch_threads"] is not None:
        facts.append(f"{cpu['torch_threads']} thread{'s' * (cpu['torch_threads'] > 1)} fastest now")
    facts += [cpu["instructions"]] * bool(cpu["instructions"]) + ["fast bf16"] * cpu["has_bf16"]
    rows = [("python", found["python"]), ("platform", found["platform"])]
    rows += [(name, version or "not installed") for name, version in found["packages"].items()]
    rows.append(("cpu", ", ".join(facts)))
    for gpu in found["gpus"]:
        size = "" if gpu["memory_gib"] is None else f", {gpu['memory_gib']} GiB"
        rows.append(("gpu", f"{gpu['name']} ({gpu['device']}{size}{', fast bf16' if gpu['has_bf16'] else ''})"))
    if not found["gpus"]:
        rows.append(("gpu", "none that torch can use"))
    if found["memory_gib"] is not None:
        rows.append(("memory", f"{found['memory_gib']} GiB, {found['memory_free_gib']} GiB free"))
    rows.append(("disk", f"{found['disk_free_gib']} GiB free at {found['folder']}"))
    rows.append(("cache", f"{found['cache']} ({found['cache_free_gib']} GiB free)"))
    rows += [
        (f"cache/{name}", f"{taken['gib']} of at most {taken['limit_gib']:g} GiB") for name, taken in found["caches"].items()
    ]
    return rows + list(found["environment"].items())


def _problems() -> list[str]:
    """Packages that cannot be imported, names that two packages claim, and those whose package cannot be imported."""
    problems = []
    for name in IMPORTED_PACKAGES:
        try:
            importlib.import_module(name)
        except Exception as error:  # a broken build raises what it likes
            problems.append(f"{name} {_version(name) or ''} cannot be imported: {type(error).__name__}: {reason_of(error)}")
    for registry in map(Registry[Any], KINDS):
        for name in registry.names():
            try:
                registry.get(name)
            except FruitganError as error:
                problems.append(str(error))
    return problems


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processors() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The CPU and the GPUs, as far as torch can say: it may be the very thing that is broken, and a driver may fail too."""
    cpu = {"name": cpu_name(), "cores": cores(), "torch_threads": None, "instructions": None, "has_bf16": False}
    gpus: list[dict[str, Any]] = []
    with contextlib.suppress(Exception):
        import torch

        from fruitgan.device import fastest_threads, fixed_threads, has_fast_bf16

        cpu["torch_threads"] = (fixed_threads(None) or fastest_threads(seconds=1)).number
        cpu["instructions"] = torch.backends.cpu.get_cpu_capability()
        cpu["has_bf16"] = has_fast_bf16(torch.device("cpu"))
        for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
            device = torch.device("cuda", index)
            facts = torch.cuda.get_device_properties(device)
            memory = round(facts.total_memory / GIB, 1)
            gpus.append({"name": facts.name, "device": str(device), "memory_gib": memory, "has_bf16": has_fast_bf16(device)})
        if torch.backends.mps.is_available():
            gpus.append({"name": "Apple GPU", "device": "mps", "memory_gib": None, "has_bf16": False})
    return cpu, gpus


def _free_gib(folder: Path) -> float:
    """Room on the disk of the folder, or of the one that it would be made in."""
    while not folder.exists():
        folder = folder.parent
    return round(shutil.disk_usage(folder).free / GIB, 1)
