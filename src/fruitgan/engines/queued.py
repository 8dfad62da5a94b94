"""Engines whose calls must not overlap, for callers of several threads."""

from __future__ import annotations

import threading

from fruitgan.engines.contracts import Engine, Images


class Queued(Engine):
    """Takes calls from several threads and passes them on one after the other."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._turn = threading.Lock()

    def translate(self, images: Images) -> Images:
        with self._turn:
            return self._engine.translate(images)


def for_threads(engine: Engine) -> Engine:
    """The engine itself where it is concurrent, else one that keeps its calls apart."""
    return engine if engine.concurrent else Queued(engine)
