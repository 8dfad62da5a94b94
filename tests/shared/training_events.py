"""The events of a training, told apart by what tests ask: the start, each step, a checkpoint, a warning."""

from __future__ import annotations

from collections.abc import Iterable

from fruitgan.progress import Event, Note, Progress


def start_of(event: Event) -> int:
    """The step at which training begins, when its folder stands; -1 for any other event."""
    return event.done if isinstance(event, Progress) and "run" in event.details else -1


def step_of(event: Event) -> int:
    """The step that is done; -1 for any other event."""
    return event.done if isinstance(event, Progress) and "losses" in event.details else -1


def is_saved(event: Event) -> bool:
    """Whether a checkpoint and a bundle are on the disk."""
    return isinstance(event, Note) and event.text.startswith("saved ")


def is_warning(event: Event) -> bool:
    return isinstance(event, Note) and event.is_warning


def warnings_of(events: Iterable[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Note) and event.is_warning]
