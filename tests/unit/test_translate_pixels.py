"""A picture of any size through an engine that takes only some sizes, and the torch engine itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import toy_bundles
from numpy.typing import NDArray
from picture_files import noise

from fruitgan.bundle import Bundle, tensors
from fruitgan.engines.contracts import Engine, Images, engines
from fruitgan.engines.padding import network_size, translate_pixels
from fruitgan.engines.torch_engine import TorchEngine, arrays_of
from fruitgan.errors import DataError
from fruitgan.images import Pixels, bytes_from_unit, unit_from_bytes
from fruitgan.networks.contracts import generators
from fruitgan.registry import Choice

CARD = replace(toy_bundles.CARD, generator=Choice("none", "nobody", "0"), directions=("a2b",), size_minimum_px=16)


class Negative(Engine):
    """The negative; remembers the sizes that it was given and holds them against the size rule."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def translate(self, images: Images) -> Images:
        assert images.dtype == np.float32
        height, width = images.shape[1:3]
        assert all(side >= 16 and side % 4 == 0 for side in (height, width))
        self.seen.append(images.shape)
        return 1 - images


def floats(pixels: Pixels) -> NDArray[np.float32]:
    images: NDArray[np.float32] = unit_from_bytes(pixels.astype(np.float32))
    return images


def smooth(height: int, width: int) -> Pixels:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 / max(width - 1, 1), y * 255 / max(height - 1, 1), np.full((height, width), 90)], -1).astype(
        np.uint8
    )


@pytest.mark.parametrize("height", [1, 2, 3, 15, 16, 17, 63, 96])
def test_a_picture_of_any_size_keeps_its_size_and_loses_no_pixel_to_the_padding(height: int) -> None:
    for width in (1, 5, 16, 61, 130):
        pixels = noise(height, width)
        for scale in ("auto", "native"):
            assert (translate_pixels(Negative(), CARD, pixels, scale) == 255 - pixels).all()


def test_the_padding_is_the_mirrored_picture_or_its_edge() -> None:
    class Whole(Negative):
        def translate(self, images: Images) -> Images:
            self.canvas = images[0]
            return images

    engine = Whole()
    pixels = noise(14, 1)
    translate_pixels(engine, CARD, pixels)
    canvas = bytes_from_unit(engine.canvas)
    assert (canvas[0, :, :] == pixels[1, 0]).all()  # mirrored around the first row; one column goes on as it is
    assert (canvas[15, :, :] == pixels[12, 0]).all()


@pytest.mark.parametrize(
    ("size", "scale", "seen"),
    [
        ((96, 300), "auto", (96, 300)),  # 1.5 times the training size is not yet large
        ((97, 97), "auto", (64, 64)),
        ((3000, 4000), "auto", (64, 85)),
        ((4000, 3000), "auto", (85, 64)),
        ((3000, 4000), "native", (3000, 4000)),
        ((3000, 4000), 300, (300, 400)),
        ((30, 40), 60, (60, 80)),
        ((1, 20000), "auto", (1, 4096)),  # 16 squares of 64 in the 16 rows it is padded to
        ((20000, 100), "auto", (1024, 64)),
        ((1, 20000), "native", (1, 20000)),
        ((1, 1), 7, (7, 7)),
    ],
)
def test_the_generator_sees_the_size_that_the_scale_says(
    size: tuple[int, int], scale: str | int, seen: tuple[int, int]
) -> None:
    assert network_size(*size, CARD, scale) == seen


def test_no_picture_needs_more_than_sixteen_squares() -> None:
    for height in (1, 17, 63, 95, 96, 97, 500, 12_345):
        for width in (1, 64, 1_000, 100_000):
            seen = network_size(height, width, CARD)
            assert CARD.padded(seen[0]) * CARD.padded(seen[1]) <= 16 * 64**2 + 4 * max(seen) + 16
            assert min(seen) >= 1


def test_a_large_picture_gets_the_change_and_stays_sharp() -> None:
    engine = Negative()
    pixels = smooth(300, 400)
    pixels[::2] //= 2  # detail that the generator cannot see at its size
    result = translate_pixels(engine, CARD, pixels).astype(int)
    assert engine.seen == [(1, 64, 88, 3)]  # 85 columns, padded
    rows = np.abs(np.diff(result, axis=0)).mean(), np.abs(np.diff(pixels.astype(int), axis=0)).mean()
    assert rows[0] > 0.5 * rows[1]
    assert result[:, :50, 0].mean() > 150 > 110 > result[:, -50:, 0].mean()  # dark on the left became light


def test_an_engine_that_changes_nothing_leaves_every_bit_at_every_scale() -> None:
    class Same(Engine):
        def translate(self, images: Images) -> Images:
            return images.clip(0, 1)

    for scale in ("auto", "native", 20, 200):
        pixels = noise(150, 170)
        assert (translate_pixels(Same(), CARD, pixels, scale) == pixels).all()
        edges = np.where(noise(150, 170) > 127, np.float32(1), np.float32(0))
        same = translate_pixels(Same(), CARD, edges, scale)
        assert np.allclose(same, edges, atol=1e-6)  # Lanczos goes past 0 and 1 at them, and no engine does


GENERATORS: dict[str, dict[str, Any]] = {
    "mobile": {"base_channels": 8, "blocks": 2},
    "resnet-6": {"base_channels": 8},
    "unet-128": {"base_channels": 8},
}


def weights_of(name: str) -> tuple[Choice, dict[str, NDArray[Any]]]:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        choice = generators.choose(name, GENERATORS[name])
        network = generators.build(choice)
        if name == "mobile":
            torch.nn.init.normal_(network.head.weight, 0.0, 0.2)  # untrained, it would do nothing
    return choice, arrays_of(network)


@pytest.mark.parametrize("name", GENERATORS)
def test_half_precision_weights_change_no_pixel_by_more_than_one_grey_level(name: str) -> None:
    choice, weights = weights_of(name)
    stored = tensors(Bundle(replace(CARD, generator=choice), {"a2b": weights}))
    halves = {name.removeprefix("generator_ab."): array for name, array in stored.items()}
    assert all(array.dtype == np.float16 for array in halves.values())
    images = np.stack([floats(noise(128, 128, seed)) for seed in range(2)])
    whole, half = (TorchEngine(generator=choice, weights=w, gpu="none").translate(images) * 255 for w in (weights, halves))
    assert np.abs(whole - half).max() <= 1
    assert np.abs(whole - 255 * images).mean() > 1  # it did something


def test_the_torch_engine_is_registered_and_clips_what_its_generator_gives() -> None:
    choice, weights = weights_of("mobile")
    engine = engines.get("torch")(generator=choice, weights=weights, gpu="none")
    assert isinstance(engine, TorchEngine)
    images = floats(noise(16, 24))[np.newaxis]
    signed = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous() * 2 - 1
    with torch.inference_mode():
        expected = ((engine.network(signed) + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    assert (engine.translate(images) == expected).all()


def test_sizes_that_the_generator_does_not_take_are_the_cards_fault() -> None:
    choice, weights = weights_of("mobile")
    with pytest.raises(DataError, match="7 x 16 px do not fit"):
        TorchEngine(generator=choice, weights=weights, gpu="none").translate(np.zeros((1, 16, 7, 3), np.float32))
