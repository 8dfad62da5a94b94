"""Drawn fruit: apples and oranges from numbers alone, for demonstrations and tests without anybody's photographs."""

from __future__ import annotations

from fruitgan.demo.fruit.scene import KINDS, MINIMUM_SIZE_PX, draw
from fruitgan.demo.fruit.skin import Kind

__all__ = ["KINDS", "MINIMUM_SIZE_PX", "Kind", "draw"]
