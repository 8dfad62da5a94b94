"""Weights of the reference code in and out: junyanz/pytorch-CycleGAN-and-pix2pix, and CUT's ResNet, which follows it.

Its networks are nested `nn.Sequential`s whose layers are known by number. Ours have the same layers in the same order, so that
the number of each can be counted. An instance norm stores nothing there; before PyTorch 0.4 it stored statistics that nothing
used. CUT also stores the weights of its blurs, which are always the same.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fruitgan.errors import DataError, UsageError, reading
from fruitgan.files import open_regular
from fruitgan.networks.contracts import Generator, generators
from fruitgan.networks.layers import BilinearUpsample, BlurPool, InstanceNorm, Residual
from fruitgan.networks.resnet import ResNetGenerator
from fruitgan.networks.unet import Pix2PixUNet
from fruitgan.networks.weights import Arrays, check_weights, sketch
from fruitgan.registry import Choice
from fruitgan.tensorfile import open_tensors

BLOCKS = {"resnet-9": 9, "resnet-6": 6}
DEPTHS = {"unet-256": 8, "unet-128": 7}
CUT = "cut-resnet"
OWN_NAMES = (*BLOCKS, "junyanz-resnet", "junyanz-unet")
"""Of the generators that the reference code has too."""
DROPOUT = 0.5
"""The only one that the reference code has."""
WRAPPERS = re.compile(r"^(module\.|_orig_mod\.)+")
"""What `DataParallel` and `torch.compile` put before every key."""


def read_checkpoint(path: Path, architecture: str) -> tuple[Choice, dict[str, NDArray[np.float32]]]:
    """The generator in a file of the reference code, with all its options, and its weights by their names here.

    Width and norm are found in the tensors, a ResNet's dropout too, and the blocks of CUT's; a UNet's dropout shows nowhere.

    Raises:
        DataError: the file cannot be read, or holds another generator; names the first key that does not fit.
    """
    arrays = _arrays(path)
    choice = _choice(arrays, architecture, path)
    network = sketch(generators, choice, arrays, f"{path}: the generator {architecture}")
    assert network is not None
    names, blurs = reference_names(network), _blurs(network)
    for key in arrays.keys() & blurs.keys():
        if arrays[key].shape != blurs[key].shape or not np.allclose(arrays[key], blurs[key], atol=1e-3):
            raise DataError(f"{path}: {key} is not the blur of CUT's generators")
    normed = [key for key, layer in _layers(network) if isinstance(layer, InstanceNorm)]
    unused = {*blurs, *(f"{key}.{end}" for key in normed for end in ("running_mean", "running_var"))}
    used = {key: array for key, array in arrays.items() if key not in unused and not key.endswith(".num_batches_tracked")}
    expected = {names[name]: tensor for name, tensor in network.state_dict().items()}
    check_weights(expected, used, f"the reference code's {architecture} ({path})")
    return choice, {name: np.ascontiguousarray(used[key]) for name, key in names.items()}


def reference_tensors(choice: Choice, weights: Arrays) -> dict[str, NDArray[np.float32]]:
    """The weights in full precision under the reference code's keys.

    Raises:
        UsageError: the reference code has no such generator.
        DataError: the weights are not this generator's.
    """
    if choice.name not in OWN_NAMES:
        theirs = ", ".join(OWN_NAMES)
        raise UsageError(f"the reference code has no generator like {choice.name}: train one of {theirs} (--generator)")
    network = sketch(generators, choice, weights, f"the generator {choice.name}")
    assert network is not None
    names = reference_names(network)
    check_weights(network.state_dict(), weights, f"the generator {choice.name} as installed here")
    return {key: weights[name].astype(np.float32) for name, key in names.items()} | _blurs(network)


def reference_builder(choice: Choice) -> str:
    """The Python expression that builds the generator there, after `from models import networks`."""
    options = {"norm": "instance", "dropout": 0.0, **choice.options}
    shape = f'networks.get_norm_layer("{options["norm"]}"), {options["dropout"] > 0}'
    if choice.name == "junyanz-unet":
        return f"networks.UnetGenerator(3, 3, {options['depth']}, {options['base_channels']}, {shape})"
    blocks = options.get("blocks") or BLOCKS[choice.name]
    return f"networks.ResnetGenerator(3, 3, {options['base_channels']}, {shape}, {blocks})"


def reference_names(network: Generator) -> dict[str, str]:
    """The key in the reference code of each tensor, by its name here, in their order there."""
    own = {id(module): name for name, module in network.named_modules()}
    return {f"{own[id(layer)]}.{end}": f"{key}.{end}" for key, layer in _layers(network) for end in layer.state_dict()}


def _layers(network: Generator) -> Iterator[tuple[str, nn.Module]]:
    """The layers with their keys there."""
    if isinstance(network, Pix2PixUNet):
        yield from _layers_of_unet(network)
        return
    assert isinstance(network, ResNetGenerator)
    number = 0
    for part in (*network.encoder, *network.decoder):
        if isinstance(part, Residual):
            yield from ((f"model.{number}.conv_block.{place}", layer) for place, layer in enumerate(part.layers))
            number += 1
        else:
            for layer in part if isinstance(part, nn.Sequential) else [part]:
                yield f"model.{number}", layer
                number += 1


def _layers_of_unet(network: Pix2PixUNet) -> Iterator[tuple[str, nn.Module]]:
    """Each level lies within the one outside of it, between its way down and its way up."""
    inner = len(network.ups)
    levels = [(level, 0, down) for level, down in enumerate(network.downs)]
    # The outermost level has no activation or norm before the next one, the innermost neither a norm nor a next one.
    starts = {0: 2, inner: 2}
    levels += [(level, starts.get(level, 4), up) for level, up in zip(range(inner, 0, -1), network.ups, strict=True)]
    for level, start, part in [*levels, (0, starts[0], network.head)]:
        within = "model" + ".model.1" * (level > 0) + ".model.3" * (level - 1)
        for place, layer in enumerate(part if isinstance(part, nn.Sequential) else [part], start):
            yield f"{within}.model.{place}", layer


def _blurs(network: Generator) -> dict[str, NDArray[np.float32]]:
    """The tensors `filt` of CUT's blurs: products of [1, 2, 1] / 4 going down, of [1, 3, 3, 1] / 4 going up, for each map."""
    found: dict[str, Any] = {}
    channels = 0
    for key, layer in _layers(network):
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            channels = layer.out_channels
        elif isinstance(layer, (BlurPool, BilinearUpsample)):
            row = np.array([1, 2, 1] if isinstance(layer, BlurPool) else [1, 3, 3, 1], np.float32) / 4
            found[f"{key}.filt"] = np.tile(np.outer(row, row), (channels, 1, 1, 1))
    return found


