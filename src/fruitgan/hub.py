"""`fruitgan push`: a bundle and its card as a repository of the Hugging Face Hub."""

from __future__ import annotations

import re
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fruitgan import __version__
from fruitgan.console import Console, options
from fruitgan.console.options import argument, option
from fruitgan.errors import DataError, EnvironmentProblem, FruitganError, UsageError, reason_of
from fruitgan.machine import is_offline
from fruitgan.progress import Note, OnProgress, silent
from fruitgan.settings import RUNS, Settings

if TYPE_CHECKING:
    from fruitgan.bundle import Bundle

SAMPLES = "samples"
LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]+")
"""What may be one of the Hub's names of licences, such as apache-2.0; any other licence is told in the text."""
TOLD = ("directions", "image_size_px", "recipe", "steps", "images", "data", "trained_against", "created")
"""What the README's table tells of the card."""


def push(
    bundle: str = argument(options.BUNDLE, "What to push.", default=...),
    repository: str = argument("USER/NAME", "Where to; it is made if there is none.", default=...),
    public: bool = option("--public", "For everybody to see; else for you alone.", default=False),
    samples: bool = option(
        "--samples", "Add the run's newest sample sheet, which shows pictures of the training data.", default=False
    ),
    config: options.Config = None,
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Push a bundle and its model card to the Hugging Face Hub.

    Example: fruitgan push apple2orange USER/apple2orange
    """
    settings = options.settings_of(PushSettings, locals())
    console = Console(json=json, quiet=quiet)
    result = console.run(pushed, settings, "stopped; the same command goes on")
    console.out(result.address)
    console.say(f"{result.url} ({'private' if result.private else 'public'}): {', '.join(result.files)}")


@dataclass(frozen=True, kw_only=True)
class PushSettings(Settings):
    """What to push, and where to."""

    bundle: str
    """As `--bundle` takes it."""
    repository: str
    """USER/NAME."""
    public: bool = False
    samples: bool = False
    """Whether the run's newest sample sheet goes along: it shows pictures of the training data."""
    runs: Path = RUNS


@dataclass(frozen=True, kw_only=True)
class PushResult:
    """What is there now; the same push again changes nothing and gives the same commit."""

    address: str
    """With the commit, as `--bundle` takes it."""
    url: str
    private: bool
    files: tuple[str, ...]
    seconds: float


def pushed(settings: PushSettings, on_progress: OnProgress | None = None) -> PushResult:
    """Make the repository if there is none, and commit the bundle and its card to it.

    Raises:
        UsageError: no name of a repository; one that is there is public and `public` is off, or the other way round; a bundle
            without samples.
        DataError: no bundle.
        EnvironmentProblem: no login, no permission, or no network.
    """
    from fruitgan.bundle import FILE_NAME, load, locate
    from fruitgan.data.hub import ADDRESS, LOGIN, hub
    from fruitgan.runs.run import Run

    begin = time.monotonic()
    name = settings.repository.removeprefix("hf:")
    if ADDRESS.fullmatch(f"hf:{name}") is None or "@" in name:
        raise UsageError(f"{settings.repository}: no name of a repository; give USER/NAME")
    path = locate(settings.bundle, settings.runs)
    trained: Any = None
    with suppress(DataError):  # none lies beside the bundle, or another program's
        trained = Run(path.parent).config.get("settings")
    data = ADDRESS.fullmatch(str(trained.get("data"))) if isinstance(trained, dict) else None
    sheets = sorted((path.parent / SAMPLES).glob("*.png"))
    if settings.samples and not sheets:
        raise UsageError(f"--samples: no sample sheets beside {path}; push a run's name, or leave --samples out")
    with hub(name) as library, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what the Hub would like to see in a README
        if is_offline() or library.is_offline_mode():
            raise EnvironmentProblem(f"{name}: nothing is pushed while FRUITGAN_OFFLINE or HF_HUB_OFFLINE is set")
        if library.get_token() is None:
            raise EnvironmentProblem(f"{name}: to push, {LOGIN}")
        card = readme(load(path), name, data[1] if data else None)
        files: dict[str, Path | bytes] = {FILE_NAME: path, "README.md": card.encode()}
        if settings.samples:
            files[f"{SAMPLES}.png"] = sheets[-1]
        api = library.HfApi(library_name="fruitgan", library_version=__version__)
        url = str(api.create_repo(name, private=not settings.public, exist_ok=True))
        private = bool(api.repo_info(name).private)
        if private == settings.public:
            hint = "private; leave --public out, or publish it on its page" if private else "public; say --public to push there"
            raise UsageError(f"{name}: is there and {hint}: nothing was pushed")
        library.utils.disable_progress_bars()
        (on_progress or silent)(Note(f"{name}: pushing {', '.join(files)}"))
        add = [library.CommitOperationAdd(place, file) for place, file in files.items()]
        try:
            commit = api.create_commit(name, add, commit_message=f"{path.name} by fruitgan {__version__}").oid
        except (ValueError, RuntimeError) as error:
            if isinstance(error, OSError):  # the Hub's own errors are both
                raise
            raise FruitganError(f"{name}: the Hub did not take it ({reason_of(error)})") from error
    seconds = round(time.monotonic() - begin, 3)
    return PushResult(address=f"hf:{name}@{commit}", url=url, private=private, files=tuple(files), seconds=seconds)


def readme(bundle: Bundle, repository: str, data: str | None = None) -> str:
    """The model card as the Hub shows it: Markdown with YAML before it.

    Args:
        data: the data's repository of the Hub, where they came from there.
    """
    from huggingface_hub import ModelCardData
    from markupsafe import Markup

    from fruitgan.measures.contracts import metrics
    from fruitgan.report.page import render

    card = bundle.card
    licence = card.licence.strip().lower()
    is_known = LICENCE.fullmatch(licence) is not None
    numbers = {key for key, value in card.measured.items() if isinstance(value, float)}
    head = ModelCardData(
        library_name="fruitgan",
        pipeline_tag="image-to-image",
        datasets=[data or card.data],
        metrics=sorted({key.partition("_")[0] for key in numbers} & set(metrics.names())) or None,
        tags=["cyclegan", "unpaired-image-translation"],
        license=licence if is_known else "other",
        license_name=None if is_known else "see-below",
    ).to_yaml()
    told = {name: getattr(card, name) for name in TOLD if getattr(card, name) not in (None, "")}
    about = [(name, ", ".join(value) if isinstance(value, tuple) else value) for name, value in told.items()]
    rows = [("generator", card.generator.name), *card.generator.options.items(), *about]
    tables = [("What it is", rows), ("Measured", list(card.measured.items()))]
    return render("hub_card.md", head=Markup(head), card=card, repository=repository, tables=tables)
