"""Published networks as features: which weights are taken, which are refused unopened, and what comes out.

Of torchvision and timm; Inception, CLIP and DINOv2 through torch-fidelity, with stand-ins for their weights; our shipped one.
"""

from __future__ import annotations

import dataclasses
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from evaluations import evaluating, fill
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models

from fruitgan.errors import DataError, EnvironmentProblem, UsageError
from fruitgan.evaluate.job import evaluate
from fruitgan.evaluate.wording import number_rows
from fruitgan.files import file_sha256
from fruitgan.measures.contracts import Features, features
from fruitgan.measures.features import pretrained
from fruitgan.networks import classifiers
from fruitgan.networks.backbones import build_backbone, efficientnet_lite1

PIXELS = torch.randint(0, 256, (2, 3, 40, 50), dtype=torch.uint8)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch's cache, empty."""
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub"


@pytest.fixture
def clip_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small image encoder, saved as OpenAI saves its large ones, whose sum counts as published."""
    from torch_fidelity import feature_extractor_clip as theirs

    torch.manual_seed(0)

    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.visual = theirs.CLIPVisual(8, 32, 1, 64, 16).visual
            self.text_projection = nn.Parameter(torch.zeros(4, 8))

        def forward(self, x: Tensor) -> Tensor:
            return self.visual(x) + self.text_projection[0]

    path = tmp_path / "small.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(Small().eval(), torch.zeros(1, 3, 32, 32)).save(str(path))
    sha256 = file_sha256(path)
    monkeypatch.setitem(theirs.MODEL_METADATA, "clip-vit-b-32", {"hash": sha256, "filename": "small"})
    return path


def test_clip_is_torch_fidelitys_with_the_weights_of_the_published_sum(clip_file: Path, hub: Path) -> None:
    from torch_fidelity.feature_extractor_clip import FeatureExtractorCLIP

    found = features.build(features.choose("clip", {"weights": str(clip_file)}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = FeatureExtractorCLIP("clip-vit-b-32", ["clip"], feature_extractor_weights_path=str(clip_file))
    with torch.inference_mode():
        assert torch.equal(found(PIXELS.float() / 255), theirs(PIXELS)[0])
    sha256 = file_sha256(clip_file)
    assert (found.name, found.version, found.dimensions) == ("clip:vit-b-32", sha256[:16], 8)
    (hub / "checkpoints").mkdir(parents=True)
    clip_file.rename(hub / "checkpoints" / f"clip-vit-b-32-{sha256}.pt")  # where torch-fidelity puts it
    assert features.build(features.choose("clip")).version == found.version


def test_the_network_that_a_family_stands_for_gives_the_numbers_that_a_gate_names(clip_file: Path, tmp_path: Path) -> None:
    fill(tmp_path / "predicted", 8)
    fill(tmp_path / "origins", 8, first=8)
    gate = {"fail_above": {"kid": 1e6}, "weights": {"clip": clip_file}}
    result = evaluate(evaluating(tmp_path, features=("clip",), metrics=("kid",), **gate))
    assert list(result.numbers) == ["kid"]
    assert result.numbers["kid"].features == "clip:vit-b-32"
    assert list(result.ratios) == ["r"]
    second = evaluate(evaluating(tmp_path, features=("colour", "clip"), metrics=("kid",), weights={"clip": clip_file}))
    (row,) = [row for row in number_rows(second.as_json()) if row.features == "clip:vit-b-32" and row.floor is not None]
    assert (row.title, row.value) == ("KID x 100", pytest.approx(100 * second.numbers["kid_clip"].value))
    assert row.says_more


@pytest.mark.parametrize("build", [pretrained.clip, pretrained.inception])
def test_weights_of_another_sum_are_never_opened(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build: Callable[..., Features]
) -> None:
    for owner in (torch, torch.jit):
        monkeypatch.setattr(owner, "load", lambda *_, **__: pytest.fail("opened"))
    other = tmp_path / "other.pt"
    other.write_bytes(b"hostile")
    with pytest.raises(DataError, match="its sha256 is"):
        build(weights=str(other))
    with pytest.raises(DataError, match="no such file of weights; the right one is at https://"):
        build(weights=str(tmp_path / "absent.pth"))


def test_what_is_not_here_is_told_with_the_line_or_the_file_that_helps(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="did you mean vit-b-32"):
        pretrained.clip(network="vit-b-33")
    monkeypatch.setenv("FRUITGAN_OFFLINE", "1")
    with pytest.raises(DataError, match=pretrained.INCEPTION.address):
        pretrained.inception()
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(EnvironmentProblem, match=r'pip install "fruitgan\[inception\]"'):
        pretrained.inception()


def test_inception_is_torch_fidelitys_network_with_the_weights_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch_fidelity import feature_extractor_inceptionv3 as theirs

    with monkeypatch.context() as patch:
        patch.setattr(nn.Module, "load_state_dict", lambda self, state: None)
        patch.setattr(theirs, "load_state_dict_from_url", lambda *arguments, **options: {})
        network = theirs.FeatureExtractorInceptionV3("x", ["2048"])
    file = tmp_path / "weights.pth"
    torch.save(network.state_dict(), file)
    monkeypatch.setattr(pretrained, "INCEPTION", dataclasses.replace(pretrained.INCEPTION, sha256=file_sha256(file)))
    ours = pretrained.inception(weights=str(file)).eval()
    with torch.inference_mode():
        assert torch.equal(ours(PIXELS[:1].float() / 255), network(PIXELS[:1])[0])


HUBCONF = """
import torch

