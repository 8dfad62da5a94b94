"""Metrics: from the features of two sets of images to a number with its interval."""
