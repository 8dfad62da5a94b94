"""The options that several subcommands share, one alias each; `--config FILE.toml` as their defaults.

Use: `def train_gan(data: options.Data = None, batch_size: options.BatchSize = None, config: options.Config = None)`. An option
whose default comes from the recipe has the default None. The environment variables need no word here: the command line gives
every option of every subcommand the variable `FRUITGAN_<OPTION>`, and `--debug` where it is not declared.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, time
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

import typer

from fruitgan.console import names
from fruitgan.console.values import Kind
from fruitgan.errors import UsageError, shown
from fruitgan.registry import suggestion

T = TypeVar("T")

DATA_PANEL = "Data"
MACHINE_PANEL = "Machine"
OUTPUT_PANEL = "Output"
LENGTH_PANEL = "Length, saving, resuming"

LARGEST_IMAGE_PX = 8192
LARGEST_BATCH = 65536

BARE = {"--resume": "newest", "--ray": "local"}
"""What an option means that stands without a value."""

SAME = (("gpu", "device"), ("epochs", "steps"))
"""Options that say the same thing in two ways."""

PLACES = ("COMMANDLINE", "ENVIRONMENT", "DEFAULT_MAP")
"""Where a value was said, in typer's words, the nearest first; the last is a settings file."""

# Options that say where settings come from or what to do instead of the job; a settings file must not hold them.
NOT_IN_CONFIG = frozenset({"config", "debug", "help", "version"})


# The options of junyanz/pytorch-CycleGAN-and-pix2pix, which many know by heart, and what says the same here.
_epochs, _cycle = "--epochs, all of them", "--cycle-weight"
REFERENCE = {
    **{"dataroot": "--data", "crop_size": "--image-size", "load_size": "--set augmentation.options.load_ratio=1.117"},
    **{"model": "--recipe", "netG": "--generator", "netD": "--discriminator", "no_flip": "--augment none"},
    **{"ngf": "--generator-option base_channels=64", "ndf": "--discriminator-option base_channels=64"},
    **{"gan_mode": "--objective-option gan_mode=lsgan", "pool_size": "--objective-option pool_size=50"},
    **{"lambda_A": _cycle, "lambda_B": _cycle, "lambda_identity": "--set weights.identity=5, the product with lambda_A"},
    **{"lr": "--learning-rate", "beta1": "--set optimizers.generators.beta_1=0.5", "lr_policy": "--set learning_rate.end=0"},
    **{"n_epochs": _epochs, "n_epochs_decay": _epochs, "niter": _epochs, "niter_decay": _epochs, "continue_train": "--resume"},
    **{"save_epoch_freq": "--save-every, in steps", "display_freq": "--sample-every", "checkpoints_dir": "--out"},
    **{"gpu_ids": "--gpu", "num_threads": "--threads", "num_test": "--count", "results_dir": "--out"},
}


def option_meant(word: str, known: Sequence[str]) -> str | None:
    """Which of a command's options an unknown one means: by the reference code's name for it, or by its underscores."""
    name = word.lstrip("-").replace("-", "_")
    meant = REFERENCE.get(name, "--" + name.replace("_", "-"))
    return meant if re.split("[ ,]", meant)[0] in known else None


def forget_the_farther(context: typer.Context) -> None:
    """Of two options that say the same thing forget the one said farther away, so that what is typed wins over the environment.

    Both said in one place are left for the job to refuse.
    """
    for pair in SAME:
        places = {name: getattr(context.get_parameter_source(name), "name", "") for name in pair}
        if set(places.values()) <= set(PLACES) and len(set(places.values())) == len(pair):
            context.params[max(pair, key=lambda name: PLACES.index(places[name]))] = None


