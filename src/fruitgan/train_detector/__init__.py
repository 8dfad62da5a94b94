"""Training and test of classifiers of real against generated images."""
