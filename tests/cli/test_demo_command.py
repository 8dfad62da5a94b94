"""`fruitgan demo`: the whole loop, at a size for tests; the real sizes are `slow`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from fruitgan.cli import main
from fruitgan.demo import job as demos

TINY = demos.Size(image_px=48, train_images=4, test_images=16, steps=2, detector="spectrum", detector_epochs=1)


def test_the_demo_tells_its_story_on_one_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demos, "QUICK", TINY)
    out = tmp_path / "a demo"
    assert main(["demo", "--quick", "--out", str(out), "--gpu", "none", "--json"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    for stage in ("drawing", "training the generators", "translating", "exporting", "training the detector", "evaluating"):
        assert f"{stage}: 100%" in said.err
    assert set(found) == {"r", "r_interval", "detector_accuracy", "detector_interval", "seconds", "report"}
    assert found["r_interval"][0] <= found["r"] <= found["r_interval"][1]
    assert found["detector_interval"][0] <= found["detector_accuracy"] <= found["detector_interval"][1]
    page = Path(found["report"]).read_text(encoding="utf-8")
    assert page.count("<img") == 5
    assert not re.search(r"(src|href)=[\"']https?:", page)
    for target in re.findall(r'<a href="([^"]+)"', page):
        assert (out / target).is_file()
    left = {path.name for path in out.iterdir()}
    assert left == {"fruit", "runs", "translated", "dataset", "evaluation", "report.html"}


def test_a_folder_in_the_way_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--quick", "--out", str(tmp_path)]) == 2
    assert "exists; give another folder with --out" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_whole_demo_brings_held_out_apples_nearer_to_oranges(tmp_path: Path) -> None:
    result = demos.demo(demos.DemoSettings(out=tmp_path / "demo", gpu="none"))
    assert result.r <= 0.8
    assert result.seconds <= 3600
