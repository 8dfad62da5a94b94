"""`fruitgan train-gan` and `fruitgan show`: what is printed, what is left, what is refused, and how it stops."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from picture_files import write_fruit_domains
from PIL import Image
from trainings import SMALL
from typed_commands import run_json

from fruitgan import bundle as bundles
from fruitgan.cli import main
from fruitgan.console import Console, options
from fruitgan.console.signals import polite_stop
from fruitgan.errors import Stopped, UsageError
from fruitgan.progress import Event, Progress
from fruitgan.train_gan import estimate, job
from fruitgan.train_gan.assemble import make_plan, make_trainer
from fruitgan.train_gan.command import TrainingDisplay
from fruitgan.train_gan.job import train_gan
from fruitgan.train_gan.settings import TrainGanSettings
from fruitgan.train_gan.trainer import Trainer

pytestmark = pytest.mark.usefixtures("no_report")

# The smallest training there is: a step takes some hundredths of a second.
TINY = [
    "--recipe", "fast", "--image-size", "24", "--batch-size", "1", "--gpu", "none", "--precision", "fp32", "--threads", "1",
    "--generator-option", "base_channels=4", "--generator-option", "blocks=1",
    "--discriminator", "patch-70", "--discriminator-option", "base_channels=4",
]  # fmt: skip
RESULT_KEYS = {
    "run", "step", "finished", "images", "seconds", "images_per_second", "bundle", "final_losses", "weights_sha256",
}  # fmt: skip


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return write_fruit_domains(tmp_path / "pear2plum", 3, 32)


@pytest.fixture
def out(tmp_path: Path) -> list[str]:
    return ["--out", str(tmp_path / "runs")]


@pytest.fixture
def tiny(pictures: Path, out: list[str]) -> list[str]:
    """The command of the smallest training, but for its length."""
    return ["train-gan", "--data", str(pictures), *TINY, *out, "--steps"]


def test_a_run_leaves_what_is_promised(tiny: list[str], out: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        result = run_json(capsys, *tiny, "3", "--sample-every", "2", "--deterministic")
    finally:
        torch.use_deterministic_algorithms(False)
    assert set(result) == RESULT_KEYS
    assert (result["step"], result["finished"], result["images"]) == (3, True, 3)
    run = Path(str(result["run"]))
    left = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert left == {
        "config.json",
        "environment.json",
        "log.jsonl",
        "result.json",
        "report.html",
        "bundle.safetensors",
        "samples/step-00000002.png",
        "samples/step-00000003.png",
        "checkpoints/step-00000003/bundle.safetensors",
        "checkpoints/step-00000003/state.json",
        "checkpoints/step-00000003/state.safetensors",
    }
    entry = json.loads((run / "log.jsonl").read_text().splitlines()[-1])
    assert set(entry) == {"step", "images", "seconds", "images_per_second", "losses", "learning_rate"}
    assert run_json(capsys, "train-gan", "--resume", run.name, *out) == result
    assert run_json(capsys, "show", str(run))["finished"] is True
    card = run_json(capsys, "show", str(result["bundle"]))
    assert (card["domains"], card["steps"]) == (["pear", "plum"], 3)
    assert run_json(capsys, *tiny, "3")["weights_sha256"] == result["weights_sha256"]  # deterministic or not


def test_resume_without_a_name_takes_the_newest_unfinished_run_and_not_fewer_steps_than_it_has_done(
    tiny: list[str], out: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    stopped = run_json(capsys, *tiny, "5000", "--max-time", "2s")
    assert stopped["finished"] is False
    assert run_json(capsys, "show", str(stopped["run"]))["step"] == stopped["step"] > 1
    before = (Path(str(stopped["run"])) / "config.json").read_bytes()
    assert main(["train-gan", "--resume", "--steps", "1", *out]) == 2
    assert "more than the 1 now asked for" in capsys.readouterr().err
    assert (Path(str(stopped["run"])) / "config.json").read_bytes() == before
    shorter = str(int(str(stopped["step"])) + 2)
    resumed = run_json(capsys, "train-gan", "--resume", "--steps", shorter, *out)
    assert (resumed["run"], resumed["finished"], resumed["step"]) == (stopped["run"], True, int(shorter))


def test_a_resumed_run_keeps_its_habits_unless_told_otherwise(
    tiny: list[str], out: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(str(run_json(capsys, *tiny, "2", "--name", "habit", "--save-every", "1", "--keep", "5")["run"]))
    run_json(capsys, "train-gan", "--resume", "habit", "--steps", "4", "--precision", "auto", *out)  # which is what it has
    assert len(list((run / "checkpoints").iterdir())) == 4
    run_json(capsys, "train-gan", "--resume", "habit", "--steps", "6", "--keep", "1", *out)
    assert len(list((run / "checkpoints").iterdir())) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "what to train on? Give --data"),
        (["--data", "no-such-set"], 2, "no folder and no data set named 'no-such-set'"),
        (["--data", "./nowhere"], 3, "nowhere: no such folder"),
        (["--data", "DATA", "--recipe", "fastt"], 2, "no recipe named 'fastt': did you mean fast?"),
        (["--data", "DATA", "--generator", "resnet-90"], 2, "did you mean resnet-9"),
        (["--data", "DATA", "--generator-option", "blockz=2"], 2, "no option 'blockz': did you mean blocks?"),
        (["--data", "DATA", "--generator-option", "blocks=many"], 2, "'many' is not of type int"),
        (["--data", "DATA", "--generator-option", "blocks"], 2, "expected KEY=VALUE"),
        (["--data", "DATA", "--objective", "nothing"], 2, "no objective named 'nothing'"),
        (["--data", "DATA", "--augment", "nothing"], 2, "no augmentation named 'nothing'"),
        (["--data", "DATA", "--augment", "part-mirror"], 2, "shows parts of a picture, which only detectors take"),
        (["--data", "DATA", "--recipe", "fast", "--image-size", "130"], 2, "the next that all networks take is 132"),
        (["--data", "DATA", "--epochs", "1", "--steps", "1"], 2, "give one of them"),
        (["--data", "DATA", "--max-time", "soon"], 2, "such as 90s, 10m or 1h30m"),
        (["--data", "DATA", "--gpu", "99"], 4, "GPU 99"),
        (["--data", "DATA", "--gpu", "none", "--device", "cpu"], 2, "say the same thing"),
        (["--data", "DATA", "--domains", "pear"], 2, "as in apple,orange"),
        (["--data", "DATA", "--resume"], 2, "no unfinished run"),
        (["--data", "DATA", "--name", "a/b"], 2, "a name, not a path"),
        (["--data", "DATA", "--name", "a:b"], 2, "--name 'a:b'"),
        (["--data", "DATA", "--resume", "--dry-run"], 2, "no unfinished run"),
        (["--data", "DATA", "--init-from", "./none.safetensors"], 3, "none.safetensors"),
    ],
)
def test_bad_input_gets_one_line_and_its_exit_code(
    pictures: Path, out: list[str], capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    given = [str(pictures) if argument == "DATA" else argument for argument in arguments]
    assert main(["train-gan", *given, *out]) == code
    stdout, stderr = capsys.readouterr()
    assert message in stderr
    assert stderr.startswith("error: ")
    assert len(stderr.splitlines()) == 1
    assert stdout == ""
    assert not Path(out[1]).exists()


def test_an_existing_name_is_refused_and_left_alone(
    tiny: list[str], out: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = [*tiny, "1", "--name", "mine"]
    assert main(given) == 0
    before = {path: path.read_bytes() for path in Path(out[1]).rglob("*") if path.is_file()}
    capsys.readouterr()
    assert main(given) == 2
    assert "--resume mine" in capsys.readouterr().err
    for name, value in {"IMAGE_SIZE": "96", "DATA": "demo", "THREADS": "2", "KEEP": "5", "STEPS": "7", "NAME": "new"}.items():
        monkeypatch.setenv(f"FRUITGAN_{name}", value)  # for new runs
    monkeypatch.setenv("FRUITGAN_SET", "weights.cycle=3")
    assert main(["train-gan", "--resume", "mine", *out]) == 0
    assert main(["train-gan", "--resume", "mine", *out, "--image-size", "96"]) == 2
    assert "--image-size cannot change" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in Path(out[1]).rglob("*") if path.is_file()}


def test_domains_that_overlap_are_refused_until_that_is_allowed_and_a_broken_image_is_named_and_left_out(
    tiny: list[str], pictures: Path, out: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with Image.open(pictures / "trainA" / "1.png") as image:
        image.resize((40, 40)).save(pictures / "trainB" / "again.jpg", quality=85)
    (pictures / "trainA" / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 torn")
    typed = [*tiny, "1"]
    assert main(typed) == 3
    said = capsys.readouterr().err
    assert said.startswith("error: 1 picture is in both domains, pear and plum, such as ")
    assert f"{pictures / 'trainA' / '1.png'} and {pictures / 'trainB' / 'again.jpg'}: take" in said
    nested = ["train-gan", "--data-a", str(pictures), "--data-b", str(pictures / "trainB"), *TINY, *out, "--steps", "1"]
    assert main(nested) == 3
    assert "does one folder lie within the other?" in capsys.readouterr().err
    assert not Path(out[1]).exists()
    assert main([*typed, "--allow-overlap"]) == 0
    assert "1 unreadable image left out; the first: " in capsys.readouterr().err


def test_a_batch_that_cannot_fit_is_refused_with_the_largest_that_does_until_forced(
    tiny: list[str], out: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate, "spare_memory_bytes", lambda: 24 << 20)
    monkeypatch.setattr(estimate, "MOST_BYTES_PER_PIXEL", 1 << 30)
    light = [*tiny, "1", "--image-size", "48", "--batch-size"]
    assert main([*light, "512"]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert main([*light, "512", "--dry-run"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == said
    assert said.startswith("error: --batch-size 512 with --image-size 48 needs at least ")
    assert "0.0 GiB are free on cpu: the largest that fits is --batch-size " in said
    assert not Path(out[1]).exists()
    largest = int(said.partition("fits is --batch-size ")[2].partition(";")[0])
    plan = make_plan(TrainGanSettings(**{**SMALL, "image_size": 48, "batch_size": largest}), torch.device("cpu"))
    for more, fits in ((0, True), (1, False)):
        assert (estimate.MARGIN * estimate.sketched_step(plan, largest + more).peak_bytes <= 24 << 20) == fits
    assert main([*light, str(largest + 1), "--force"]) == 0


def test_a_dry_run_counts_suggests_another_recipe_and_leaves_nothing(
    pictures: Path, out: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train-gan", "--data", pictures, "--gpu", "none", "--image-size", "32", *out, "--threads", "1", "--dry-run"]
    words += ["--discriminator", "patch-70", "--discriminator-option", "base_channels=4"]
    found = run_json(capsys, *words)
    assert (found["recipe"], found["suggested_recipe"], found["generator_parameters"]) == ("fast", "fast", 293_744)
    assert isinstance(found["seconds_total"], float)
    assert found["seconds_total"] > 0
    assert main([*map(str, words), "--recipe", "cyclegan", "--generator", "mobile"]) == 0
    printed = capsys.readouterr().out
    assert "cpu, fp32, 1 thread\n" in printed
    assert "--recipe fast: a light generator" in printed
    assert not Path(out[1]).exists()


def test_init_from_a_bundle_starts_with_its_generators(tiny: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    first = run_json(capsys, *tiny, "2")["bundle"]
    # Rates this small move nothing.
    second = run_json(capsys, *tiny, "1", "--seed", "5", "--learning-rate", "1e-30", "--init-from", str(first))
    weights, expected = (bundles.load(Path(str(bundle))).weights for bundle in (second["bundle"], first))
    for direction, arrays in expected.items():
        for name, array in arrays.items():
            np.testing.assert_allclose(weights[direction][name], array, rtol=0, atol=1e-20)
    config = json.loads((Path(str(second["run"])) / "config.json").read_text())
    assert config["init_sha256"] == bundles.weights_sha256(bundles.load(Path(str(first))))
    assert main([*tiny, "1", "--generator-option", "base_channels=8", "--init-from", str(first)]) == 2
    assert "its generator is mobile" in capsys.readouterr().err


def test_show_tells_of_a_recipe_and_its_work(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = run_json(capsys, "show", "recipe", "lesson")
    assert recipe["steps"] == 8000
    pixels, all_losses = recipe["kinds_of_step"]
    assert [kind["share"] for kind in (pixels, all_losses)] == pytest.approx([2 / 3, 1 / 3], abs=1e-3)
    assert pixels["multiply_adds"] < all_losses["multiply_adds"]
    mean = pixels["share"] * pixels["multiply_adds"] + all_losses["share"] * all_losses["multiply_adds"]
    assert recipe["multiply_adds_per_step"] == pytest.approx(mean)
    assert main(["show", "recipe", "cyclegann"]) == 2
    assert "did you mean cyclegan?" in capsys.readouterr().err


def test_a_training_that_takes_days_says_so_once(capsys: pytest.CaptureFixture[str]) -> None:
    for recipe, advice in (("cyclegan", "--recipe fast, which is made for machines without a GPU,"), ("fast", "fewer --steps")):
        with polite_stop(str) as stop:
            display = TrainingDisplay(Console(), stop, lambda _: None)
            display(Progress("training", 0, 9, {"run": Path("run"), "recipe": recipe}))
            for step in range(1, 9):
                display(Progress("training", step, 9, {"losses": None, "seconds_left": 27 * 86400.0}))
        assert capsys.readouterr().err.count(f"at this pace it takes 27 d; {advice} or a smaller") == 1


def test_a_training_shows_each_kind_of_loss_until_the_next_are_known() -> None:
    shown: list[Any] = []
    with polite_stop(str) as stop:
        display = TrainingDisplay(Console(), stop, lambda event: shown.append(event.details["shown"]))
        display(Progress("training", 0, 9, {"run": Path("run"), "recipe": "fast"}))
        losses = {"cycle_a": 0.25, "cycle_b": 0.75, "identity_nce_b": 2.0, "discriminator_a": 0.5, "adversarial_ab": 1.25}
        display(Progress("training", 1, 9, {"losses": losses}))
        display(Progress("training", 2, 9, {"losses": None}))
    assert [list(losses.items()) for losses in shown] == [[], *[[("G", "1.25"), ("D", "0.5"), ("cycle", "0.5")]] * 2]


def test_max_time_is_in_the_time_left(pictures: Path, tmp_path: Path) -> None:
    left: list[tuple[float, float]] = []

    def on_progress(event: Event) -> bool:
        if isinstance(event, Progress) and "seconds_left" in event.details:
            left.append((event.details["seconds_left"], event.details["seconds_to_stop"]))
        return len(left) == 3

    train_gan(TrainGanSettings(**SMALL, data=str(pictures), out=tmp_path, steps=10**6, max_seconds=3600.0), on_progress)
    assert all(to_stop <= min(3600, in_all) for in_all, to_stop in left)


def test_being_stopped_while_images_are_read_makes_nothing() -> None:
    with polite_stop(str) as stop:
        display = TrainingDisplay(Console(), stop, lambda _: None)
        display(Progress("decoding apple", 1, 9))
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Stopped, match="before the first step") as stopped:
            display(Progress("decoding apple", 2, 9))
    assert stopped.value.exit_code == 143


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("1h30m", 5400), ("2d", 172_800)])
def test_times_are_read_as_people_write_them(text: str, seconds: float) -> None:
    assert options.seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "0m", "m", "1h 30", "-5m", "1.5h", "1h30", "5"])
def test_what_is_no_time_is_refused(text: str) -> None:
    expected = "--max-time 5: say of what: 5s, 5m or 5h" if text == "5" else "expected a time"
    with pytest.raises(UsageError, match=expected):
        options.seconds_of(text)


def test_a_profile_is_left_beside_the_run(tiny: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main([*tiny, "4", "--profile", "--json"]) == 0
    written = capfd.readouterr()
    run = Path(json.loads(written.out)["run"])
    assert "ERROR" not in written.err  # what the profiler's own library would say of a missing GPU
    names = {event.get("name") for event in json.loads((run / "profile" / "trace.json").read_text())["traceEvents"]}
    stages = ("draw", "batch", "images forward", "generators backward", "discriminators backward", "optimise", "ema")
    assert names >= {f"fruitgan: {stage}" for stage in stages}
    summary = (run / "profile" / "summary.txt").read_text()
    assert all(f"\n{stage} " in summary for stage in stages)


def test_why_steps_are_not_captured_is_told_once(
    tiny: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def noting(*given: Any) -> Trainer:
        trainer = make_trainer(*given)
        trainer.note = "training without CUDA graphs, more slowly: it waits"
        return trainer

    monkeypatch.setattr(job, "make_trainer", noting)
    assert main([*tiny, "3"]) == 0
    assert capsys.readouterr().err.count("without CUDA graphs") == 1
