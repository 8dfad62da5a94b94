"""The sampler and the loader: batches are a pure function of (seed, step), and the very pixels of the images on disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_files import write_noise
from PIL import Image

from fruitgan import randomness
from fruitgan.data.augment.training import JitterMirror, NoAugmentation
from fruitgan.data.image_dataset import ImageDataset
from fruitgan.data.loader import Batch, BatchBuffer, BatchLoader, Loader, Pairing, Sampler
from fruitgan.errors import DataError, UsageError
from fruitgan.networks.mobile import Mobile

SIDE_PX = 20
PAIRINGS: tuple[Pairing, ...] = get_args(Pairing)
sizes = st.integers(1, 30)


def image_dataset(folder: Path, n: int) -> ImageDataset:
    return ImageDataset.build(write_noise(folder, [(SIDE_PX, SIDE_PX)] * n, seed=n), load_size_px=SIDE_PX)


def make_loader(tmp_path: Path, *, augment: bool = True, seed: int = 4, images_on_device: bool = False) -> BatchLoader:
    folder = tmp_path / f"{augment}-{seed}-{images_on_device}"
    folder.mkdir()
    return BatchLoader(
        image_dataset(folder / "a", 5),
        image_dataset(folder / "b", 7),
        Sampler(5, 7, 3, seed, "passes"),
        JitterMirror(load_ratio=SIDE_PX / 16) if augment else NoAugmentation(),
        image_size_px=16 if augment else SIDE_PX,
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
    Image.new("RGB", (SIDE_PX, SIDE_PX), (grey, grey, grey)).save(tmp_path / "plain.png")
    plain = ImageDataset.build([tmp_path / "plain.png"], load_size_px=SIDE_PX)
    noise, sampler, device = image_dataset(tmp_path / "noise", 1), Sampler(1, 1, 1, 0, "passes"), torch.device("cpu")
    loader = BatchLoader(plain, noise, sampler, NoAugmentation(), image_size_px=SIDE_PX, device=device)
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


# The sampler


def epoch(sampler: Sampler, number: int) -> tuple[list[int], list[int]]:
    """Both domains' images of one epoch, the filling of the last batch cut off."""
    first = number * sampler.steps_per_epoch
    steps = [sampler.indices(step) for step in range(first, first + sampler.steps_per_epoch)]
    a, b = (np.concatenate([step[side] for step in steps])[: sampler.epoch_items].tolist() for side in (0, 1))
    return a, b


@given(sizes, sizes, st.integers(1, 40), st.integers(0, 2**40), st.sampled_from(PAIRINGS), st.integers(0, 500))
@settings(max_examples=80, deadline=None)
def test_a_step_is_full_in_range_and_does_not_depend_on_the_steps_before_it(
    n_a: int, n_b: int, batch: int, seed: int, pairing: Pairing, step: int
) -> None:
    walked = Sampler(n_a, n_b, batch, seed, pairing)
    for earlier in (step + 7, 0, max(step - 1, 0)):
        walked.indices(earlier)
    fresh = Sampler(n_a, n_b, batch, seed, pairing).indices(step)
    for one, other, n in zip(walked.indices(step), fresh, (n_a, n_b), strict=True):
        assert one.dtype == np.int64
        assert one.shape == (batch,)
        assert 0 <= one.min() <= one.max() < n
        assert np.array_equal(one, other)


@pytest.mark.parametrize(("pairing", "items"), [("random-b", 19), ("zip", 10), ("passes", 19)])
def test_steps_per_epoch_are_rounded_up(pairing: Pairing, items: int) -> None:
    assert Sampler(10, 19, 4, 0, pairing).steps_per_epoch == -(-items // 4)


def test_random_b_shows_the_larger_domain_once_an_epoch_and_the_smaller_evenly() -> None:
    sampler = Sampler(19, 10, 4, 0, "random-b")
    for number in range(3):
        assert sorted(epoch(sampler, number)[0]) == list(range(19))
    sampler = Sampler(10, 19, 4, 0, "random-b")
    assert Counter(epoch(sampler, 1)[0]) == {item: 2 if item < 9 else 1 for item in range(10)}


def test_random_b_draws_b_uniformly() -> None:
    sampler = Sampler(4, 8, 10, 0, "random-b")
    drawn = np.concatenate([sampler.indices(step)[1] for step in range(2000)])
    counts = np.bincount(drawn, minlength=8)
    # Chi-squared with 7 degrees of freedom: 24.3 is exceeded once in a thousand.
    assert ((counts - 2500) ** 2 / 2500).sum() < 24.3


def test_zip_shows_no_image_twice_in_an_epoch() -> None:
    sampler = Sampler(19, 10, 4, 0, "zip")
    for number in range(3):
        a, b = epoch(sampler, number)
        assert len(set(a)) == 10
        assert sorted(b) == list(range(10))
    assert set(epoch(sampler, 0)[0]) != set(epoch(sampler, 1)[0])


def test_passes_show_every_image_of_both_domains_equally_often() -> None:
    sampler = Sampler(6, 10, 4, 0, "passes")
    steps = [sampler.indices(step) for step in range(30)]
    for side, n in ((0, 6), (1, 10)):
        seen = np.concatenate([step[side] for step in steps])
        for first in range(0, 120, n):
            assert sorted(seen[first : first + n].tolist()) == list(range(n))


@pytest.mark.parametrize("pairing", ["random-b", "zip"])
def test_a_short_last_batch_is_filled_from_the_next_epoch(pairing: Pairing) -> None:
    sampler = Sampler(10, 10, 4, 0, pairing)
    last, first = sampler.indices(2)[0], sampler.indices(3)[0]
    assert np.array_equal(last[2:], first[:2])


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_epochs_and_seeds_differ(pairing: Pairing) -> None:
    sampler = Sampler(50, 50, 10, 0, pairing)
    assert epoch(sampler, 0) != epoch(sampler, 1)
    assert epoch(sampler, 0) != epoch(Sampler(50, 50, 10, 1, pairing), 0)
    assert epoch(sampler, 0)[0] != epoch(sampler, 0)[1]


def test_an_empty_domain_a_wrong_batch_size_and_pairing_are_refused() -> None:
    for n_a, n_b in ((0, 3), (3, 0)):
        with pytest.raises(DataError, match="has no images"):
            Sampler(n_a, n_b, 1, 0, "zip")
    with pytest.raises(UsageError, match="batch size"):
        Sampler(3, 3, 0, 0, "zip")
    with pytest.raises(UsageError, match="random-b, zip, passes"):
        Sampler(3, 3, 1, 0, "zipped")  # type: ignore[arg-type]
