"""Which discriminator learns soonest to tell a bundle's fakes from real images, with nothing else in play.

    python benchmarks/discriminators.py --data apple2orange --bundle BUNDLE [--norms spectral,instance] [--steps 1600]

The fakes are made once, of the training images of domain a; the discriminator (three scales, 32 channels, bf16 where the CPU
has it) then sees `--batch` real and as many generated crops of 128 px from pictures of 192 a step. Judged on a tenth of the
training images, cut off by hash: the share of pairs that it puts in the right order (area under the ROC curve), by scale.
"""

from __future__ import annotations

import argparse
import hashlib
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from fruitgan import bundle as bundles
from fruitgan.data.decode import decode
from fruitgan.data.sources import find_source
from fruitgan.device import has_fast_bf16
from fruitgan.engines.contracts import engines
from fruitgan.engines.padding import translate_pixels
from fruitgan.images import Pixels, squared
from fruitgan.networks.discriminators import MultiscalePatchDiscriminator
from fruitgan.train_gan.objectives.adversarial import discriminator_loss

LOAD_PX, CROP_PX = 192, 128
SCALES, CHANNELS = 3, 32
TELL_EVERY = 400


def is_held_out(path: Path) -> bool:
    return hashlib.sha256(path.name.encode()).digest()[0] < 26


def pictures(paths: Sequence[Path]) -> list[Pixels]:
    return [squared(decode(path).pixels, LOAD_PX) for path in paths]


def crops(images: Sequence[Pixels], drawn: random.Random, count: int) -> Tensor:
    """Random crops of random images, half of them mirrored: [count, 3, CROP_PX, CROP_PX] in [-1, 1]."""
    found = []
    for _ in range(count):
        image = images[drawn.randrange(len(images))]
        top, left = drawn.randrange(LOAD_PX - CROP_PX + 1), drawn.randrange(LOAD_PX - CROP_PX + 1)
        crop = image[top : top + CROP_PX, left : left + CROP_PX]
        found.append(crop[:, ::-1] if drawn.random() < 0.5 else crop)
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.no_grad()
def areas(network: torch.nn.Module, real: Sequence[Pixels], fake: Sequence[Pixels]) -> list[float]:
    """The area under the ROC curve of the mean logit of each image's centre, by scale."""
    edge = (LOAD_PX - CROP_PX) // 2
    x = torch.from_numpy(np.stack([image[edge : edge + CROP_PX, edge : edge + CROP_PX] for image in [*real, *fake]]))
    network.eval()
    maps = network(x.permute(0, 3, 1, 2).float() / 127.5 - 1)
    network.train()
    truth = [1] * len(real) + [0] * len(fake)
    return [float(roc_auc_score(truth, scale.mean((1, 2, 3)).numpy())) for scale in maps]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--norms", default="spectral,instance,spectral-instance,mixed,none")
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    given = parser.parse_args()
    bundle, source = bundles.load(given.bundle), find_source(given.data)
    engine = engines.get("torch")(generator=bundle.card.generator, weights=bundle.weights["a2b"], gpu="none")
    shown = {}
    for held in (False, True):
        shown["real", held] = pictures([path for path in source.b.train if is_held_out(path) == held])
        sources = pictures([path for path in source.a.train if is_held_out(path) == held])
        shown["fake", held] = [translate_pixels(engine, bundle.card, image, "native") for image in sources]
    for norm in given.norms.split(","):
        torch.manual_seed(0)
        drawn = random.Random(0)
        network = MultiscalePatchDiscriminator(base_channels=CHANNELS, scales=SCALES, norm=norm)
        optimizer = torch.optim.Adam(network.parameters(), given.learning_rate, betas=(0.5, 0.99))
        for step in range(1, given.steps + 1):
            both = torch.cat([crops(shown[kind, False], drawn, given.batch) for kind in ("real", "fake")])
            with torch.autocast("cpu", torch.bfloat16, enabled=has_fast_bf16(torch.device("cpu"))):
                halves = [scale.chunk(2) for scale in network(both)]
                loss = discriminator_loss("lsgan", [half[0] for half in halves], [half[1] for half in halves])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if step % TELL_EVERY == 0 or step == given.steps:
                found = areas(network, shown["real", True], shown["fake", True])
                print(f"{norm}, step {step}: {', '.join(f'{area:.2f}' for area in found)}", flush=True)


if __name__ == "__main__":
    main()
