"""Engines run the generator of a bundle: torch or onnxruntime; pictures of any size, and too large ones in tiles."""
