"""What went wrong in a training, by its log, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def incidents(entries: Sequence[Mapping[str, Any]]) -> list[tuple[int, str]]:
    """Goings back, warnings of the watch and giving up, each with the step of its line."""
    found = []
    for entry in entries:
        found += [(entry["step"], went_back(rollback)) for rollback in entry.get("rollbacks", ())]
        found += [(entry["step"], text) for text in entry.get("warnings", {}).values()]
        if "not_finite" in entry:
            found.append((entry["step"], f"not finite: {', '.join(entry['not_finite'])}; the run gave up"))
    return found


def went_back(rollback: Mapping[str, Any]) -> str:
    """A rollback of the log in words."""
    terms = ", ".join(rollback["terms"])
    return f"not finite before step {rollback['from_step']}: {terms}; back to step {rollback['to_step']}, on with another seed"
