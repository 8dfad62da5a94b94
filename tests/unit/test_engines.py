"""onnxruntime beside torch: the same picture, graphs that ship or are exported once, and which engine `auto` takes when."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fruitgan import bundle as bundles
from fruitgan import registry
from fruitgan.demo.fruit import draw
from fruitgan.engines import onnx_engine
from fruitgan.engines.contracts import Images, engines
from fruitgan.engines.onnx_engine import engine_name
from fruitgan.engines.torch_engine import TorchEngine, arrays_of
from fruitgan.errors import DataError, EnvironmentProblem, FruitganError, UsageError
from fruitgan.images import bytes_from_unit, unit_from_bytes
from fruitgan.networks.contracts import generators
from fruitgan.progress import Note
from fruitgan.registry import Choice
from fruitgan.train_gan.recipe import recipes

Arrays = dict[str, NDArray[Any]]


def shipped() -> bundles.Bundle:
    return bundles.load(bundles.shipped())


def fruit(count: int, height: int, width: int) -> Images:
    side = max(height, width, 16)
    pixels = np.stack([draw("apple", side, 5, index)[:height, :width] for index in range(count)])
    return unit_from_bytes(pixels.astype(np.float32))


def generator_of(name: str, seed: int = 0, **options: Any) -> tuple[Choice, Arrays]:
    """A generator whose every number is random, so that all of it shows in the picture."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        choice = generators.choose(name, options)
        network = generators.build(choice)
        for tensor in network.state_dict().values():
            tensor.add_(torch.randn_like(tensor) * 0.05)
    return choice, arrays_of(network)


def differences(name: str, choice: Choice, weights: Any, images: Images, **options: Any) -> NDArray[Any]:
    ours = engines.get(name)(generator=choice, weights=weights, gpu="none", **options).translate(images)
    torchs = TorchEngine(generator=choice, weights=weights, gpu="none").translate(images)
    assert (ours.dtype, ours.shape) == (np.float32, images.shape)
    assert 0 <= ours.min() <= ours.max() <= 1
    return np.abs(bytes_from_unit(ours).astype(int) - bytes_from_unit(torchs))


@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 64, 64), (2, 60, 132)])
def test_the_shipped_bundle_gives_the_same_picture_through_onnx_as_through_torch(shape: tuple[int, int, int]) -> None:
    bundle = shipped()
    for way in bundle.card.directions:
        assert differences("onnx", bundle.card.generator, bundle.weights[way], fruit(*shape)).max() <= 1


def test_bf16_is_near_where_an_engine_has_it_and_refused_where_not() -> None:
    bundle = shipped()
    given = {"generator": bundle.card.generator, "weights": bundle.weights["a2b"], "precision": "bf16"}
    with pytest.raises(UsageError, match="fp32 alone; --engine torch"):
        engines.get("onnx")(**given)
    off = differences("torch", bundle.card.generator, bundle.weights["a2b"], fruit(1, 128, 128), precision="bf16")
    assert 0 < off.mean() < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobile", "lite", "lite-u", "mobile-resnet", "resnet-6", "resnet-aa", "unet-128", "unet-256"])
