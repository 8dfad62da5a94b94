"""The `fruitgan` command: finds subcommands by entry point, imports each on use, turns errors into lines and exit codes."""

from __future__ import annotations

import contextlib
import difflib
import errno
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
import typer.core
import typer.main

from fruitgan import distributed
from fruitgan.addresses import named
from fruitgan.console import options
from fruitgan.console.names import Kind
from fruitgan.console.signals import INTERRUPTED
from fruitgan.errors import EnvironmentProblem, FruitganError, Stopped, UsageError, is_out_of_memory, reason_of
from fruitgan.machine import is_on
from fruitgan.registry import OWN_PACKAGE, Registry, suggestion

READING_ORDER = (
    *("train-gan", "translate", "export-dataset", "train-detector", "evaluate"),
    *("data", "list", "show", "runs", "export", "import", "doctor"),
)
"""Where these stand in the help; a command that is not among them follows by name."""

commands: Registry[Callable[..., Any] | typer.Typer] = Registry("commands")


class Commands(typer.core.TyperGroup):
    """The subcommands of the entry-point group `fruitgan.commands`, ours and plug-ins' alike.

    For the help each is a line read from metadata or source text; a subcommand is imported when it is run or completed.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        order = {name: place for place, name in enumerate(READING_ORDER)}
        own = {entry.name for entry in commands.entries() if entry.package == OWN_PACKAGE}
        return sorted(commands.names(), key=lambda name: (name not in own, order.get(name, len(order)), name))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A line for the help: it has a name and a summary, and cannot run."""
        owners = [entry for entry in commands.entries() if entry.name == cmd_name]
        if not owners:
            return None
        own = owners[0].package == OWN_PACKAGE
        summary = owners[0].summary if own else "from " + " and ".join(f"{o.package} {o.version}" for o in owners)
        return typer.core.TyperCommand(cmd_name, help=summary, rich_help_panel=None if own else "Commands of plug-ins")

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, *rest = args
        if name not in commands.names():
            if ctx.resilient_parsing:
                return None, None, rest
            raise UsageError(f"no command {name!r}: {suggestion(name, self.list_commands(ctx))}")
        return name, load(name), rest


