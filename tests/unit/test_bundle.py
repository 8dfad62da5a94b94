"""The bundle file: what is saved is loaded, equal bundles are equal bytes, and anything else is refused by name."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from numpy.typing import NDArray
from picture_files import drawn
from toy_bundles import CARD

from fruitgan import bundle as bundles
from fruitgan.bundle import Bundle, load, load_card, locate, save, weights_sha256
from fruitgan.demo.fruit import Kind
from fruitgan.engines.padding import translate_pixels
from fruitgan.engines.torch_engine import TorchEngine
from fruitgan.errors import DataError, FruitganError, UsageError


def toy() -> Bundle:
    rng = np.random.default_rng(0)
    arrays: dict[str, NDArray[Any]] = {
        "b.weight": rng.normal(size=(2, 3)).astype(np.float32),
        "a": np.array(1.5, np.float32),
        "n": np.arange(3),
    }
    return Bundle(CARD, {"a2b": arrays, "b2a": {name: array * 2 for name, array in arrays.items()}})


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "deep" / "toy.safetensors"
    save(toy(), path)
    return path


def with_card(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """The bundle with another card in it."""
    with safetensors.safe_open(path, "numpy") as file:
        card = json.loads(file.metadata()["fruitgan"])
    change(card)
    safetensors.numpy.save_file(safetensors.numpy.load_file(path), path, metadata={"fruitgan": json.dumps(card)})
    return path


def test_a_bundle_comes_back_as_it_was_saved(saved: Path) -> None:
    loaded = load(saved)
    assert loaded.card == CARD == load_card(saved)
    assert isinstance(loaded.card.domains, tuple)
    for way, arrays in toy().weights.items():
        assert loaded.weights[way].keys() == arrays.keys()
        for name, array in arrays.items():
            assert loaded.weights[way][name].shape == array.shape
            assert loaded.weights[way][name].dtype == (np.int64 if name == "n" else np.float16)
            np.testing.assert_allclose(loaded.weights[way][name], array, rtol=1e-3)


def test_equal_bundles_are_equal_bytes_whatever_the_order_of_their_parts(tmp_path: Path) -> None:
    bundle = toy()
    turned = Bundle(
        replace(CARD, measured=dict(reversed(list(CARD.measured.items())))),
        {way: dict(reversed(list(bundle.weights[way].items()))) for way in ("b2a", "a2b")},
    )
    assert bundles.bundle_bytes(bundle) == bundles.bundle_bytes(turned)
    save(bundle, tmp_path / "a")
    save(load(tmp_path / "a"), tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_hash_of_the_weights_ignores_the_card_and_sees_every_number(saved: Path) -> None:
    digest = weights_sha256(toy())
    assert digest == weights_sha256(load(saved)) == weights_sha256(Bundle(replace(CARD, name="other"), toy().weights))
    changed = {way: dict(arrays) for way, arrays in toy().weights.items()}
    changed["b2a"]["n"] = np.array([0, 2, 5])
    assert weights_sha256(Bundle(CARD, changed)) != digest
    renamed = {way: {name.replace("n", "m"): array for name, array in arrays.items()} for way, arrays in toy().weights.items()}
    assert weights_sha256(Bundle(CARD, renamed)) != digest


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e6])
def test_weights_that_half_precision_cannot_hold_are_never_saved(tmp_path: Path, bad: float) -> None:
    weights = {way: {**arrays, "a": np.array(bad, np.float32)} for way, arrays in toy().weights.items()}
    with pytest.raises(FruitganError, match=r"generator_ab\.a holds numbers"):
        save(Bundle(CARD, weights), tmp_path / "b.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_torn_at_any_place_is_refused(saved: Path) -> None:
    data = saved.read_bytes()
    for end in (5, 8, 20, len(data) // 2, len(data) - 1):
        saved.write_bytes(data[:end])
        with pytest.raises(DataError, match=r"torn|not a bundle"):
            load(saved)
    saved.write_bytes(data + b"more")
    with pytest.raises(DataError, match="torn"):
        load(saved)


def test_a_bundle_of_format_1_is_read(saved: Path) -> None:
    def older(card: dict[str, Any]) -> None:
        card["format"] = 1
        for key in ("trained_against", "value_range", "background", "dtype"):
            del card[key]

    assert load(with_card(saved, older)).card == CARD


@pytest.mark.parametrize(
    "change",
    [
        lambda card: card.pop("format"),
        lambda card: card.update(unknown=1),
        lambda card: card.pop("domains"),
        lambda card: card.update(directions=["a2c"]),
        lambda card: card.update(directions=[]),
        lambda card: card.update(image_size_px=0),
        lambda card: card.update(domains=["apple", "apple"]),
        lambda card: card.update(generator="mobile"),
        lambda card: card.update(directions=["b2a"]),
    ],
)
def test_a_card_that_is_none_is_refused(saved: Path, change: Callable[[dict[str, Any]], object]) -> None:
    with pytest.raises(DataError):
        load(with_card(saved, change))


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a", b"", ""),
        ("a", b"hello, world, how are you", ""),
        ("a", safetensors.numpy.save({"x": np.zeros(3)}), ": a safetensors file without fruitgan's model card"),
        ("latest_net_G.pth", b"PK\3\4" + bytes(30), " but a checkpoint of PyTorch's"),
        ("latest_net_G.pth", b"\x80\2}q\0.", " but a checkpoint of PyTorch's"),
        ("renamed.safetensors", b"PK\3\4" + bytes(30), " but a checkpoint of PyTorch's"),
        ("toy.onnx", b"\x08\x08\x12\x07pytorch", " but an exported graph; give the run or the bundle that it was made of"),
    ],
)
def test_a_file_of_another_kind_is_refused_and_called_what_it_is(name: str, data: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    for read in (load, load_card):
        with pytest.raises(DataError, match=f"{name}: not a bundle{said}"):
            read(tmp_path / name)


def test_what_is_no_file_is_refused_and_a_pipe_not_waited_for(tmp_path: Path) -> None:
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "nowhere", tmp_path / "pipe"):
        with pytest.raises(DataError, match="expected a bundle"):
            load(path)


def test_a_card_must_agree_with_the_weights() -> None:
    with pytest.raises(UsageError, match="its weights are for"):
        Bundle(CARD, {"a2b": {}})


def test_a_bundle_of_few_steps_is_doubted_where_its_training_is_known() -> None:
    hardly = replace(CARD, steps=10, resolved_recipe={})
    assert hardly.doubt == "toy was trained for 10 steps: expect little of it"
    assert replace(hardly, steps=1000).doubt is replace(CARD, steps=10, resolved_recipe=None).doubt is None


def test_padded_sides_fit_the_size_rule() -> None:
    assert [CARD.padded(side) for side in (1, 8, 9, 12, 4001)] == [8, 8, 12, 12, 4004]


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of bundles that ship, with two in it; the runs here are in none of it."""
    folder = tmp_path / "shipped"
    folder.mkdir()
    monkeypatch.setattr(bundles, "SHIPPED", folder)
    monkeypatch.chdir(tmp_path)
    for name in ("apple2orange", "aaa"):
        (folder / f"{name}.safetensors").touch()
    return folder


