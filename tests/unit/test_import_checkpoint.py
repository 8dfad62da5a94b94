"""Generators of the reference code: their checkpoints become bundles, and ours become weights for it.

The networks here are plain `torch.nn`, written down layer by layer as the reference code numbers them.
"""

from __future__ import annotations

import json
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fruitgan import bundle as bundles
from fruitgan.cli import main
from fruitgan.engines.torch_engine import TorchEngine
from fruitgan.errors import DataError
from fruitgan.networks.contracts import generators
from fruitgan.networks.reference import read_checkpoint, reference_builder
from fruitgan.networks.weights import build_for


class Block(nn.Module):
    def __init__(self, channels: int, norm: Callable[[int], nn.Module], bias: bool, dropout: bool) -> None:
        super().__init__()
        layers = [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3, bias=bias), norm(channels), nn.ReLU()]
        layers += [nn.Dropout(0.5)] if dropout else []
        layers += [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3, bias=bias), norm(channels)]
        self.conv_block = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


class Blur(nn.Module):
    """CUT's: a fixed kernel a channel, going down or up by two."""

    filt: Tensor

    def __init__(self, channels: int, row: list[float], up: bool) -> None:
        super().__init__()
        kernel = torch.outer(torch.tensor(row), torch.tensor(row))
        kernel = kernel / kernel.sum() * (4 if up else 1)
        self.register_buffer("filt", kernel.repeat(channels, 1, 1, 1))
        self.up = up

    def forward(self, x: Tensor) -> Tensor:
        if not self.up:
            return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), self.filt, stride=2, groups=x.shape[1])
        x = F.pad(x, (1, 1, 1, 1), mode="replicate")
        return F.conv_transpose2d(x, self.filt, stride=2, padding=2, groups=x.shape[1])[:, :, 1:-1, 1:-1]


