"""Where training images come from: two domains of files, each in a training and a test split."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from fruitgan.addresses import place_of
from fruitgan.data.finder import Remark, images_below, left_out
from fruitgan.data.remote import at_hand, is_elsewhere
from fruitgan.errors import DataError, EnvironmentProblem, UsageError, about_address
from fruitgan.files import file_sha256
from fruitgan.progress import OnProgress, silent
from fruitgan.registry import Registry, suggestion

SPLITS = ("trainA", "trainB", "testA", "testB")
TEST_SHARE = 10
"""Where a domain has no test split, about one image in this many is cut off for it."""


@dataclass(frozen=True)
class Domain:
    """The image files of one domain, sorted by path within each split."""

    name: str
    train: tuple[Path, ...]
    test: tuple[Path, ...]
    skipped: tuple[Remark, ...] = ()
    """What lies in its folders and is no image."""


@dataclass(frozen=True)
class Source:
    """Two domains to translate between."""

    name: str
    a: Domain
    b: Domain

    def __post_init__(self) -> None:
        if not (self.a.name and self.b.name) or self.a.name == self.b.name:
            raise UsageError(f"the domains {self.a.name!r} and {self.b.name!r} need two different names, as in apple,orange")

    @property
    def files(self) -> list[Path]:
        return [path for domain in (self.a, self.b) for path in (*domain.train, *domain.test)]

    @property
    def notes(self) -> list[str]:
        """What was left out, a sentence a domain."""
        found = [left_out(domain.name, domain.skipped) for domain in (self.a, self.b)]
        return [note for note in found if note is not None]


def find_source(
    data: Path | str | None,
    data_a: Path | str | None = None,
    data_b: Path | str | None = None,
    domains: tuple[str, str] | None = None,
    tell: OnProgress = silent,
    trained_on: str | None = None,
) -> Source:
    """What `--data NAME|DIR`, or `--data-a DIR --data-b DIR`, means.

    `trained_on` is the name of the data that a generator was trained on: of two folders that are not those, all images are test
    images.

    A path that exists wins over a name; what holds a separator (`./apples`) is always a path. A name is looked up in the
    registry `datasets` and fetched if need be, and so is a repository of the Hub, `hf:USER/NAME`. Folders and shards at fsspec
    addresses, and shards here, are copied into the cache (see `fruitgan.data.remote`).

    Raises:
        UsageError: neither or both forms given, or an unknown name.
        DataError: a folder is missing or lacks images; a named set cannot be had.
    """
    if data_a is not None or data_b is not None:
        if data is not None or data_a is None or data_b is None:
            raise UsageError("give either --data NAME|DIR or both --data-a DIR and --data-b DIR")
        return loose_source(at_hand(data_a, tell), at_hand(data_b, tell), domains, trained_on)
    if not data:
        raise UsageError("no data given: use --data NAME|DIR, or --data-a DIR and --data-b DIR")
    data = str(data)
    if _is_on_the_hub(data):
        from fruitgan.data.hub import hub_source  # it stands on this module

        return hub_source(data, domains, tell)
    if (folder := check_name(data)) is not None or is_elsewhere(data):
        return folder_source(folder or at_hand(data, tell), domains)
    source = registry.get(data).source(tell)
    if domains is None:
        return source
    return replace(source, a=replace(source.a, name=domains[0]), b=replace(source.b, name=domains[1]))


def pinned_data(data: str) -> str:
    """What `--data` takes, an address of the Hub with the commit that it means now; anything else as it is."""
    if not data.startswith("hf:"):
        return data
    from fruitgan.data.hub import pinned

    return pinned(data, "dataset")


def check_name(data: str) -> Path | None:
    """The folder that `--data` means; None where it means what is fetched first: a named set, one of the Hub, an address.

    Raises:
        UsageError: an unknown name.
        DataError: there is no such folder.
    """
    if _is_on_the_hub(data) or is_elsewhere(data):
        return None
    data = str(place_of(data)) if data.startswith("file:") else data
    if (advice := about_address(data)) is not None:
        raise UsageError(f"--data {data}: {advice}")
    path = Path(data).expanduser()
    if path.exists() or data.startswith((".", "~")) or any(mark in data for mark in ("/", os.sep)):
        must_be_folder(path)
        return path
    known = registry.names()
    if data not in known:
        raise UsageError(f"no folder and no data set named {data!r}: {suggestion(data, known)}")
    return None


def _is_on_the_hub(data: str) -> bool:
    return data.startswith("hf:") and not Path(data).exists()


def folder_source(root: Path, domains: tuple[str, str] | None = None) -> Source:
    """A folder with trainA and trainB, and perhaps testA and testB; or with these two alone.

    A domain without its test split gets one: a file whose content's sha256 falls in the lowest tenth is a test image.
    The choice depends on nothing but the bytes, so it survives renaming and added files, and copies stay together.

    Raises:
        DataError: the folder or a training split is missing, or holds no images.
    """
    must_be_folder(root)
    train_a, train_b, test_a, test_b = (root / split if (root / split).is_dir() else None for split in SPLITS)
    for split, folder in (("trainA", train_a), ("trainB", train_b)):
        if folder is None and (train_a or train_b or not (test_a and test_b)):
            raise DataError(
                f"{root}: has no folder {split}; trainA and trainB are needed (or testA and testB alone, for what trains "
                f"nothing); fruitgan data split {root} --out DIR makes them of two folders, or give the two with --data-a and "
                "--data-b"
            )
    names = domains or domains_in(root.resolve().name) or ("a", "b")
    return Source(
        root.resolve().name,
        _domain(names[0], train_a, test_a),
        _domain(names[1], train_b, test_b),
    )


def loose_source(dir_a: Path, dir_b: Path, domains: tuple[str, str] | None = None, trained_on: str | None = None) -> Source:
    """Two folders of images, one a domain; the test splits are cut off as in `folder_source`.

    For a generator that was trained on data of another name, all are test images.

    Raises:
        DataError: a folder is missing or holds no images, or both are the same.
    """
    for folder in (dir_a, dir_b):
        must_be_folder(folder)
    if dir_a.resolve() == dir_b.resolve():
        raise DataError(f"{dir_a}: both domains are the same folder; give two")
    names = domains or (dir_a.resolve().name, dir_b.resolve().name)
    if domains is None and names[0] == names[1]:
        names = ("a", "b")
    name = f"{names[0]}2{names[1]}"
    if trained_on not in (None, name):
        return Source(name, _domain(names[0], None, dir_a), _domain(names[1], None, dir_b))
    return Source(name, _domain(names[0], dir_a, None), _domain(names[1], dir_b, None))


def _domain(name: str, train: Path | None, test: Path | None) -> Domain:
    """Of a folder with training images, one with test images, or both; without the second the first is cut."""
    files, skipped = ((), ()) if train is None else images_below(train)
    tested, more = ((), ()) if test is None else images_below(test)
    if not (files if train else tested):
        raise DataError(f"{train or test}: holds no images, so the domain {name!r} is empty")
    return Domain(name, files, tested, skipped + more) if test else Domain(name, *_cut(files), skipped)


def _cut(files: tuple[Path, ...]) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Training and test images by content, with at least one image on each side where there are two different ones.

    What cannot be read, or is no regular file, stays with the training images: whoever decodes them says what is wrong with it.
    """
    digests: dict[Path, bytes] = {}
    for path in files:
        with suppress(DataError):
            digests[path] = bytes.fromhex(file_sha256(path))
    low, high = min(digests.values(), default=b""), max(digests.values(), default=b"")
    # The first 32 bits of a sha256 are uniform, so a tenth of all contents lies below a tenth of their range.
    is_test = {
        path: digest != high and (digest == low or int.from_bytes(digest[:4], "big") * TEST_SHARE < 2**32)
        for path, digest in digests.items()
    }
    train = tuple(path for path in files if not is_test.get(path, False))
    return train, tuple(path for path in files if is_test.get(path, False))


