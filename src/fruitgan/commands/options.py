"""The options that several subcommands share, one alias each; `--config FILE.toml` as their defaults.

Use: `def train_gan(data: options.Data = None, batch_size: options.BatchSize = None, config: options.Config = None)`. An option
whose default comes from the recipe has the default None. The environment variables need no word here: the command line gives
every option of every subcommand the variable `FRUITGAN_<OPTION>`, and `--debug` where it is not declared.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fruitgan.errors import DataError, UsageError
from fruitgan.registry import suggestion

DATA_PANEL = "Data"
MACHINE_PANEL = "Machine"
OUTPUT_PANEL = "Output"

BARE = {"--resume": "newest"}
"""What an option means that stands without a value."""

# Options that say where settings come from or what to do instead of the job; a settings file must not hold them.
NOT_IN_CONFIG = frozenset({"config", "debug", "help", "version"})


def read_config(context: typer.Context, file: Path | None) -> Path | None:
    """Make the keys of a TOML file the defaults of the command's options; a key is an option's name, `-` and `_` alike.

    Raises:
        DataError: there is no such file.
        UsageError: it is not TOML, or a key is unknown or of the wrong type (named).
    """
    if file is None or context.resilient_parsing:
        return file
    import tomllib  # few runs read a settings file

    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the settings file {file}: {getattr(error, 'strerror', None) or 'not UTF-8'}") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{file} is not TOML: {error}") from error
    parameters = {parameter.name: parameter for parameter in context.command.params if parameter.name not in NOT_IN_CONFIG}
    defaults: dict[str, Any] = dict(context.default_map or {})
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in parameters:
            known = [option.replace("_", "-") for option in sorted(parameters)]
            raise UsageError(f"{file}: unknown key {key!r}: {suggestion(key, known)}")
        defaults[name] = _checked(context, parameters[name], value, f"{file}: {key}")
    context.default_map = defaults
    return file


def _checked(context: typer.Context, parameter: Any, value: Any, where: str) -> Any:
    """The value as the option would give it."""
    many = parameter.multiple or parameter.nargs != 1
    if many and isinstance(value, Mapping):  # [generator-option] base_channels = 32
        value = [f"{key}={_as_text(entry)}" for key, entry in value.items()]
    if many and not isinstance(value, list):
        raise UsageError(f"{where}: expected a list, found {value!r}")
    kind = parameter.type_descriptor.annotation
    for entry in value if many else [value]:
        _check_type(entry, kind, where)
    try:
        return parameter.get_runtime_param().coerce(value, param=parameter, ctx=context)
    except typer.BadParameter as error:
        raise UsageError(f"{where}: {error.message}") from error


def _check_type(value: Any, kind: Any, where: str) -> None:
    # A string option takes a number too (`gpu = 0`); all else is as strict as TOML itself.
    allowed: tuple[type, ...] = {bool: (bool,), int: (int,), float: (int, float)}.get(kind, (str, int, float))
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
        raise UsageError(f"{where}: expected {'text' if kind not in (bool, int, float) else kind.__name__}, found {value!r}")


def _as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _check_gpu(value: str | None) -> str | None:
    if value is not None and "," in value:
        raise UsageError(
            f"--gpu {value}: training on several GPUs is not offered; give one, such as --gpu {value.split(',')[0]}"
        )
    if value is not None and not re.fullmatch(r"auto|none|\d+", value):
        raise UsageError(f"--gpu {value}: give auto, none or a number such as 0")
    return value


def _check_device(value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"cpu|mps|cuda(:\d+)?", value):
        raise UsageError(f"--device {value}: give cpu, mps, cuda or cuda:1")
    return value


Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE.toml",
        callback=read_config,
        is_eager=True,
        help="Options from a file, one key each; what is typed or set in the environment wins.",
        rich_help_panel=OUTPUT_PANEL,
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="NAME|DIR",
        help="A named set, or a folder with trainA and trainB; a path that exists wins over a name.",
        rich_help_panel=DATA_PANEL,
    ),
]
DataA = Annotated[
    Path | None,
    typer.Option(
        "--data-a",
        metavar="DIR",
        help="Images of domain a, where they lie in a folder of their own.",
        rich_help_panel=DATA_PANEL,
    ),
]
DataB = Annotated[
    Path | None,
    typer.Option(
        "--data-b",
        metavar="DIR",
        help="Images of domain b, where they lie in a folder of their own.",
        rich_help_panel=DATA_PANEL,
    ),
]
Domains = Annotated[
    str | None,
    typer.Option("--domains", metavar="A,B", help="What the two domains are called: apple,orange.", rich_help_panel=DATA_PANEL),
]
Gpu = Annotated[
    str | None,
    typer.Option(
        "--gpu",
        metavar="auto|none|0",
        callback=_check_gpu,
        show_default="auto",
        help="The best there is, the CPU, or the GPU of this number.",
        rich_help_panel=MACHINE_PANEL,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="cpu|mps|cuda:1",
        callback=_check_device,
        help="The same in PyTorch's words; wins over --gpu.",
        rich_help_panel=MACHINE_PANEL,
    ),
]
Seed = Annotated[int | None, typer.Option("--seed", min=0, show_default="0", help="Where everything random starts.")]
Deterministic = Annotated[
    bool,
    typer.Option(
        "--deterministic", help="Only operations that give the same bits every time; slower.", rich_help_panel=MACHINE_PANEL
    ),
]
Precision = Annotated[
    Literal["auto", "fp32", "bf16"] | None,
    typer.Option("--precision", show_default="the recipe's", help="Arithmetic of the networks.", rich_help_panel=MACHINE_PANEL),
]
ImageSize = Annotated[
    int | None,
    typer.Option("--image-size", min=1, metavar="PIXELS", show_default="the recipe's", help="Side of the square images."),
]
BatchSize = Annotated[
    int | None,
    typer.Option("--batch-size", "-b", min=1, metavar="N", show_default="the recipe's", help="Images of each domain per step."),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress on stderr; warnings and errors stay.", rich_help_panel=OUTPUT_PANEL)
]
Json = Annotated[bool, typer.Option("--json", help="The result as one JSON object on stdout.", rich_help_panel=OUTPUT_PANEL)]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


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
