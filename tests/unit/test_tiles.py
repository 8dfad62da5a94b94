"""A picture in tiles whose norms share their statistics is the whole picture: no seam, no step in colour, less memory."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fruitgan.engines import torch_engine
from fruitgan.engines.contracts import Images
from fruitgan.engines.tiles import Reach, cut, in_float64, reach_of, tile_px
from fruitgan.engines.torch_engine import TorchEngine, arrays_of
from fruitgan.networks.contracts import Generator, generators

LEVEL = 1 / 255
NETWORKS: dict[str, dict[str, Any]] = {
    "mobile": {"base_channels": 8, "blocks": 2},
    "resnet-6": {"base_channels": 4},
    "unet-128": {"base_channels": 4},
    "resnet-aa": {"base_channels": 4, "blocks": 2},
    "junyanz-resnet": {"base_channels": 4, "blocks": 2, "norm": "batch", "antialias": True},
}


def network_of(name: str, **options: Any) -> Generator:
    """Every number random, so that all of the network shows."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network: Generator = generators.build(generators.choose(name, options))
        for tensor in network.state_dict().values():
            tensor.add_(torch.randn_like(tensor) * 0.05)
    return network.requires_grad_(False).eval()


def engine_of(name: str) -> TorchEngine:
    choice = generators.choose(name, NETWORKS[name])
    return TorchEngine(generator=choice, weights=arrays_of(network_of(name, **NETWORKS[name])), gpu="none")


def picture(height: int, width: int) -> Images:
    """[1, H, W, 3] in [0, 1], bright on one side, so that tiles with statistics of their own would differ."""
    y, x = np.mgrid[0:height, 0:width]
    ramp = np.stack([255 * x / width, 255 * y / height, 128 + 100 * np.sin(x / 9) * np.cos(y / 7)], axis=-1)
    noise = np.random.default_rng(0).integers(-20, 21, ramp.shape)
    return (np.clip(ramp + noise, 0, 255) / 255).astype(np.float32)[np.newaxis]


@pytest.mark.parametrize(("side", "tile", "halo"), [(100, 100, 20), (300, 40, 20), (304, 40, 20), (1000, 4, 4), (64, 8, 128)])
def test_the_tiles_own_parts_cover_a_side_once_and_see_what_is_around(side: int, tile: int, halo: int) -> None:
    tiles = cut(side, tile, halo)
    places = np.arange(side)
    assert [place for part in tiles for place in places[part.kept]] == places.tolist()
    for part in tiles:
        seen = places[part.seen]
        assert (seen[part.own(len(seen))] == places[part.kept]).all()
        assert part.seen.start == max(0, part.kept.start - halo)
        assert part.seen.stop >= min(side, part.kept.stop + halo)
        assert len(seen) <= tile + 3 * halo or len(tiles) == 1


