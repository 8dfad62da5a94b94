"""What is wrong with the installed packages: names claimed twice, plug-ins that cannot be imported, metadata gone stale."""

from __future__ import annotations

import json
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from fruitgan.errors import FruitganError
from fruitgan.registry import KINDS, Registry

GROUP_PREFIX = "fruitgan."


def problems() -> list[str]:
    """One line each; imports every registered thing."""
    return [*unusable(), *stale()]


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
        origin = json.loads(text)
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
