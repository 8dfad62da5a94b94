"""What every job tells while it works: how far it is, and what one should know."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Progress:
    """One part of the work, by name, and how far it is; `details` are a few values beside it, such as losses."""

    what: str
    done: int
    total: int
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Note:
    """A sentence that a person should read now: a warning, or something that was decided for them."""

    text: str
    is_warning: bool = False


Event = Progress | Note
OnProgress = Callable[[Event], bool | None]
"""Called with each event; if it returns True, the job comes to a clean stop and gives what it has."""


def silent(event: Event) -> None:
    """For those who want no events."""


@dataclass
class Listener:
    """Whoever a job's events are told to; `stopped` once they have asked for a stop."""

    on_progress: OnProgress | None
    stopped: bool = False

    def tell(self, event: Event) -> None:
        if self.on_progress is not None and self.on_progress(event):
            self.stopped = True

    def warn(self, *texts: str) -> None:
        for text in texts:
            self.tell(Note(text, is_warning=True))


def duration(seconds: float) -> str:
    """3.2 s, 1 min 15 s, 2 h 5 min, 3 d 4 h."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    rest = round(seconds)
    for size, name, lower_size, lower_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if rest >= size:
            lower = rest % size // lower_size
            return f"{rest // size} {name}" + (f" {lower} {lower_name}" if lower else "")
    return f"{rest} s"