def must_be_folder(folder: Path) -> None:
    if not folder.exists():
        raise DataError(f"{folder}: no such folder")
    if not folder.is_dir():
        raise DataError(f"{folder}: not a folder")


def domains_in(folder: str) -> tuple[str, str] | None:
    """The names in a folder's name like apple2orange."""
    match = re.fullmatch(r"([A-Za-z][A-Za-z_-]*)2([A-Za-z][A-Za-z_-]*)", folder)
    return None if match is None or match[1] == match[2] else (match[1], match[2])


class Dataset(ABC):
    """A set of images under a name: fetched or drawn into the cache on first use."""

    name: str
    domains: tuple[str, str]
    summary: str
    """One line for lists."""

    @abstractmethod
    def source(self, tell: OnProgress = silent) -> Source:
        """The images' paths, after what it takes to have them here.

        Raises:
            DataError: they cannot be had (offline, a wrong checksum, a broken archive).
        """

    @abstractmethod
    def is_present(self) -> bool:
        """Whether `source` would find everything in the cache."""


registry: Registry[Dataset] = Registry("datasets")


@dataclass(frozen=True, kw_only=True)
class KnownSet:
    """A registered data set; where its package cannot be imported, `problem` says why and the rest is None."""

    name: str
    package: str
    domains: tuple[str, str] | None = None
    summary: str | None = None
    is_present: bool | None = None
    problem: str | None = None


def known_sets() -> list[KnownSet]:
    """Every registered data set; one that cannot be imported does not hide the others."""
    found = []
    for entry in registry.entries():
        known = KnownSet(name=entry.name, package=entry.package)
        try:
            here = registry.get(entry.name)
            known = replace(known, domains=here.domains, summary=here.summary, is_present=here.is_present())
        except (EnvironmentProblem, UsageError) as error:
            known = replace(known, problem=str(error))
        found.append(known)
    return found
