"""Teaching a small generator what a large one does."""