class Command(typer.core.TyperCommand):
    """A subcommand, some of whose options may stand without a value (`--resume`), or mean the same (`--gpu` and `--device`)."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        self.words = list(args)
        own = {name for parameter in self.params for name in parameter.opts}
        for i, arg in enumerate(args):
            if arg in own and arg in options.BARE and (i + 1 == len(args) or args[i + 1].startswith("-")):
                args[i] = f"{arg}={options.BARE[arg]}"
        left = super().parse_args(ctx, args)
        options.forget_the_farther(ctx)
        return left

    def invoke(self, ctx: Any) -> Any:
        """Run it; one that trains may run in several processes, of which the first alone speaks."""
        if "processes" not in ctx.params:
            return super().invoke(ctx)
        from fruitgan import launch

        given = {name: ctx.params[name] for name in ("gpu", "device", "processes")}
        if (number := launch.processes_wanted(**given)) > 1:
            on_cpu = ["--gpu", "none"] if given["gpu"] is None and given["device"] is None else []
            code = launch.launch(number, [ctx.info_name, *self.words, *on_cpu])
            raise distributed.Elsewhere(code)  # all is said
        if not distributed.is_started_as_rank():
            return super().invoke(ctx)
        from fruitgan.process_group import joined  # and torch with it

        with joined() as ranks, contextlib.ExitStack() as stack:
            if not ranks.is_first:
                nowhere = stack.enter_context(_nowhere())
                stack.enter_context(contextlib.redirect_stdout(nowhere))
                stack.enter_context(contextlib.redirect_stderr(nowhere))
            return super().invoke(ctx)


def load(name: str) -> Any:
    """Import a subcommand and build it: a function becomes a command, a `typer.Typer` a group.

    Raises:
        UsageError: two packages claim the name.
        EnvironmentProblem: it cannot be imported, or is neither of the two.
    """
    target = commands.get(name)
    try:
        if isinstance(target, typer.Typer):
            command: Any = typer.main.get_group(target)
            command.name = name
        else:
            single = typer.Typer(add_completion=False)
            single.command(name, cls=Command)(target)
            command = typer.main.get_command(single)
    except Exception as error:  # typer has no error of its own for a function that it cannot read
        owner = commands.owner(name)
        raise EnvironmentProblem(
            f"the command {name!r} of package {owner.package} {owner.version} cannot be used: {reason_of(error)}"
        ) from error
    _complete(command)
    return command


def _complete(command: Any) -> None:
    """Give every option its environment variable and our way of reading it, and every command `--debug`."""
    for inner in getattr(command, "commands", {}).values():
        _complete(inner)
    if not hasattr(command, "commands") and not any("--debug" in parameter.opts for parameter in command.params):
        (debug,) = (parameter for parameter in typer.main.get_command(app).params if parameter.name == "debug")
        debug.expose_value = False
        command.params.append(debug)
    found = [parameter for parameter in command.params if parameter.param_type_name == "option"]
    # The help begins with the options that have no panel: where others have one, it shall not.
    panel = "General" if any(option.rich_help_panel for option in found) else None
    for option in found:
        if option.envvar is None:
            option.envvar = f"FRUITGAN_{option.name.upper()}"
            option.show_envvar = False  # the help of the whole says it once
    for parameter in command.params:
        _adapted(parameter, panel)
    help_option = command.get_help_option
    command.get_help_option = lambda ctx: _adapted(help_option(ctx), panel)  # it is made when it is first asked for


def _adapted(parameter: Any, panel: str | None) -> Any:
    """The parameter with our way of reading values, and in the help as `--json` and PICTURE, without <bool> and <list[str]>."""
    if parameter is not None:
        if (kind := Kind.of(parameter)) is not None:
            parameter.get_runtime_param = lambda: kind  # in place of typer's method
        if parameter.param_type_name == "option":
            parameter.rich_help_panel = parameter.rich_help_panel or panel
        else:
            parameter.display_type_rich = lambda ctx: None
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    return parameter


def _print_version(wanted: bool) -> None:
    if wanted:
        from fruitgan import __version__

        print(f"fruitgan {__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=Commands,
    name="fruitgan",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Options you leave out come from the environment (FRUITGAN_BATCH_SIZE=4), then the file that --config names, then "
    "the recipe or the default.",
)


@app.callback()
def fruitgan(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: options.Debug = False,
) -> None:
    """Unpaired image translation (CycleGAN), and an honest audit of its results."""


def command_line() -> Any:
    """The whole command, its subcommands not yet imported."""
    command = typer.main.get_command(app)
    _complete(command)
    return command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit code, prints an error as one line on stderr."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    sys.stdout, sys.stderr = sys.stdout or _nowhere(), sys.stderr or _nowhere()  # a parent may have closed them
    failure: BaseException | None = None
    is_launched = distributed.LAUNCH in os.environ
    if is_launched:
        from fruitgan import launch

        launch.begun_by_launch()
    try:
        code = command_line().main(args=given, prog_name="fruitgan", standalone_mode=False)
        code = code if isinstance(code, int) else 0
        sys.stdout.flush()
    except KeyboardInterrupt as error:
        code, failure = INTERRUPTED, error
    except BrokenPipeError:  # the reader of stdout has gone: nobody to tell
        code = 1
    except Exception as error:  # the last place where anything can be caught: a person must see one line, not a traceback
        if _debug_wanted(given):
            traceback.print_exception(error)
        failure = error
        code, message = explained(error)
        if message:
            _complain(message, "" if isinstance(error, Stopped) else "error: ")
    else:
        if code == INTERRUPTED:  # typer turns Ctrl-C into this code without a word
            _complain("interrupted")
    _give_up_on_stdout_if_unwritable()
    return launch.left_by_launch(code, failure) if is_launched else code


def explained(error: Exception) -> tuple[int, str]:
    """The exit code of an error and its line, without the word "error"."""
    if isinstance(error, FruitganError):
        return error.exit_code, str(error)
    if isinstance(error, typer.TyperException):
        return error.exit_code, _usage_line(error)
    if isinstance(error, typer.Abort):
        return 1, "aborted"
    if is_out_of_memory(error):
        return 1, "out of memory: try a smaller --image-size or --batch-size"
    if isinstance(error, OSError):
        at = "" if error.filename is None else f" ({os.fsdecode(error.filename)})"
        if error.errno == errno.ENOSPC:
            return 1, f"the disk is full{at}: make room, or write elsewhere"
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return 1, f"not allowed to read or write{at}: {error.strerror}"
        if error.strerror and at:
            return 1, f"{error.strerror}{at}"
    message = f"{reason_of(error)} (run again with --debug to see where, and please report it)"
    return 1, f"unexpected {type(error).__name__}: {message}"


def _usage_line(error: typer.TyperException) -> str:
    """What typer says about a wrong command line, and where the right one is shown; nothing where it has printed the help."""
    message, context = error.format_message().rstrip("."), getattr(error, "ctx", None)
    if context and (word := getattr(error, "option_name", None)):
        parameters = context.command.params
        known = [name for parameter in parameters for name in parameter.opts if name.startswith("-")]
        arguments = (getattr(it, "metavar", None) for it in parameters if it.opts == [word.lstrip("-")])
        meant = options.option_meant(word, known) or next(arguments, None)
        near = difflib.get_close_matches(word, [name for name in known if name not in context.help_option_names], n=2)
        said = f"here that is {meant}" if meant else f"did you mean {' or '.join(near)}?" if near else ""
        message = f"no such option: {word}" + (f"; {said}" if said else "")
    message = message[:1].lower() + message[1:]
    return f"{message} (see {context.command_path} --help)" if message and context else message


def _complain(message: str, prefix: str = "error: ") -> None:
    message = " ".join(named(message).split("\n"))
    printable = "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in message)
    print(f"{prefix}{printable}", file=sys.stderr, flush=True)


def _debug_wanted(arguments: Sequence[str]) -> bool:
    # Looked up by hand: an error may come before the options are parsed, as from a plug-in that cannot be imported.
    return "--debug" in arguments or is_on("FRUITGAN_DEBUG")


def _nowhere() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8")  # for the rest of the process


def _give_up_on_stdout_if_unwritable() -> None:
    """Python flushes once more at its end, and would complain of a full disk or a reader gone a second time."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