def _choice(arrays: Arrays, architecture: str, path: Path) -> Choice:
    first = "model.model.0.weight" if architecture in DEPTHS else "model.1.weight"
    if first not in arrays or arrays[first].ndim != 4:
        raise DataError(f"{path}: not the reference code's {architecture}: {first} is missing")
    has_batch_norm = any(key.endswith(".running_mean") and f"{key.rpartition('.')[0]}.weight" in arrays for key in arrays)
    options: dict[str, Any] = {"base_channels": len(arrays[first]), "norm": "batch" if has_batch_norm else "instance"}
    if architecture in DEPTHS:
        return generators.choose("junyanz-unet", options | {"depth": DEPTHS[architecture]})
    # Dropout moves the second convolution of a block, and nothing else says that it is there.
    moved = [array for key, array in arrays.items() if key.endswith(".conv_block.6.weight") and array.ndim == 4]
    options["dropout"] = DROPOUT if moved else 0.0
    if architecture in BLOCKS and options["norm"] == "instance" and not moved:
        return generators.choose(architecture, {"base_channels": options["base_channels"]})
    found = {key.partition(".conv_block.")[0] for key in arrays if ".conv_block." in key}
    blocks = BLOCKS.get(architecture, len(found))
    return generators.choose("junyanz-resnet", options | {"blocks": blocks, "antialias": architecture == CUT})


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The tensors of a file of PyTorch's, read as tensors alone (nothing in it is run), or of a safetensors file.

    Raises:
        DataError: it is no file of tensors by name, or has more in it than its bytes can hold.
    """
    if path.suffix == ".safetensors":
        tensors: Any = {key: torch.from_numpy(array) for key, array in open_tensors(path, "checkpoint").arrays().items()}
    else:
        with reading(path), open_regular(path) as file:
            try:
                # What PyTorch writes is never compressed; what is may become a thousand times as large.
                if zipfile.is_zipfile(file) and any(entry.compress_type for entry in zipfile.ZipFile(file).infolist()):
                    raise DataError("compressed")
                file.seek(0)
                tensors = torch.load(file, map_location="cpu", weights_only=True)
            except Exception as error:  # torch raises what it likes on what is no checkpoint, or holds code
                why = f" ({error})" if isinstance(error, DataError) else ""
                raise DataError(f"{path}: not a PyTorch checkpoint, or not one of tensors alone{why}") from error
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise DataError(f"{path}: not the tensors of one network by name, such as latest_net_G.pth; other things are in it too")
    if sum(tensor.nbytes for tensor in tensors.values()) > path.stat().st_size:
        raise DataError(f"{path}: damaged: its tensors are larger than itself")
    return {
        WRAPPERS.sub("", key): (tensor.float() if tensor.is_floating_point() else tensor).numpy()
        for key, tensor in tensors.items()
    }
