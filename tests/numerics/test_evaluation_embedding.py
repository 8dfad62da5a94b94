"""fruit-embed: the shipped file, the folding of its norms, its training's losses and recolouring, and what it sees."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from fruitgan.errors import DataError
from fruitgan.files import file_sha256
from fruitgan.measures.features import fruit_embed as embed

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
