"""The registry of data sets that have a name, and what each promises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from fruitgan.data.sources import Source
from fruitgan.registry import Registry

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done and how much there is (0 if not known)."""


class Dataset(ABC):
    """A set of images under a name: fetched or drawn into the cache on first use."""

    name: str
    domains: tuple[str, str]
    summary: str
    """One line for lists."""

    @abstractmethod
    def source(self, on_progress: Progress | None = None) -> Source:
        """The images' paths, after what it takes to have them here.

        Raises:
            DataError: they cannot be had (offline, a wrong checksum, a broken archive).
        """

    @abstractmethod
    def is_present(self) -> bool:
        """Whether `source` would find everything in the cache."""


registry: Registry[Dataset] = Registry("datasets")
