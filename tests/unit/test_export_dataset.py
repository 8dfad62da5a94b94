"""The export: one path for real and generated pictures, neutral names, and a manifest that never lies."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from picture_files import pixels_of, save_picture, smooth
from PIL import Image
from toy_bundles import Negative, save_toy

from fruitgan.data.groups import content_sha256
from fruitgan.data.labelled import MANIFEST, UNFINISHED, ManifestRow, read_dataset, read_manifest
from fruitgan.engines.contracts import engines
from fruitgan.errors import DataError, Stopped, UsageError
from fruitgan.export_dataset import job
from fruitgan.export_dataset.job import ExportResult, ExportSettings, export_dataset
from fruitgan.images import resize
from fruitgan.parallel import Shard
from fruitgan.progress import Event, OnProgress, Progress
from fruitgan.runs.run import RunInUse, locked

Export = Callable[..., ExportResult]
TRAIN, TEST = 6, 3


@pytest.fixture
def export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Export:
    """Exports in a folder with data, apples and oranges, and a bundle whose engine gives the negative."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(engines, "get", lambda name: Negative)
    for folder, count, seed in (("trainA", TRAIN, 0), ("trainB", TRAIN, 100), ("testA", TEST, 200), ("testB", TEST + 1, 300)):
        for number in range(count):
            save_picture(Path(f"apple2orange/{folder}/{number}.png"), smooth(seed + number))
    save_toy(Path("toy.safetensors"), image_size_px=16)

    def export(on_progress: Any = None, **settings: Any) -> ExportResult:
        given = {"bundle": "toy.safetensors", "data": "apple2orange", "out": Path("out"), **settings}
        return export_dataset(ExportSettings(**given), on_progress)

    return export


def at(what: str, done: int | None, do: Callable[[], object]) -> OnProgress:
    """On progress: do something when so much of this is done; None is all of it."""

    def on_progress(event: Event) -> None:
        if isinstance(event, Progress) and event.what == what and event.done == (event.total if done is None else done):
            do()

    return on_progress


def files(folder: str | Path = "out") -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


def contents(folder: str | Path = "out") -> dict[str, bytes]:
    return {name: Path(folder, name).read_bytes() for name in files(folder)}


def rows(folder: str | Path = "out") -> list[ManifestRow]:
    return list(read_manifest(Path(folder, MANIFEST)))


def test_an_export_holds_as_many_fakes_as_reals_and_a_manifest_that_agrees(export: Export) -> None:
    result = export()
    assert (result.predicted, result.origins, result.made, result.kept) == (TEST, TEST, 2 * TEST, 0)
    numbers = [f"{number:06}.png" for number in range(TEST)]
    pictures = [f"{folder}/{number}" for folder in ("origins", "predicted") for number in numbers]
    assert files() == sorted(["dataset.json", MANIFEST, *pictures])
    found = read_dataset(Path("out"))
    assert found.has_manifest
    assert len(found.images) == 2 * TEST
    assert [(row.label, row.split, row.bundle != "") for row in rows()] == [
        *[("real", "test", False)] * TEST,
        *[("generated", "test", True)] * TEST,
    ]
    assert result.splits == {"predicted": {"test": TEST}, "origins": {"test": TEST}}


def test_fakes_are_the_resized_sources_through_the_engine_and_reals_the_resized_sources(export: Export) -> None:
    export(image_size=10)
    for row in rows():
        source = resize(pixels_of(Path("apple2orange", row.source)), 10, 10)
        assert (pixels_of(f"out/{row.file}") == (255 - source if row.label == "generated" else source)).all()
        assert row.source.startswith("testA/" if row.label == "generated" else "testB/")
        assert row.group == content_sha256(pixels_of(Path("apple2orange", row.source)))


def test_the_size_is_the_bundles_and_pictures_of_any_shape_become_squares(export: Export) -> None:
    save_picture(Path("apple2orange/testA/0.png"), smooth(200, 30, 90))
    save_picture(Path("apple2orange/testA/1.png"), smooth(201, 3, 5))
    assert export().image_size_px == 16
    assert {pixels_of(f"out/{row.file}").shape for row in rows()} == {(16, 16, 3)}


