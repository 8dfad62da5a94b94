"""Features, statistics, numbers: how far generated images are from real ones, and how sure that is. Pure: nothing printed."""
