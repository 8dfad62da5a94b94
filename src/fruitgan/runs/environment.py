"""What a result was made with: versions and machine, for the record, and for runs that go on elsewhere."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from fruitgan.runs.run import Run

PACKAGES = ("fruitgan", "torch", "torchvision", "kornia", "numpy", "pillow", "safetensors")
# What decides the bits of a result; the decoded images are compared by their fingerprint.
DECIDING = ("system", "cpu", "cpu_capability", "torch_threads", "device", "gpu")
DECIDING_PACKAGES = ("fruitgan", "torch", "torchvision", "kornia", "numpy")
LATER = "later"


def environment(device: torch.device) -> dict[str, Any]:
    """Versions of what computes, and the machine's kind; nothing that names a person or a place."""
    return {
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cpu_cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "device": str(device),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
    }


def _cpu() -> str:
    """The processor's model: another one may round otherwise."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def keep_environment(run: Run, step: int, here: Mapping[str, Any]) -> list[str]:
    """Add this sitting's environment to the run's history if it is another than that of the sitting before."""
    history = run.environment
    if not history or not step:  # nothing of an earlier sitting is left
        if history != here:
            run.write_environment(here)
        return []
    # A sitting that left nothing behind does not count.
    later = [entry for entry in history.get(LATER, []) if entry["from_step"] < step]
    before = later[-1] if later else history
    differences = _differences(before, here)
    if differences:
        later.append({"from_step": step, **here})
    if later != history.get(LATER, []):
        run.write_environment({**history, LATER: later})
    if not differences:
        return []
    return [
        f"goes on elsewhere than it came from: {', '.join(differences)}; from here on it no longer equals, bit for bit, a run "
        "that was never stopped"
    ]


def _differences(before: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """What decides the bits and is another than before; what is not known of before counts as the same."""
    old = {name: before[name] for name in DECIDING if name in before}
    packages = before.get("packages", {})
    old |= {name: packages[name] for name in DECIDING_PACKAGES if name in packages}
    new = {**here, **here["packages"]}
    return [
        f"{name.replace('_', ' ')} {_in_words(new[name])} (was {_in_words(value)})"
        for name, value in old.items()
        if value != new[name]
    ]


def _in_words(value: Any) -> str:
    return "none" if value is None else str(value)