@pytest.mark.parametrize(("name", "to"), [("apple2orange", "apple"), ("orange2apple", "orange")])
def test_domains_are_matched_by_name_and_each_is_translated_to_the_other(export: Export, name: str, to: str) -> None:
    Path("apple2orange").rename(name)
    result = export(data=name, to=to)
    assert (result.direction, result.target, result.warnings) == ("b2a" if to == "apple" else "a2b", to, ())
    assert {(row.label, row.source[:5]) for row in rows()} == {("generated", "testB"), ("real", "testA")}


def test_two_folders_that_trained_nothing_are_test_images_taken_by_letter_and_it_is_said(export: Export) -> None:
    result = export(data=None, data_a=Path("apple2orange/trainA"), data_b=Path("apple2orange/trainB"))
    assert result.warnings == (
        "the bundle knows apple and orange, the data hold trainA and trainB: taking trainA for apple and trainB for orange",
        "no training images are at hand, so it cannot be checked that the generator, which was trained on drawn, has not seen "
        "these images; they are taken for unseen",
    )
    assert result.splits == {"predicted": {"test": TRAIN}, "origins": {"test": TRAIN}}
    assert {(row.label, row.source[:6]) for row in rows()} == {("generated", "trainA"), ("real", "trainB")}


def test_an_export_makes_squares_and_backgrounds_as_the_training_did(export: Export) -> None:
    opaque = np.full((24, 48), 255, dtype=np.uint8)
    opaque[:, :12] = 0
    for folder in ("testA", "testB"):
        for number, path in enumerate(Path("apple2orange", folder).iterdir()):
            Image.fromarray(np.dstack([smooth(500 + number, 24, 48), opaque])).save(path)
    recipe = {"fit": "pad"}
    save_toy(Path("padded.safetensors"), image_size_px=16, background="#102030", resolved_recipe=recipe, value_range=(0, 4095))
    result = export(bundle="padded.safetensors")
    assert any("borders of #102030 (--fit pad)" in warning for warning in result.warnings)
    for row in rows():
        pixels = pixels_of(f"out/{row.file}")
        outside = pixels[:4].reshape(-1, 3).tolist() + pixels[4:12, :1].reshape(-1, 3).tolist()
        expected = [239, 223, 207] if row.label == "generated" else [16, 32, 48]
        assert outside == [expected] * len(outside)
    made_with = json.loads(Path("out/dataset.json").read_text())["settings"]
    assert (made_with["background"], made_with["value_range"], made_with["fit"]) == ("#102030", [0, 4095], "pad")
    with pytest.raises(UsageError, match="not the same fit"):
        export(bundle="padded.safetensors", fit="squash")


def test_a_count_takes_test_images_first_and_flags_training_images_up_to_all_there_are(export: Export) -> None:
    result = export(count=5)
    assert result.splits == {"predicted": {"test": TEST, "train": 5 - TEST}, "origins": {"test": TEST + 1, "train": 4 - TEST}}
    assert {(row.split, row.source[:4]) for row in rows()} == {("test", "test"), ("train", "trai")}
    assert "2 generated and 1 real images come from the training split" in result.warnings[0]
    assert export(count=TRAIN + TEST, out=Path("all")).predicted == TRAIN + TEST
    with pytest.raises(DataError, match=r"apple: 10 images are wanted, 3 test and 6 training .* give --count 9 at most"):
        export(count=10, out=Path("more"))
    assert not Path("more").exists()


def test_without_test_images_a_count_is_needed(export: Export) -> None:
    for path in Path("apple2orange/testB").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"orange: has no test image that can be used; --count N .*\(6 there are\)"):
        export()
    assert export(count=2).splits["origins"] == {"train": 2}


