"""The images of an evaluation and where they come from: their sources, and the networks that judged their generator."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TypeVar

import torch

from fruitgan.addresses import place_of
from fruitgan.data.finder import image_files
from fruitgan.data.groups import Look
from fruitgan.data.labelled import LABELS, MANIFEST, ORIGINS, PREDICTED, LabelledImage, LabelledSet, read_folders
from fruitgan.data.preprocessing import AS_USUAL, Preprocessing, with_found_range
from fruitgan.data.remote import at_hand, is_elsewhere
from fruitgan.errors import DataError, UsageError
from fruitgan.evaluate.settings import EvaluateSettings, Tell
from fruitgan.files import file_sha256
from fruitgan.measures.contracts import NOT_KNOWN, Features, FeatureSet
from fruitgan.measures.features import Pictures, extract
from fruitgan.parallel import Cluster
from fruitgan.randomness import generator
from fruitgan.settings import from_json, read_json
from fruitgan.translate.pictures import TRAINED_AGAINST, read_mark

CARD_FILE = "dataset.json"
BESIDE = (MANIFEST, CARD_FILE)
"""What an exported dataset has beside its two folders."""
MOST_IMAGES, DRAWN_IMAGES = 50_000, 10_000
"""Of more of a kind, so many are drawn: kernels and neighbours take the square of the number in time, some in memory."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True)
class Sources:
    """The images that the generated ones were made of."""

    paths: tuple[Path, ...]
    missing: str = ""
    """Which sources were not found, so that these are all that there are; empty where source i is that of generated image i."""

    @property
    def paired(self) -> bool:
        return not self.missing


@dataclass
class Subject:
    """The images under evaluation, how they are read, and their features, each computed once."""

    settings: EvaluateSettings
    images: Sequence[LabelledImage]
    sources: Sources | None
    pictures: Pictures
    device: torch.device
    tell: Tell
    looks: Sequence[Look] = ()
    """Of the images; only a given detector is asked which of them taught it."""
    cluster: Cluster | None = None
    """Whose actors compute features; None is this process."""

    def __post_init__(self) -> None:
        self.fakes, self.reals = sides(self.images)
        self._features: dict[tuple[str, tuple[Path, ...]], FeatureSet] = {}

    def features(self, backend: Features, what: str, paths: Sequence[Path] = ()) -> FeatureSet:
        """Features of the `real` or the `generated` images, or of others.

        Raises:
            DataError: an image cannot be read or decoded (named).
        """
        paths = paths or [image.path for image in (self.fakes if what == "generated" else self.reals)]
        key = backend.name, tuple(paths)  # a run may be called as these images are
        if key not in self._features:
            label, read, tell = f"features {backend.name} of the {what} images", self.pictures, self.tell
            found = extract(backend, paths, self.device, what=label, tell=tell, read=read, cluster=self.cluster)
            self._features[key] = found
        return self._features[key]

    def both(self, backend: Features) -> tuple[FeatureSet, FeatureSet]:
        """Features of the real and of the generated images."""
        return self.features(backend, "real"), self.features(backend, "generated")


def sides(images: Sequence[LabelledImage]) -> tuple[list[LabelledImage], list[LabelledImage]]:
    """The generated and the real ones."""
    return [image for image in images if image.generated], [image for image in images if not image.generated]


def folders_of(settings: EvaluateSettings, tell: Tell) -> tuple[Path, Path, Path | None]:
    """Where generated, real and source images lie on this machine; what lies at addresses or in shards is copied into the
    cache, with its manifest.

    Raises:
        DataError: no real images were given and there are none beside the generated ones; and as `at_hand`.
    """
    fake, real = at_hand(settings.fake_dir, tell, BESIDE), settings.real_dir
    if real is None and is_elsewhere(settings.fake_dir):
        real = str(place_of(str(settings.fake_dir)).parent / ORIGINS)
    if real is None:
        if (fake / PREDICTED).is_dir() and (fake / ORIGINS).is_dir():
            raise DataError(f"{fake}: is a dataset folder; give --fake-dir {fake / PREDICTED}")
        real = Path(os.path.normpath(fake / ".." / ORIGINS))  # relative where the generated images' folder is
        if fake.is_dir() and not real.is_dir():  # a missing folder of generated images is told of first
            raise DataError(f"{fake}: there is no folder {ORIGINS} beside it; give the real images with --real-dir DIR")
    source = None if settings.source_dir is None else at_hand(settings.source_dir, tell)
    return fake, at_hand(real, tell, BESIDE), source


