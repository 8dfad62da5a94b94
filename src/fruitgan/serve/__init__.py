"""`fruitgan serve`: pages on this machine that translate pictures, show runs and ask detectors."""
