"""Pictures for people: grids of samples, plots, one self-contained page."""
