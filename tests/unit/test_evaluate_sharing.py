"""What an evaluation claims, and on whose word: judges that share training with what judged the generator do not suffice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from picture_files import write_noise

from fruitgan.cli import main
from fruitgan.data.labelled import LabelledImage
from fruitgan.evaluate.job import evaluate
from fruitgan.evaluate.numbers import claims
from fruitgan.evaluate.results import EvaluateResult, Numbers, RatioResult
from fruitgan.evaluate.settings import EvaluateSettings
from fruitgan.evaluate.sources import dependent, sharing, trained_against
from fruitgan.measures.contracts import MetricResult, features
from fruitgan.measures.features.weightless import RandomNetworks
from fruitgan.measures.statistics import Interval
from fruitgan.translate.pictures import encode

LITE = "EfficientNet-Lite1 (ImageNet)"


def picture(seed: int, low: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, low + 150, (24, 24, 3), dtype=np.uint8)


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, low in (("predicted", 10), ("origins", 90)):
        write_noise(tmp_path / "set" / name, [(24, 24)] * 12, low=low, high=low + 150, seed=np.random.default_rng(low))
    return tmp_path / "set"


def card(dataset: Path, names: object) -> None:
    (dataset / "dataset.json").write_text(json.dumps({"bundle": {"trained_against": names}}))


def fakes(dataset: Path, marks: list[object]) -> list[LabelledImage]:
    """Generated images with these marks; None is a picture without one."""
    images = []
    for i, names in enumerate(marks):
        path = dataset / "predicted" / f"{i:04}.png"
        if names is not None:
            path.write_bytes(encode([picture(i, 10)], "png", {"trained_against": names}, {}, "none"))
        images.append(LabelledImage(path, True, str(i), "", ""))
    return images


@pytest.mark.parametrize(
    ("in_card", "marks", "expected"),
    [
        ([LITE], [["other"]], (LITE,)),
        ([], [[LITE]], ()),
        (None, [[LITE]], None),
        ([3], [[LITE]], None),
        ("absent", [[LITE], [LITE]], (LITE,)),
        ("absent", [["b"], ["a"], None], ("a", "b")),
        ("absent", [[], []], ()),
        ("absent", [[], None], None),
        ("absent", [None], None),
    ],
)
def test_the_datasets_card_counts_before_the_marks_of_the_pictures(
    dataset: Path, in_card: object, marks: list[object], expected: tuple[str, ...] | None
) -> None:
    if in_card != "absent":
        card(dataset, in_card)
    assert trained_against(dataset / "predicted", fakes(dataset, marks)) == expected


@pytest.mark.parametrize("content", [b"", b"[]", b"[" * 100_000, b'{"bundle": 3}', b"{}" + b" " * (1 << 20)])
def test_a_strangers_card_is_no_trouble(dataset: Path, content: bytes) -> None:
    (dataset / "dataset.json").write_bytes(content)
    assert trained_against(dataset / "predicted", fakes(dataset, [[LITE]])) == (LITE,)


def test_data_or_weights_in_common_are_shared() -> None:
    judges = {
        "colour": "",
        "inception": "ImageNet",
        "fruit-embed": "photographs of apples and oranges (apple2orange)",
        "timm:efficientnet_lite1": "not known",
        "timm:other": "not known",
    }
    assert sharing(judges, (LITE,)) == ("inception", "timm:efficientnet_lite1")
    assert sharing(judges, ("mine (apple2orange)",)) == ("fruit-embed",)
    assert sharing(judges, ("timm:mine (not known)",)) == ()
    assert sharing(judges, ()) == sharing(judges, None) == ()
    assert dependent(judges, (LITE,)) == {"inception", "timm:efficientnet_lite1", "timm:other"}
    assert dependent(judges, None) == frozenset()


def test_built_in_features_say_what_they_were_trained_on() -> None:
    built = {
        name: features.build(features.choose(name)).trained_on
        for name in ("colour", "npr", "efficientnet-lite1", "fruit-embed")
    }
    fruit = "photographs of apples and oranges (apple2orange)"
    assert built == {"colour": "", "npr": "", "efficientnet-lite1": LITE, "fruit-embed": fruit}
    assert sharing(built, (LITE,)) == ("efficientnet-lite1",)


@pytest.mark.parametrize(("third", "holds"), [(None, None), ((0.1, 0.2), True), ((-0.1, 0.2), None), ((-0.2, -0.1), None)])
def test_no_claim_rests_on_judges_that_share_training(third: tuple[float, float] | None, holds: bool | None) -> None:
    numbers = Numbers()
    for name, interval in (("inception", (0.1, 0.2)), ("torchvision:resnet50", (0.1, 0.2)), ("fruit-embed", third)):
        if interval is not None:
            numbers.numbers[f"kid_{name}"] = MetricResult(
                value=sum(interval) / 2, interval=Interval(*interval), n_real=9, n_fake=9, features=name, resize="", seconds=0.0
            )
    judges = frozenset({"inception", "torchvision:resnet50"})
    (claim,) = claims(numbers, judges)
    assert claim.holds is holds
    assert set(claim.dependent) == judges
    if third is None:
        assert claims(numbers)[0].holds is True  # where nothing is shared, the two are enough


def evaluated(dataset: Path) -> EvaluateResult:
    return evaluate(
        EvaluateSettings(
            fake_dir=dataset / "predicted",
            attackers=("npr", "efficientnet-lite1", "logistic"),
            features=("random", "colour"),
            metrics=("kid",),
            quick=True,
            device="cpu",
            out=dataset / "out",
        )
    )


def test_shared_training_stands_beside_each_number_it_concerns(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RandomNetworks, "trained_on", "ImageNet")
    card(dataset, [LITE])
    result = evaluated(dataset)
    values = json.loads(result.file.read_text())
    assert values["trained_against"] == [LITE]
    assert values["judges_sharing_training"] == ["random", "efficientnet-lite1", "logistic:random"]
    assert values["kid"]["shares_training"] is True
    assert "shares_training" not in values["kid_colour"]
    by_name = {row["name"]: row.get("shares_training") for row in values["detectors"]}
    assert by_name == {"npr": None, "efficientnet-lite1": True, "logistic:random": True, "logistic:colour": None}
    assert {row["name"]: row["trained_on"] for row in values["detectors"]}["efficientnet-lite1"] == LITE
    page = result.report.read_text()
    assert "KID x 100, random (shared training)" in page
    assert "logistic:random (shared training)" in page
    assert f"The generator was trained against: {LITE}." in page


def test_where_nothing_is_known_the_terminal_and_the_page_say_so_and_tell_no_place(
    dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--quick", "--features", "colour", "--metrics", "kid", "--detector", "none", "--device", "cpu")
    assert main(["evaluate", "--fake-dir", str(dataset / "predicted"), *options, "--out", "o", "--verbose"]) == 0
    assert "The generator was trained against: not known." in capsys.readouterr().out
    values = json.loads(Path("o/evaluation.json").read_text())
    assert values["trained_against"] is None
    page = Path("o/report.html").read_text()
    assert "trained against: not known" in page
    assert "12 in set/predicted" in page
    assert "set/origins" in page
    assert str(dataset.parent) not in page


def ratio(features: str, interval: tuple[float, float]) -> RatioResult:
    return RatioResult(
        value=sum(interval) / 2,
        interval=interval,
        n_real=100,
        n_fake=100,
        features=features,
        resize="",
        seconds=0.0,
        n_source=100,
        source_value=0.2,
        source_interval=(0.1, 0.3),
        paired=True,
    )


@pytest.mark.parametrize(
    ("embed", "holds"), [((0.4, 0.8), True), ((0.88, 0.99), None), ((0.85, 0.92), None), ((0.91, 1.1), None)]
)
def test_nearer_is_claimed_from_a_tenth_of_the_way_on(embed: tuple[float, float], holds: bool | None) -> None:
    numbers = Numbers(ratios={"r": ratio("fruit-embed", embed), "r_random": ratio("random", (0.3, 0.5))})
    (claim,) = claims(numbers)
    assert "by a tenth of the way or more" in claim.claim
    assert claim.holds is holds


def test_what_got_less_than_a_tenth_of_the_way_on_two_kinds_of_features_is_denied() -> None:
    numbers = Numbers(ratios={"r": ratio("fruit-embed", (0.92, 1.1)), "r_random": ratio("random", (0.95, 1.2))})
    assert claims(numbers)[0].holds is False


def test_where_no_ratio_can_be_had_nothing_is_claimed() -> None:
    assert claims(Numbers(ratios={"r": None})) == ()
