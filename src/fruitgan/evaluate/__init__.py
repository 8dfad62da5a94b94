"""How real generated images are: distances, a detector's accuracy, and what would make either of them meaningless."""
