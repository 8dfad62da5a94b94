"""`fruitgan export`: models that others' runtimes load, whole and checked, or nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typed_commands import run_json

from fruitgan import bundle as bundles
from fruitgan.cli import main
from fruitgan.demo.fruit import draw
from fruitgan.engines.onnx_engine import Graph
from fruitgan.engines.padding import translate_pixels
from fruitgan.engines.torch_engine import TorchEngine
from fruitgan.errors import DataError, FruitganError, UsageError
from fruitgan.translate import export_job as job
from fruitgan.translate.export_job import ExportModelResult, ExportModelSettings, export_model

pytest.importorskip("onnx", reason="fruitgan[onnx] is absent")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> ExportModelResult:
    """Both directions of the bundle that ships."""
    return export_model(ExportModelSettings(bundle="apple2orange", output=tmp_path_factory.mktemp("whole")))


def loaded(path: str) -> Callable[[Any], Any]:
    """What the runtime's own plain session makes of it."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="fruitgan[onnx] is absent")
    session = onnxruntime.InferenceSession(path)
    assert [value.name for value in session.get_outputs()] == ["pictures"]
    about = json.loads(session.get_modelmeta().custom_metadata_map["fruitgan"])
    assert (about["to"], about["size_multiple_px"]) == ("orange", 4)
    assert "Research only" in about["licence"]
    return lambda images: session.run(None, {"pixels": images})[0]


def test_a_model_of_any_batch_and_size_gives_torchs_pictures(exported: ExportModelResult) -> None:
    assert [(model.direction, model.to) for model in exported.models] == [("a2b", "orange"), ("b2a", "apple")]
    for model in exported.models:
        assert Path(model.path).name == f"apple2orange-to-{model.to}.onnx"
        assert model.bytes == Path(model.path).stat().st_size
        assert len(model.parity) == 4
        assert all(parity["largest"] <= 1 and parity["mean"] < 0.01 for parity in model.parity)
    bundle = bundles.load(bundles.shipped("apple2orange"))
    torchs = TorchEngine(generator=bundle.card.generator, weights=bundle.weights["a2b"], gpu="none")
    run = loaded(exported.models[0].path)
    # Those that the generator does not take are padded within the model: mirrored, or, where there is too little, by the edge.
    for count, height, width in ((1, 64, 64), (3, 40, 76), (2, 65, 67), (1, 1, 1), (1, 3, 131), (1, 70, 2)):
        images = np.stack([draw("apple", 131, 9, index)[:height, :width] for index in range(count)])
        expected = np.stack([translate_pixels(torchs, bundle.card, image, "native") for image in images])
        found = run(images)
        assert found.shape == images.shape
        assert np.abs(found.astype(int) - expected).max() <= 1


def test_a_model_whose_pictures_are_not_torchs_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Graph.inputs

    def wrong(self: Any, given: Any) -> Any:
        return {**right(self, given), "head.bias": np.ones(16, np.float32)}

    monkeypatch.setattr(Graph, "inputs", wrong)
    Image.fromarray(draw("apple", 32, 9, 0)).save("a.png")
    with pytest.raises(FruitganError, match=r"grey levels from torch on a\.png: not written"):
        export_model(ExportModelSettings(bundle="apple2orange", to="orange", pictures=Path("a.png")))
    assert not any(path.is_file() for path in Path("exported").rglob("*"))


@pytest.mark.parametrize(("dtype", "share", "most"), [("fp16", 0.6, 3), ("int8", 0.4, 25)])
def test_a_smaller_model_says_how_far_its_pictures_are(
    dtype: str, share: float, most: int, exported: ExportModelResult, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("pictures").mkdir()
    for index in range(4):
        Image.fromarray(draw("apple", 48, 5, index)[: 40 + index]).save(f"pictures/{index}.png")
    given = ["export", "apple2orange", "--to", "orange", "--dtype", dtype, "--pictures", "pictures"]
    value = run_json(capsys, *given)
    assert value.keys() == {"bundle", "format", "dtype", "image_size_px", "models", "seconds"}
    assert (value["dtype"], value["image_size_px"]) == (dtype, 256)
    (model,) = value["models"]
    assert model.keys() == {"direction", "to", "path", "bytes", "parity", "load"}
    assert [(row["picture"], row["height_px"], row["width_px"]) for row in model["parity"]] == [
        ("0.png", 40, 48),
        ("2.png", 42, 48),
    ]
    assert all(0 <= row["mean"] <= row["largest"] <= most for row in model["parity"])
    assert max(row["mean"] for row in model["parity"]) > 0  # another arithmetic does show
    assert model["bytes"] < share * exported.models[0].bytes
    run, whole = loaded(model["path"]), loaded(exported.models[0].path)
    image = draw("apple", 67, 9, 0)[np.newaxis, :65]
    assert np.abs(run(image).astype(int) - whole(image)).max() <= most
    assert main(given) == 2  # there already
    assert capsys.readouterr().err.startswith(f"error: {model['path']}: is there already; --overwrite")
    if dtype == "fp16":
        assert main([*given, "--overwrite"]) == 0
        path, title, head, *rows = capsys.readouterr().out.splitlines()
        assert (path, title) == (model["path"], "grey levels from torch")
        assert head.split() == ["to", "picture", "size", "largest", "mean"]
        assert len(rows) == 2


def test_what_a_model_is_compared_on_must_be_pictures(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        export_model(ExportModelSettings(bundle="apple2orange", pictures=tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no image"):
        export_model(ExportModelSettings(bundle="apple2orange", pictures=tmp_path / "empty"))
    with pytest.raises(UsageError, match="--dtype"):
        ExportModelSettings(format="junyanz", dtype="fp16")


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="known are apple, orange"):
        export_model(ExportModelSettings(bundle="apple2orange", to="pear"))
    Path("exported/apple2orange-to-orange.onnx").mkdir(parents=True)
    with pytest.raises(UsageError, match="no model"):
        export_model(ExportModelSettings(bundle="apple2orange", to="orange", overwrite=True))


def test_a_name_on_a_strangers_card_leads_to_no_other_folder() -> None:
    bundle = bundles.load(bundles.shipped("apple2orange"))
    card = job.Card(**{**vars(bundle.card), "name": "../../evil", "domains": ("a/b", "..")})
    assert job._name(card, "a2b") == "evil-to-bundle"
    assert job._name(card, "b2a") == "evil-to-a-b"


def test_names_of_any_script_and_two_that_no_file_can_tell_apart_give_two_models(tmp_path: Path) -> None:
    bundle = bundles.load(bundles.shipped("apple2orange"))
    for domains, names in {
        ("苹果", "橙子"): {"apple2orange-to-苹果.onnx", "apple2orange-to-橙子.onnx"},
        ("?", "!"): {"apple2orange-to-bundle-a2b.onnx", "apple2orange-to-bundle-b2a.onnx"},
    }.items():
        path, out = tmp_path / "named.safetensors", tmp_path / names.pop()
        bundles.save(bundles.Bundle(job.Card(**{**vars(bundle.card), "domains": domains}), bundle.weights), path)
        found = export_model(ExportModelSettings(bundle=str(path), output=out)).models
        assert {out.name, *names} == {Path(model.path).name for model in found} == {file.name for file in out.iterdir()}
