"""The named data sets of the CycleGAN authors.

Sizes and sums of the archives are those that TensorFlow Datasets records.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from fruitgan.data import download
from fruitgan.data.download import RemoteFile
from fruitgan.data.sources import Dataset, Source, folder_source
from fruitgan.progress import OnProgress, silent

ADDRESS = "https://efrosgans.eecs.berkeley.edu/cyclegan/datasets"


@dataclass(frozen=True)
class ArchivedSet(Dataset):
    """A set that is fetched as a zip file."""

    name: str
    domains: tuple[str, str]
    summary: str
    size_bytes: int
    sha256: str

    @property
    def archive(self) -> RemoteFile:
        file = f"{self.name}.zip"
        return RemoteFile(name=file, address=f"{ADDRESS}/{file}", size_bytes=self.size_bytes, sha256=self.sha256)

    def source(self, tell: OnProgress = silent) -> Source:
        folder = download.fetch(self.archive, tell)
        return replace(folder_source(folder, self.domains), name=self.name)

    def is_present(self) -> bool:
        return download.folder_of(self.name).is_dir()


SETS: Mapping[str, tuple[str, str, int, str]] = {
    "apple2orange": ("apple", "orange", 78456409, "845a191e9af8926408ea597001cd03a452e3300a1f44a79fe329b3d59f6e3eb8"),
    "horse2zebra": ("horse", "zebra", 116867962, "a74d9d392eecca9966b51287a76ca126af473d9de4f3e8fc0e9cda08fa1730a1"),
    "summer2winter_yosemite": (
        "summer",
        "winter",
        132640856,
        "167fe1726807a9d22bd106b4a6c0bd7953b688af924ac1bf967439c4961e49f9",
    ),
    "monet2photo": ("monet", "photo", 305231073, "88f91b00fc228f97c9411fbf1880ec1d119c98f1722e4cfcfaa2fb35fac05b04"),
    "cezanne2photo": ("cezanne", "photo", 279885071, "3a6c10ca21f9485862f1cbd707744b9dc258954a04631271d23a3605eeb63cff"),
    "ukiyoe2photo": ("ukiyoe", "photo", 292946532, "02a2a2fb5ecf425ca1bf86aca7304377da64a2a1d3b86df54eb65e4068bf3b08"),
    "vangogh2photo": ("vangogh", "photo", 306590349, "362c3473e70be0944bda08d49d660eafdc2854df55d697835b8186d1d79caaff"),
    "maps": ("aerial", "map", 1476754427, "639534f69dbf9f36bef8d6292a7698006361221f83f0285d7c9ca78afe6e8a9e"),
    "facades": ("photo", "label", 35135868, "9a31ebf3a31b9b5cd195dd5bf62e9308e00cb94604d1019e3889ac84248695c0"),
    "iphone2dslr_flower": ("iphone", "dslr", 339964458, "8fcb5e374d631b107e1d961b8c4cd0a186aa2a4ff3e279923f4c426128de7113"),
}
"""Name: the two domains, the size of the archive in bytes, and its sha256."""
SUMMARIES: Mapping[str, str] = {
    "apple2orange": "photographs of apples and of oranges",
    "horse2zebra": "photographs of horses and of zebras",
    "summer2winter_yosemite": "Yosemite in summer and in winter",
    "monet2photo": "Monet's paintings and photographs of landscapes",
    "cezanne2photo": "Cezanne's paintings and photographs of landscapes",
    "ukiyoe2photo": "Japanese woodblock prints and photographs of landscapes",
    "vangogh2photo": "Van Gogh's paintings and photographs of landscapes",
    "maps": "aerial photographs and maps of the same places",
    "facades": "photographs of facades and their coloured plans",
    "iphone2dslr_flower": "flowers by a telephone and by a camera with a large lens",
}


def __getattr__(name: str) -> ArchivedSet:
    """Each set by its name, which is what the entry points ask for."""
    if name not in SETS:
        raise AttributeError(name)
    a, b, size_bytes, sha256 = SETS[name]
    return ArchivedSet(name, (a, b), SUMMARIES[name], size_bytes, sha256)
