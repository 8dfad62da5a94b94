"""Training an unpaired translation."""
