"""The feature backends against another library's colours, what their weights were when they were made, and what they see."""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from fruitgan.errors import DataError
from fruitgan.files import file_sha256
from fruitgan.images import resize
from fruitgan.measures.features import fruit_embed as embed
from fruitgan.measures.features.weightless import (
    CHANNELS,
    CHROMA_BINS,
    LIGHTNESS_BINS,
    NETWORKS,
    Colour,
    NeighbourRelations,
    RandomNetworks,
    lab_of_srgb,
    neighbour_relations,
    random_filters,
)


def test_lab_is_that_of_kornia() -> None:
    from kornia.color import rgb_to_lab

    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    images[0, :, 0, :4] = torch.tensor([[0.0, 1.0, 0.04045, 0.01]] * 3, dtype=torch.float64)
    assert torch.allclose(lab_of_srgb(images), rgb_to_lab(images), atol=2e-2)


def test_a_plain_picture_lies_in_one_bin_of_each_histogram() -> None:
    values = Colour()(torch.full((1, 3, 8, 8), 0.5))[0]
    lightness, chroma = values[:LIGHTNESS_BINS], values[LIGHTNESS_BINS : LIGHTNESS_BINS + CHROMA_BINS]
    assert torch.isclose(lightness.max(), torch.tensor(LIGHTNESS_BINS**0.5))
    assert int((lightness > 0).sum()) == int((chroma > 0).sum()) == 1
    assert torch.isfinite(values).all()


def test_the_random_weights_are_what_they_always_were() -> None:
    """If this fails, every number on these features is of another kind: give the features another name instead."""
    filters = [random_filters(network, layer) for network in range(NETWORKS) for layer in range(len(CHANNELS))]
    digest = hashlib.sha256(b"".join(x.astype("<f4").tobytes() for x in filters)).hexdigest()
    assert digest == "c774a57d6ba1562ca5cfd4df02e653dd76f30d9c3e0cc5ea05fda94dacfb0f3c"


def test_the_ensemble_is_its_networks_one_by_one() -> None:
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found = RandomNetworks()(images)
    x = images * 2 - 1
    filters = torch.from_numpy(3.0 * random_filters(NETWORKS - 1, 0)).float()
    maps = torch.nn.functional.conv2d(torch.nn.functional.pad(x, (1, 1, 1, 1), mode="reflect"), filters, stride=2).relu()
    first = (NETWORKS - 1) * CHANNELS[0]
    assert torch.allclose(found[:, first : first + CHANNELS[0]], maps.mean((2, 3)).sqrt(), atol=1e-4)
    spread_at = NETWORKS * CHANNELS[0] + first
    assert torch.allclose(found[:, spread_at : spread_at + CHANNELS[0]], maps.std((2, 3), correction=0).sqrt(), atol=1e-3)


def test_neighbour_relations_are_the_differences_from_the_first_pixel_of_each_block() -> None:
    images = torch.rand(1, 3, 6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = neighbour_relations(images)
    for c, y, x in itertools.product(range(3), range(6), range(8)):
        assert found[0, c, y, x] == images[0, c, y, x] - images[0, c, y // 2 * 2, x // 2 * 2]


def test_npr_sees_an_upsampling_and_keeps_the_blocks_of_pictures_of_any_size() -> None:
    small = np.random.default_rng(0).integers(0, 256, size=(100, 100, 3), dtype=np.uint8)
    doubled = small.repeat(2, axis=0).repeat(2, axis=1)
    backend = NeighbourRelations()
    rows = []
    for picture in (small, doubled, doubled.repeat(2, axis=0)):  # repeated to fill the square, and cut from the middle
        prepared = backend.prepare(picture)
        assert prepared.shape == (256, 256, 3)
        rows.append(backend(torch.from_numpy(prepared).permute(2, 0, 1)[None].float() / 255)[0])
    assert float(rows[0][:9].min()) > 3  # the logarithm of differences of some 80 levels
    assert float(rows[1][:18].abs().max()) == float(rows[2][:18].abs().max()) == 0  # nearest neighbours leave no difference


def test_pictures_are_shrunk_with_antialiasing() -> None:
    stripes = np.zeros((1024, 1024, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    for features in (RandomNetworks(), Colour()):
        small = features.prepare(stripes)
        assert np.ptp(small[8:-8, 8:-8].astype(int)) <= 2
        assert (small == resize(stripes, *small.shape[:2], Image.Resampling.LANCZOS)).all()


SCRIPT = Path(__file__).parents[2] / "benchmarks/train_embedding.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_embedding", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_shipped_file_is_small_and_any_other_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert embed.FILE.stat().st_size <= 1_000_000
    assert file_sha256(embed.FILE) == embed.SHA256
    other = tmp_path / "fruit_embed.safetensors"
    changed = bytearray(embed.FILE.read_bytes())
    changed[-1] ^= 1
    other.write_bytes(bytes(changed))
    monkeypatch.setattr(embed, "FILE", other)
    with pytest.raises(DataError, match="install fruitgan anew"):
        embed.FruitEmbed()


def test_the_network_with_its_norms_folded_gives_the_same_answers(script: ModuleType) -> None:
    torch.manual_seed(0)
    trained = script.with_norms(embed.EmbedNetwork())
    images = torch.rand(6, 3, 64, 64)
    for _ in range(3):
        trained(images)  # moves the running statistics
    folded = script.folded(trained.eval())
    assert not [module for module in folded.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    with torch.inference_mode():
        for with_norms, without in zip(trained(images), folded(images), strict=True):
            assert torch.allclose(with_norms, without, atol=1e-4)
    assert [x.shape[1:] for x in folded(torch.rand(1, 3, 128, 128))] == [(48, 32, 32), (80, 16, 16), (128, 8, 8)]


def striped(period_px: int, colours: tuple[tuple[int, int, int], tuple[int, int, int]]) -> np.ndarray:
    stripes = (np.arange(128) // period_px % 2)[:, None, None]
    return np.where(stripes, colours[0], colours[1]).astype(np.uint8).repeat(128, axis=1)


def test_a_change_of_hue_moves_the_features_less_than_a_change_of_texture() -> None:
    features = embed.FruitEmbed().eval()
    red = (200, 60, 40), (120, 30, 30)
    turned = tuple((b, r, g) for r, g, b in red)
    pictures = [striped(8, red), striped(8, turned), striped(3, red)]
    batch = torch.from_numpy(np.stack([features.prepare(x) for x in pictures])).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        plain, hue, texture = features(batch)
    assert (hue - plain).norm() < 0.6 * (texture - plain).norm()
