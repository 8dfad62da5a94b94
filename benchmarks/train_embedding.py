"""Train the network of the features fruit-embed on real photographs of two kinds of fruit.

    python benchmarks/train_embedding.py --data-a DIR --data-b DIR --out fruit_embed.safetensors

Two views of each photograph (crop, mirror image, and the colours changed beyond recognition) are told apart by kind, and
found again
among the other photographs' views (NT-Xent, Chen et al. 2020, equation 1). A tenth of either folder, cut off by hash, takes no
part; on it the accuracy is printed every few epochs, and everything about the features is to be chosen there. No generated
image, and no other network, has a part in it.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from fruitgan.data.decode import decode
from fruitgan.data.sources import loose_source
from fruitgan.files import file_sha256
from fruitgan.images import resize
from fruitgan.measures.features.fruit_embed import BESIDE, CHANNELS, SIZE_PX, EmbedNetwork
from fruitgan.networks.backbones import pooled
from fruitgan.parallel import in_order

STORED_PX = 144
VIEW_PX = 96
"""A view shows two thirds of a picture's width on average, so that things are as large in it as in a whole picture of 128
px.
"""
BATCH = 128
TEMPERATURE = 0.2
CLASS_WEIGHT, INSTANCE_WEIGHT = 1.0, 0.5
LEARNING_RATE, WEIGHT_DECAY = 2e-3, 0.05
TRUE_COLOURS = 0.15
"""Share of views whose colours stay: else the colours of a photograph as it is would be strange to the network."""


HUE_TURNS, HUE_DIRECTIONS = 3, 3
"""Turns a photograph; directions taken out. Of 1 to 6 directions and four choices of maps, these told held-out apples from
oranges best (13 times the scatter of halves of oranges) among those that left apples of another hue where they were."""

CARD = {
    "name": "fruit-embed",
    "what": "features of fruit for comparing sets of pictures; no classifier to rely on",
    "data": "real photographs alone: 1,782 of apple2orange's training images (from ImageNet), no generated image",
    "licence": "Research only, not for commercial use: trained on photographs of ImageNet, which come with no licence of "
    "their own.",
}


class Pupil(nn.Module):
    """The network with what only training needs: a head for the kind, and one for finding a photograph again."""

    def __init__(self) -> None:
        super().__init__()
        self.network = with_norms(EmbedNetwork())
        width = CHANNELS[-1]
        self.kind = nn.Linear(width, 1)
        self.instance = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 64))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """[N, 3, H, W] to logits [N] of being of the second kind, and unit vectors [N, 64]."""
        last = self.network(images)[-1].float().mean((2, 3))
        return self.kind(F.dropout(last, 0.2, self.training))[:, 0], F.normalize(self.instance(last), dim=1)


def with_norms(network: EmbedNetwork) -> EmbedNetwork:
    """The network with a batch norm behind each convolution, which then needs no bias."""
    for name, conv in list(network.named_children()):
        assert isinstance(conv, nn.Conv2d)
        conv.register_parameter("bias", None)
        setattr(network, name, nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels)))
    return network


def folded(network: EmbedNetwork) -> EmbedNetwork:
    """The same function in eval mode, with every batch norm in its convolution."""
    plain = EmbedNetwork()
    for name, unit in network.named_children():
        conv, norm = cast(tuple[nn.Conv2d, nn.BatchNorm2d], tuple(unit.children()))
        setattr(plain, name, torch.nn.utils.fusion.fuse_conv_bn_eval(conv.eval(), norm.eval()))
    return plain.eval()


def read(paths: tuple[Path, ...], side_px: int) -> Tensor:
    """uint8 [N, 3, side_px, side_px]."""
    found = in_order(lambda path: resize(decode(path).pixels, side_px, side_px, Image.Resampling.LANCZOS), paths)
    return torch.from_numpy(np.stack([pixels for _, pixels in found])).permute(0, 3, 1, 2).contiguous()


def views(images: Tensor, random: torch.Generator) -> Tensor:
    """A random view of each picture: uint8 [N, 3, S, S] to [N, 3, VIEW_PX, VIEW_PX] in [0, 1]."""
    n = len(images)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand((n, *shape), generator=random)

    area, aspect = uniform(0.25, 0.9), torch.exp(uniform(-0.25, 0.25))
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    x, y = (1 - width) * uniform(-1, 1), (1 - height) * uniform(-1, 1)
    mirror = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    zero = torch.zeros(n)
    theta = torch.stack([torch.stack([mirror * width, zero, x], 1), torch.stack([zero, height, y], 1)], 1)
    grid = F.affine_grid(theta, [n, 3, VIEW_PX, VIEW_PX], align_corners=False)
    crops = F.grid_sample(images.float() / 255, grid, padding_mode="reflection", align_corners=False)
    return recoloured(crops, random)


def recoloured(images: Tensor, random: torch.Generator) -> Tensor:
    """Hue turned to anywhere, saturation 0 to 1.6, channels weighed, swapped and bent, but for a few pictures that stay."""
    n = len(images)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand((n, *shape), generator=random)

    order = torch.argsort(uniform(0, 1, 3), 1)
    swapped = images.gather(1, order[:, :, None, None].expand_as(images))
    bent = swapped.clamp_min(1e-4) ** torch.exp(uniform(-0.5, 0.5, 3, 1, 1))
    turn = _hue_turns(uniform(-math.pi, math.pi), uniform(0, 1.6) * (uniform(0, 1) > 0.15))
    turned = torch.einsum("nij,njhw->nihw", turn, bent)
    contrast, brightness = uniform(0.6, 1.4, 1, 1, 1), uniform(-0.15, 0.15, 1, 1, 1)
    changed = ((turned - 0.5) * contrast + 0.5 + brightness).clamp(0, 1)
    return torch.where(uniform(0, 1, 1, 1, 1) < TRUE_COLOURS, images, changed)


def _hue_turns(angles: Tensor, saturations: Tensor) -> Tensor:
    """[N, 3, 3]: rotations about the grey axis that keep the mean of the channels, with the chroma scaled."""
    grey = torch.full((3, 3), 1 / 3)
    cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    cos, sin = (saturations * angles.cos())[:, None, None], (saturations * angles.sin())[:, None, None]
    return grey + cos * (torch.eye(3) - grey) + sin * cross


def instance_loss(first: Tensor, second: Tensor) -> Tensor:
    """NT-Xent: each view [N, D] has to find the other view of its picture among all 2 N - 1."""
    both = torch.cat([first, second])
    likeness = both @ both.T / TEMPERATURE
    likeness.fill_diagonal_(-torch.inf)
    n = len(first)
    return F.cross_entropy(likeness, torch.arange(2 * n).roll(n))


def train(images: Tensor, kinds: Tensor, held: Tensor, held_kinds: Tensor, epochs: int, seed: int) -> Pupil:
    """A trained pupil; progress goes to stdout."""
    torch.manual_seed(seed)
    random = torch.Generator().manual_seed(seed)
    pupil = Pupil().to(memory_format=torch.channels_last)  # 1.2 s instead of 1.8 s a step in bf16
    steps = epochs * (len(images) // BATCH)
    optimizer = torch.optim.AdamW(pupil.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    warmup = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda t: min((t + 1) / warmup, 0.5 * (1 + math.cos(math.pi * t / steps)))
    )
    began = time.monotonic()
    for epoch in range(epochs):
        pupil.train()
        for batch in torch.split(torch.randperm(len(images), generator=random), BATCH):
            if len(batch) < BATCH:
                continue
            both = torch.cat([views(images[batch], random), views(images[batch], random)])
            with torch.autocast("cpu", torch.bfloat16):
                logits, vectors = pupil(both.contiguous(memory_format=torch.channels_last))
            kind = kinds[batch].repeat(2) * 0.9 + 0.05
            class_loss = F.binary_cross_entropy_with_logits(logits.float(), kind)
            again = instance_loss(*vectors.float().chunk(2))
            optimizer.zero_grad()
            torch.autograd.backward([CLASS_WEIGHT * class_loss + INSTANCE_WEIGHT * again])
            optimizer.step()
            schedule.step()
        if epoch % 5 == 4 or epoch == epochs - 1:
            right = [accuracy(pupil, held, held_kinds, grey) for grey in (False, True)]
            print(
                f"epoch {epoch + 1}: class loss {class_loss.item():.3f}, instance loss {again.item():.3f}; "
                f"held out {right[0]:.1%} right, {right[1]:.1%} in grey; {time.monotonic() - began:.0f} s",
                flush=True,
            )
    return pupil


@torch.inference_mode()
def accuracy(pupil: Pupil, images: Tensor, kinds: Tensor, grey: bool) -> float:
    """Share of pictures whose kind is told right, as they are or without their colours."""
    pupil.eval()
    right = 0
    for start in range(0, len(images), 64):
        x = F.interpolate(images[start : start + 64].float() / 255, SIZE_PX, mode="bilinear", antialias=True)
        x = x.mean(1, keepdim=True).expand_as(x) if grey else x
        right += int(((pupil(x)[0] > 0) == (kinds[start : start + 64] > 0.5)).sum())
    return right / len(images)


@torch.inference_mode()
def finished(network: EmbedNetwork, paths: tuple[Path, ...], seed: int) -> dict[str, Tensor]:
    """The network's tensors in half precision, the features' mean and deviation, and the directions of a turn of hue.

    Those are the first principal directions (about zero) of what turning a photograph's hue by a random angle changes in its
    scaled features.
    """
    tensors = {name: tensor.half().contiguous() for name, tensor in network.state_dict().items()}
    network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    pictures = read(paths, SIZE_PX)
    plain = rows(network, pictures)
    mean, spread = plain.mean(0), plain.std(0).clamp_min(1e-3)
    angles = np.random.default_rng(seed).uniform(-180, 180, (HUE_TURNS, len(paths)))
    changes = torch.cat([(rows(network, hue_turned(pictures, row)) - plain) / spread for row in angles])
    directions = torch.linalg.eigh(changes.T @ changes).eigenvectors[:, -HUE_DIRECTIONS:]
    return tensors | {name: x.float().contiguous() for name, x in zip(BESIDE, (mean, spread, directions), strict=True)}


def rows(network: EmbedNetwork, pictures: Tensor) -> Tensor:
    """[N, D] in float64: the pooled maps of the two deepest stages."""
    return torch.cat([pooled(network(batch.float() / 255)[1:]) for batch in torch.split(pictures, 64)]).double()


def hue_turned(pictures: Tensor, degrees: NDArray[np.float64]) -> Tensor:
    """uint8 [N, 3, S, S] with each picture's hue (of HSV) turned by its angle."""
    turned = []
    for picture, angle in zip(pictures.permute(0, 2, 3, 1).numpy(), degrees, strict=True):
        hsv = np.array(Image.fromarray(picture).convert("HSV"))
        hsv[:, :, 0] += np.uint8(round(angle * 256 / 360) % 256)
        turned.append(np.array(Image.fromarray(hsv, "HSV").convert("RGB")))
    return torch.from_numpy(np.stack(turned)).permute(0, 3, 1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-a", type=Path, required=True, metavar="DIR")
    parser.add_argument("--data-b", type=Path, required=True, metavar="DIR")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    parser.add_argument("--epochs", type=int, default=45)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    source = loose_source(given.data_a, given.data_b)
    learnt, held = (
        tuple(read(getattr(domain, split), STORED_PX) for domain in (source.a, source.b)) for split in ("train", "test")
    )
    kinds, held_kinds = (torch.cat([torch.zeros(len(a)), torch.ones(len(b))]) for a, b in (learnt, held))
    print(f"{len(kinds)} photographs teach, {len(held_kinds)} are held out", flush=True)
    pupil = train(torch.cat(learnt), kinds, torch.cat(held), held_kinds, given.epochs, given.seed)
    tensors = finished(folded(pupil.network), (*source.a.train, *source.b.train), given.seed)
    save_file(tensors, given.out, metadata={"card": json.dumps(CARD)})
    print(f"{given.out}: {given.out.stat().st_size:,} bytes, sha256 {file_sha256(given.out)}")


if __name__ == "__main__":
    main()