def read_config(context: typer.Context, file: Path | None) -> Path | None:
    """Make the keys of a TOML file the defaults of the command's options; a key is an option's name, `-` and `_` alike.

    Raises:
        DataError: there is no such file, or it is too large to be one.
        UsageError: it is not TOML, or a key is unknown, stands twice or has a value that is not the option's (named).
    """
    if file is None or context.resilient_parsing:
        return file
    from fruitgan.settings import read_toml  # few runs read a settings file

    table = read_toml(file)
    parameters = {parameter.name: parameter for parameter in context.command.params if parameter.name not in NOT_IN_CONFIG}
    defaults: dict[str, Any] = dict(context.default_map or {})
    seen: dict[str, str] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in parameters:
            known = [option.replace("_", "-") for option in sorted(parameters)]
            raise UsageError(f"{file}: unknown key {shown(key)}: {suggestion(key, known)}")
        if name in seen:
            raise UsageError(f"{file}: {key} and {seen[name]} are the same option; keep one of them")
        seen[name] = key
        defaults[name] = _checked(parameters[name], value, f"{file}: {key}")
    context.default_map = defaults
    return file


def _checked(parameter: Any, value: Any, where: str) -> Any:
    """The value of a settings file as the option would give it."""
    kind = Kind.of(parameter)
    if kind is None:  # a plug-in's, which typer reads as if it had been typed
        return value
    if kind.many and isinstance(value, Mapping):  # [generator-option] base_channels = 32
        value = [f"{key}={_text_of(entry, f'{where}.{key}')}" for key, entry in value.items()]
    if kind.many and not isinstance(value, list):
        raise UsageError(f"{where}: expected a list, found {_found(value)}")
    read = []
    for entry in value if kind.many else [value]:
        try:
            is_number_for_text = kind.annotation is str and type(entry) in (int, float)  # gpu = 0
            read.append(kind.checked(str(entry) if is_number_for_text else entry))
        except ValueError:
            raise UsageError(f"{where}: expected {kind.expected}, found {_found(entry)}") from None
    return read if kind.many else read[0]


def _text_of(value: Any, where: str) -> str:
    if not isinstance(value, (str, bool, int, float)):
        raise UsageError(f"{where}: expected text, a number, true or false, found {_found(value)}")
    return value if isinstance(value, str) else shown(value).lower()


