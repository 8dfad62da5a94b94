"""Recipes from TOML files, and options that change a recipe: what a user types, and what is then trained."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from picture_files import write_fruit_domains
from typed_commands import run_json

from fruitgan import bundle
from fruitgan.cli import main
from fruitgan.train_gan import estimate
from fruitgan.train_gan.recipe import recipe_toml, recipes, resolve_recipe

TINY = [
    "--generator-option", "base_channels=4", "--generator-option", "blocks=1", "--discriminator", "patch-multiscale",
    "--discriminator-option", "base_channels=4", "--discriminator-option", "scales=1", "--augment", "jitter-mirror",
    "--image-size", "32", "--batch-size", "1", "--gpu", "none", "--precision", "fp32", "--threads", "1",
]  # fmt: skip


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return write_fruit_domains(tmp_path / "pear2plum", 3, 32)


@pytest.fixture
def typed(pictures: Path, tmp_path: Path) -> list[str]:
    return ["train-gan", "--data", str(pictures), *TINY, "--out", str(tmp_path / "runs"), "--name", "run"]


def recipe_of(run: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(str(run)) / "config.json").read_text())["plan"]["recipe"]
    return found


@pytest.mark.parametrize("name", recipes.names())
def test_the_toml_that_show_prints_of_a_recipe_reproduces_it(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate, "count_work", lambda _: [])  # which is counted in test_train_gan_command.py
    recipe, file = recipes.get(name), tmp_path / "mine.toml"
    assert main(["show", "recipe", name]) == 0
    file.write_text(capsys.readouterr().out)
    assert resolve_recipe(str(file), {}) == ("mine", dataclasses.replace(recipe, why={}))
    assert all(f"# {why[:60]}" in file.read_text() for why in recipe.why.values())  # the reasons stand there as comments


def test_what_is_asked_for_is_trained_and_stands_in_config_checkpoint_and_bundle(
    typed: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        'extends = "fast"\nepochs = 9\n[weights]\nidentity = 3\ncycle = {start = 7, end = 1, shape = "cosine"}\n'
        "[optimizers.generators]\nlearning_rate = 1e-3\n[objective.options]\npool_size = 2\n"
    )
    words = [*typed, "--recipe", str(file), "--set", "weights.identity=4", "--set", "learning_rate.begin=0.25"]
    words += ["--set", "optimizers.discriminators.beta_2=0.9", "--set", "ema_decay=none", "--steps", "1"]
    words += ["--learning-rate", "2e-3", "--cycle-weight", "8:2", "--objective-option", "gan_mode=lsgan"]
    result = run_json(capsys, *words)
    recipe = recipe_of(result["run"])
    assert {key: recipe["weights"]["identity"][key] for key in ("start", "end")} == {"start": 4, "end": 4}
    assert {key: recipe["weights"]["cycle"][key] for key in ("start", "end", "shape")} == {
        "start": 8,
        "end": 2,
        "shape": "linear",
    }
    assert recipe["learning_rate"]["begin"] == 0.25
    assert recipe["ema_decay"] is None
    assert recipe["optimizers"]["generators"]["learning_rate"] == 2e-3
    # the file's rate of the generators halves the ratio, and the short option keeps it
    assert recipe["optimizers"]["discriminators"]["learning_rate"] == pytest.approx(8e-4)
    assert recipe["optimizers"]["discriminators"]["beta_2"] == 0.9
    options = {"gan_mode": "lsgan", "pool_size": 2}
    assert recipe["objective"]["options"] == {**recipes.get("fast").objective.options, **options}
    assert not {"weights", "optimizers", "learning_rate", "ema_decay"} & set(recipe["why"])  # their reasons are others' now
    run = Path(str(result["run"]))
    document = json.loads((run / "checkpoints" / "step-00000001" / "state.json").read_text())
    assert document["about"]["recipe"] == recipe
    card = bundle.load_card(run / "bundle.safetensors")
    assert card.recipe == "mine"
    assert card.resolved_recipe == {**recipe, "why": {}}
    assert json.loads((run / "log.jsonl").read_text().splitlines()[-1])["learning_rate"] == 2e-3


def test_a_constant_cycle_weight_and_a_weight_of_0_for_what_the_objective_does_not_have(
    typed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*typed, "--recipe", "fast", "--cycle-weight", "5", "--steps", "1", "--objective-option", "mask_losses=false"]
    assert main(words) == 2
    err = capsys.readouterr().err
    assert "has no loss weight 'mask_roughness', which the recipe fast sets" in err
    advice = "--set weights.mask_roughness=0"
    assert advice in err
    result = run_json(capsys, *words, *advice.split())
    weight = recipe_of(result["run"])["weights"]["cycle"]
    assert (weight["start"], weight["end"]) == (5, 5)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "wieghts.cycle=5"], "recipe: unknown key 'wieghts': did you mean weights?"),
        (["--set", "weights.cylce=5"], "has no loss weight 'cylce', which the recipe fast sets: did you mean cycle?"),
        (["--set", "optimizers.generators.lr=1"], "recipe.optimizers.generators: unknown key 'lr': "),
        (["--set", "optimizers.generator.beta_1=0"], "has no optimizer 'generator', which the recipe fast sets: did you mean"),
        (["--set", "batch_size.x=1"], "--set batch_size.x=1: batch_size has no fields"),
        (["--set", "batch_size=many"], "--set batch_size=many: recipe.batch_size: expected int, found 'many'"),
        (["--set", "weights.cycle.begin=2"], "begin 2.0 and finish 1.0 must rise within 0 to 1"),
        (["--set", "weights.cycle=-1"], "from -1 to -1; 0 or more is needed"),
        (
            ["--set", "optimizers.generators.learning_rate=0", "--learning-rate", "1e-4"],
            "learning_rate 0: expected more than 0",
        ),
        (["--set", "optimizers.generators.beta_1=2"], "beta_1 and beta_2 are at least 0 and below 1"),
        (["--set", "ema_decay=1"], "ema_decay 1: at least 0 and below 1, or none"),
        (["--set", "steps=0"], "steps 0: 1 or more is needed"),
        (["--set", "learning_rate=1e-4"], "for the rate itself give --learning-rate 0.0001"),
        (["--set", "objective=cyclegna"], "no objective named 'cyclegna': did you mean cyclegan?"),
        (["--set", "image_size_px"], "--set image_size_px: expected KEY=VALUE"),
        (["--set", "objective.options.pool=5"], "objective cyclegan has no option 'pool': did you mean pool_size?"),
        (["--objective-option", "pool_sizes=5"], "objective cyclegan has no option 'pool_sizes': did you mean pool_size?"),
        (["--learning-rate", "0"], "--learning-rate 0: expected more than 0 and at most 1"),
        (["--cycle-weight", "8-2"], "--cycle-weight 8-2: expected a number such as 5, or two such as 8:2"),
        (["--objective", "distillation"], "the objective distillation has no loss weight 'cycle', which the recipe fast sets"),
        (["--recipe", "lesson", "--objective", "cyclegan"], "objective cyclegan has no loss weight 'imitation'"),
    ],
)
def test_what_does_not_fit_is_one_line_before_anything_is_loaded(
    words: list[str], said: str, typed: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*typed, "--recipe", "fast", *words]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ('extends = "fsat"', 2, "did you mean fast?"),
        ('extends = "fast"\n[weights]\ncycle = "much"', 2, "recipe.weights.cycle.start: expected a finite number, found"),
        ('extends = "fast"\nbatchsize = 3', 2, "recipe: unknown key 'batchsize': did you mean batch_size?"),
        ("batch_size = 3", 2, 'or begin the file with extends = "fast"'),
        ("batch_size = ", 2, "mine.toml is not TOML"),
    ],
)
def test_a_recipes_file_is_checked(
    text: str, code: int, said: str, typed: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.toml").write_text(text)
    assert main([*typed, "--recipe", str(tmp_path / "mine.toml")]) == code
    assert said in capsys.readouterr().err
    assert main([*typed, "--recipe", str(tmp_path / "none.toml")]) == 3


def test_a_missing_weight_or_optimizer_is_named(typed: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = recipe_toml(recipes.get("fast"))
    file = tmp_path / "mine.toml"
    file.write_text(text.replace("identity = 0.0\n", ""))
    assert main([*typed, "--recipe", str(file)]) == 2
    assert "the recipe mine has no loss weight 'identity', which the objective cyclegan needs" in capsys.readouterr().err
    file.write_text(text.partition("[optimizers.discriminators]")[0])
    assert main([*typed, "--recipe", str(file)]) == 2
    assert "the recipe mine has no optimizer 'discriminators'" in capsys.readouterr().err


def test_a_resumed_run_changes_what_only_affects_later_steps_and_its_log_says_from_where(
    typed: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run_json(capsys, *typed, "--recipe", "fast", "--steps", "5")
    resume = ["train-gan", "--resume", "run", "--out", str(tmp_path / "runs"), "--gpu", "none"]
    for words, said in [
        (["--set", "batch_size=2"], "--set batch_size cannot change in a resumed run"),
        (["--set", "optimizers.generators.beta_1=0.5"], "--set optimizers.generators.beta_1 cannot change in a resumed run"),
        (["--set", "ema_decay=none"], "--set ema_decay cannot change in a resumed run"),
        (["--objective-option", "pool_size=3"], "--objective-options cannot change in a resumed run"),
        (["--set", "steps=90"], "give --steps"),
    ]:
        assert main([*resume, "--steps", "10", *words]) == 2
        assert said in capsys.readouterr().err
    words = ["--steps", "10", "--set", "optimizers.generators.learning_rate=1e-3", "--cycle-weight", "4"]
    assert main([*resume, *words]) == 0
    assert "optimizers.generators.learning_rate 0.001 instead of 0.0002" in capsys.readouterr().err
    lines = [json.loads(line) for line in (tmp_path / "runs" / "run" / "log.jsonl").read_text().splitlines()]
    (line,) = [line for line in lines if "changes" in line]
    assert line["step"] == 5
    assert set(line["changes"]) == {"optimizers.generators.learning_rate", "weights.cycle"}
    assert line["changes"]["optimizers.generators.learning_rate"] == "0.001 instead of 0.0002"
    assert lines[-1]["step"] == 10
    recipe = recipe_of(first["run"])
    assert recipe["optimizers"]["generators"]["learning_rate"] == 1e-3
    assert recipe["weights"]["cycle"]["end"] == 4
    assert main(["show", str(first["run"])]) == 0
    assert "step 5: from here on weights.cycle 4.0 instead of" in capsys.readouterr().out
    assert "from here on weights.cycle" in (tmp_path / "runs" / "run" / "report.html").read_text()
