"""How images become data: sources, download, decode, bank, sampler, drawn fruit."""
