"""Generators, discriminators and detectors: contracts, registries, and the networks that come with fruitgan."""
