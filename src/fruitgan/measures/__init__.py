"""Features, metrics and statistics: how far generated images are from real ones, with intervals. Nothing is printed."""
