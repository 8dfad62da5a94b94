"""Bundles and detectors from strangers: a whole valid one, or one line that says what is wrong, and never much memory."""

from __future__ import annotations

import ast
import json
import os
import re
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hostile import examples
from hypothesis import given
from hypothesis import strategies as st
from toy_bundles import detector_card, save_small

from fruitgan import bundle as bundles
from fruitgan.engines.torch_engine import TorchEngine
from fruitgan.errors import DataError, EnvironmentProblem, FruitganError
from fruitgan.networks.contracts import detectors, generators
from fruitgan.registry import Choice
from fruitgan.train_detector.detector import DetectorBundle, load_detector, save_detector

DETECTOR_KEY = "fruitgan-detector"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole bundle of the smallest generator."""
    return save_small(tmp_path_factory.mktemp("good") / "good.safetensors", name="good", image_size_px=16, created="2025-01-01")


@pytest.fixture(scope="module")
def good_detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    choice = detectors.choose("small-cnn", {"image_size_px": 16, "base_channels": 1})
    path = tmp_path_factory.mktemp("good") / "detector.safetensors"
    save_detector(DetectorBundle(detector_card(choice, 16), detectors.build(choice).eval()), path)
    return path


def use(path: Path) -> None:
    """All that is done with a bundle before the first picture; the pictures themselves are small here."""
    bundle = bundles.load(path)
    assert bundles.load_card(path) == bundle.card
    for direction in bundle.card.directions:
        engine = TorchEngine(generator=bundle.card.generator, weights=bundle.weights[direction], device="cpu")
        for array in bundle.weights[direction].values():
            assert np.isfinite(array).all()
        assert engine.network.size_rule.minimum_px > 0


def fate(read: Callable[[Path], object], path: Path) -> str:
    """`whole`, or the name of the error; anything but an error of ours in one short line is a failure of the test."""
    said: FruitganError | None = None
    try:
        read(path)
    except FruitganError as error:
        said = error
    if said is None:
        return "whole"
    assert said.exit_code in (3, 4), repr(said)
    assert len(str(said).splitlines()) == 1, repr(said)
    assert len(str(said)) < 600 + len(str(path)), repr(said)
    return type(said).__name__


def spoil(hostile: SimpleNamespace, draw: Callable[..., Any], data: bytes, key: str) -> bytes:
    """One of many ways to make a hostile file of a good one."""
    header, content = hostile.parts_of(data)
    way = draw(st.sampled_from(["bytes", "header", "card", "card", "both", "length", "splice", "options", "options"]))
    if way == "bytes":
        return bytes(hostile.bytes(draw, data))
    if way in ("header", "both"):
        card = header["__metadata__"].pop(key)
        header = hostile.json(draw, header)
        if isinstance(header, dict) and isinstance(header.get("__metadata__"), dict):
            header["__metadata__"][key] = card
    if way in ("card", "both"):
        card = hostile.json(draw, json.loads(hostile.parts_of(data)[0]["__metadata__"][key]))
        if isinstance(header, dict):
            header["__metadata__"] = {key: hostile.text(draw, card)}
    if way == "options":
        card = json.loads(header["__metadata__"][key])
        choice = card["generator" if "generator" in card else "detector"]
        choice["name"] = draw(st.sampled_from([choice["name"], *generators.names(), *detectors.names(), "os:system"]))
        known = ["base_channels", "blocks", "mask", "dropout", "image_size_px", "bins"]
        numbers = st.sampled_from([-1, 0, 1, 2, 3, 16, 100, 4096, 10**5, 10**6, 10**9, 2**40, 2**63 - 1, True, 0.5, "3", None])
        choice["options"] |= draw(st.dictionaries(st.sampled_from(known), numbers, max_size=2))
        header["__metadata__"][key] = json.dumps(card)
    if way == "length":
        length = draw(st.sampled_from([0, 1, 2, 100, len(data) - 8, len(data), 2**31, 2**40, 2**63, 2**64 - 1]))
        return bytes(hostile.tensor_file(json.dumps(header), content, length))
    if way == "splice":
        content = hostile.bytes(draw, content)
    return bytes(hostile.tensor_file(hostile.text(draw, header), content))


def attack(hostile: SimpleNamespace, data: st.DataObject, good: Path, key: str, read: Callable[[Path], object]) -> None:
    path = good.with_name("spoilt.safetensors")
    path.write_bytes(spoil(hostile, data.draw, good.read_bytes(), key))
    with hostile.little_memory():
        fate(read, path)


# Whatever a stranger may have done to a good file


@examples(150)
@given(st.data())
def test_any_spoilt_bundle_is_whole_or_refused_in_one_line(hostile: SimpleNamespace, good: Path, data: st.DataObject) -> None:
    attack(hostile, data, good, bundles.KEY, use)


@examples(150)
@given(st.data())
def test_any_spoilt_detector_is_whole_or_refused_in_one_line(
    hostile: SimpleNamespace, good_detector: Path, data: st.DataObject
) -> None:
    attack(hostile, data, good_detector, DETECTOR_KEY, load_detector)


# What one of them did, or might have done


def with_card(good: Path, hostile: SimpleNamespace, to: Path, key: str = bundles.KEY, **changes: Any) -> Path:
    """The good file with another card; a change of `options` goes to the network's."""
    header, content = hostile.parts_of(good.read_bytes())
    card = json.loads(header["__metadata__"][key])
    choice = card["generator" if "generator" in card else "detector"]
    choice["options"] |= changes.pop("options", {})
    choice |= changes.pop("choice", {})
    header["__metadata__"][key] = json.dumps(card | changes)
    to.write_bytes(hostile.tensor_file(header, content))
    return to