def test_origins_may_be_the_very_sources_and_names_and_their_order_tell_neither_split_nor_source(export: Export) -> None:
    for number in range(20):
        save_picture(Path(f"apple2orange/trainA/x{number}.png"), smooth(1000 + number))
        save_picture(Path(f"apple2orange/testA/x{number}.png"), smooth(2000 + number))
    export(count=TEST + 20 + 20, origins="source")
    order = {label: [row for row in rows() if row.label == label] for label in ("generated", "real")}
    assert set(Counter(row.group for row in rows()).values()) == {2}
    names = {label: [Path(row.file).name for row in listed] for label, listed in order.items()}
    assert names["generated"] == names["real"] == [f"{number:06}.png" for number in range(43)]
    same = sum(fake.source == real.source for fake, real in zip(order["generated"], order["real"], strict=True))
    assert same < 6  # one is expected by chance: a number does not lead from a fake to its source
    for listed in order.values():
        splits = [row.split == "train" for row in listed]
        assert abs(float(np.corrcoef(splits, np.arange(43))[0, 1])) < 0.3
        assert [row.source for row in listed] != sorted(row.source for row in listed)
    assert {row.source for row in order["generated"]} == {row.source for row in order["real"]}


def test_the_files_bear_no_metadata_and_no_time(export: Export) -> None:
    for folder in ("testA", "testB"):
        for path in Path("apple2orange", folder).iterdir():
            exif = Image.Exif()
            exif[0x010E] = "a note"
            Image.fromarray(pixels_of(path)).save(path, exif=exif, dpi=(300, 300))
    export()
    for row in rows():
        data = Path("out", row.file).read_bytes()
        chunks, place = [], 8
        while place < len(data):
            chunks.append(data[place + 4 : place + 8])
            place += 12 + int.from_bytes(data[place : place + 4], "big")
        assert set(chunks) == {b"IHDR", b"IDAT", b"IEND"}
    assert len({path.stat().st_mtime_ns for path in Path("out").rglob("*.png")}) == 1


def test_the_same_export_gives_the_same_bytes_elsewhere_under_other_names(export: Export) -> None:
    export()
    first = contents()
    Path("moved").mkdir()
    Path("apple2orange").rename("moved/apple2orange")
    export(data="moved/apple2orange", out=Path("again"))
    assert contents("again") == first
    for path in Path("moved/apple2orange").rglob("*.png"):
        path.rename(path.with_name(f"renamed {99 - int(path.stem)}.png"))
    export(data="moved/apple2orange", out=Path("renamed"))
    pictures = {name: data for name, data in contents("renamed").items() if name.endswith(".png")}
    assert pictures.items() <= first.items()


@pytest.mark.parametrize(("form", "kind"), [("webp", "WEBP"), ("jpg", "JPEG")])
def test_other_formats_are_the_same_for_both_classes(export: Export, form: str, kind: str) -> None:
    export()
    result = export(format=form, out=Path("other"))
    assert any("traces" in warning for warning in result.warnings) == (form == "jpg")
    found = read_dataset(Path("other")).images
    assert len(found) == 2 * TEST
    for image in found:
        with Image.open(image.path) as opened:
            assert opened.format == kind
            assert not opened.getexif()
        exact = pixels_of(Path("out", image.path.relative_to("other")).with_suffix(".png"))
        difference = np.abs(pixels_of(image.path).astype(int) - exact)
        assert difference.max() == 0 if form == "webp" else 0 < difference.mean() < 8


def test_a_folder_with_pictures_of_its_own_is_left_alone(export: Export) -> None:
    Path("out").mkdir()
    Path("out/holiday.JPG").write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"out: holds other pictures, such as holiday\.JPG"):
        export()
    assert files() == ["holiday.JPG"]


def interrupt() -> None:
    raise KeyboardInterrupt