def read_images(fake_dir: Path, real_dir: Path, seed: int) -> LabelledSet:
    """Both kinds of images, of one that is too large a random draw, of which a warning tells; Raises: DataError."""
    told = []

    def drawn(files: Sequence[Path], generated: bool) -> Sequence[Path]:
        if len(files) <= MOST_IMAGES:
            return files
        kind = LABELS[generated]
        told.append(
            f"of {len(files):,} {kind} images {DRAWN_IMAGES:,} are measured, drawn at random by --seed: every number is "
            "an estimate from those, leaks are looked for among them alone, and a FID is one of so many images"
        )
        order = generator(seed, 0, f"evaluation/drawn {kind}").permutation(len(files))
        return [files[place] for place in sorted(order[:DRAWN_IMAGES])]

    read = read_folders(fake_dir, real_dir, drawn)
    return replace(read, warnings=(*read.warnings, *told))


def images_of(option: str, folder: Path) -> tuple[Path, ...]:
    """The images of an option's folder; Raises: DataError if there are none."""
    if not folder.is_dir():
        raise DataError(f"{option} {folder}: {'not a folder' if folder.exists() else 'no such folder'}")
    files = image_files(folder)
    if not files:
        raise DataError(f"{option} {folder}: holds no images")
    return files


def find_sources(folder: Path, fakes: Sequence[LabelledImage], *others: Path, least: int = 1) -> Sources:
    """The sources of the generated images, by the manifest, by what `translate` wrote into them or by name, else all images.

    `folder` is where the sources lie, or what the manifest's paths are relative to. `others` are the folders that it must not
    be.

    Raises:
        DataError: no such folder, no images in it, or fewer than `least` where all are taken; or it is one of the others.
    """
    if folder.resolve() in [other.resolve() for other in others]:
        raise DataError(f"--source-dir {folder}: is the folder of the real or of the generated images")
    files, are_listed = images_of("--source-dir", folder), all(fake.source for fake in fakes)
    if are_listed:
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
        return Sources(known)
    if len(files) < least:
        raise DataError(f"{folder}: R needs at least {least} source images, found {len(files)}")
    told = " by the manifest" if are_listed else ""
    return Sources(files, f"of {len(fakes) - len(known)} of {len(fakes)} generated images the source{told} is not in {folder}")


def unique(entries: Iterable[tuple[K, V]]) -> dict[K, V]:
    """The entries whose key no other has."""
    known = list(entries)
    counts = Counter(key for key, _ in known)
    return {key: value for key, value in known if counts[key] == 1}


def preprocessing_of(settings: EvaluateSettings, fake_dir: Path, paths: Sequence[Path]) -> Preprocessing:
    """How images are made of files: as the dataset's card says that it was made, with what the options say.

    Raises:
        UsageError: an option has a value that cannot be.
    """
    how = AS_USUAL
    with suppress(DataError, UsageError, KeyError, TypeError, AttributeError):  # no card, or one that a stranger wrote
        made = read_json(fake_dir.absolute().parent / CARD_FILE)["settings"]
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

    def plain(text: str) -> str:
        return "".join(sign for sign in text.lower() if sign.isalnum())

    def shares(name: str, trained_on: str, entry: str) -> bool:
        network, data = (plain(part) for part in entry.partition("(")[::2])
        known = "" if trained_on == NOT_KNOWN else plain(trained_on)
        return bool((data or network) and (data or network) in known) or bool(network and network in plain(name))

    return tuple(name for name, data in judges.items() if data and any(shares(name, data, entry) for entry in against or ()))


def dependent(judges: Mapping[str, str], against: Sequence[str] | None) -> frozenset[str]:
    """The judges that share training with those networks, and those that may, since their own training is not known."""
    unknown = [name for name, data in judges.items() if data == NOT_KNOWN and against]
    return frozenset((*sharing(judges, against), *unknown))
