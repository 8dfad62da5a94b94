"""Feature backends: two that need no weights from anywhere, and Inception for those who have its weights."""
