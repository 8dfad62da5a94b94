"""A generator of your own in the training loop, without making a package of it (docs/plugins.md shows how to make one).

python own_generator.py [STEPS]
"""

import dataclasses
import sys

import torch
from torch import Tensor, nn

from fruitgan.data.augment.training import JitterMirror
from fruitgan.data.image_dataset import ImageDataset
from fruitgan.data.loader import BatchLoader, Sampler
from fruitgan.data.sources import find_source
from fruitgan.networks.contracts import Generator, SizeRule
from fruitgan.networks.discriminators import MultiscalePatchDiscriminator
from fruitgan.train_gan.objectives.cyclegan import cyclegan
from fruitgan.train_gan.recipes import fast
from fruitgan.train_gan.trainer import Trainer

SIZE_PX, SEED = 48, 0


class Tint(Generator):
    """Adds to each pixel what a small network makes of its neighbourhood."""

    size_rule = SizeRule(minimum_px=2, multiple_of_px=1)

    def __init__(self) -> None:
        super().__init__()
        self.widen = nn.Sequential(nn.Conv2d(3, 16, 5, padding=2), nn.ReLU())
        self.narrow = nn.Conv2d(16, 3, 5, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x + self.narrow(self.widen(x)))


def main(steps: int) -> None:
    source = find_source("demo")
    augmentation = JitterMirror()
    size = augmentation.load_size_px(SIZE_PX)
    banks = [ImageDataset.build(domain.train[:40], load_size_px=size) for domain in (source.a, source.b)]
    sampler = Sampler(len(banks[0]), len(banks[1]), batch_size=4, seed=SEED, pairing="passes")
    device = torch.device("cpu")
    feed = BatchLoader(*banks, sampler, augmentation, image_size_px=SIZE_PX, device=device)
    trainer = Trainer(
        cyclegan(pool_size=0)(Tint, lambda: MultiscalePatchDiscriminator(base_channels=8)),
        dataclasses.replace(fast, image_size_px=SIZE_PX),
        feed,
        total_steps=steps,
        steps_per_epoch=sampler.steps_per_epoch,
        seed=SEED,
        device=device,
        precision="fp32",
        log_every=5,
    )
    for report in trainer.steps(until=steps):
        if report.losses is not None:
            print(
                f"step {report.step}: cycle {report.losses['cycle_a']:.3f}, {report.losses['adversarial_ab']:.3f} adversarial"
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
