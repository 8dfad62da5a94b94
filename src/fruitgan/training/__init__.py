"""The loop and what keeps it: trainer, checkpoints, schedules, averages, the run folder."""