def test_every_generator_of_ours_gives_torchs_picture_through_onnx(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FRUITGAN_CACHE", str(tmp_path))
    choice, weights = generator_of(name)
    assert differences("onnx", choice, weights, fruit(2, 256, 512)).max() <= 1


def test_every_shipped_bundle_and_fast_have_their_graphs_and_no_other_ships() -> None:
    part = recipes.get("fast").generator
    choices = [generators.choose(part.name, part.options)]
    choices += [bundles.load_card(bundles.shipped(name)).generator for name in bundles.shipped_names()]
    stems = {onnx_engine.shipped_stem(choice) for choice in choices}
    assert {path.stem for path in onnx_engine.SHIPPED.glob("*.onnx")} == stems, "run benchmarks/ship_graphs.py"
    assert {path.stem for path in onnx_engine.SHIPPED.glob("*.json")} == stems
    for choice in choices:
        found = onnx_engine.find_graph(choice)
        assert found is not None
        assert set(found.about.used) == set(found.about.weights)


A_STRANGERS = """
import torch
from torch import nn
from fruitgan.networks.contracts import Generator, SizeRule
from fruitgan.networks.layers import InstanceNorm

class Plum(Generator):
    "Halves and doubles the sides, with a norm of ours between."
    size_rule = SizeRule(minimum_px=4, multiple_of_px=2)

    def __init__(self, *, base_channels: int = 6) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, base_channels, 3, stride=2, padding=1, padding_mode="reflect")
        self.norm = InstanceNorm(base_channels, affine=True)
        self.up = nn.ConvTranspose2d(base_channels, 3, 2, stride=2)

    def forward(self, x):
        return torch.tanh(self.up(self.norm(self.down(x))))
"""


def test_a_graph_that_does_not_ship_is_exported_by_torch_and_gives_its_picture(
    install: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("onnxscript", reason="fruitgan[onnx] is absent")
    monkeypatch.setenv("FRUITGAN_CACHE", str(tmp_path))
    install("fruitgan-plum", {"generators": {"plum": "fruitgan_plum:Plum"}}, A_STRANGERS)
    choice, weights = generator_of("plum")
    assert onnx_engine.find_graph(choice) is None
    assert differences("onnx", choice, weights, fruit(2, 16, 36)).max() <= 1
    assert onnx_engine.find_graph(choice) is not None


class TestTheCache:
    """Where the graph of a generator is that does not ship."""

    @pytest.fixture
    def tiny(self) -> tuple[Choice, Arrays]:
        return generator_of("mobile")

    @pytest.fixture
    def export(self, tiny: tuple[Choice, Arrays], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Mock:
        """An empty cache, nothing that ships, and in place of torch's export what shipped."""
        export = Mock(return_value=onnx_engine.find_graph(tiny[0]))
        monkeypatch.setattr("fruitgan.engines.onnx_export.export", export)
        monkeypatch.setattr(onnx_engine, "SHIPPED", tmp_path / "nothing")
        monkeypatch.setenv("FRUITGAN_CACHE", str(tmp_path))
        return export

    def test_it_is_exported_once_for_all_bundles(self, tiny: tuple[Choice, Arrays], export: Mock, tmp_path: Path) -> None:
        assert onnx_engine.find_graph(tiny[0]) is None
        for weights in (tiny, generator_of("mobile", seed=1)):
            assert differences("onnx", *weights, fruit(2, 16, 36)).max() <= 1
        assert export.call_count == 1
        assert len(list((tmp_path / "graphs").iterdir())) == 2

    def test_one_that_is_torn_or_damaged_is_exported_anew(
        self, tiny: tuple[Choice, Arrays], export: Mock, tmp_path: Path
    ) -> None:
        onnx_engine.obtain_graph(*tiny)
        (path,) = (tmp_path / "graphs").glob("*.onnx")
        whole, flipped = path.read_bytes(), path.read_bytes()[:-1] + b"\xff"
        for place, damaged in ((path, b""), (path, flipped), (path.with_suffix(".json"), b"{")):
            place.write_bytes(damaged)
            assert onnx_engine.find_graph(tiny[0]) is None
            assert onnx_engine.obtain_graph(*tiny).onnx == whole == path.read_bytes()

    def test_other_options_and_changed_code_have_other_graphs(
        self, tiny: tuple[Choice, Arrays], export: Mock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        onnx_engine.obtain_graph(*tiny)
        assert onnx_engine.find_graph(tiny[0]) is not None
        assert onnx_engine.find_graph(generators.choose("mobile", {"blocks": 2})) is None
        monkeypatch.setattr(onnx_engine, "_sources", lambda target: "changed")
        assert onnx_engine.find_graph(tiny[0]) is None

    def test_a_cache_that_cannot_be_written_keeps_nothing_from_working(
        self, tiny: tuple[Choice, Arrays], export: Mock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setenv("FRUITGAN_CACHE", str(tmp_path / "file"))
        assert onnx_engine.obtain_graph(*tiny).onnx

    def test_names_of_a_strangers_card_lead_to_no_file(self, export: Mock) -> None:
        assert onnx_engine.find_graph(Choice("../../etc/passwd", "fruitgan", "1")) is None
        assert onnx_engine.find_graph(Choice("mobile", "../..", "1", {"base_channels": "../../x"})) is None


@pytest.mark.parametrize("name", ["onnx", "torch"])
def test_weights_must_be_the_generators_own_and_finite(name: str) -> None:
    bundle = shipped()
    own = bundle.weights["a2b"]
    for weights, message in (
        ({key: array for key, array in own.items() if key != "head.bias"}, "head.bias is missing"),
        ({**own, "stranger": np.zeros(1)}, "stranger is unknown"),
        ({**own, "head.bias": np.zeros(3)}, r"head.bias has the shape \[3\], not \[16\]"),
    ):
        with pytest.raises(DataError, match=message):
            engines.get(name)(generator=bundle.card.generator, weights=weights, gpu="none")
    weights = {**own, "head.bias": np.full(16, np.nan, np.float32)}
    with pytest.raises(FruitganError, match="the generator gave numbers that are not finite"):
        engines.get(name)(generator=bundle.card.generator, weights=weights, gpu="none").translate(fruit(1, 16, 16))


@pytest.mark.parametrize(
    ("name", "part", "error"),
    [
        ("onnx", "session", RuntimeError("Failed to allocate memory for requested buffer of size 123")),
        ("torch", "_run", RuntimeError("DefaultCPUAllocator: can't allocate memory")),
        ("torch", "_run", torch.OutOfMemoryError("CUDA")),
        ("torch", "_run", MemoryError()),
    ],
)
def test_running_out_of_memory_says_what_to_lower(
    name: str, part: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = shipped()
    engine = engines.get(name)(generator=bundle.card.generator, weights=bundle.weights["a2b"], gpu="none")
    monkeypatch.setattr(engine, part, Mock(side_effect=error, **{"run.side_effect": error}))
    with pytest.raises(FruitganError, match=r"2 images of 16 x 8 px; lower --scale") as caught:
        engine.translate(np.zeros((2, 8, 16, 3), np.float32))
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("asked", [{"gpu": "0"}, {"device": "cuda:1"}, {"device": "mps"}])
def test_a_gpu_is_refused_by_engines_that_have_none(asked: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=r"runs on the CPU alone.*use --engine torch"):
        engines.get("onnx")(generator=Choice("mobile", "fruitgan", "1"), weights={}, **asked)


def test_a_missing_extra_is_named_with_its_pip_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FRUITGAN_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "fruitgan.engines.onnx_export", raising=False)
    with pytest.raises(EnvironmentProblem) as caught:
        onnx_engine.obtain_graph(*generator_of("mobile", base_channels=4, blocks=1))
    assert str(caught.value) == 'the export of the generator mobile needs onnx: pip install "fruitgan[onnx]"'
    assert caught.value.exit_code == 4


MOBILE = Choice("mobile", "fruitgan", "1", {"base_channels": 32, "blocks": 6, "mask": True})
ANOTHER = Choice("mobile", "fruitgan", "1", {"base_channels": 7})


@pytest.mark.parametrize(
    ("may_have_gpu", "asked", "engine"),
    [
        (False, {}, "onnx"),
        (False, {"precision": "bf16"}, "torch"),
        (False, {"scale": "native"}, "torch"),
        (True, {}, "torch"),
        (True, {"gpu": "none"}, "onnx"),
        (True, {"device": "cpu"}, "onnx"),
        (False, {"gpu": "0"}, "torch"),
        (False, {"device": "cuda:1"}, "torch"),
    ],
)
def test_auto_takes_the_fastest_that_can_do_what_is_asked(
    may_have_gpu: bool, asked: dict[str, Any], engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_engine, "may_have_gpu", lambda: may_have_gpu)
    assert engine_name("auto", MOBILE, {}, **asked) == engine


@pytest.mark.parametrize(
    ("is_absent", "error", "engine", "said"),
    [
        (False, None, "onnx", ["exporting the generator mobile as an ONNX graph into the cache, once"]),
        (False, DataError("it loops"), "torch", ["exporting", "mobile runs through torch: it loops"]),
        (True, None, "torch", ['mobile runs through torch; with pip install "fruitgan[onnx]"']),
    ],
)
def test_auto_exports_a_graph_that_is_missing_where_it_can_and_else_says_once_that_torch_runs(
    is_absent: bool, error: Exception | None, engine: str, said: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    export = Mock(side_effect=error, return_value=onnx_engine.find_graph(MOBILE))
    monkeypatch.setenv("FRUITGAN_CACHE", str(tmp_path))
    monkeypatch.setattr(onnx_engine, "may_have_gpu", lambda: False)
    monkeypatch.setattr("fruitgan.engines.onnx_export.export", export)
    monkeypatch.setattr(onnx_engine, "EXPORTERS", ("absent",) if is_absent else ())
    told: list[Note] = []
    assert engine_name("auto", ANOTHER, {}, tell=told.append) == engine
    assert len(told) == len(said)
    assert all(note.text.startswith(start) for note, start in zip(told, said, strict=True))


def test_torch_on_a_cpu_serves_several_threads_at_once_and_leaves_torchs_number_of_threads_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bundle, images, before, seen = shipped(), fruit(6, 16, 24), torch.get_num_threads(), set()
    torch.set_num_threads(2)
    try:
        engine = TorchEngine(generator=bundle.card.generator, weights=bundle.weights["a2b"], gpu="none", threads=1)
        forward = engine.network.forward
        monkeypatch.setattr(engine.network, "forward", lambda x: seen.add(torch.get_num_threads()) or forward(x))
        assert engine.concurrent
        one_by_one = [engine.translate(image[np.newaxis]) for image in images]
        with ThreadPoolExecutor(3) as pool:
            at_once = list(pool.map(lambda image: engine.translate(image[np.newaxis]), images))
        assert np.array_equal(at_once, one_by_one)
        assert seen == {1}
        assert torch.get_num_threads() == 2
        with ThreadPoolExecutor(1) as pool:  # as one that comes later finds it
            assert pool.submit(torch.get_num_threads).result() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("engine", ["onnx", "torch"])
@pytest.mark.parametrize(
    "images",
    [
        np.full((1, 64, 64, 3), 128, np.float32),
        np.full((1, 64, 64, 3), -0.5, np.float32),
        np.full((1, 64, 64, 3), np.nan, np.float32),
        np.zeros((1, 64, 64, 3), np.uint8),
        np.zeros((1, 3, 64, 64), np.float32),
        np.zeros((64, 64, 3), np.float32),
        np.zeros((0, 64, 64, 3), np.float32),
    ],
)
def test_what_is_no_picture_of_the_contract_is_refused_and_not_translated(engine: str, images: Any) -> None:
    found = shipped()
    with pytest.raises(UsageError, match="float32 in"):
        engines.get(engine)(generator=found.card.generator, weights=found.weights["a2b"], gpu="none").translate(images)


@pytest.mark.parametrize("engine", ["onnx", "torch"])
def test_a_side_that_does_not_fit_is_named(engine: str) -> None:
    found = shipped()
    with pytest.raises(DataError, match="130 x 129 px"):
        engines.get(engine)(generator=found.card.generator, weights=found.weights["a2b"], gpu="none").translate(
            np.zeros((1, 129, 130, 3), np.float32)
        )


def test_a_large_scale_runs_through_torch_which_has_tiles() -> None:
    found = shipped()
    names = [engine_name("auto", found.card.generator, found.weights["a2b"], scale=scale, gpu="none") for scale in (1024, 1025)]
    assert names == ["onnx", "torch"]


def test_a_cache_that_cannot_be_written_is_said_before_a_graph_is_exported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FRUITGAN_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(onnx_engine, "obtain_graph", Mock(side_effect=AssertionError))
    choice, weights = generator_of("mobile", base_channels=8)
    notes: list[Note] = []
    assert engine_name("auto", choice, weights, gpu="none", tell=notes.append) == "torch"
    assert "cannot be written" in notes[-1].text


def test_onnxruntime_tells_its_makers_nothing(tmp_path: Path) -> None:
    program = "from fruitgan.engines import onnx_engine; import onnxruntime"
    clean = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    subprocess.run([sys.executable, "-c", program], env=clean | {"HOME": str(tmp_path)}, check=True)
    assert list(tmp_path.iterdir()) == []


def test_a_generator_of_this_program_runs_through_torch_and_leaves_no_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_own", {})
    tint = type("Tint", (generators.get("mobile"),), {"__module__": "__main__"})
    generators.register("tint", tint)
    choice = generators.choose("tint", {"base_channels": 8})
    weights = arrays_of(generators.build(choice))
    assert engine_name("auto", choice, weights, gpu="none") == "torch"
    assert onnx_engine.find_graph(choice) is None
