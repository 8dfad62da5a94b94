"""Repositories of the Hugging Face Hub, by addresses such as hf:USER/NAME@REVISION: fetched into its own cache, and checked."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from fruitgan.data.download import LARGEST_GROWTH, SMALL_BYTES, folder_of
from fruitgan.data.sources import SPLITS, Source, domains_in, folder_source
from fruitgan.errors import DataError, EnvironmentProblem, FruitganError, UsageError, needing, reading, reason_of
from fruitgan.files import file_sha256, make_once
from fruitgan.images import SUFFIXES
from fruitgan.machine import is_offline
from fruitgan.progress import OnProgress, Progress, silent

ADDRESS = re.compile(r"hf:([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", re.ASCII)
LOGIN = "log in with: hf auth login (or set HF_TOKEN)"
BATCH = 16
"""Rows of a Parquet file that are in memory at a time."""
BYTES = re.compile(r"(struct<.*\bbytes: )?(large_)?binary\b")
"""The type of a column of images: their bytes, or the Hub's own form, bytes and a path."""
HELD_OUT = frozenset({"test", "validation", "val"})
"""Words in the name of a Parquet file whose images train nothing."""

Kind = Literal["model", "dataset"]


@contextmanager
def hub(address: str) -> Iterator[Any]:
    """The library of the Hub, its errors in our words.

    Raises:
        EnvironmentProblem: it is not installed; not allowed; no answer, or offline, and nothing in the cache.
        DataError: no such repository or revision, or the Hub refuses.
        UsageError: an impossible name.
    """
    with needing("hub", address):
        import huggingface_hub.utils
        from huggingface_hub import errors
    missing = errors.LocalEntryNotFoundError, errors.CachedRepoTreeNotFoundError, errors.RevisionResolutionError
    try:
        yield huggingface_hub
    except errors.HFValidationError as error:
        raise UsageError(f"{address}: no name of a repository ({reason_of(error)})") from error
    except (errors.HTTPError, errors.OfflineModeIsEnabled, *missing) as error:  # type: ignore[attr-defined]
        answer = error if isinstance(error, errors.HfHubHTTPError) else error.__cause__
        raise _explained(address, answer, errors) from error


def _explained(address: str, answer: Any, errors: Any) -> FruitganError:
    """What it means that the Hub answered so, or not at all."""
    if not isinstance(answer, errors.HfHubHTTPError):
        why = "FRUITGAN_OFFLINE is set" if is_offline() else "the Hub does not answer, or HF_HUB_OFFLINE is set"
        return EnvironmentProblem(f"{address}: {why}, and it is not in the Hub's cache here; fetch it once online")
    if isinstance(answer, errors.GatedRepoError):
        return EnvironmentProblem(f"{address}: its owner asks for consent: give it on the repository's page, then {LOGIN}")
    if isinstance(answer, (errors.RepositoryNotFoundError, errors.RevisionNotFoundError)):
        return DataError(f"{address}: no such repository or revision, or a private one; for that, {LOGIN}")
    status = answer.response.status_code
    if status in (401, 403):
        return EnvironmentProblem(f"{address}: the Hub does not allow it ({status}); {LOGIN} as someone who may")
    return DataError(f"{address}: the Hub refused ({status} {answer.server_message or answer.response.reason_phrase})")


def pinned(address: str, kind: Kind = "model") -> str:
    """The address with the commit that its revision is now, so that it means the same files for ever.

    Raises:
        UsageError: no address; and as `hub`.
    """
    found = ADDRESS.fullmatch(address)
    if found is None:
        raise UsageError(f"{address}: no address of the Hub; give hf:USER/NAME or hf:USER/NAME@REVISION")
    with hub(address) as library:
        asked = {"repo_type": kind, "revision": found[2], "local_files_only": is_offline()}
        return f"hf:{found[1]}@{library.HfApi().resolve_revision(found[1], **asked).resolved}"


def fetched(pin: str, patterns: Sequence[str], kind: Kind = "model", tell: OnProgress = silent) -> dict[str, Path]:
    """The files at a pinned address that match one of the patterns, by path, each with the sum that the Hub lists.

    Raises:
        As `hub`; DataError also where a sum is wrong: the file is removed from the cache.
    """
    with hub(pin) as library:
        name, commit = pin.removeprefix("hf:").split("@")

        bar: Any = library.utils.tqdm

        class Bar(bar):  # type: ignore[misc]
            """Takes the place of the library's own: tells the count of files, draws nothing."""

            def __init__(self, *arguments: Any, **options: Any) -> None:
                self.files = options.get("total") if "unit" not in options else None  # the others count bytes
                self.done = 0
                super().__init__(*arguments, **options | {"disable": True})

            def update(self, n: float | None = 1) -> None:
                if self.files:
                    self.done += int(n or 0)
                    tell(Progress(f"hf:{name}", self.done, self.files))

        asked = {"repo_type": kind, "revision": commit}
        offline = is_offline()
        folder = library.snapshot_download(
            name, allow_patterns=list(patterns), local_files_only=offline, tqdm_class=Bar, **asked
        )
        listed = {file.path: file for file in library.get_cached_repo_tree(name, **asked)}
    files = {path: Path(folder, path) for path in listed if Path(folder, path).is_file()}
    for path, file in files.items():
        _check_sum(pin, file, listed[path].blob_id)
    return files


