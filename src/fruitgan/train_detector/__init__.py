"""Train a classifier of real against generated images, and say how often it is right."""
