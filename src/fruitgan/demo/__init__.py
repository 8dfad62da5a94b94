"""The whole loop on drawn fruit, in minutes and without a network."""
