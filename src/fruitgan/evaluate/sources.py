"""Where generated images come from: their source images, and the pretrained networks that judged their generator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar

from fruitgan.data.finder import image_files
from fruitgan.data.labelled import LabelledImage
from fruitgan.data.preprocessing import AS_USUAL, Preprocessing, with_found_range
from fruitgan.errors import DataError, UsageError
from fruitgan.evaluate.settings import EvaluateSettings
from fruitgan.files import file_sha256
from fruitgan.measures.contracts import NOT_KNOWN
from fruitgan.settings import from_json, read_json
from fruitgan.translate.pictures import TRAINED_AGAINST, read_mark

CARD_FILE = "dataset.json"

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True)
class Sources:
    """The source images."""

    paths: tuple[Path, ...]
    paired: bool
    """Whether source i is that of generated image i."""
    note: str | None
    """What to know about the choice."""
    missing: str = ""
    """What is not paired."""


def images_of(option: str, folder: Path) -> tuple[Path, ...]:
    """The images of an option's folder; Raises: DataError if there are none."""
    if not folder.is_dir():
        raise DataError(f"{option} {folder}: {'not a folder' if folder.exists() else 'no such folder'}")
    files = image_files(folder)
    if not files:
        raise DataError(f"{option} {folder}: holds no images")
    return files


def find_sources(folder: Path, fakes: Sequence[LabelledImage], *others: Path) -> Sources:
    """The sources of the generated images, by the manifest, by what `translate` wrote into them or by name, else all images.

    `folder` is where the sources lie, or what the manifest's paths are relative to. `others` are the folders that it must not
    be.

    Raises:
        DataError: no such folder, no images in it, or it is one of the others.
    """
    if folder.resolve() in [other.resolve() for other in others]:
        raise DataError(f"--source-dir {folder}: is the folder of the real or of the generated images")
    files = images_of("--source-dir", folder)
    if all(fake.source for fake in fakes):
        by_path = {path.relative_to(folder).as_posix(): path for path in files}
        by_name = unique((path.name, path) for path in files)
        found = [by_path.get(fake.source) or by_name.get(Path(fake.source).name) for fake in fakes]
    else:
        by_stem = unique((path.stem, path) for path in files)
        marks = [str((read_mark(fake.path) or {}).get("source")) for fake in fakes]  # `translate` tells of each what it was
        by_sha256 = {file_sha256(path): path for path in files} if set(marks) != {"None"} else {}
        found = [by_sha256.get(mark) or by_stem.get(fake.path.stem) for fake, mark in zip(fakes, marks, strict=True)]
    known = tuple(path for path in found if path is not None)
    if len(known) == len(fakes):
        return Sources(known, True, None)
    told = " by the manifest" if all(fake.source for fake in fakes) else ""
    missing = f"of {len(fakes) - len(known)} of {len(fakes)} generated images the source{told} is not in {folder}"
    all_of_them = f"so R takes all {len(files)} images there as sources, and its interval is wider"
    return Sources(files, False, f"{missing}, {all_of_them}", missing)


def unique(entries: Iterable[tuple[K, V]]) -> dict[K, V]:
    """The entries whose key no other has."""
    known = list(entries)
    counts = Counter(key for key, _ in known)
    return {key: value for key, value in known if counts[key] == 1}


def preprocessing_of(settings: EvaluateSettings, paths: Sequence[Path]) -> Preprocessing:
    """How images are made of files: as the dataset's card says that it was made, with what the options say.

    Raises:
        UsageError: an option has a value that cannot be.
    """
    how = AS_USUAL
    with suppress(DataError, UsageError, KeyError, TypeError, AttributeError):  # no card, or one that a stranger wrote
        made = read_json(settings.fake_dir.absolute().parent / CARD_FILE)["settings"]
        names = {field.name for field in fields(Preprocessing)}
        how = from_json(Preprocessing, {name: made[name] for name in names & made.keys()}, CARD_FILE)
    return with_found_range(how.asked(settings.background, settings.value_range, settings.fit), paths)


def trained_against(fake_dir: Path, fakes: Sequence[LabelledImage]) -> tuple[str, ...] | None:
    """Names of the pretrained networks that judged the generator in training; None where they are not known.

    From the dataset's card, whatever a stranger wrote into it, else from the marks in the pictures. Where only some pictures
    tell, the names that they tell count.
    """
    try:
        bundle = read_json(fake_dir.absolute().parent / CARD_FILE)["bundle"]
        told = [bundle[TRAINED_AGAINST]]
    except (DataError, LookupError, TypeError):
        told = [(read_mark(fake.path) or {}).get(TRAINED_AGAINST) for fake in fakes]
    known = [names for names in told if isinstance(names, list) and all(isinstance(name, str) for name in names)]
    names = {name for each in known for name in each}
    return tuple(sorted(names)) if names or len(known) == len(told) else None


def sharing(judges: Mapping[str, str], against: Sequence[str] | None) -> tuple[str, ...]:
    """The judges that share training data or weights with a network that judged the generator in training.

    `judges` are names with what each was trained on, "" for one without weights of its own. `EfficientNet-Lite1 (ImageNet)`
    shares data with what was trained on ImageNet, and weights with `timm:efficientnet_lite1`.
    """
    return tuple(name for name, data in judges.items() if data and any(_shares(name, data, entry) for entry in against or ()))


def dependent(judges: Mapping[str, str], against: Sequence[str] | None) -> frozenset[str]:
    """The judges that share training with those networks, and those that may, since their own training is not known."""
    unknown = [name for name, data in judges.items() if data == NOT_KNOWN and against]
    return frozenset((*sharing(judges, against), *unknown))


def _shares(name: str, trained_on: str, entry: str) -> bool:
    network, _, data = entry.partition("(")
    return (trained_on != NOT_KNOWN and _is_in(data or network, trained_on)) or _is_in(network, name)


def _is_in(part: str, whole: str) -> bool:
    return bool(_plain(part)) and _plain(part) in _plain(whole)


def _plain(text: str) -> str:
    return "".join(sign for sign in text.lower() if sign.isalnum())
