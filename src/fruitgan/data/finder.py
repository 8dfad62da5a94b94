"""Find image files by their content, whatever they are called: the one place that decides what is an image of a folder."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from fruitgan.addresses import Listed
from fruitgan.data.decode import SIGNATURES, NotAnImage, Undecodable, decode
from fruitgan.errors import DataError, about_address, reason_of
from fruitgan.files import PART_PREFIX, NotAFile, open_regular

FIRST_BYTES = 512
HEAD_BYTES = 1 << 16
LARGEST_SNIFFED_BYTES = 1 << 26  # a film among the images must not be read whole to learn that it is none
HIDDEN = "hidden"
NAMED_FILES = 3
"""How many files a sentence names for each reason."""


@dataclass(frozen=True)
class Remark:
    """A path that is not used, and why."""

    path: str
    reason: str


@dataclass
class Found:
    """Every file that was named, each in one of the three lists."""

    images: list[Listed[Path]] = field(default_factory=list)
    """By their content, broken or not."""
    skipped: list[Remark] = field(default_factory=list)
    """Not images, by their content, or hidden."""
    failed: list[Remark] = field(default_factory=list)
    """Not to be had: missing, not allowed, a link to nowhere."""


def find_images(
    wanted: Sequence[str],
    recursive: bool,
    results: Path | None = None,
    is_result: Callable[[Path], bool] = lambda path: False,
    others: Collection[str] = (),
) -> Found:
    """All that the names, folders and glob patterns mean, each file once, in their order and by name within a folder.

    A path that exists is never read as a pattern. Links are followed, each folder is visited once. What is hidden, by a dot
    before its name, is found only if it is named itself. `results` is the folder where the results go: below a named folder it
    is left out, and if it is a named folder itself, so are the files below it that `is_result` is true of. Files that are named
    themselves and have a suffix of `others` are found as images are.
    """
    found = Found()
    folders: set[tuple[int, int] | None] = set()
    files: set[str] = set()
    results_at = None if results is None else identity_of(results)
    for named in _named(wanted, found):
        waiting = [(named, False)]  # not by recursion: a path may be deeper than Python's stack
        while waiting:
            path, is_with_results = waiting.pop()
            reason = None
            if path != named and path.name.startswith("."):
                reason = HIDDEN
            elif _is_folder(path):
                at = identity_of(path)
                if path != named and at is not None and at == results_at:
                    reason = "the folder of the results"
                elif path != named and not recursive:
                    reason = "a folder; -r goes into it"
                elif at in folders:
                    reason = "a folder that was visited already"
                else:
                    folders.add(at)
                    below_results = is_with_results or (at is not None and at == results_at)
                    waiting += [(entry, below_results) for entry in reversed(_entries(path, found))]
            elif is_with_results and is_result(path):
                reason = "a result, in the folder of the results"
            elif (key := os.path.abspath(path)) not in files:
                files.add(key)
                try:
                    reason = None if path == named and path.suffix.lower() in others else _reason_no_image(path)
                except OSError as error:
                    found.failed.append(Remark(str(path), f"cannot be read ({reason_of(error)})"))
                    continue
                if reason is None:
                    found.images.append(Listed(path, PurePath(path.name) if path == named else path.relative_to(named)))
            if reason is not None:
                found.skipped.append(Remark(str(path), reason))
    return found


def _named(wanted: Sequence[str], found: Found) -> Iterator[Path]:
    for text in wanted:
        matches = [text] if os.path.lexists(text) else sorted(glob.glob(text, recursive=True))
        yield from map(Path, matches)
        if not matches:
            reason = "no file matches this pattern" if glob.has_magic(text) else "no such file or folder"
            found.failed.append(Remark(text, about_address(text) or reason))


def _entries(folder: Path, found: Found) -> list[Path]:
    """What is in a folder: files, folders and then links to folders, so that these are known by their own names."""
    try:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(PART_PREFIX)]
    except OSError as error:
        found.failed.append(Remark(str(folder), f"cannot be listed ({reason_of(error)})"))
        return []
    return sorted(entries, key=lambda entry: (is_folder := _is_folder(entry), is_folder and entry.is_symlink(), entry.name))


def _reason_no_image(path: Path) -> str | None:
    """Why the file is no image, from its beginning if that suffices. Raises: OSError."""
    try:
        with open_regular(path) as file:
            head = file.read(FIRST_BYTES)
            if not head.startswith(SIGNATURES):
                head += file.read(HEAD_BYTES)
            reason = reason_no_image(head)
            if reason and (more := file.read(LARGEST_SNIFFED_BYTES)):
                reason = reason_no_image(head + more)
            return reason
    except NotAFile:
        return "not a regular file"


def images_below(folder: Path) -> tuple[tuple[Path, ...], tuple[Remark, ...]]:
    """The image files in a folder and below, sorted by path, and what is left out.

    Those that cannot be read count as images, so that whoever decodes them says what is wrong.

    Raises:
        DataError: a folder cannot be listed.
    """
    found = find_images([str(folder)], recursive=True)
    paths = [image.path for image in found.images]
    for remark in found.failed:
        if _is_folder(Path(remark.path)):
            raise DataError(f"{remark.path}: {remark.reason}")
        paths.append(Path(remark.path))
    return tuple(sorted(paths, key=lambda path: path.relative_to(folder).parts)), tuple(found.skipped)


def image_files(folder: Path) -> tuple[Path, ...]:
    """The image files in a folder and below, as `images_below`."""
    return images_below(folder)[0]


def left_out(where: str, skipped: Sequence[Remark]) -> str | None:
    """What was left out there, as a sentence; what is hidden is left out by custom and not spoken of."""
    by_reason: dict[str, list[str]] = {}
    for remark in skipped:
        if remark.reason != HIDDEN:
            by_reason.setdefault(remark.reason, []).append(Path(remark.path).name)
    parts = []
    for reason, names in by_reason.items():
        more = ", ..." if len(names) > NAMED_FILES else ""
        parts.append(f"{len(names)} {reason} ({', '.join(names[:NAMED_FILES])}{more})")
    return f"{where}: left out {'; '.join(parts)}" if parts else None


def reason_no_image(data: bytes) -> str | None:
    """Why a file that begins so is no image; None if it is one, broken or not."""
    if data.startswith(SIGNATURES):
        return None
    try:
        decode(data, max_pixels=0)
    except NotAnImage as error:
        return bare_reason(error)
    except Undecodable:
        pass  # an image, at the least too large for no pixels at all
    return None


def bare_reason(error: Exception) -> str:
    """What is wrong with bytes, without the words that stand for their name."""
    return str(error).removeprefix("the given data: ")


def identity_of(path: Path) -> tuple[int, int] | None:
    """Device and inode, links followed; None where nothing can be seen. Unlike pathlib's questions it never raises."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except OSError:
        return False