def _check_sum(pin: str, file: Path, listed: str) -> None:
    """Raises: DataError, where it is neither the file that the Hub lists nor the one that the cache takes it for."""
    with reading(file):
        size, sha256 = file.stat().st_size, file_sha256(file)
        # Of a large file Git has a pointer alone; the cache names the content after the sum that came with it.
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
        cached = file.readlink().name if file.is_symlink() else ""
        if listed == _git_sum(pointer) or cached == sha256 or listed == _git_sum(file.read_bytes()):
            return
    for place in (file.resolve(), file):
        place.unlink(missing_ok=True)
    raise DataError(f"{pin}: {file.name} is damaged (its sha256 is {sha256}), so it was deleted; try again")


def _git_sum(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def hub_source(address: str, domains: tuple[str, str] | None = None, tell: OnProgress = silent) -> Source:
    """Two domains of images: folders as of `folder_source`, or Parquet files with two columns of images.

    Raises:
        As `fetched`; DataError where it has neither form.
    """
    pin = pinned(address, "dataset")
    files = fetched(pin, [*(f"{split}/*" for split in SPLITS), "*.parquet"], "dataset", tell)
    name = pin.removeprefix("hf:").partition("@")[0]
    inside = next((path for path in files if path.partition("/")[0] in SPLITS), None)
    if inside is not None:
        folder = files[inside].parents[inside.count("/")]
    else:
        folder = folder_of(f"{name.replace('/', '--')}-{pin[-40:]}")
        if not folder.is_dir():
            tables = {path: file for path, file in files.items() if path.endswith(".parquet")}
            make_once(folder, lambda part: _unpack(address, tables, part, tell))
    name = name.partition("/")[2]
    return replace(folder_source(folder, domains or domains_in(name)), name=name)


def _unpack(address: str, tables: dict[str, Path], folder: Path, tell: OnProgress) -> None:
    """Write the images of two columns into trainA, trainB, testA and testB; their bytes stay as they are."""
    if not tables:
        raise DataError(f"{address}: holds neither folders trainA and trainB nor Parquet files with two columns of images")
    left = max(SMALL_BYTES, LARGEST_GROWTH * sum(table.stat().st_size for table in tables.values()))
    counts: Counter[str] = Counter()
    for done, (path, table) in enumerate(sorted(tables.items()), start=1):
        split = "train" if HELD_OUT.isdisjoint(re.split(r"[^a-z]+", path.lower())) else "test"
        for side, data, suffix in _cells(address, table):
            left -= len(data)
            if left < 0:
                raise DataError(f"{address}: unpacks to more than images can be")
            place = folder / f"{split}{side}"
            place.mkdir(exist_ok=True)
            (place / f"{counts[place.name]:06}{suffix}").write_bytes(data)
            counts[place.name] += 1
        tell(Progress(f"unpacking {address}", done, len(tables)))


def _cells(address: str, table: Path) -> Iterator[tuple[str, bytes, str]]:
    """A or B, the bytes of an image, and its suffix; an empty cell fills up the shorter column and is left out."""
    with needing("hub", address):
        import pyarrow
        from pyarrow.parquet import ParquetFile
    try:
        with ParquetFile(table) as file:
            columns = [field.name for field in file.schema_arrow if BYTES.match(str(field.type))]
            if len(columns) != 2:
                raise DataError(f"{address}: expected two columns of images, found {', '.join(columns) or 'none'}")
            for batch in file.iter_batches(BATCH, columns=columns):
                for side, column in zip("AB", columns, strict=True):
                    for cell in batch.column(column).to_pylist():
                        found = cell if isinstance(cell, dict) else {"bytes": cell}
                        suffix = Path(found.get("path") or "").suffix.lower()
                        if found.get("bytes"):
                            yield side, found["bytes"], suffix if suffix in SUFFIXES else ""
    except (pyarrow.ArrowException, OSError, MemoryError, ValueError) as error:
        raise DataError(f"{address}: a Parquet file cannot be read ({reason_of(error)})") from error