def dinov2_vits14(*, pretrained=True):
    assert not pretrained
    return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(12, 5))
"""


def test_dinov2_is_torch_fidelitys_on_the_code_and_weights_of_torchs_cache(hub: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"dinov2:vit-s-14 need .*facebookresearch_dinov2_main.*torch\.hub\.load"):
        pretrained.dinov2()
    (hub / "facebookresearch_dinov2_main").mkdir(parents=True)
    (hub / "facebookresearch_dinov2_main/hubconf.py").write_text(HUBCONF)
    (hub / "checkpoints").mkdir()
    network = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 5))
    file = hub / "checkpoints/dinov2_vits14_pretrain.pth"
    torch.save(network.state_dict(), file)
    found: Any = features.build(features.choose("dinov2"))
    seen: list[Tensor] = []
    found.network.model.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        values = found(PIXELS.float() / 255)
        assert torch.equal(values, network(seen[0]))
    assert seen[0].shape == (2, 3, 224, 224)
    assert (found.name, found.dimensions) == ("dinov2:vit-s-14", 5)
    assert found.version == file_sha256(file)[:16]
    another, hostile = tmp_path / "other.pth", tmp_path / "hostile.pth"
    torch.save({"another": torch.zeros(1)}, another)
    hostile.write_bytes(b"hostile")
    for wrong in (another, hostile):
        with pytest.raises(DataError, match="is no file of weights of dinov2_vits14"):
            pretrained.dinov2(weights=str(wrong))


def test_the_shipped_backbones_features_are_means_and_deviations_of_its_maps() -> None:
    found: Any = features.build(features.choose("efficientnet-lite1"))
    images = torch.rand(2, 3, 256, 256)
    with torch.inference_mode():
        values = found(images)
        for stride, maps in zip((4, 8, 16), efficientnet_lite1()(images * 2 - 1, (4, 8, 16)), strict=True):
            part = values[:, found.columns()[stride]]
            flat = maps.flatten(2)
            torch.testing.assert_close(part, torch.cat([flat.mean(2), flat.std(2, correction=0)], dim=1), rtol=0, atol=1e-3)
    assert values.shape[1] == found.dimensions == 2 * (24 + 40 + 112)


def test_the_whole_networks_weights_are_added_where_the_user_has_them(tmp_path: Path) -> None:
    import timm

    torch.manual_seed(0)
    network = timm.create_model("tf_efficientnet_lite1", pretrained=False).eval()
    file = tmp_path / "lite1.safetensors"
    save_file(network.state_dict(), file)
    builds = ({}, {"weights": str(file)})
    part, whole = (features.build(features.choose("efficientnet-lite1", given)) for given in builds)
    assert whole.dimensions == part.dimensions + 1280
    assert whole.version != part.version
    images = torch.rand(1, 3, 256, 256)
    with torch.inference_mode():
        scaled = (images - whole.whole.get_buffer("mean")) / whole.whole.get_buffer("spread")
        last = network.forward_head(network.forward_features(scaled), pre_logits=True)
        torch.testing.assert_close(whole(images), torch.cat([part(images), last], dim=1))


NETWORK = "mobilenet_v3_small"


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return models.get_model(NETWORK, weights=None).eval()


@pytest.fixture(scope="module")
def safetensors_file(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "own.safetensors"
    save_file(network.state_dict(), path)
    return path


def scaled(images: Tensor) -> Tensor:
    """As classifiers of ImageNet want their pictures."""
    mean, spread = (torch.tensor(x).reshape(1, 3, 1, 1) for x in (classifiers.IMAGENET_MEAN, classifiers.IMAGENET_SPREAD))
    return (images - mean) / spread


def test_the_features_are_what_the_last_layer_is_given(network: nn.Module, safetensors_file: Path) -> None:
    features = pretrained.torchvision(network=NETWORK, weights=str(safetensors_file))
    assert features.trained_on == "not known"  # weights of one's own
    given: list[torch.Tensor] = []
    handle = network.classifier[3].register_forward_pre_hook(lambda module, inputs: given.append(inputs[0]))
    images = torch.rand(2, 3, 224, 224)
    with torch.inference_mode():
        network(scaled(images))
        found = features(images)
    handle.remove()
    assert torch.allclose(found, given[0], atol=1e-5)
    assert (features.dimensions, found.shape[1], features.name) == (1024, 1024, f"torchvision:{NETWORK}")
    assert features.version == file_sha256(safetensors_file)[:16]
    assert "224 px" in features.resize
    assert features.version in features.resize


def test_weights_of_another_network_and_networks_without_a_last_linear_layer_are_refused(
    safetensors_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="does not fit the network"):
        pretrained.torchvision(network="resnet18", weights=str(safetensors_file))
    squeezed = tmp_path / "squeezenet.safetensors"
    save_file(models.get_model("squeezenet1_1", weights=None).state_dict(), squeezed)
    with pytest.raises(UsageError, match="no linear layer"):
        pretrained.torchvision(network="squeezenet1_1", weights=str(squeezed))


def test_timm_networks_are_features_and_backbones_and_need_the_extra_and_safetensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import timm as library

    torch.manual_seed(0)
    model = library.create_model("mobilenetv3_small_050", pretrained=False).eval()
    file = tmp_path / "own.safetensors"
    save_file(model.state_dict(), file)
    backbone = classifiers.timm_backbone(network="mobilenetv3_small_050", weights=str(file))
    assert {4, 8, 16, 32} <= set(backbone.channels)
    assert backbone(torch.zeros(1, 3, 64, 64), [4])[0].shape[2:] == (16, 16)
    features = pretrained.timm(network="mobilenetv3_small_050", weights=str(file))
    assert features.trained_on == "not known"
    images = torch.rand(1, 3, features.size_px, features.size_px)
    with torch.inference_mode():
        inner = (images - features.get_buffer("mean")) / features.get_buffer("spread")
        expected = model.forward_head(model.forward_features(inner), pre_logits=True)
        assert torch.allclose(features(images), expected, atol=1e-5)
    with pytest.raises(DataError, match="safetensors alone"):
        pretrained.timm(network="mobilenetv3_small_050", weights="weights.pth")
    monkeypatch.setenv("FRUITGAN_OFFLINE", "1")
    with pytest.raises(DataError, match="FRUITGAN_OFFLINE"):
        pretrained.timm(network="mobilenetv3_small_050")
    monkeypatch.setitem(sys.modules, "timm", None)
    for needing in (lambda: pretrained.timm(), lambda: build_backbone("timm:mobilenetv3_small_050", [4])):
        with pytest.raises(EnvironmentProblem, match=r'pip install "fruitgan\[timm\]"'):
            needing()


def test_published_weights_are_opened_with_their_sum_alone_and_make_features_and_a_backbone(
    network: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRUITGAN_CACHE", str(tmp_path))
    monkeypatch.setenv("FRUITGAN_OFFLINE", "1")
    with pytest.raises(DataError, match=r"put it from https://download\.pytorch\.org/models/mobilenet_v3_small-047dcff4\.pth"):
        pretrained.torchvision(network=NETWORK)
    file = tmp_path / "downloads" / "mobilenet_v3_small-047dcff4.pth"
    file.parent.mkdir()
    torch.save(network.state_dict(), file)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", lambda *arguments, **options: pytest.fail("opened"))
        for weights in ("", str(file)):
            with pytest.raises(DataError, match="published ones begin with 047dcff4"):
                pretrained.torchvision(network=NETWORK, weights=weights)
    right = file_sha256(file)[:8]
    monkeypatch.setattr(classifiers, "_published_sum", lambda url: right)
    features = pretrained.torchvision(network=NETWORK)
    assert (features.dimensions, features.trained_on) == (1024, "ImageNet")
    backbone = build_backbone(f"torchvision:{NETWORK}", [8, 16])
    images = torch.rand(2, 3, 96, 64) * 2 - 1
    x = scaled((images + 1) / 2)
    for layer in network.features:
        x = layer(x)
    found = backbone(images, [8, 16])
    assert [map_.shape[2:] for map_ in found] == [(12, 8), (6, 4)]
    assert [map_.shape[1] for map_ in found] == [backbone.channels[8], backbone.channels[16]]
    assert not list(backbone.parameters())
    assert not backbone.state_dict()
    assert not backbone.train().training
    assert NETWORK in backbone.trained_on
    torch.testing.assert_close(backbone(images, [32])[0], x)
    with pytest.raises(UsageError, match="stride 64"):
        build_backbone(f"torchvision:{NETWORK}", [64])


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_the_maps_of_a_classifier_have_the_channels_that_it_says(name: str) -> None:
    """A bottleneck calls one activation three times, in the first block of a stage at two strides."""
    network = classifiers.PublishedClassifier(
        name, "0", models.get_model(name, weights=None).eval(), 64, (0.5,) * 3, (0.2,) * 3, ""
    )
    backbone = classifiers.ClassifierBackbone(network)
    with torch.no_grad():
        for _ in range(2):
            maps = backbone(torch.zeros(1, 3, 64, 64), (4, 8, 16))
            assert [(found.shape[1], 64 // found.shape[2]) for found in maps] == [(backbone.channels[s], s) for s in (4, 8, 16)]
