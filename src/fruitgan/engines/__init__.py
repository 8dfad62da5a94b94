"""What runs the generator of a bundle."""
