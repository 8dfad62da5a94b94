"""How images become data: sources, download, decode, image dataset, decoded image cache, loader."""