def _found(value: Any) -> str:
    """A value of a settings file, as it is written there if that is short."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (Mapping, list)):
        return "a table" if isinstance(value, Mapping) else "a list"
    return f"the date or time {value.isoformat()}" if isinstance(value, (date, time)) else shown(value)


def _of_form(option: str, pattern: str, expected: str) -> Callable[[str | None], str | None]:
    """A callback that refuses what is not of the form."""

    def check(value: str | None) -> str | None:
        if value is not None and not re.fullmatch(pattern, value):
            raise UsageError(f"{option} {value}: give {expected}")
        return value

    return check


_check_gpu = _of_form("--gpu", r"auto|none|\d+", "auto, none or one number such as 0")
_check_gpus = _of_form("--gpu", r"auto|none|all|\d+(,\d+)*", "auto, none, all, one number such as 0, or several: 0,1")
_check_device = _of_form("--device", r"cpu|mps|cuda(:\d+)?", "cpu, mps, cuda or cuda:1")


_data = functools.partial(typer.Option, rich_help_panel=DATA_PANEL)
_machine = functools.partial(typer.Option, rich_help_panel=MACHINE_PANEL)
_output = functools.partial(typer.Option, rich_help_panel=OUTPUT_PANEL)
length = functools.partial(typer.Option, rich_help_panel=LENGTH_PANEL)

Config = Annotated[
    Path | None,
    _output(
        "--config",
        metavar="FILE.toml",
        callback=read_config,
        is_eager=True,
        help="Options from a file, one key each; what is typed or set in the environment wins.",
    ),
]
BUNDLE = "FILE|NAME|hf:USER/NAME|RUN"
BUNDLE_DEFAULT = "the newest run here, else the one that ships"
Bundle = Annotated[
    str | None,
    typer.Option(
        "--bundle",
        metavar=f"{BUNDLE}[@STEP]",
        show_default=BUNDLE_DEFAULT,
        help="The generators to use.",
        **names.completed(names.bundles, names.runs("train-gan")),
    ),
]
To = Annotated[
    str | None,
    typer.Option("--to", metavar="DOMAIN", help="The domain to translate to, as the bundle names it: orange."),
]
Direction = Annotated[
    Literal["a2b", "b2a"] | None,
    typer.Option("--direction", show_default="the bundle's first", help="The same as --to, by the letters of the domains."),
]
DATA_HELP = "A named set, hf:USER/NAME, or a folder with trainA and trainB; a path that exists wins over a name."
Data = Annotated[str | None, _data("--data", metavar="NAME|DIR|hf:USER/NAME", help=DATA_HELP, **names.completed(names.sets))]
DataA = Annotated[Path | None, _data("--data-a", metavar="DIR", help="A folder of images of domain a, instead of --data.")]
DataB = Annotated[Path | None, _data("--data-b", metavar="DIR", help="A folder of images of domain b, instead of --data.")]
Domains = Annotated[str | None, _data("--domains", metavar="A,B", help="The names of the two domains: apple,orange.")]
BACKGROUND_HELP = "What transparent pixels lie on: a colour's name or #rrggbb."
Background = Annotated[str | None, _data("--background", metavar="COLOUR", show_default="white", help=BACKGROUND_HELP)]
RANGE_HELP = "Of grey images of more than 8 bits: the values that become 0 and 255. auto is the lowest and highest in the data."
ValueRange = Annotated[str | None, _data("--value-range", metavar="LOW,HIGH|auto", show_default="auto", help=RANGE_HELP)]
FIT_HELP = "How a rectangle becomes a square: squashed, cropped to the square in its middle, or padded with --background."
Fit = Annotated[Literal["squash", "crop", "pad"] | None, _data("--fit", show_default="squash", help=FIT_HELP)]
ENGINE_HELP = "What runs the generator: torch or onnx; auto picks the fastest."
Engine = Annotated[str, _machine("--engine", metavar="auto|NAME", help=ENGINE_HELP, **names.registered("engines", "auto"))]
GPU_HELP = "auto picks the best GPU or else the CPU, none is the CPU, a number is that GPU."
Gpu = Annotated[str | None, _machine("--gpu", metavar="auto|none|0", callback=_check_gpu, show_default="auto", help=GPU_HELP)]
GPUS_HELP = f"{GPU_HELP} Of several, 0,1 or all, each has a process of the training."
Gpus = Annotated[
    str | None, _machine("--gpu", metavar="auto|none|0|0,1|all", callback=_check_gpus, show_default="auto", help=GPUS_HELP)
]
PROCESSES_HELP = "Train in several processes on the CPU, with --threads each; the batch must divide among them."
Processes = Annotated[int | None, _machine("--processes", min=1, metavar="N", show_default="1", help=PROCESSES_HELP)]
Device = Annotated[
    str | None,
    _machine("--device", metavar="cpu|mps|cuda:1", callback=_check_device, help="The same as --gpu, in PyTorch's words."),
]
Seed = Annotated[int | None, typer.Option("--seed", min=0, show_default="0", help="Random seed.")]
Deterministic = Annotated[
    bool, _machine("--deterministic", help="Use only operations that give the same bits every time; slower.")
]
THREADS_HELP = "CPU threads; auto picks the fastest here and now. The same seed gives the same bits at the same number."
Threads = Annotated[str | None, _machine("--threads", metavar="auto|N", show_default="auto", help=THREADS_HELP)]
Force = Annotated[bool, _machine("--force", help="Train even where a step is estimated to take more memory than is free.")]
Precision = Annotated[
    Literal["auto", "fp32", "bf16"] | None,
    _machine("--precision", show_default="the recipe's", help="Number format of networks; auto is bf16 where that is fast."),
]
_recipes = functools.partial(typer.Option, min=1, show_default="the recipe's")
ImageSize = Annotated[
    int | None, _recipes("--image-size", max=LARGEST_IMAGE_PX, metavar="PIXELS", help="Side of the square images.")
]
Steps = Annotated[int | None, length(min=1, help="How long, in steps.", show_default="the recipe's")]
MaxTime = Annotated[str | None, length(metavar="10m|1h30m", help="Save and stop after this time; resume later.")]
Name = Annotated[str | None, length("--name", help="Name of the run.", show_default="from the data and what is trained")]
Out = Annotated[Path, length(metavar="DIR", help="The folder of the run folders.")]
_any_run = names.completed(names.runs())
Resume = Annotated[str | None, length(metavar="[RUN]", help="Resume a run; without a name the newest unfinished.", **_any_run)]
RESUME_AT = "Resume a run; without a name the newest unfinished. RUN@STEP with --name NEW begins another run there."
ResumeAt = Annotated[str | None, length("--resume", metavar="[RUN[@STEP]]", help=RESUME_AT, **_any_run)]
SAVE_DEFAULT = "once a minute, in at most 2% of the time"
SaveEvery = Annotated[
    int | None,
    length(min=1, metavar="STEPS", help="A checkpoint and a bundle this often.", show_default=SAVE_DEFAULT),
]
BatchSize = Annotated[
    int | None, _recipes("--batch-size", "-b", max=LARGEST_BATCH, metavar="N", help="Images of each domain per step.")
]
RAY_HELP = "By actors of Ray: of the cluster with its head at HOST:PORT or (auto) around this machine, or alone of a local one."
Ray = Annotated[str | None, _machine("--ray", metavar="[HOST:PORT|auto]", help=RAY_HELP)]
SHARD_HELP = (
    "Only this part of the work, by a hash of each path: I of 0 to N-1; auto is a Slurm array's task, or RANK of WORLD_SIZE."
)
Shard = Annotated[str | None, _machine("--shard", metavar="I/N|auto", help=SHARD_HELP)]
Track = Annotated[
    list[str] | None, _output("--track", metavar="NAME", help="Show the run in tensorboard or wandb too; may be given twice.")
]
Quiet = Annotated[bool, _output("--quiet", "-q", help="No progress on stderr; warnings and errors stay.")]
Json = Annotated[bool, _output("--json", help="The result as one JSON object on stdout.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def settings_of(kind: type[T], given: Mapping[str, Any], **read: Any) -> T:
    """A job's settings from the options of its command, which has them as `locals()`.

    An option of a setting's name is that setting, `x_option` is the table `x_options`; `read` are settings whose options have
    another name or another form.
    """
    names = {field.name for field in dataclasses.fields(cast(Any, kind))}
    settings = {name: value for name, value in given.items() if name in names}
    for name, value in given.items():
        if f"{name}s" in names and name.endswith("_option"):
            settings[f"{name}s"] = pairs(f"--{name.replace('_', '-')}", value)
    if "threads" in settings:
        settings["threads"] = parse_threads(settings["threads"])
    return kind(**settings | read)


def pairs(option: str, given: list[str] | None) -> dict[str, str]:
    """`base_channels=32` and the like as a table.

    Raises:
        UsageError: one is not of this form.
    """
    table = {}
    for text in given or []:
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise UsageError(f"{option} {text}: expected KEY=VALUE, such as base_channels=32")
        table[key.strip()] = value.strip()
    return table


def parse_threads(text: str | None) -> int | None:
    """`auto` or a number.

    Raises:
        UsageError: it is neither.
    """
    if text is None or text == "auto":
        return None
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text) <= 1024:
        raise UsageError(f"--threads {text}: give auto, or a number from 1 to 1024")
    return int(text)


def seconds_of(text: str | None) -> float | None:
    """`90s`, `10m`, `1h30m` or `2d` as seconds; None stays None.

    Raises:
        UsageError: none of these, or nothing at all.
    """
    if text is None:
        return None
    text = text.strip().lower()
    if text.isdecimal():
        raise UsageError(f"--max-time {text}: say of what: {text}s, {text}m or {text}h")
    match = re.fullmatch(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text)
    parts = [int(part or 0) for part in match.groups()] if match else []
    if not any(parts):
        raise UsageError(f"--max-time {text}: expected a time such as 90s, 10m or 1h30m")
    days, hours, minutes, seconds = parts
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