def resnet(width: int, blocks: int, norm: str, dropout: bool = False, cut: bool = False) -> nn.Module:
    make, bias = norms(norm)
    layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(3, width, 7, bias=bias), make(width), nn.ReLU()]
    for n in (width, 2 * width):
        layers += [nn.Conv2d(n, 2 * n, 3, 1 if cut else 2, 1, bias=bias), make(2 * n), nn.ReLU()]
        layers += [Blur(2 * n, [1, 2, 1], up=False)] if cut else []
    layers += [Block(4 * width, make, bias, dropout) for _ in range(blocks)]
    for n in (4 * width, 2 * width):
        layers += [Blur(n, [1, 3, 3, 1], up=True)] if cut else []
        up = nn.Conv2d(n, n // 2, 3, 1, 1, bias=bias) if cut else nn.ConvTranspose2d(n, n // 2, 3, 2, 1, 1, bias=bias)
        layers += [up, make(n // 2), nn.ReLU()]
    return named(nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh()))


def named(model: nn.Module) -> nn.Module:
    """Its keys begin with `model`, as everywhere there."""
    return nn.Sequential(OrderedDict(model=model))


class Level(nn.Module):
    """One level of the UNet around the next; every level but the outermost gives its input too."""

    def __init__(self, outer: int, inner: int, norm: str, within: Level | None, *, is_outermost: bool, dropout: bool) -> None:
        super().__init__()
        make, bias = norms(norm)
        down = nn.Conv2d(3 if is_outermost else outer, inner, 4, 2, 1, bias=bias)
        inner_maps = inner if within is None else 2 * inner
        up = nn.ConvTranspose2d(inner_maps, 3 if is_outermost else outer, 4, 2, 1, bias=bias or is_outermost)
        if is_outermost:
            assert within is not None
            layers = [down, within, nn.ReLU(), up, nn.Tanh()]
        elif within is None:
            layers = [nn.LeakyReLU(0.2), down, nn.ReLU(), up, make(outer)]
        else:
            layers = [nn.LeakyReLU(0.2), down, make(inner), within, nn.ReLU(), up, make(outer)]
            layers += [nn.Dropout(0.5)] if dropout else []
        self.is_outermost = is_outermost
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.model(x)
        return made if self.is_outermost else torch.cat([x, made], 1)


def unet(width: int, depth: int, norm: str, dropout: bool = False) -> nn.Module:
    level = None
    for number in reversed(range(depth)):
        outer, inner = (width * min(2**n, 8) for n in (max(number - 1, 0), number))
        level = Level(outer, inner, norm, level, is_outermost=number == 0, dropout=dropout and 4 <= number < depth - 1)
    assert level is not None
    return named(level)


def norms(name: str) -> tuple[Callable[[int], nn.Module], bool]:
    return (nn.BatchNorm2d, False) if name == "batch" else (nn.InstanceNorm2d, True)


def trained(network: nn.Module, seed: int = 0) -> nn.Module:
    """With numbers as after a training: every tensor that is no blur is far from its start."""
    random = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2.0, generator=random)
        elif tensor.is_floating_point() and not name.endswith("filt"):
            tensor.normal_(1.0 if name.endswith("norm.weight") else 0.0, 0.05 if tensor.ndim == 4 else 0.3, generator=random)
    return network.eval()


FORMS = {
    "resnet-9": lambda: resnet(6, 9, "instance"),
    "resnet-6 dropout": lambda: resnet(8, 6, "instance", dropout=True),
    "resnet-9 batch": lambda: resnet(4, 9, "batch"),
    "cut-resnet": lambda: resnet(6, 4, "instance", cut=True),
    "cut-resnet batch": lambda: resnet(6, 2, "batch", cut=True),
    "unet-256": lambda: unet(4, 8, "instance"),
    "unet-128 batch dropout": lambda: unet(4, 7, "batch", dropout=True),
}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def saved(network: nn.Module, name: str = "latest_net_G_A.pth", **options: Any) -> Path:
    torch.save(network.state_dict(), name, **options)
    return Path(name)


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_every_form_gives_its_own_pictures_and_goes_back_tensor_for_tensor(form: str) -> None:
    architecture = form.partition(" ")[0]
    plain = trained(FORMS[form]())
    choice, weights = read_checkpoint(saved(plain), architecture)
    ours = build_for(generators, choice, weights).eval()
    side = 256 if architecture == "unet-256" else 128
    x = torch.rand(2, 3, side, side) * 2 - 1
    torch.testing.assert_close(ours(x), plain(x), rtol=0, atol=1e-5)
    assert (dict(choice.options).get("norm") == "batch") == ("batch" in form)
    if "resnet" in form:
        assert dict(choice.options).get("dropout", 0.0) == (0.5 if "dropout" in form else 0.0)

    card = bundles.load_card(bundles.shipped()).__dict__ | {
        "generator": choice,
        "directions": ("a2b",),
        "weights_dtype": "float32",
    }
    bundles.save(bundles.Bundle(bundles.Card(**card), {"a2b": weights}), Path("all.safetensors"))
    assert main(["export", "all.safetensors", "--format", "junyanz", "-o", "out", "-q"]) == 0
    (file,) = Path("out").iterdir()
    back = safetensors.torch.load_file(file)
    another = FORMS[form]().eval()
    another.load_state_dict(back)  # strictly, as users will
    for key, tensor in plain.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(another.state_dict()[key], tensor), key
    assert read_checkpoint(file, architecture)[0] == choice


def test_old_layouts_and_wrapped_networks_are_read_as_the_same_tensors() -> None:
    plain = trained(resnet(4, 6, "instance"))
    state = plain.state_dict()
    choice, weights = read_checkpoint(saved(plain), "resnet-6")
    statistics = {f"model.{n}.{end}": torch.rand(4) for n in (2, 5) for end in ("running_mean", "running_var")}
    old = {**state, **statistics, "model.2.num_batches_tracked": torch.tensor(7)}  # before PyTorch 0.4
    forms = [old, {f"module.{key}": tensor for key, tensor in state.items()}, {key: t.double() for key, t in state.items()}]
    for form in forms:
        torch.save(form, "other.pth", _use_new_zipfile_serialization=form is not old)
        found, arrays = read_checkpoint(Path("other.pth"), "resnet-6")
        assert found == choice
        assert all(np.array_equal(arrays[name], weights[name]) for name in weights)


def test_a_checkpoint_becomes_a_bundle_in_half_precision_that_translates(capsys: pytest.CaptureFixture[str]) -> None:
    networks = [trained(resnet(8, 6, "instance"), seed) for seed in (1, 2)]
    for network in networks:
        network.get_parameter("model.23.weight").data.mul_(0.2)  # as contrasts of trained networks are
    files = [str(saved(network, f"G_{number}.pth")) for number, network in enumerate(networks, 1)]
    given = ["import", *files, "--architecture", "resnet-6", "--domains", "horse,zebra", "-o", "h2z.safetensors"]
    assert main([*given, "--image-size", "64", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert (value["generator"]["name"], value["generator"]["options"]) == ("resnet-6", {"base_channels": 8})
    assert value["weights_dtype"] == "float16"
    assert all(found["largest"] <= 1 for found in value["half_precision"].values())
    bundle = bundles.load(Path("h2z.safetensors"))
    assert (bundle.card.domains, bundle.card.directions, bundle.card.image_size_px) == (("horse", "zebra"), ("a2b", "b2a"), 64)
    assert "G_1.pth" in bundle.card.notes
    picture = np.random.default_rng(0).random((1, 64, 64, 3), dtype=np.float32)
    made = [TorchEngine(generator=bundle.card.generator, weights=bundle.weights[way], gpu="none") for way in ("a2b", "b2a")]
    assert np.abs(made[0].translate(picture) - made[1].translate(picture)).max() > 0.1
    assert main(given) == 2  # there already
    assert "--overwrite" in capsys.readouterr().err


def test_a_bundle_is_in_full_precision_where_half_moves_a_picture(capsys: pytest.CaptureFixture[str]) -> None:
    plain = trained(resnet(4, 6, "batch"))
    with torch.no_grad():
        plain.state_dict()["model.2.running_var"].fill_(1e6)  # above what half precision can hold
        plain.state_dict()["model.2.weight"].mul_(1e3)
    given = ["import", str(saved(plain)), "--architecture", "resnet-6", "--domains", "a,b", "-o", "full.safetensors"]
    assert main([*given, "--image-size", "32", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["weights_dtype"] == "float32"
    bundle = bundles.load(Path("full.safetensors"))
    assert bundle.card.weights_dtype == "float32"
    assert {array.dtype for array in bundle.weights["a2b"].values()} == {np.dtype(np.float32)}
    assert main(["show", "full.safetensors"]) == 0
    assert "float32" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda state: state.pop("model.10.conv_block.5.bias"), r"model.10.conv_block.5.bias is missing"),
        (
            lambda state: state.update({"model.26.weight": torch.zeros(1, 4, 7, 7)}),
            r"model.26.weight has the shape \[1, 4, 7, 7\]",
        ),
        (lambda state: state.update({"model.2.weight": torch.ones(4)}), r"model.2.weight is unknown"),
        (lambda state: state.update({"model.4.bias": torch.zeros(8, dtype=torch.int)}), r"model.4.bias is of int32"),
        (lambda state: state.pop("model.1.weight"), r"model.1.weight is missing"),
        (lambda state: state.update({"model.1.weight": torch.zeros(())}), r"model.1.weight is missing"),
        (lambda state: state.update(epoch=3), r"other things"),
        (lambda state: state.update({"model.1.weight": torch.zeros(1).expand(2**40, 3, 7, 7)}), r"larger than itself"),
    ],
)
def test_the_first_key_that_does_not_fit_is_named(change: Callable[[Any], Any], named: str) -> None:
    state = dict(trained(resnet(4, 9, "instance")).state_dict())
    change(state)
    torch.save(state, "wrong.pth")
    with pytest.raises(DataError, match=named):
        read_checkpoint(Path("wrong.pth"), "resnet-9")


def test_another_architecture_or_another_blur_is_refused() -> None:
    file = saved(trained(resnet(4, 6, "instance")))
    with pytest.raises(DataError, match=r"model.16.conv_block.1.weight is missing"):
        read_checkpoint(file, "resnet-9")
    with pytest.raises(DataError, match=r"model.model.0.weight is missing"):
        read_checkpoint(file, "unet-256")
    cut = trained(resnet(4, 2, "instance", cut=True))
    cut.state_dict()["model.7.filt"].fill_(1 / 9)
    with pytest.raises(DataError, match=r"model.7.filt is not the blur"):
        read_checkpoint(saved(cut), "cut-resnet")


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("was-run"),)


def test_nothing_in_a_file_is_run_and_none_is_unpacked() -> None:
    torch.save({"model.1.weight": Evil()}, "evil.pth")
    with pytest.raises(DataError, match=r"evil.pth: not a PyTorch checkpoint, or not one of tensors alone"):
        read_checkpoint(Path("evil.pth"), "resnet-9")
    assert not Path("was-run").exists()
    with (
        zipfile.ZipFile(saved(trained(resnet(4, 9, "instance")))) as stored,
        zipfile.ZipFile("bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in stored.namelist():
            bomb.writestr(name, stored.read(name))
    Path("text.pth").write_text("no checkpoint", encoding="utf-8")
    for name in ("bomb.pth", "text.pth", "absent.pth"):
        with pytest.raises(DataError, match=name):
            read_checkpoint(Path(name), "resnet-9")


def test_what_the_reference_code_does_not_have_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "apple2orange", "--format", "junyanz"]) == 2
    assert "mobile" in capsys.readouterr().err
    file = str(saved(trained(resnet(4, 6, "instance"))))
    given = ["--domains", "a,b", "-o", "x.safetensors"]
    assert main(["import", file, "--architecture", "resnet", *given]) == 2
    assert "resnet-9" in capsys.readouterr().err
    assert main(["import", file, file, file, "--architecture", "resnet-6", *given]) == 2
    assert main(["import", file, "--architecture", "resnet-6", "--domains", "a,b", "-o", "x.onnx"]) == 2
    other = str(saved(trained(resnet(6, 6, "instance")), "other.pth"))
    assert main(["import", file, other, "--architecture", "resnet-6", *given]) == 3
    broken = trained(resnet(4, 6, "instance"))
    torch.nn.init.constant_(broken.get_parameter("model.4.bias"), float("nan"))
    assert main(["import", str(saved(broken)), "--architecture", "resnet-6", "--image-size", "32", *given]) == 1
    assert "not finite" in capsys.readouterr().err
    assert not Path("x.safetensors").exists()


def test_the_printed_line_builds_the_generator_there() -> None:
    for name, options, line in (
        ("resnet-9", {}, 'ResnetGenerator(3, 3, 64, networks.get_norm_layer("instance"), False, 9)'),
        ("junyanz-resnet", {"norm": "batch", "dropout": 0.5, "blocks": 4}, '64, networks.get_norm_layer("batch"), True, 4)'),
        ("junyanz-unet", {"depth": 7}, 'UnetGenerator(3, 3, 7, 64, networks.get_norm_layer("instance"), False)'),
    ):
        assert reference_builder(generators.choose(name, options)).endswith(line)