def made_run(name: str, seconds: int = 0) -> Path:
    path = Path("runs", "train-gan", name, "bundle.safetensors")
    path.parent.mkdir(parents=True)
    path.touch()
    os.utime(path, (seconds, seconds))
    return path


def test_without_a_wish_the_newest_run_else_the_one_that_ships(shipped: Path) -> None:
    assert locate() == shipped / "apple2orange.safetensors"
    made_run("a", 5)
    newest = made_run("b", 9)
    made_run("c", 7)
    Path("runs/train-gan/without-one").mkdir()
    assert locate() == newest


def test_a_file_a_folder_a_run_and_a_shipped_name_are_found(shipped: Path) -> None:
    run = made_run("first")
    Path("own.bin").touch()
    Path("apple2orange", "trainA").mkdir(parents=True)  # a data folder does not hide the bundle of its name
    assert locate("own.bin") == Path("own.bin")
    assert locate(str(run.parent)) == locate("first") == run
    assert [locate(name) for name in ("aaa", "apple2orange")] == [shipped / f"{n}.safetensors" for n in ("aaa", "apple2orange")]


def test_the_bundle_of_a_step_is_the_checkpoints_and_no_copys(shipped: Path) -> None:
    checkpoints = made_run("first").parent / "checkpoints"
    for name in ("step-00000005", "step-00000005 (copy)"):
        (checkpoints / name).mkdir(parents=True)
        (checkpoints / name / "bundle.safetensors").touch()
    assert locate("first@5") == checkpoints / "step-00000005" / "bundle.safetensors"
    with pytest.raises(UsageError, match=r"those that do: 5$"):
        locate("first@6")


def test_what_cannot_be_located_says_what_to_do(shipped: Path) -> None:
    made_run("oranges")
    Path("runs/train-gan/young").mkdir()
    for wanted, error, said in (
        ("orangs", UsageError, "did you mean oranges"),
        ("somewhere/else", DataError, "no such bundle"),
        ("typo.safetensors", DataError, "no such bundle"),
        ("young", DataError, "with its first checkpoint"),
    ):
        with pytest.raises(error, match=said):
            locate(wanted)
    for path in (*shipped.iterdir(), Path("runs/train-gan/oranges/bundle.safetensors")):
        path.unlink()
    with pytest.raises(UsageError, match="there is none"):
        locate("nothing")


def test_the_bundle_that_ships_fits_into_the_wheel_and_its_card_is_honest() -> None:
    bundle = load(bundles.shipped())
    assert bundles.shipped().stat().st_size <= 6_000_000
    for arrays in bundle.weights.values():
        assert {array.dtype for array in arrays.values()} == {np.dtype(np.float16)}
        assert sum(array.size for array in arrays.values()) <= 1_000_000
    card = bundle.card
    assert card.domains == ("apple", "orange")
    assert set(card.directions) == {"a2b", "b2a"}
    assert card.image_size_px >= 128
    assert "Research only" in card.licence
    assert "Known failures" in card.notes
    assert {"protocol", "r_a2b", "r_b2a", "read_as_orange_after"} <= set(card.measured)


@pytest.mark.parametrize(("direction", "kind", "to_red"), [("a2b", "apple", False), ("b2a", "orange", True)])
def test_it_changes_drawn_fruit_in_the_right_direction(direction: str, kind: Kind, to_red: bool) -> None:
    bundle = load(bundles.shipped())
    engine = TorchEngine(generator=bundle.card.generator, weights=bundle.weights[direction], gpu="none")
    greener = []
    for index in range(4):
        source = drawn(kind, 128, 3, index)
        change = (translate_pixels(engine, bundle.card, source).astype(float) - source).mean((0, 1))
        greener.append(change[1] - change[2])
    # Orange is red with more green than blue: towards it green gains on blue, away from it green loses.
    assert (np.mean(greener) < 0) == to_red
    assert abs(np.mean(greener)) > 1
