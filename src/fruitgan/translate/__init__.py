"""Translate images with a bundle's generators, and export the generators for other programs."""
