"""A generator, a detector and a subcommand for fruitgan, from outside."""