BOMBS: tuple[dict[str, Any], ...] = (
    *({"base_channels": number} for number in (-1, 5, 3000, 2**63 - 1, "4" * 1000)),
    *({"blocks": number} for number in (0, 2, 2**63 - 1)),
    *({"base_channels": 1, "blocks": 10**9}, {"mask": "yes"}, {"unheard_of": 1}),
)


@pytest.mark.parametrize("options", BOMBS, ids=lambda options: " ".join(f"{k}={v}" for k, v in options.items())[:40])
def test_options_of_a_card_never_make_more_of_a_network_than_its_weights(
    options: dict[str, Any], good: Path, hostile: SimpleNamespace, tmp_path: Path
) -> None:
    bundle = bundles.load(with_card(good, hostile, tmp_path / "b", options=options))
    with hostile.little_memory(64 << 20), pytest.raises(DataError, match="the generator mobile"):
        TorchEngine(generator=bundle.card.generator, weights=bundle.weights["a2b"], device="cpu")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        *(
            ({"choice": {"name": name, "options": {option: number}}}, f"the detector {name}")
            for name, option, number in (
                *(("seed-cnn", "image_size_px", size_px) for size_px in (16, 10**6)),
                ("small-cnn", "base_channels", 10**6),
            )
        ),
        ({"image_size_px": 4096}, "its card speaks of 4096 px, its detector wants 16"),
        ({"image_size_px": 4097}, "not from 1 to 4096 px"),
    ],
)
def test_a_detectors_sizes_cannot_inflate_it(
    changes: dict[str, Any], said: str, good_detector: Path, hostile: SimpleNamespace, tmp_path: Path
) -> None:
    path = with_card(good_detector, hostile, tmp_path / "d", DETECTOR_KEY, **changes)
    with hostile.little_memory(), pytest.raises(DataError, match=said):
        load_detector(path)


@pytest.mark.parametrize("sizes", [{"size_minimum_px": 2049}, {"size_multiple_px": 10**9}, {"image_size_px": 8193}])
def test_a_card_cannot_make_every_picture_a_giant(
    sizes: dict[str, int], good: Path, hostile: SimpleNamespace, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="not from 1 to"):
        bundles.load(with_card(good, hostile, tmp_path / "b", **sizes))


