"""Batches: a pure function of (seed, step), and the very pixels of the images on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from picture_files import write_noise
from PIL import Image

from fruitgan import randomness
from fruitgan.data.augment.training import JitterMirror, NoAugmentation
from fruitgan.data.image_dataset import ImageDataset
from fruitgan.data.loader import Batch, BatchBuffer, BatchLoader, Loader, Sampler
from fruitgan.networks.mobile import Mobile

SIDE_PX = 20


def image_dataset(folder: Path, n: int) -> ImageDataset:
    return ImageDataset.build(write_noise(folder, [(SIDE_PX, SIDE_PX)] * n, seed=n), load_size_px=SIDE_PX)


def make_loader(
    tmp_path: Path,
    *,
    augment: bool = True,
    seed: int = 4,
    images_on_device: bool = False,
) -> BatchLoader:
    folder = tmp_path / f"{augment}-{seed}-{images_on_device}"
    folder.mkdir()
    return BatchLoader(
        image_dataset(folder / "a", 5),
        image_dataset(folder / "b", 7),
        Sampler(5, 7, 3, seed, "passes"),
        JitterMirror(load_ratio=SIDE_PX / 16) if augment else NoAugmentation(),
        image_size_px=16 if augment else SIDE_PX,
        seed=seed,
        device=torch.device("cpu"),
        images_on_device=images_on_device,
    )


def same(one: Batch, other: Batch) -> bool:
    tensors = [(one.a, other.a), (one.b, other.b), *((one.draws[name], other.draws[name]) for name in one.draws)]
    return one.draws.keys() == other.draws.keys() and all(torch.equal(x, y) for x, y in tensors)


def test_a_batch_depends_on_seed_and_step_alone(tmp_path: Path) -> None:
    loader, wanted = make_loader(tmp_path), {"pool_a": 2, "pool_b": 2}
    forwards = [loader.batch(step, wanted) for step in range(6)]
    torch.manual_seed(9)
    np.random.seed(9)
    backwards = [loader.batch(step, wanted) for step in reversed(range(6))][::-1]
    assert all(same(one, other) for one, other in zip(forwards, backwards, strict=True))
    assert not any(same(forwards[0], other) for other in forwards[1:])
    assert not torch.equal(forwards[0].draws["pool_a"], forwards[0].draws["pool_b"])
    other_seed = make_loader(tmp_path, seed=5).batch(0, wanted)
    assert not torch.equal(other_seed.draws["pool_a"], forwards[0].draws["pool_a"])
    assert not torch.equal(other_seed.a, forwards[0].a)


def test_a_batch_is_between_minus_1_and_1_with_the_draws_asked_for(tmp_path: Path) -> None:
    batch = make_loader(tmp_path).batch(0, {"one": 2, "none": 0})
    for images in (batch.a, batch.b):
        assert images.shape == (3, 3, 16, 16)
        assert images.dtype == torch.float32
        assert images.is_contiguous()
        assert -1 <= float(images.min()) < -0.9
        assert 0.9 < float(images.max()) <= 1
    assert batch.draws["one"].shape == (3, 2)
    assert batch.draws["none"].shape == (3, 0)
    assert batch.draws["one"].dtype == torch.float32  # not every device has float64
    assert 0 <= float(batch.draws["one"].min()) <= float(batch.draws["one"].max()) < 1


def test_a_draw_never_rounds_up_to_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = make_loader(tmp_path, augment=False)
    monkeypatch.setattr(randomness, "sample", lambda _seed, _step, n, _stream: np.full(n, 1 - 2**-53))
    assert float(loader.batch(0, {"one": 1}).draws["one"].max()) < 1


def test_without_augmentation_the_pixels_are_those_of_the_files(tmp_path: Path) -> None:
    loader = make_loader(tmp_path, augment=False)
    indices_a, indices_b = loader.sampler.indices(2)
    batch = loader.batch(2, {})
    for images, domain, indices in ((batch.a, "a", indices_a), (batch.b, "b", indices_b)):
        for image, index in zip(images, indices, strict=True):
            pixels = loader.images[domain].pixels[index].astype(np.float32) / 255 * 2 - 1
            np.testing.assert_allclose(image.permute(1, 2, 0).numpy(), pixels, rtol=0, atol=1e-6)


def largest_gradient(images: torch.Tensor) -> float:
    """Of a small generator with weights as large as a training makes them, for a loss that differs from pixel to pixel."""
    torch.manual_seed(0)
    generator = Mobile(base_channels=8)
    for convolution in [module for module in generator.modules() if isinstance(module, torch.nn.Conv2d)]:
        torch.nn.init.normal_(convolution.weight, 0, 0.3)
    (generator(images) * torch.randn(images.shape)).mean().backward()
    return max(float(parameter.grad.abs().max()) for parameter in generator.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("grey", [0, 77, 255])
def test_an_image_of_one_colour_does_not_blow_up_the_gradients(tmp_path: Path, grey: int) -> None:
    for side in "ab":
        (tmp_path / side).mkdir()
        Image.new("RGB", (SIDE_PX, SIDE_PX), (grey, grey, grey)).save(tmp_path / side / "plain.png")
    plain, noise = (
        ImageDataset.build([tmp_path / "a" / "plain.png"], load_size_px=SIDE_PX),
        image_dataset(tmp_path / "noise", 1),
    )
    loader = BatchLoader(
        plain, noise, Sampler(1, 1, 1, 0, "passes"), NoAugmentation(), image_size_px=SIDE_PX, seed=0, device=torch.device("cpu")
    )
    batch = loader.batch(0, {})
    colour = torch.full_like(batch.a, grey / 127.5 - 1)
    assert float((batch.a - colour).abs().max()) <= 1 / 255 + 1e-6  # half a grey level, in [-1, 1]
    assert float(batch.a.std()) > 1 / 1000
    assert -1 <= float(batch.a.min()) <= float(batch.a.max()) <= 1
    assert torch.equal(batch.b[0], torch.from_numpy(noise.pixels[0]).permute(2, 0, 1).float() / 255 * 2 - 1)
    assert largest_gradient(colour) > 1e4 * largest_gradient(batch.a)


def test_images_on_the_device_give_the_same_batches(tmp_path: Path) -> None:
    wanted = {"pool_a": 2}
    there = make_loader(tmp_path, images_on_device=True)
    here = make_loader(tmp_path)
    assert all(same(there.batch(step, wanted), here.batch(step, wanted)) for step in range(6))
    assert sum(value.numel() * value.element_size() for value in there.host_batch(0, wanted).values()) < 256  # numbers alone


@pytest.mark.parametrize("images_on_device", [False, True])
def test_a_host_batch_keeps_its_shapes_and_makes_the_batch(tmp_path: Path, images_on_device: bool) -> None:
    loader, wanted = make_loader(tmp_path, images_on_device=images_on_device), {"one": 2}
    host_batches = [loader.host_batch(step, wanted) for step in range(6)]
    assert len({str([(name, value.shape, value.dtype) for name, value in one.items()]) for one in host_batches}) == 1
    assert all(same(loader.device_batch(one), loader.batch(step, wanted)) for step, one in enumerate(host_batches))


class Whole(Loader):
    """A loader without stages of its own."""

    def __init__(self, loader: BatchLoader) -> None:
        self.loader = loader

    def batch(self, step: int, draws: Mapping[str, int]) -> Batch:
        return self.loader.batch(step, draws)


@pytest.mark.parametrize("staged", [False, True])
def test_a_buffer_that_stays_in_place_gives_every_steps_batch(tmp_path: Path, staged: bool) -> None:
    loader, wanted = make_loader(tmp_path), {"one": 2, "two": 1}
    buffer = BatchBuffer(loader if staged else Whole(loader), torch.device("cpu"))
    for step in range(4):
        buffer.load(step, wanted, in_place=step < 3)  # at the fourth steps turn out not to be capturable
        assert same(buffer.batch(), loader.batch(step, wanted))
