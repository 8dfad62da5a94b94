"""Classifiers of real against generated images."""