def entry(kind: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    "entries",
    [
        {"x": entry("F32", [2**40], 0, 2**42)},
        {"x": entry("F16", [2**63 - 1] * 16, 0, 2)},
        {"x": entry("F16", [0, 2**63 - 1], 0, 0)},
        {"x": entry("F16", [1], 0, 2), "y": entry("F16", [1], 0, 2)},
        {"x": entry("F16", [1], 2, 4)},
        {"x": entry("F16", [1], 4, 2)},
        {"x": entry("F16", [-1], 0, 2)},
        {"x": entry("F16", [1] * 1000, 0, 2)},
        {"x": entry("F8_E9M9", [10**9], 0, 2)},
        {"x": None},
    ],
)
def test_sizes_in_a_header_are_held_against_the_file(
    entries: dict[str, Any], good: Path, hostile: SimpleNamespace, tmp_path: Path
) -> None:
    header, _ = hostile.parts_of(good.read_bytes())
    prefixed = {f"generator_ab.{name}": value for name, value in entries.items()}
    path = tmp_path / "b"
    path.write_bytes(hostile.tensor_file({"__metadata__": header["__metadata__"], **prefixed}, b"\0" * 2))
    tracemalloc.start()
    with pytest.raises(DataError):
        bundles.load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize(
    ("fill", "size"),
    [(b"{},", 2_000_000), (b"[[[[[[],", 2_000_000), (b'{"a":1,', 2_000_000), (b"1,", (2 << 20) + 100), (b"1,", 9_000_000)],
)
def test_a_header_of_any_size_takes_little_memory(fill: bytes, size: int, hostile: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(hostile.tensor_file(b'{"x":[' + fill * (size // len(fill)) + b"1]}"))
    with hostile.little_memory(128 << 20), pytest.raises(DataError, match="not a bundle"):
        bundles.load_card(tmp_path / "b")


def test_a_file_with_holes_cannot_fill_the_memory(good: Path, hostile: SimpleNamespace, tmp_path: Path) -> None:
    header, _ = hostile.parts_of(good.read_bytes())
    for size, said in ((1 << 30, "too large for the memory here"), (9 << 30, "more than any has")):
        giant = {"__metadata__": header["__metadata__"]}
        for way in ("ab", "ba"):
            giant[f"generator_{way}.x"] = entry("F16", [size // 4], *(size // 2 * (way == "ba") + n for n in (0, size // 2)))
        path = tmp_path / f"{size}"
        path.write_bytes(start := hostile.tensor_file(giant))
        os.truncate(path, len(start) + size)
        with hostile.little_memory(), pytest.raises(DataError, match=said):
            bundles.load(path)
        path.unlink()  # before something reads all that tests leave


def test_weights_that_are_not_finite_are_refused_by_name(
    good: Path, good_detector: Path, hostile: SimpleNamespace, tmp_path: Path
) -> None:
    for path, read, kind, bad in ((good, bundles.load, "<f2", -np.inf), (good_detector, load_detector, "<f4", np.nan)):
        header, content = hostile.parts_of(path.read_bytes())
        name = next(name for name, told in header.items() if name != "__metadata__" and told["dtype"].startswith("F"))
        begin = header[name]["data_offsets"][0]
        number = np.array(bad, kind).tobytes()
        spoilt = content[:begin] + number + content[begin + len(number) :]
        (tmp_path / "b").write_bytes(hostile.tensor_file(header, spoilt))
        with pytest.raises(DataError, match=re.escape(f"the tensor '{name}' holds numbers that are not finite")):
            read(tmp_path / "b")


@pytest.mark.parametrize(("kind", "bytes_each"), [("F32", 4), ("BF16", 2), ("F8_E4M3", 1)])
def test_a_bundle_has_half_precision_and_nothing_else(
    kind: str, bytes_each: int, good: Path, hostile: SimpleNamespace, tmp_path: Path
) -> None:
    header, _ = hostile.parts_of(good.read_bytes())
    one = {f"generator_{way}.x": entry(kind, [1], i * bytes_each, (i + 1) * bytes_each) for i, way in enumerate(("ab", "ba"))}
    (tmp_path / "b").write_bytes(hostile.tensor_file({"__metadata__": header["__metadata__"], **one}, bytes(2 * bytes_each)))
    with pytest.raises(DataError, match=r"is not in float16|of a type not known here"):
        bundles.load(tmp_path / "b")


def test_a_newer_format_says_so_before_anything_else_is_found_odd(
    good: Path, good_detector: Path, hostile: SimpleNamespace, tmp_path: Path
) -> None:
    novelty = {"format": 99, "novelty": {"deep": [1]}, "name": 3}
    for path, key, read in ((good, bundles.KEY, bundles.load), (good_detector, DETECTOR_KEY, load_detector)):
        header, _ = hostile.parts_of(path.read_bytes())
        header = {"__metadata__": {key: json.dumps(novelty)}, "x": entry("F7_NEW", [3], 0, 5)}
        (tmp_path / "b").write_bytes(hostile.tensor_file(header, bytes(5)))
        with pytest.raises(DataError, match=r"has format 99, newer than this program's \d: pip install -U fruitgan"):
            read(tmp_path / "b")


# Names are looked up and never imported


ABSENT = "orchard-networks .*not installed: pip install orchard-networks"


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        *(
            ({"name": name, "package": "orchard-networks"}, ABSENT)
            for name in ("os:system", "../mobile", "", "mobile\n", "__class__")
        ),
        ({"name": "plum", "package": "fruitgan", "version": "99.0"}, r"fruitgan 99\.0, and the .* pip install -U fruitgan$"),
        *(
            ({"name": "plum", "package": package}, "^(?!.*pip install).*cannot be one")  # offered is a package's name alone
            for package in ("x --index-url http://evil.example", "git+https://evil.example/x", "x; rm -rf ~", "", "-r")
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_name_on_a_card_is_looked_up_and_never_imported(
    choice: dict[str, str], said: str, good: Path, hostile: SimpleNamespace, tmp_path: Path
) -> None:
    bundle = bundles.load(with_card(good, hostile, tmp_path / "b", choice=choice))
    with pytest.raises(EnvironmentProblem, match=said) as raised:
        TorchEngine(generator=bundle.card.generator, weights=bundle.weights["a2b"], device="cpu")
    assert raised.value.exit_code == 4


READS_NUMBERS_BACK = """
import torch
from fruitgan.networks.mobile import Mobile

def counting(*, base_channels: int = 4, blocks: int = 1) -> Mobile:
    "Looks at numbers while it is built."
    assert torch.linspace(0, 1, 3).tolist() == [0, 0.5, 1]
    assert torch.rand(1).item() < 1
    return Mobile(base_channels=base_channels, blocks=blocks)
"""


def test_a_builder_that_looks_at_numbers_is_built_and_limited_all_the_same(
    install: Callable[..., Path], good: Path, hostile: SimpleNamespace, tmp_path: Path
) -> None:
    install("orchard-networks", {"generators": {"counting": "orchard_networks:counting"}}, READS_NUMBERS_BACK)
    weights = bundles.load(good).weights["a2b"]
    choice = Choice("counting", "orchard-networks", "1.0", {})
    before = torch.get_rng_state()
    engine = TorchEngine(generator=choice, weights=weights, device="cpu")
    assert torch.equal(torch.get_rng_state(), before)
    for name, tensor in engine.network.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), weights[name].astype(np.float32))
    with hostile.little_memory(), pytest.raises(DataError, match="would be larger than the weights"):
        TorchEngine(generator=replace(choice, options={"blocks": 10**9}), weights=weights, device="cpu")


HOLDS_A_WINDOW = """
import torch
from fruitgan.networks.mobile import Mobile

def windowed(*, side_px: int = 64) -> Mobile:
    "Holds more than its weights say."
    network = Mobile(base_channels=4, blocks=1)
    network.register_buffer("window", torch.zeros(side_px, side_px), persistent=False)
    return network
"""


def test_what_a_network_holds_beside_its_weights_is_limited_too(
    install: Callable[..., Path], good: Path, hostile: SimpleNamespace
) -> None:
    install("orchard-windows", {"generators": {"windowed": "orchard_windows:windowed"}}, HOLDS_A_WINDOW)
    weights = bundles.load(good).weights["a2b"]
    choices = [Choice("windowed", "orchard-windows", "1.0", {"side_px": side_px}) for side_px in (4000, 5000, 10**6)]
    with hostile.little_memory():
        assert TorchEngine(generator=choices[0], weights=weights, device="cpu").network.window.shape == (4000, 4000)
        for choice in choices[1:]:
            with pytest.raises(DataError, match="would be larger than the weights"):
                TorchEngine(generator=choice, weights=weights, device="cpu")


# The source itself

FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "breakpoint"}
FORBIDDEN_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml", "jsonpickle", "code", "runpy"}
FORBIDDEN_METHODS = {"torch.load", "torch.hub", "np.load", "numpy.load", "os.system", "os.popen", "importlib.import_module"}
ALLOWED = {
    # Readers of other projects' weights, of tensors alone, and after their sum was checked where one is published;
    # DINOv2's code is in torch's own cache, where the user had it fetched.
    "measures/features/pretrained.py": {"torch.load", "torch.hub"},
    # The same for torchvision's weights, and its own downloader for them, which holds them against the sum in their name.
    "networks/classifiers.py": {"torch.load", "torch.hub"},
    # The checkpoints that fruitgan import is given: of tensors alone, never compressed.
    "networks/reference.py": {"torch.load"},
    # Its own list of packages, to see whether they can be imported, and those of the trackers that ship.
    "doctor.py": {"importlib.import_module"},
    "runs/trackers.py": {"importlib.import_module"},
}


def dotted(node: ast.AST) -> str:
    """`torch.load` of the two names in it; nothing of any other node."""
    return f"{node.value.id}.{node.attr}" if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) else ""


def test_nothing_in_the_source_turns_data_into_code() -> None:
    root = Path(bundles.__file__).parent
    files = sorted(root.rglob("*.py"))
    assert len(files) > 100
    for path in files:
        found = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FORBIDDEN_CALLS:
                found.add(node.func.id)
            found |= {dotted(node)} & FORBIDDEN_METHODS
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                found |= {name for name in names if name.partition(".")[0] in FORBIDDEN_MODULES}
            if isinstance(node, ast.keyword) and node.arg in ("shell", "allow_pickle", "trust_remote_code"):
                found.add(node.arg)
            if isinstance(node, ast.Call) and dotted(node.func) == "torch.load":
                assert any(word.arg == "weights_only" and ast.unparse(word.value) == "True" for word in node.keywords), path
        assert found <= ALLOWED.get(path.relative_to(root).as_posix(), set()), (path, found)
