"""What is uploaded: the wheel holds the package and nothing else, the source archive what its tests need."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "fruitgan"
KINDS = {".py", ".typed", ".safetensors", ".onnx", ".json", ".NOTICE", ".html", ".css", ".js", ".md"}
WEIGHTS_BYTES = 9_000_000


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(next(built.glob("fruitgan-*-py3-none-any.whl")))


def test_wheel_holds_every_file_of_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    files = [path for path in SOURCE.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    here = {path.relative_to(SOURCE.parent).as_posix() for path in files}
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == here
    assert {Path(name).suffix for name in held} <= KINDS


def test_weights_in_the_wheel_stay_small(wheel: zipfile.ZipFile) -> None:
    weights = [entry.file_size for entry in wheel.infolist() if entry.filename.endswith((".safetensors", ".onnx"))]
    assert len(weights) >= 3
    assert sum(weights) <= WEIGHTS_BYTES


def test_weights_of_others_travel_with_their_notice(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    assert "fruitgan/networks/efficientnet_lite1.NOTICE" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_metadata_names_version_licence_and_where_things_are(wheel: zipfile.ZipFile) -> None:
    name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = Parser().parsestr(wheel.read(name).decode())
    assert metadata["Version"] == Path(str(wheel.filename)).name.split("-")[1]
    assert metadata["License-Expression"] == "Apache-2.0"
    assert {url.split(",")[0] for url in metadata.get_all("Project-URL", [])} >= {"Repository", "Documentation", "Changelog"}
    lines = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    required = {line.split(";")[0].split(">")[0].strip() for line in lines}
    assert required >= {"typer", "rich", "torch", "torchvision", "kornia", "pillow", "tqdm", "safetensors"}


def test_source_archive_holds_tests_and_documents(built: Path) -> None:
    with tarfile.open(next(built.glob("fruitgan-*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= {"pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "tests/conftest.py", "docs/quickstart.md"}
