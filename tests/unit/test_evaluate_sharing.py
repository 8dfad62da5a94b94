"""What an evaluation claims, and on whose word: judges that share training with what judged the generator do not suffice."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from evaluations import blob, evaluating, fill

from fruitgan.cli import main
from fruitgan.data.labelled import LabelledImage
from fruitgan.evaluate.job import evaluate
from fruitgan.evaluate.numbers import claim_of, claims
from fruitgan.evaluate.sources import dependent, sharing, trained_against
from fruitgan.measures.contracts import features
from fruitgan.measures.statistics import Interval
from fruitgan.translate.pictures import encode

LITE = "EfficientNet-Lite1 (ImageNet)"


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "set/predicted", 16, redness=0.2)
    fill(tmp_path / "set/origins", 16, 100, 0.8)
    return tmp_path / "set"


def card(dataset: Path, names: object) -> None:
    (dataset / "dataset.json").write_text(json.dumps({"bundle": {"trained_against": names}}))


def fakes(dataset: Path, marks: list[object]) -> list[LabelledImage]:
    """Generated images with these marks; None is a picture without one."""
    images = []
    for i, names in enumerate(marks):
        path = dataset / "predicted" / f"{i:03d}.png"
        if names is not None:
            path.write_bytes(encode([blob(i)], "png", {"trained_against": names}, {}, "none"))
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
    fruit = "photographs of apples and oranges (apple2orange)"
    built = {name: features.build(features.choose(name)).trained_on for name in ("colour", "efficientnet-lite1", "fruit-embed")}
    assert built == {"colour": "", "efficientnet-lite1": LITE, "fruit-embed": fruit}
    judges = built | {"inception": "ImageNet", "timm:efficientnet_lite1": "not known", "timm:other": "not known"}
    shared = ("efficientnet-lite1", "inception", "timm:efficientnet_lite1")
    assert sharing(judges, (LITE,)) == shared
    assert sharing(judges, ("mine (apple2orange)",)) == ("fruit-embed",)
    assert sharing(judges, ("timm:mine (not known)",)) == ()
    assert sharing(judges, ()) == sharing(judges, None) == ()
    assert dependent(judges, (LITE,)) == {*shared, "timm:other"}
    assert dependent(judges, None) == frozenset()


Intervals = dict[str, tuple[float, float]]


@pytest.mark.parametrize(
    ("intervals", "holds"),
    [
        ({"a": (-2, -1), "b": (-3, -1)}, True),
        ({"a": (-2, -1), "b": (-3, 1)}, None),
        ({"a": (-2, -1), "b": (-2, -1), "c": (1, 2)}, None),
        ({"a": (1, 2), "b": (1, 2), "c": (-1, 2)}, False),
        ({"random": (-2, -1), "colour": (-3, -1)}, None),  # which see the same kind of thing
        ({"random": (-2, -1), "colour": (-3, -1), "c": (-2, -1)}, True),
    ],
)
def test_nothing_is_claimed_unless_two_agree_and_none_says_the_contrary(intervals: Intervals, holds: bool | None) -> None:
    claim = claim_of("it is so", intervals)
    assert claim["holds"] is holds
    assert sorted((*claim["agreeing"], *claim["contrary"], *claim["undecided"])) == sorted(intervals)


def measured(kids: Intervals, ratios: Intervals) -> Any:
    """A result whose KIDs and Rs have these intervals, by features."""

    def of(name: str, interval: tuple[float, float]) -> Any:
        return SimpleNamespace(features=name, interval=Interval(*interval))

    return SimpleNamespace(
        numbers={f"kid_{name}": of(name, interval) for name, interval in kids.items()},
        ratios={f"r_{name}": of(name, interval) for name, interval in ratios.items()},
    )


@pytest.mark.parametrize(("third", "holds"), [(None, None), ((0.1, 0.2), True), ((-0.2, -0.1), None)])
def test_no_claim_rests_on_judges_that_share_training(third: tuple[float, float] | None, holds: bool | None) -> None:
    shared: Intervals = {"inception": (0.1, 0.2), "torchvision:resnet50": (0.1, 0.2)}
    result = measured(shared | ({"fruit-embed": third} if third else {}), {})
    (claim,) = claims(result, frozenset(shared))
    assert claim["holds"] is holds
    assert set(claim["dependent"]) == shared.keys()
    if third is None:
        assert claims(result)[0]["holds"] is True  # where nothing is shared, the two are enough


@pytest.mark.parametrize(
    ("embed", "random", "holds"),
    [
        ((0.4, 0.8), (0.3, 0.5), True),
        ((0.88, 0.99), (0.3, 0.5), None),
        ((0.85, 0.92), (0.3, 0.5), None),
        ((0.91, 1.1), (0.3, 0.5), None),
        ((0.92, 1.1), (0.95, 1.2), False),
    ],
)
def test_nearer_is_claimed_from_a_tenth_of_the_way_on(
    embed: tuple[float, float], random: tuple[float, float], holds: bool | None
) -> None:
    (claim,) = claims(measured({}, {"fruit-embed": embed, "random": random}))
    assert "by a tenth of the way or more" in claim["claim"]
    assert claim["holds"] is holds
    assert claims(SimpleNamespace(numbers={}, ratios={"r": None})) == []


def test_distances_below_0_are_no_word_against_a_difference() -> None:
    (claim,) = claims(measured({"fruit-embed": (-0.09, -0.05), "colour": (-0.08, -0.04)}, {}))
    assert (claim["holds"], claim["contrary"], set(claim["undecided"])) == (None, [], {"fruit-embed", "colour"})


def test_shared_training_stands_beside_each_number_it_concerns(dataset: Path) -> None:
    card(dataset, [LITE])
    backends = ("efficientnet-lite1", "colour")
    attackers = ("efficientnet-lite1", "logistic")
    result = evaluate(evaluating(dataset, detector=None, attackers=attackers, features=backends, metrics=("kid",)))
    values = json.loads(result.file.read_text())
    assert values["trained_against"] == [LITE]
    assert values["judges_sharing_training"] == ["efficientnet-lite1"]
    assert values["kid"]["shares_training"] is True
    assert "shares_training" not in values["kid_colour"]
    by_name = {row["name"]: (row["trained_on"], row.get("shares_training")) for row in values["detectors"]}
    assert by_name == {"efficientnet-lite1": (LITE, True), "logistic:colour": ("", None)}
    page = result.report.read_text()
    assert "KID x 100, efficientnet-lite1 (shared training)" in page
    assert '<th scope="row">efficientnet-lite1 (shared training)</th>' in page
    assert f"The generator was trained against: {LITE}." in page


def test_where_nothing_is_known_the_terminal_and_the_page_say_so_and_tell_no_place(
    dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--quick", "--features", "colour", "--metrics", "kid", "--detector", "none", "--device", "cpu")
    assert main(["evaluate", "--fake-dir", str(dataset / "predicted"), *options, "--out", "o", "--verbose"]) == 0
    assert "The generator was trained against: not known." in capsys.readouterr().out
    assert json.loads(Path("o/evaluation.json").read_text())["trained_against"] is None
    page = Path("o/report.html").read_text()
    assert "trained against: not known" in page
    assert "16 in set/predicted" in page
    assert str(dataset.parent) not in page
