"""Networks of torchvision and timm as features: which weights are taken, which are refused unopened, what comes out."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision import models

from fruitgan.errors import DataError, EnvironmentProblem, UsageError
from fruitgan.measures.features import pretrained
from fruitgan.networks import classifiers
from fruitgan.networks.backbones import build_backbone

NETWORK = "mobilenet_v3_small"


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return models.get_model(NETWORK, weights=None).eval()


@pytest.fixture(scope="module")
def safetensors_file(network: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "own.safetensors"
    save_file(network.state_dict(), path)
    return path


def test_the_features_are_what_the_last_layer_is_given(network: torch.nn.Module, safetensors_file: Path) -> None:
    features = pretrained.torchvision(network=NETWORK, weights=str(safetensors_file))
    assert features.trained_on == "not known"  # weights of one's own
    given: list[torch.Tensor] = []
    handle = network.classifier[3].register_forward_pre_hook(lambda module, inputs: given.append(inputs[0]))
    images = torch.rand(2, 3, 224, 224)
    mean, spread = (torch.tensor(x).reshape(1, 3, 1, 1) for x in (classifiers.IMAGENET_MEAN, classifiers.IMAGENET_SPREAD))
    with torch.inference_mode():
        network((images - mean) / spread)
        found = features(images)
    handle.remove()
    assert torch.allclose(found, given[0], atol=1e-5)
    assert features.dimensions == found.shape[1] == 1024
    assert features.name == f"torchvision:{NETWORK}"
    assert features.version == hashlib.sha256(safetensors_file.read_bytes()).hexdigest()[:16]
    assert "224 px" in features.resize
    assert features.version in features.resize


def test_a_pth_file_is_opened_only_with_the_published_sum(
    network: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "weights.pth"
    torch.save(network.state_dict(), file)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", lambda *arguments, **options: pytest.fail("opened"))
        with pytest.raises(DataError, match="published ones begin with 047dcff4"):
            pretrained.torchvision(network=NETWORK, weights=str(file))
    right = classifiers.file_sha256(file)[:8]
    monkeypatch.setattr(classifiers, "_published_sum", lambda url: right)
    features = pretrained.torchvision(network=NETWORK, weights=str(file))
    assert (features.dimensions, features.trained_on) == (1024, "ImageNet")


def test_published_weights_are_taken_from_the_cache_and_asked_for_where_offline(
    network: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRUITGAN_CACHE", str(tmp_path))
    monkeypatch.setenv("FRUITGAN_OFFLINE", "1")
    with pytest.raises(DataError, match=r"put it from https://download\.pytorch\.org/models/mobilenet_v3_small-047dcff4\.pth"):
        pretrained.torchvision(network=NETWORK)
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads/mobilenet_v3_small-047dcff4.pth").write_bytes(b"hostile")
    with pytest.raises(DataError, match="its sha256 is"):
        pretrained.torchvision(network=NETWORK)


def test_weights_of_another_network_and_networks_without_a_last_linear_layer_are_refused(
    safetensors_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="does not fit the network"):
        pretrained.torchvision(network="resnet18", weights=str(safetensors_file))
    squeezed = tmp_path / "squeezenet.safetensors"
    save_file(models.get_model("squeezenet1_1", weights=None).state_dict(), squeezed)
    with pytest.raises(UsageError, match="no linear layer"):
        pretrained.torchvision(network="squeezenet1_1", weights=str(squeezed))
    with pytest.raises(UsageError, match="did you mean"):
        pretrained.torchvision(network="resnet19")


def test_timm_networks_need_the_extra_and_safetensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import timm as library

    torch.manual_seed(0)
    model = library.create_model("mobilenetv3_small_050", pretrained=False).eval()
    file = tmp_path / "own.safetensors"
    save_file(model.state_dict(), file)
    features = pretrained.timm(network="mobilenetv3_small_050", weights=str(file))
    assert features.trained_on == "not known"
    images = torch.rand(1, 3, features.size_px, features.size_px)
    with torch.inference_mode():
        inner = (images - features.get_buffer("mean")) / features.get_buffer("spread")
        expected = model.forward_head(model.forward_features(inner), pre_logits=True)
        assert torch.allclose(features(images), expected, atol=1e-5)
    with pytest.raises(DataError, match="safetensors alone"):
        pretrained.timm(network="mobilenetv3_small_050", weights="weights.pth")
    with pytest.raises(UsageError, match="no classifier named"):
        pretrained.timm(network="mobilenetv9")
    monkeypatch.setenv("FRUITGAN_OFFLINE", "1")
    with pytest.raises(DataError, match="FRUITGAN_OFFLINE"):
        pretrained.timm(network="mobilenetv3_small_050")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(EnvironmentProblem, match=r'pip install "fruitgan\[timm\]"'):
        pretrained.timm(network="mobilenetv3_small_050")


def test_a_torchvision_classifier_is_a_backbone_whose_maps_are_its_layers(
    network: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "downloads" / "mobilenet_v3_small-047dcff4.pth"
    file.parent.mkdir()
    torch.save(network.state_dict(), file)
    right = classifiers.file_sha256(file)[:8]
    monkeypatch.setattr(classifiers, "_published_sum", lambda url: right)
    monkeypatch.setenv("FRUITGAN_CACHE", str(tmp_path))
    backbone = build_backbone(f"torchvision:{NETWORK}", [8, 16])
    images = torch.rand(2, 3, 96, 64) * 2 - 1
    mean, spread = (torch.tensor(x).reshape(1, 3, 1, 1) for x in (classifiers.IMAGENET_MEAN, classifiers.IMAGENET_SPREAD))
    x = ((images + 1) / 2 - mean) / spread
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


def test_a_timm_classifier_is_a_backbone_and_needs_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import timm as library

    model = library.create_model("mobilenetv3_small_050", pretrained=False).eval()
    file = tmp_path / "own.safetensors"
    save_file(model.state_dict(), file)
    backbone = classifiers.timm_backbone(network="mobilenetv3_small_050", weights=str(file))
    assert {4, 8, 16, 32} <= set(backbone.channels)
    assert backbone(torch.zeros(1, 3, 64, 64), [4])[0].shape[2:] == (16, 16)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(EnvironmentProblem, match="timm"):
        build_backbone("timm:mobilenetv3_small_050", [4])
