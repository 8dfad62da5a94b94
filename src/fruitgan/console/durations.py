"""Times as people type and read them."""

from __future__ import annotations

import re

from fruitgan.errors import UsageError


def seconds_of(text: str) -> float:
    """`90`, `90s`, `10m`, `1h30m` or `2d` as seconds.

    Raises:
        UsageError: none of these, or nothing at all.
    """
    match = re.fullmatch(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", text.strip().lower())
    parts = [int(part or 0) for part in match.groups()] if match else []
    if not any(parts):
        raise UsageError(f"--max-time {text}: expected a time such as 90s, 10m or 1h30m")
    days, hours, minutes, seconds = parts
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def duration(seconds: float) -> str:
    """Seconds in the words that a person would use."""
    for unit, size in (("weeks", 7 * 86400), ("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"
