"""The networks: their contracts, their catalog, and those that come with fruitgan."""
