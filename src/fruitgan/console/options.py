"""The options that several subcommands share, one alias each; `--config FILE.toml` as their defaults.

Use: `def train_gan(data: options.Data = None, batch_size: options.BatchSize = None, config: options.Config = None)`. An option
whose default comes from the recipe has the default None. The environment variables need no word here: the command line gives
every option of every subcommand the variable `FRUITGAN_<OPTION>`, and `--debug` where it is not declared.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

import typer

from fruitgan.console import names
from fruitgan.console.names import Kind
from fruitgan.errors import UsageError, shown
from fruitgan.registry import Registry, suggestion
from fruitgan.settings import read_toml

T = TypeVar("T")

LARGEST_IMAGE_PX = 8192
LARGEST_BATCH = 65536

BARE = {"--resume": "newest", "--ray": "local"}
"""What an option means that stands without a value."""

SAME = (("gpu", "device"), ("epochs", "steps"), ("data", "data_a"), ("data", "data_b"), ("to", "direction"))
"""Options that say the same thing in two ways."""

PLACES = ("COMMANDLINE", "ENVIRONMENT", "DEFAULT_MAP")
"""Where a value was said, in typer's words, the nearest first; the last is a settings file."""

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


def without_environment(context: typer.Context, given: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """The options as given, but those of these settings left to their defaults where the environment alone says them.

    For what is refused where it is typed, since it cannot count here, and for what a resumed run has of its own: a variable
    is a default for all commands.
    """

    def counts(name: str) -> bool:
        is_meant = name in names or f"{name}s" in names
        return not is_meant or getattr(context.get_parameter_source(name), "name", "") != "ENVIRONMENT"

    return {name: value if counts(name) else None for name, value in given.items()}


def read_config(context: typer.Context, file: Path | None) -> Path | None:
    """Make the keys of a TOML file the defaults of the command's options; a key is an option's name, `-` and `_` alike.

    Raises:
        DataError: there is no such file, or it is too large to be one.
        UsageError: it is not TOML, or a key is unknown, stands twice or has a value that is not the option's (named).
    """
    if file is None or context.resilient_parsing:
        return file
    table = read_toml(file)
    # Where settings come from, and how an error is told, is no setting.
    parameters = {
        parameter.name: parameter for parameter in context.command.params if parameter.name not in ("config", "debug")
    }
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
        value = [f"{key}={entry if isinstance(entry, str) else shown(entry).lower()}" for key, entry in value.items()]
    if kind.annotation is str and type(value) in (int, float):  # gpu = 0
        value = str(value)
    try:
        if kind.many and not isinstance(value, list):
            raise ValueError
        return [kind.checked(entry) for entry in value] if kind.many else kind.checked(value)
    except ValueError:
        raise UsageError(f"{where}: expected {'a list of ' * kind.many}{kind.expected}, found {shown(value)}") from None


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


def option(usage: str, text: str, shown: bool | str = True, default: Any = None, panel: str | None = None, **more: Any) -> Any:
    """An option, as the default of a command's parameter: `count: int | None = option("--count N", "How many.")`.

    Args:
        usage: as it is typed, with all its names: `--batch-size,-b N`.
        shown: what the help says of the default, where the value itself says nothing.
        default: `...` inside `Annotated`, behind which it stands.
    """
    names, _, metavar = usage.partition(" ")
    told: dict[str, Any] = {"metavar": metavar or None, "help": text, "show_default": shown, "rich_help_panel": panel}
    return typer.Option(default, *names.split(","), **told, **more)


def argument(metavar: str, text: str, shown: bool | str = False, default: Any = None, **more: Any) -> Any:
    """An argument, in the same way; with the default `...` it is required."""
    return typer.Argument(default, metavar=metavar or None, help=text, show_default=shown, **more)


of_data = functools.partial(option, panel="Data")
of_machine = functools.partial(option, panel="Machine")
of_output = functools.partial(option, panel="Output")
of_length = functools.partial(option, panel="Length, saving, resuming")
_shared, _data, _machine, _output, _length = (
    functools.partial(kind, default=...) for kind in (option, of_data, of_machine, of_output, of_length)
)
_any_run = names.completed(names.runs())

CONFIG_HELP = "Options from a file, one key each; what is typed or set in the environment wins."
Config = Annotated[Path | None, _output("--config FILE.toml", CONFIG_HELP, callback=read_config, is_eager=True)]
BUNDLE = "FILE|NAME|hf:USER/NAME|RUN"
BUNDLE_DEFAULT = "the newest run here, else the one that ships"
BUNDLE_NAMES = names.one_of("file, run or shipped bundle", names.bundles, names.runs("train-gan"))
Bundle = Annotated[str | None, _shared(f"--bundle {BUNDLE}[@STEP]", "The generators to use.", BUNDLE_DEFAULT, **BUNDLE_NAMES)]
To = Annotated[str | None, _shared("--to DOMAIN", "The domain to translate to, as the bundle names it: orange.")]
DIRECTION_HELP = "The same as --to, as a2b or b2a."
Direction = Annotated[Literal["a2b", "b2a"] | None, _shared("--direction", DIRECTION_HELP, "the bundle's first")]
DATA_HELP = "A named set, hf:USER/NAME, or a folder with trainA and trainB; a path that exists wins over a name."
SET_NAMES = names.one_of("folder and no data set", Registry[Any]("datasets").names)
Data = Annotated[str | None, _data("--data NAME|DIR|hf:USER/NAME", DATA_HELP, **SET_NAMES)]
PLACE_HELP = "A folder of images of domain {}, or an address or tar shards of them, instead of --data."
DataA = Annotated[str | None, _data("--data-a DIR|ADDRESS", PLACE_HELP.format("a"))]
DataB = Annotated[str | None, _data("--data-b DIR|ADDRESS", PLACE_HELP.format("b"))]
Domains = Annotated[str | None, _data("--domains A,B", "The names of the two domains: apple,orange.")]
BACKGROUND_HELP = "What transparent pixels lie on: a colour's name or #rrggbb."
Background = Annotated[str | None, _data("--background COLOUR", BACKGROUND_HELP, "white")]
RANGE_HELP = "Of grey images of more than 8 bits: the values that become 0 and 255. auto is the lowest and highest in the data."
ValueRange = Annotated[str | None, _data("--value-range LOW,HIGH|auto", RANGE_HELP, "auto")]
FIT_HELP = "How a rectangle becomes a square: squashed, cropped to the square in its middle, or padded with --background."
Fit = Annotated[Literal["squash", "crop", "pad"] | None, _data("--fit", FIT_HELP, "squash")]
ENGINE_HELP = "What runs the generator: torch or onnx; auto picks the fastest."
Engine = Annotated[str, _machine("--engine auto|NAME", ENGINE_HELP, **names.registered("engines", "auto"))]
GPU_HELP = "auto picks the best GPU or else the CPU, none is the CPU, a number is that GPU."
Gpu = Annotated[str | None, _machine("--gpu auto|none|0", GPU_HELP, "auto", callback=_check_gpu)]
GPUS_HELP = f"{GPU_HELP} 0,1 or all starts a process for each GPU."
Gpus = Annotated[str | None, _machine("--gpu auto|none|0|0,1|all", GPUS_HELP, "auto", callback=_check_gpus)]
PROCESSES_HELP = "Train in N processes on the CPU, each with --threads; train-gan needs a --batch-size that N divides."
Processes = Annotated[int | None, _machine("--processes N", PROCESSES_HELP, "1", min=1)]
DEVICE_HELP = "The same as --gpu, in PyTorch's words."
Device = Annotated[str | None, _machine("--device cpu|mps|cuda:1", DEVICE_HELP, callback=_check_device)]
Seed = Annotated[int | None, _shared("--seed", "Random seed.", "0", min=0)]
Deterministic = Annotated[
    bool, _machine("--deterministic", "On a CPU: only operations that give the same bits every time; slower.")
]
THREADS_HELP = "CPU threads; auto picks the fastest here and now. The same seed gives the same bits at the same number."
Threads = Annotated[str | None, _machine("--threads auto|N", THREADS_HELP, "auto")]
Force = Annotated[bool, _machine("--force", "Train even where a step is estimated to take more memory than is free.")]
PRECISION_HELP = "Number format of networks; auto is bf16 where that is fast."
Precision = Annotated[Literal["auto", "fp32", "bf16"] | None, _machine("--precision", PRECISION_HELP, "the recipe's")]
SIZE_HELP = "Side of the square images."
ImageSize = Annotated[int | None, _shared("--image-size PIXELS", SIZE_HELP, "the recipe's", min=1, max=LARGEST_IMAGE_PX)]
BATCH_HELP = "Images of each domain per step."
BatchSize = Annotated[int | None, _shared("--batch-size,-b N", BATCH_HELP, "the recipe's", min=1, max=LARGEST_BATCH)]
Steps = Annotated[int | None, _length("--steps", "How long, in steps.", "the recipe's", min=1)]
MaxTime = Annotated[str | None, _length("--max-time 10m|1h30m", "Save and stop after this time; resume later.")]
Name = Annotated[str | None, _length("--name", "Name of the run.", "from the data and what is trained")]
Out = Annotated[Path, _length("--out DIR", "The folder of the run folders.")]
Resume = Annotated[str | None, _length("--resume [RUN]", "Resume a run; without a name the newest unfinished.", **_any_run)]
RESUME_AT = "Resume a run; without a name the newest unfinished. RUN@STEP with --name NEW begins another run there."
ResumeAt = Annotated[str | None, _length("--resume [RUN[@STEP]]", RESUME_AT, **_any_run)]
SAVE_DEFAULT = "once a minute, in at most 2% of the time"
SaveEvery = Annotated[int | None, _length("--save-every STEPS", "A checkpoint and a bundle this often.", SAVE_DEFAULT, min=1)]
RAY_HELP = "By actors of Ray: of a new cluster on this machine, of the one that it is in (auto), or of the one at HOST:PORT."
Ray = Annotated[str | None, _machine("--ray [HOST:PORT|auto]", RAY_HELP)]
SHARD_HELP = (
    "Only part I of N (0 to N-1), chosen by a hash of each path; auto: by the Slurm array's task, or RANK and WORLD_SIZE."
)
Shard = Annotated[str | None, _machine("--shard I/N|auto", SHARD_HELP)]
TRACK_HELP = "Show the run in tensorboard or wandb too; may be given twice."
Track = Annotated[list[str] | None, _output("--track NAME", TRACK_HELP)]
Quiet = Annotated[bool, _output("--quiet,-q", "No progress on stderr; warnings and errors stay.")]
Json = Annotated[bool, _output("--json", "The result as one JSON object on stdout.")]
Debug = Annotated[bool, _shared("--debug", "Show the traceback of an error.")]
Context = typer.Context


def settings_of(kind: type[T], given: Mapping[str, Any], **read: Any) -> T:
    """A job's settings from the options of its command, which has them as `locals()`.

    An option of a setting's name is that setting, `x_option` is the table `x_options`; one that was not given is left to the
    setting's default. `read` are settings whose options have another name or another form.
    """
    from fruitgan.parallel import parse_shard  # and with it what only jobs need

    names = {field.name for field in dataclasses.fields(cast(Any, kind))}
    parsers = {"threads": parse_threads, "domains": parse_domains, "shard": parse_shard, "max_time": seconds_of}
    settings: dict[str, Any] = {}
    for name, value in given.items():
        setting = "max_seconds" if name == "max_time" else name
        if name.endswith("_option") and f"{name}s" in names:
            settings[f"{name}s"] = pairs(f"--{name.replace('_', '-')}", value)
        elif setting in names and value not in (None, [], ()):
            parse = parsers.get(name, tuple if isinstance(value, list) else None)
            settings[setting] = parse(value) if parse else value
    try:
        return kind(**settings | read)
    except UsageError as error:
        field, colon, said = str(error).removeprefix(f"{cast(Any, kind).__name__}.").partition(": ")
        if f"{field}{colon}{said}" == str(error):
            raise
        raise UsageError(f"--{field.replace('_', '-')}: {said}") from error


def pairs(option: str, given: list[str] | None, example: str = "base_channels=32") -> dict[str, str]:
    """`KEY=VALUE` as a table.

    Raises:
        UsageError: one is not of this form.
    """
    table = {}
    for text in given or []:
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise UsageError(f"{option} {text}: expected KEY=VALUE, such as {example}")
        table[key.strip()] = value.strip()
    return table


def parse_domains(text: str) -> tuple[str, str]:
    """Two names with a comma between them.

    Raises:
        UsageError: none of that, or one name twice.
    """
    first, _, second = (part.strip() for part in text.partition(","))
    if not (first and second) or first == second or "," in second:
        raise UsageError(f"--domains {text}: give two names with a comma between them, as in apple,orange")
    return first, second


def parse_threads(text: str) -> int | None:
    """`auto` or a number.

    Raises:
        UsageError: it is neither.
    """
    if text == "auto":
        return None
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text) <= 1024:
        raise UsageError(f"--threads {text}: give auto, or a number from 1 to 1024")
    return int(text)


def seconds_of(text: str) -> float:
    """`90s`, `10m`, `1h30m` or `2d` as seconds.

    Raises:
        UsageError: none of these, or nothing at all.
    """
    text = text.strip().lower()
    if text.isdecimal():
        raise UsageError(f"--max-time {text}: say of what: {text}s, {text}m or {text}h")
    match = re.fullmatch(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text)
    parts = [int(part or 0) for part in match.groups()] if match else []
    if not any(parts):
        raise UsageError(f"--max-time {text}: expected a time such as 90s, 10m or 1h30m")
    days, hours, minutes, seconds = parts
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
