"""A run folder: config, log, checkpoints, lock and resume, used by every command that trains."""
