"""The registry of engines."""

from __future__ import annotations

from fruitgan.engines.contracts import EngineBuilder
from fruitgan.registry import Registry

engines: Registry[EngineBuilder] = Registry("engines")
