"""Engines beside torch: the same picture, graphs that ship or are made once, and which engine is taken when."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fruitgan import bundle as bundles
from fruitgan import weights as shipped_weights
from fruitgan.demo.fruit import draw
from fruitgan.engines import choosing, graphs
from fruitgan.engines.catalog import engines
from fruitgan.engines.choosing import choose_engine
from fruitgan.engines.contracts import Engine, Images
from fruitgan.engines.torch_engine import TorchEngine, arrays_of
from fruitgan.errors import DataError, EnvironmentProblem, FruitganError, UsageError
from fruitgan.networks.contracts import generators
from fruitgan.registry import Choice

OTHERS = ("onnx",)
Arrays = dict[str, NDArray[Any]]


def shipped() -> bundles.Bundle:
    return bundles.load(shipped_weights.shipped(bundles.DEFAULT_SHIPPED))


def fruit(count: int, height: int, width: int) -> Images:
    side = max(height, width, 16)
    return np.stack([draw("apple", side, 5, index)[:height, :width] for index in range(count)])


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
    assert (ours.dtype, ours.shape) == (np.uint8, images.shape)
    return np.abs(ours.astype(int) - torchs)


@pytest.fixture(params=OTHERS)
def other(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(
        {"onnx": "onnxruntime"}.get(request.param, request.param), reason=f"fruitgan[{request.param}] is absent"
    )
    name: str = request.param
    return name


@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 128, 128), (3, 100, 196)])
def test_the_shipped_bundle_gives_the_same_picture_through_every_engine(other: str, shape: tuple[int, int, int]) -> None:
    bundle = shipped()
    for way in bundle.card.directions:
        assert differences(other, bundle.card.generator, bundle.weights[way], fruit(*shape)).max() <= 1


def test_bf16_is_near_where_an_engine_has_it_and_refused_where_not() -> None:
    bundle = shipped()
    given = {"generator": bundle.card.generator, "weights": bundle.weights["a2b"], "precision": "bf16"}
    with pytest.raises(UsageError, match="fp32 alone; --engine torch"):
        engines.get("onnx")(**given)
    off = differences("torch", bundle.card.generator, bundle.weights["a2b"], fruit(1, 128, 128), precision="bf16")
    assert 0 < off.mean() < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobile", "resnet-6", "resnet-9", "unet-128", "unet-256"])
def test_the_graph_that_ships_is_the_generator_at_its_usual_options(other: str, name: str) -> None:
    choice, weights = generator_of(name)
    assert (graphs.SHIPPED / f"{graphs.shipped_stem(choice)}.onnx").exists(), "run benchmarks/ship_graphs.py"
    assert differences(other, choice, weights, fruit(2, 256, 512)).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet-6", "unet-128"])
def test_a_graph_exported_now_is_the_one_that_ships(name: str) -> None:
    choice, weights = generator_of(name)
    now, there = graphs.exported(choice, weights), graphs.find(choice)
    assert there is not None
    assert (now.about.weights, now.about.used) == (there.about.weights, there.about.used)
    assert sorted(_operations(now)) == sorted(_operations(there))


def _operations(graph: graphs.Graph) -> list[str]:
    import onnx

    return [node.op_type for node in onnx.load_from_string(graph.onnx).graph.node]


def test_every_generator_of_ours_and_every_shipped_bundle_has_its_graph() -> None:
    usual = [generators.choose(entry.name) for entry in generators.entries() if entry.package == "fruitgan"]
    cards = [bundles.load_card(shipped_weights.shipped(name)) for name in shipped_weights.shipped_names()]
    stems = {graphs.shipped_stem(choice) for choice in [*usual, *(card.generator for card in cards)]}
    assert {path.stem for path in graphs.SHIPPED.glob("*.onnx")} == stems, "run benchmarks/ship_graphs.py"
    assert {path.stem for path in graphs.SHIPPED.glob("*.json")} == stems
    assert sum(path.stat().st_size for path in graphs.SHIPPED.iterdir() if path.is_file()) < 300_000
    for choice in usual:
        found = graphs.find(choice)
        assert found is not None
        assert set(found.about.used) == set(found.about.weights)


def test_a_graph_that_does_not_ship_is_exported_by_torch_and_gives_its_picture(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("onnxscript", reason="fruitgan[onnx] is absent")
    monkeypatch.setenv("FRUITGAN_CACHE", str(tmp_path))
    choice, weights = generator_of("mobile", base_channels=4, blocks=1)
    assert graphs.find(choice) is None
    assert differences("onnx", choice, weights, fruit(2, 16, 36)).max() <= 1
    assert graphs.find(choice) is not None


class TestTheCache:
    """Where the graph of a generator is that does not ship."""

    @pytest.fixture
    def tiny(self) -> tuple[Choice, Arrays]:
        return generator_of("mobile")

    @pytest.fixture
    def exports(self, tiny: tuple[Choice, Arrays], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
        """An empty cache, nothing that ships, and the names of the generators that are exported from now on."""
        names: list[str] = []
        exported = graphs.find(tiny[0])

        def export(generator: Choice, weights: Any) -> graphs.Graph:
            names.append(generator.name)
            assert exported is not None
            return exported

        monkeypatch.setattr(graphs, "exported", export)
        monkeypatch.setattr(graphs, "SHIPPED", tmp_path / "nothing")
        monkeypatch.setenv("FRUITGAN_CACHE", str(tmp_path))
        return names

    def test_it_is_exported_once(self, tiny: tuple[Choice, Arrays], exports: list[str], tmp_path: Path) -> None:
        assert graphs.find(tiny[0]) is None
        for _ in range(2):
            assert differences("onnx", *tiny, fruit(2, 16, 36)).max() <= 1
        assert exports == ["mobile"]
        assert len(list((tmp_path / "graphs").iterdir())) == 2

    def test_it_serves_another_bundle_of_the_same_generator(self, tiny: tuple[Choice, Arrays], exports: list[str]) -> None:
        other = generator_of("mobile", seed=1)
        assert differences("onnx", *tiny, fruit(1, 16, 16)).max() <= 1
        assert differences("onnx", *other, fruit(1, 16, 16)).max() <= 1
        assert exports == ["mobile"]

    @pytest.mark.parametrize("damage", [b"", b"\x08\x09", None])
    def test_one_that_is_torn_or_damaged_is_exported_anew(
        self, tiny: tuple[Choice, Arrays], exports: list[str], tmp_path: Path, damage: bytes | None
    ) -> None:
        graphs.obtain(*tiny)
        (path,) = (tmp_path / "graphs").glob("*.onnx")
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]) if damage is None else damage)
        assert graphs.find(tiny[0]) is None
        assert graphs.obtain(*tiny).onnx == whole == path.read_bytes()
        path.with_suffix(".json").write_text("{")
        assert graphs.find(tiny[0]) is None

    def test_other_options_and_changed_code_have_other_graphs(
        self, tiny: tuple[Choice, Arrays], exports: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        graphs.obtain(*tiny)
        assert graphs.find(tiny[0]) is not None
        assert graphs.find(generators.choose("mobile", {"blocks": 2})) is None
        monkeypatch.setattr(graphs, "_sources", lambda target: "changed")
        assert graphs.find(tiny[0]) is None

    def test_a_cache_that_cannot_be_written_keeps_nothing_from_working(
        self, tiny: tuple[Choice, Arrays], exports: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setenv("FRUITGAN_CACHE", str(tmp_path / "file"))
        assert differences("onnx", *tiny, fruit(1, 16, 16)).max() <= 1

    def test_names_of_a_strangers_card_lead_to_no_file(self, exports: list[str]) -> None:
        assert graphs.find(Choice("../../etc/passwd", "fruitgan", "1")) is None
        assert graphs.find(Choice("mobile", "../..", "1", {"base_channels": "../../x"})) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("head.bias"), "head.bias is missing"),
        (lambda w: w.update(stranger=np.zeros(1)), "stranger is unknown"),
        (lambda w: w.update({"head.bias": np.zeros(3)}), r"head.bias has the shape \[3\], not \[16\]"),
    ],
)
def test_weights_must_be_the_generators_own(other: str, change: Callable[[Any], Any], message: str) -> None:
    bundle = shipped()
    weights = dict(bundle.weights["a2b"])
    change(weights)
    with pytest.raises(DataError, match=message):
        engines.get(other)(generator=bundle.card.generator, weights=weights)


def test_numbers_that_are_not_finite_are_an_error_and_no_picture(other: str) -> None:
    bundle = shipped()
    weights = {**bundle.weights["a2b"], "head.bias": np.full(16, np.nan, np.float32)}
    with pytest.raises(FruitganError, match="not finite"):
        engines.get(other)(generator=bundle.card.generator, weights=weights).translate(fruit(1, 16, 16))


def test_running_out_of_memory_says_what_to_do(other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = shipped()
    engine = engines.get(other)(generator=bundle.card.generator, weights=bundle.weights["a2b"])

    class Full:
        def run(self, *_: Any) -> None:
            raise RuntimeError("Failed to allocate memory for requested buffer of size 123")

        create_infer_request = infer = run

    monkeypatch.setattr(engine, "session" if other == "onnx" else "compiled", Full())
    with pytest.raises(FruitganError, match=r"2 images of 16 x 8 px; lower --scale") as caught:
        engine.translate(np.zeros((2, 8, 16, 3), np.uint8))
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("asked", [{"gpu": "0"}, {"device": "cuda:1"}, {"device": "mps"}])
def test_a_gpu_is_refused_by_engines_that_have_none(other: str, asked: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=r"runs on the CPU alone.*use --engine torch"):
        engines.get(other)(generator=Choice("mobile", "fruitgan", "1"), weights={}, **asked)


def test_a_missing_extra_is_named_with_its_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EnvironmentProblem) as caught:
        engines.get("onnx")(generator=Choice("mobile", "fruitgan", "1"), weights={})
    assert str(caught.value) == 'onnxruntime is not installed: pip install "fruitgan[onnx]"'
    assert caught.value.exit_code == 4


MOBILE = Choice("mobile", "fruitgan", "1", {"base_channels": 32, "blocks": 6, "mask": True})


@pytest.mark.parametrize(
    ("absent", "may_have_gpu", "asked", "engine"),
    [
        ((), False, {}, "onnx"),
        ((), False, {"precision": "bf16"}, "torch"),
        ((), False, {"scale": "native"}, "torch"),
        ((), True, {}, "torch"),
        ((), True, {"gpu": "none"}, "onnx"),
        ((), True, {"device": "cpu"}, "onnx"),
        ((), False, {"gpu": "0"}, "torch"),
        ((), False, {"device": "cuda:1"}, "torch"),
        ((), False, {"wanted": "torch"}, "torch"),
        ((), True, {"wanted": "onnx", "scale": "native"}, "onnx"),
        ((), False, {"generator": Choice("mobile", "fruitgan", "1", {"base_channels": 7})}, "torch"),
        (("onnxruntime",), False, {}, "torch"),
    ],
)
def test_auto_takes_what_is_through_first_of_what_is_there(
    absent: tuple[str, ...], may_have_gpu: bool, asked: dict[str, Any], engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "find_spec", lambda module: None if module in absent else module)
    monkeypatch.setattr(choosing, "may_have_gpu", lambda: may_have_gpu)
    assert choose_engine(**{"wanted": "auto", "generator": MOBILE, **asked}) == engine


def test_what_is_known_of_a_shipped_graph_is_plain_json() -> None:
    about = json.loads((graphs.SHIPPED / f"{graphs.shipped_stem(MOBILE)}.json").read_text())
    assert about["generator"] == "mobile"
    assert about["weights"]["head.weight"] == [16, 32, 3, 3]


def test_engines_are_engines(other: str) -> None:
    assert issubclass(engines.get(other), Engine)  # type: ignore[arg-type]
    assert engines.get(other).concurrent  # type: ignore[attr-defined]


def test_torch_on_a_cpu_serves_several_threads_at_once_and_leaves_torchs_number_of_threads_alone() -> None:
    bundle, images, before = shipped(), fruit(6, 64, 96), torch.get_num_threads()
    engine = TorchEngine(generator=bundle.card.generator, weights=bundle.weights["a2b"], gpu="none", threads=1)
    assert engine.concurrent
    one_by_one = [engine.translate(image[np.newaxis]) for image in images]
    with ThreadPoolExecutor(3) as pool:
        at_once = list(pool.map(lambda image: engine.translate(image[np.newaxis]), images))
    assert np.array_equal(at_once, one_by_one)
    assert torch.get_num_threads() == before
    with ThreadPoolExecutor(1) as pool:  # as one that comes later finds it
        assert pool.submit(torch.get_num_threads).result() == before


@pytest.mark.parametrize("threads", [1, None])
def test_a_call_of_torch_takes_the_threads_it_was_given(threads: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, seen = shipped(), []
    engine = TorchEngine(generator=bundle.card.generator, weights=bundle.weights["a2b"], gpu="none", threads=threads)
    forward = engine.network.forward
    monkeypatch.setattr(engine.network, "forward", lambda x: seen.append(torch.get_num_threads()) or forward(x))
    engine.translate(fruit(1, 16, 16))
    assert seen == [threads or torch.get_num_threads()]
