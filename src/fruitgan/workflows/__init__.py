"""The jobs, each one plain function: `job(settings, on_progress=None) -> Result`. They print nothing."""
