"""Engines run the generator of a bundle: torch or onnxruntime; pictures of any size, and too large ones in tiles."""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime would tell its makers of each use, and looks when imported
