"""What fixed images look like at the moment: source, fake, cycled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from fruitgan.images import Pixels, bytes_from_unit, signed_from_unit, unit_from_bytes, unit_from_signed


@torch.inference_mode()
def translate_batch(generator: nn.Module, images: Sequence[Pixels], device: torch.device) -> list[Pixels]:
    """uint8 [S, S, 3] each, through the generator in evaluation mode, which is left as it was found."""
    was_training = generator.training
    generator.eval()
    try:
        stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float().to(device)
        out = unit_from_signed(generator(signed_from_unit(unit_from_bytes(stacked))))
        return list(bytes_from_unit(out.permute(0, 2, 3, 1).float().cpu().numpy()))
    finally:
        generator.train(was_training)


def sample_rows(
    generators: Mapping[str, nn.Module], sources: Mapping[str, Sequence[Pixels]], device: torch.device
) -> list[list[Pixels]]:
    """For each direction and each of its sources a row: source, fake and, with both directions, cycled.

    `generators` and `sources` are by direction (`a2b`, `b2a`).
    """
    rows = []
    for direction, images in sources.items():
        if not images:
            continue
        fakes = translate_batch(generators[direction], images, device)
        back = {"a2b": "b2a", "b2a": "a2b"}[direction]
        columns = [list(images), fakes]
        if back in generators:
            columns.append(translate_batch(generators[back], fakes, device))
        rows += [list(row) for row in zip(*columns, strict=True)]
    return rows