def test_an_export_that_was_stopped_has_no_manifest_and_a_rerun_does_the_rest(export: Export) -> None:
    export(out=Path("whole"))
    with pytest.raises(KeyboardInterrupt):
        export(at("exporting", 3, interrupt))
    done = [name for name in files() if name.endswith(".png")]
    assert UNFINISHED in files()
    assert not {MANIFEST, "dataset.json"} & set(files())
    assert len(done) == 3
    with pytest.raises(DataError, match="not finished"):
        read_dataset(Path("out"))
    Path("out/predicted/.fruitgan-0.part").write_bytes(b"half a picture")
    result = export()
    assert (result.made, result.kept) == (2 * TEST - len(done), len(done))
    assert contents() == contents("whole")


def test_a_rerun_makes_what_was_lost_or_damaged_and_nothing_else(export: Export) -> None:
    def times() -> dict[Path, int]:
        return {path: path.stat().st_ctime_ns for path in Path("out").rglob("*")}

    export()
    before, then = contents(), times()
    result = export()
    assert (result.made, result.kept) == (0, 2 * TEST)
    assert export(count=TEST).made == 0  # the same pictures by another word
    assert times() == then
    Path("out/predicted/000001.png").unlink()
    Path("out/origins/000002.png").write_bytes(b"torn")
    assert export().made == 2
    assert contents() == before
    Path("out", MANIFEST).unlink()
    assert export().made == 0
    assert contents() == before
    Path("out", MANIFEST).write_text("no manifest")
    assert export().made == 0
    assert contents() == before
    Path("out/dataset.json").unlink()
    with pytest.raises(UsageError, match="not a dataset of export-dataset"):
        export()
    with pytest.raises(UsageError, match="export-dataset did not make it"):
        export(overwrite=True)


def test_another_bundle_or_option_in_the_way_is_refused_until_overwritten(export: Export) -> None:
    save_toy(Path("other.safetensors"), 2.0, image_size_px=16)
    for path in list(Path("apple2orange").rglob("*.png")):
        save_picture(Path("others2") / path.relative_to("apple2orange"), 255 - pixels_of(path))
    export()
    before = contents()
    others: dict[str, dict[str, Any]] = {
        "bundle": {"bundle": "other.safetensors"},
        "direction": {"direction": "b2a"},
        "image size": {"image_size": 8},
        "format": {"format": "webp"},
        "origins": {"origins": "source"},
        "count": {"count": 2},
        "pictures": {"data": "others2"},
    }
    for what, settings in others.items():
        with pytest.raises(
            UsageError, match=rf"in the way \(not the same {what}\): --overwrite replaces, --out writes elsewhere"
        ):
            export(**settings)
    assert contents() == before
    for what in ("format", "count"):
        assert export(**others[what], overwrite=True).kept == 0
        export(**others[what], out=Path(what))
        assert contents() == contents(what)


def test_overwrite_takes_away_only_what_an_export_made(export: Export) -> None:
    export(count=5)
    Path("out/notes.txt").write_text("mine")
    Path("out/predicted/notes.txt").write_text("mine")
    export(overwrite=True)
    assert len([name for name in files() if name.endswith(".png")]) == 2 * TEST
    assert {"notes.txt", "predicted/notes.txt"} < set(files())
    save_picture(Path("out/origins/photo.png"), smooth(1))
    before = contents()
    for overwrite in (True, False):
        with pytest.raises(UsageError, match=r"photo\.png: is in the way, and export-dataset did not make it"):
            export(overwrite=overwrite)
    assert contents() == before


def test_folders_of_somebody_else_are_refused(export: Export) -> None:
    save_picture(Path("out/predicted/a.png"), smooth(1))
    with pytest.raises(UsageError, match="not a dataset of export-dataset"):
        export()
    Path("out/predicted/a.png").rename("out/predicted/000001.png")
    with pytest.raises(UsageError, match="export-dataset did not make it"):
        export(overwrite=True)
    Path("other").mkdir()
    Path("other/manifest.csv").write_text("of something else")
    with pytest.raises(UsageError, match=r"manifest\.csv: is in the way, and export-dataset did not make it"):
        export(overwrite=True, out=Path("other"))
    assert (files(), files("other")) == (["predicted/000001.png"], ["manifest.csv"])
    Path("taken").write_text("a file")
    for overwrite in (True, False):
        with pytest.raises(UsageError, match="is no folder"):
            export(out=Path("taken"), overwrite=overwrite)


