"""State that checkpoints keep: what influences the next step can be read out and restored."""

from __future__ import annotations

from typing import Any, Protocol

State = dict[str, Any]
"""A flat dict of tensors and JSON values."""


class Stateful(Protocol):
    """Something that influences the next step, and so stands in every checkpoint."""

    def state(self) -> State: ...

    def restore(self, state: State) -> None: ...