@pytest.mark.parametrize(
    ("name", "size", "tile"),
    [
        ("mobile", (128, 200), 40),
        ("resnet-6", (100, 300), 60),
        ("unet-128", (128, 2048), 256),
        ("resnet-aa", (100, 200), 60),
        ("junyanz-resnet", (100, 200), 60),
    ],
)
def test_a_picture_in_tiles_is_the_whole_picture(
    name: str, size: tuple[int, int], tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, image = engine_of(name), picture(*size)
    whole = engine.translate(image)
    sizes: list[int] = []
    run = engine._run

    def counted(images: Any, *network: Any) -> Any:
        sizes.append(images.shape[1] * images.shape[2])
        return run(images, *network)

    monkeypatch.setattr(torch_engine, "LARGE_PIXELS", 0)
    monkeypatch.setattr(engine, "_run", counted)
    monkeypatch.setattr(engine, "_room_bytes", lambda: 0)
    monkeypatch.setattr(torch_engine, "tile_px", lambda *_: tile)
    tiled = engine.translate(image)
    assert max(sizes) < image.shape[1] * image.shape[2]
    assert np.abs(tiled - whole).max() < LEVEL
    assert np.abs(whole - image).mean() > LEVEL  # it did something
    monkeypatch.undo()
    assert (engine.translate(image) == whole).all()  # and the network is as it was


def test_a_picture_translated_amid_the_tiles_of_another_is_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, small = engine_of("mobile"), picture(40, 60)
    alone, run = engine.translate(small), engine._run
    amid: list[Images] = []

    def interrupted(images: Any, *network: Any) -> Any:
        if network:
            amid.append(run(small))
        return run(images, *network)

    monkeypatch.setattr(torch_engine, "LARGE_PIXELS", 0)
    monkeypatch.setattr(engine, "_run", interrupted)
    monkeypatch.setattr(engine, "_room_bytes", lambda: 0)
    monkeypatch.setattr(torch_engine, "tile_px", lambda *_: 40)
    engine.translate(picture(120, 160))
    assert len(amid) > 10
    assert all((one == alone).all() for one in amid)


def test_with_memory_enough_a_large_picture_goes_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, calls = engine_of("mobile"), []
    run = engine._run
    monkeypatch.setattr(torch_engine, "LARGE_PIXELS", 0)
    monkeypatch.setattr(engine, "_run", lambda images: calls.append(images.shape) or run(images))
    engine.translate(picture(64, 128))
    assert calls == [(1, 64, 128, 3)]


@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_further_away_than_the_halo_changes_a_pixel(name: str) -> None:
    """With the norms taken out, what is left is the neighbourhood that a pixel hangs on: found by its gradient."""
    network = network_of(name, **NETWORKS[name])
    for module in network.modules():
        if type(module).__name__ == "InstanceNorm":
            module.forward = lambda x: x  # type: ignore[method-assign, assignment]
    reach = reach_of(network)
    multiple = network.size_rule.multiple_of_px
    half = -(-reach.halo_px // multiple) * multiple + multiple
    x = torch.zeros((1, 3, multiple if multiple >= 128 else 2 * half, 2 * half), dtype=torch.float64).normal_(std=0.1)
    x.requires_grad_()
    out: Tensor = network.double()(x)
    out[0, :, out.shape[2] // 2, half].sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    columns = torch.nonzero(x.grad.abs().sum((0, 1, 2))).flatten()
    farthest = max(half - int(columns.min()), int(columns.max()) - half)
    assert reach.is_local
    assert reach.halo_px / 4 < farthest <= reach.halo_px


def test_a_network_that_may_look_at_the_whole_picture_is_not_cut() -> None:
    class Whole(Generator):
        size_rule = network_of("mobile", **NETWORKS["mobile"]).size_rule

        def forward(self, x: Tensor) -> Tensor:
            return x - x.mean((2, 3), keepdim=True)

    reach = reach_of(Whole())
    assert not reach.is_local
    assert tile_px(reach, 1 << 40, 4) is None


def test_sums_in_float64_are_taken_on_the_cpu_where_an_apple_gpu_has_none() -> None:
    class OnAppleGpu:
        device = torch.device("mps")

        def cpu(self) -> Tensor:
            return torch.ones(3)

        def double(self) -> Tensor:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64.")

    assert in_float64(OnAppleGpu()).dtype == in_float64(torch.ones(3)).dtype == torch.float64  # type: ignore[arg-type]


def test_the_largest_tile_that_fits_is_taken() -> None:
    reach = Reach(bytes_per_pixel=100, halo_px=20, is_local=True)
    assert tile_px(reach, 100 * 140 * 140, 4) == 100
    assert tile_px(reach, 100 * 143 * 143, 4) == 100
    assert tile_px(reach, 100 * 43 * 43, 4) is None


PEAK = """
import json, resource, sys
import numpy as np
from fruitgan import bundle as bundles
from fruitgan.demo.fruit import draw
from fruitgan.engines.torch_engine import TorchEngine
import torch
torch.set_num_threads(2)
bundle = bundles.load(bundles.shipped())
engine = TorchEngine(generator=bundle.card.generator, weights=bundle.weights["a2b"], gpu="none")
image = draw("apple", 1024, 0, 0)[np.arange(2000) * 1024 // 2000][:, np.arange(3000) * 1024 // 3000]
image = np.ascontiguousarray(image[None], np.float32) / 255
engine.translate(image[:, :64, :64])
room = int(sys.argv[1])
if room:
    engine._room_bytes = lambda: room
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
out = engine.translate(image)
np.save(sys.argv[2], out)
print(json.dumps({"grown": peak() - before, "estimate": engine._reach.bytes(2000, 3000)}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
def test_at_3000_by_2000_tiles_stay_within_their_memory_and_are_the_whole_picture(
    tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {}
    for name, room in (("whole", 1 << 40), ("tiled", 400 << 20)):
        process = subprocess.run(
            [sys.executable, "-c", PEAK, str(room), str(tmp_path / f"{name}.npy")], check=True, capture_output=True, text=True
        )
        found[name] = json.loads(process.stdout)
    whole, tiled = (np.load(tmp_path / f"{name}.npy") for name in found)
    apart = np.abs(whole - tiled)
    with capsys.disabled():
        print(f"\n{found}; largest difference {apart.max()}, mean {apart.mean():.2g}")
    assert found["whole"]["grown"] <= found["whole"]["estimate"]
    assert found["tiled"]["grown"] <= 400 << 20
    assert apart.max() < LEVEL