def test_the_dataset_may_not_lie_among_its_sources(export: Export) -> None:
    for out in ("apple2orange/trainA", "apple2orange/testA/export"):
        with pytest.raises(UsageError, match="among its own sources"):
            export(out=Path(out))
    assert export(out=Path("apple2orange/dataset")).made == 2 * TEST
    assert export(out=Path("apple2orange/dataset")).made == 0


def test_copies_within_a_split_count_once_and_those_between_the_splits_not_at_all(export: Export) -> None:
    save_picture(Path("apple2orange/trainA/copy.bmp"), smooth(0))
    save_picture(Path("apple2orange/testA/seen.png"), smooth(1))
    save_picture(Path("apple2orange/testB/seen in the other domain.png"), smooth(2))
    result = export(count=TRAIN + TEST - 2)
    assert (result.left_out.repeated, result.left_out.in_both_splits) == (1, 4)
    sources = {row.source for row in rows()}
    other = "testB/seen in the other domain.png"
    assert not sources & {"trainA/copy.bmp", "testA/seen.png", "trainA/1.png", other, "trainA/2.png"}
    with pytest.raises(DataError, match="3 test and 4 training images"):
        export(count=TRAIN + TEST, out=Path("more"))


def test_near_duplicates_share_a_group_and_those_of_training_pictures_are_said(export: Export) -> None:
    save_picture(Path("apple2orange/testA/0.jpg"), smooth(200, 48, 48), quality=80)  # nearly testA/0.png
    save_picture(Path("apple2orange/testB/9.png"), resize(smooth(103), 30, 30))  # nearly trainB/3.png
    result = export(count=TEST + 1 + TRAIN)
    groups = {row.source: row.group for row in rows()}
    assert groups["testA/0.png"] == groups["testA/0.jpg"]
    assert groups["testB/9.png"] == groups["trainB/3.png"]
    assert len(set(groups.values())) == len(groups) - 2
    assert any("1 of the 9 test images look nearly like a training image" in warning for warning in result.warnings)


def test_broken_images_are_named_and_counted_and_stop_nothing(export: Export) -> None:
    Path("apple2orange/testA/broken.png").write_bytes(Path("apple2orange/testA/0.png").read_bytes()[:60])
    Path("apple2orange/trainB/text.jpg").write_text("no image")
    result = export()
    assert result.made == 2 * TEST
    named = {Path(remark.path).name: remark.reason for remark in result.left_out.unreadable}
    assert named.keys() == {"broken.png"}
    assert result.warnings == ("orange: left out 1 not an image (text.jpg)",)
    assert json.loads(Path("out/dataset.json").read_text())["left_out"]["unreadable"] == 1


def test_unlike_sizes_and_formats_of_the_classes_are_said(export: Export) -> None:
    for number in range(TEST):
        save_picture(Path(f"apple2orange/testA/{number}.jpg"), smooth(200 + number, 8, 8))
        Path(f"apple2orange/testA/{number}.png").unlink()
    said = " ".join(export().warnings)
    assert "the sources of the fakes are about 8 px, the real images 24 px: at 16 px sharpness" in said
    assert "mostly JPEG files, the real images PNG" in said


def test_the_card_says_what_made_the_dataset_and_holds_no_path(export: Export, tmp_path: Path) -> None:
    result = export(count=4)
    text = Path("out/dataset.json").read_text()
    card = json.loads(text)
    assert card["format"] == 1
    assert card["image_size_px"] == 16
    how = {"background": "white", "value_range": None, "fit": "squash"}
    assert card["settings"] == {"direction": "a2b", "format": "png", "origins": "target", "count": 4, **how}
    assert card["counts"] == {"predicted": 4, "origins": 4, "splits": result.splits}
    assert card["data"] == {"name": "apple2orange", "source": "apple", "target": "orange"}
    assert (card["bundle"]["name"], card["bundle"]["weights_sha256"]) == ("toy", result.weights_sha256)
    assert {row.bundle for row in rows()} == {"", result.weights_sha256}
    assert str(tmp_path) not in text + Path("out", MANIFEST).read_text()


