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
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from fruitgan.console import Console, options
from fruitgan.errors import FruitganError, reason_of
from fruitgan.machine import cache_folder, cores, cpu_name, spare_memory_bytes, total_memory_bytes
from fruitgan.registry import KINDS, Registry

SHOWN_PACKAGES = ("fruitgan", "torch", "torchvision", "kornia", "numpy", "pillow", "safetensors")
IMPORTED_PACKAGES = ("torch", "torchvision", "kornia")
"""Those whose builds must fit together, which only an import shows."""
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
    problems = [*_import_problems(), *unusable(), *stale()]
    total = total_memory_bytes()
    return {
        "python": f"{platform.python_version()} ({sys.executable})",
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in SHOWN_PACKAGES},
        "cpu": _cpu(),
        "gpus": _gpus(),
        "memory_gib": None if total is None else round(total / GIB, 1),
        "memory_free_gib": round(spare_memory_bytes() / GIB, 1),
        "folder": str(Path.cwd()),
        "disk_free_gib": _free_gib(Path.cwd()),
        "cache": str(cache_folder()),
        "cache_free_gib": _free_gib(cache_folder()),
        "environment": {name: value for name, value in sorted(os.environ.items()) if name.startswith("FRUITGAN_")},
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
    return rows + list(found["environment"].items())


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


def _cpu() -> dict[str, Any]:
    found = {"name": cpu_name(), "cores": cores(), "torch_threads": None, "instructions": None, "has_bf16": False}
    with contextlib.suppress(Exception):  # torch may be the very thing that is broken
        import torch

        from fruitgan.device import has_fast_bf16
        from fruitgan.threads import fastest_threads, fixed_threads

        found["torch_threads"] = (fixed_threads(None) or fastest_threads(seconds=1)).number
        found["instructions"] = torch.backends.cpu.get_cpu_capability()
        found["has_bf16"] = has_fast_bf16(torch.device("cpu"))
    return found


def _gpus() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    with contextlib.suppress(Exception):  # as above; a driver may fail too
        import torch

        from fruitgan.device import has_fast_bf16

        for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
            device = torch.device("cuda", index)
            facts = torch.cuda.get_device_properties(device)
            memory = round(facts.total_memory / GIB, 1)
            found.append({"name": facts.name, "device": str(device), "memory_gib": memory, "has_bf16": has_fast_bf16(device)})
        if torch.backends.mps.is_available():
            found.append({"name": "Apple GPU", "device": "mps", "memory_gib": None, "has_bf16": False})
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
        try:
            table = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found.append(f"{distribution.name} is installed from {project}, where no pyproject.toml can be read")
            continue
        groups = table.get("project", {}).get("entry-points", {})
        declared = {(group, name, target) for group, points in groups.items() for name, target in points.items()}
        registered = {(point.group, point.name, point.value) for point in distribution.entry_points}
        changed = {f"{group}/{name}" for group, name, _ in declared ^ registered if group.startswith("fruitgan.")}
        if changed:
            found.append(
                f"the installed metadata of {distribution.name} differs from {project / 'pyproject.toml'} "
                f"in {', '.join(sorted(changed)).replace('fruitgan.', '')}: pip install -e {project}"
            )
    return found


def _editable_project(distribution: metadata.Distribution) -> Path | None:
    """Where an editable install has its source; None for every other install."""
    try:
        origin = json_module.loads(distribution.read_text("direct_url.json") or "{}")
        editable = origin.get("dir_info", {}).get("editable", False)
        return Path(url2pathname(urlsplit(origin["url"]).path)) if editable else None
    except (ValueError, KeyError, AttributeError):
        return None
