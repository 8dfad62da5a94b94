"""Pictures and their translations as a dataset of real and generated images, made by one path."""