def test_a_source_that_changes_meanwhile_is_noticed(export: Export) -> None:
    def change() -> None:
        for number in range(TEST):
            save_picture(Path(f"apple2orange/testA/{number}.png"), smooth(999))

    with pytest.raises(DataError, match="changed while the export was at work"):
        export(at("looking at test orange", None, change))


def test_sources_that_disappear_make_no_smaller_dataset(export: Export) -> None:
    with pytest.raises(DataError, match=r"testB/0\.png: disappeared while the images were looked at"):
        export(at("looking at test apple", 1, lambda: Path("apple2orange/testB").rename("elsewhere")))
    assert not Path("out").exists()
    Path("elsewhere").rename("apple2orange/testB")
    with pytest.raises(DataError, match=r"testA/\d\.png: cannot be read"):
        export(at("looking at test orange", None, lambda: Path("apple2orange/testA").rename("elsewhere")))
    assert not Path("out/manifest.csv").exists()
    Path("elsewhere").rename("apple2orange/testA")
    assert export().predicted == TEST


def test_no_real_picture_takes_the_place_of_a_fake_that_disappears_meanwhile(
    export: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    export()
    Path("out/origins/000000.png").unlink()  # no fake is missing, so that no generator is built
    looked: list[int] = []
    missing = job.DatasetFolder.missing

    def later(folder: job.DatasetFolder, items: Any) -> Any:
        looked.append(len(items))
        if len(looked) == 2:
            Path("out/predicted/000001.png").unlink()
        return missing(folder, items)

    with monkeypatch.context() as patch:
        patch.setattr(job.DatasetFolder, "missing", later)
        with pytest.raises(DataError, match=r"predicted.000001\.png: disappeared meanwhile; give the command again"):
            export()
    assert not Path("out/predicted/000001.png").exists()
    assert export().predicted == TEST
    assert read_dataset(Path("out")).has_manifest


def test_a_folder_that_another_process_works_in_is_left_alone(export: Export) -> None:
    Path("out").mkdir()
    with locked(Path("out")), pytest.raises(RunInUse, match=r"out: in use by process \d+"):
        export()
    assert files() == []
    result = export()
    with locked(Path("out")):
        assert export().kept == result.made == 2 * TEST  # a finished dataset is only looked at


def test_progress_is_told_for_each_stage(export: Export) -> None:
    told: list[Any] = []
    export(told.append, engine="torch")
    looks = {f"looking at {split} {domain}" for split in ("train", "test") for domain in ("apple", "orange")}
    assert {event.what for event in told} == {"looking at the values", "exporting", *looks}
    assert told[-1] == Progress("exporting", 2 * TEST, 2 * TEST)
    with pytest.raises(Stopped):
        export(lambda event: True, engine="torch", out=Path("stopped"))
    assert export(out=Path("stopped")).kept == 1


def test_parts_of_an_export_merge_into_the_whole_one(export: Export) -> None:
    export(out=Path("whole"))
    parts = [export(out=Path("parts"), shard=Shard(index, 3)) for index in (2, 0, 1)]
    assert not any(part.finished for part in parts)
    assert not Path("parts", MANIFEST).exists()
    last = export(out=Path("parts"))
    assert (last.made, last.kept, last.finished) == (0, 2 * TEST, True)
    assert sum(part.made for part in parts) == sum(part.predicted + part.origins for part in parts) == 2 * TEST
    part = export(out=Path("parts"), shard=Shard(0, 2))  # a part that comes after the whole changes nothing
    assert (part.made, part.finished) == (0, True)
    assert contents("parts") == contents("whole")
    with pytest.raises(UsageError, match="--overwrite"):
        export(shard=Shard(0, 2), overwrite=True)
