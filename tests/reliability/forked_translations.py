"""A process that has everything imported and is forked for each of many translations, which die, or fail to write.

    PYTHONPATH=tests/shared python tests/reliability/forked_translations.py FOLDER < ORDERS.json > FOUND.json

FOLDER holds `in`, the pictures, and a bundle. An order is one of

    {"told": {...}, "at": "die_at" or "fail_from", "every": N}    at every n-th change, the disk being told this too
    {"deaths": N, "copies": N}                                    while so many copies of one picture are worked on at once
    {"files": N}                                                  so many copies of one picture, instead of those in `in`

Found, of each order, are its cases: how the translation into a new folder ended (`first`), what it left, how the same ended
`again` without being told anything, and what was there then. Of copies: by how many bytes the memory grew. Before all of these
comes the case of which nothing is told, with the changes that it counted.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import resource
import shutil
import sys
from pathlib import Path
from typing import Any

from counted_disk import disk, watch_the_disk
from forks import Tell, forked
from toy_bundles import Negative

from fruitgan.cli import explained
from fruitgan.engines.contracts import engines
from fruitgan.files import PART_PREFIX
from fruitgan.translate.job import TranslateSettings, translate


def run(source: str, out: Path, tell: Tell) -> None:
    """Translate; tells the exit code and the message of a command that would do so, and how many it made."""
    settings = TranslateSettings(
        sources=(source,), recursive=True, output=str(out), bundle="toy.safetensors", engine="torch", gpu="none"
    )
    try:
        result = translate(settings)
        tell(said=[result.exit_code, ""], translated=result.translated)
    except Exception as error:
        tell(said=list(explained(error)))


def counted(source: str, out: Path, told: dict[str, Any], tell: Tell) -> None:
    vars(disk).update(told, changes=[])
    run(source, out, tell)
    tell(changes=disk.changes)


def there(out: Path) -> dict[str, list[Any]]:
    """Of every file: its sha256, and what would be another if it had been written again."""
    found = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        about = path.stat()
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        found[path.relative_to(out).as_posix()] = [digest, about.st_ino, about.st_mtime_ns]
    return found


def tried(source: str = "in", **told: Any) -> dict[str, Any]:
    out = Path.cwd() / "out"
    first = forked(lambda tell: counted(source, out, told, tell))
    left = there(out)
    again = forked(lambda tell: run(source, out, tell))
    found = {"first": first, "left": left, "again": again, "ended": there(out)}
    shutil.rmtree(out)
    return found


def grown(files: int, tell: Tell) -> None:
    """By how many bytes the memory has grown at its largest. Nothing is brought to the disk, which costs time and no memory."""
    os.fsync = lambda descriptor: None
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run(f"in-{files}", Path(f"out-{files}"), tell)
    tell(grown=(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)


def cases(order: dict[str, Any], changes: int) -> list[dict[str, Any]]:
    if "files" in order:
        return [many(order["files"])]
    if "deaths" in order:
        source = copied(order["copies"])
        return [tried(source, die_at=order["copies"] * 5 * n // order["deaths"]) for n in range(order["deaths"])]
    return [tried(**order["told"], **{order["at"]: moment}) for moment in range(0, changes, order["every"])]


def copied(files: int) -> str:
    folder = Path(f"in-{files}")
    folder.mkdir()
    data = Path("in/a.png").read_bytes()
    for number in range(files):
        (folder / f"{number:05}.png").write_bytes(data)
    return folder.name


def many(files: int) -> dict[str, Any]:
    copied(files)
    found = forked(lambda tell: grown(files, tell))
    found["outputs"] = sum(not path.name.startswith(PART_PREFIX) for path in Path(f"out-{files}").iterdir())
    return found


def main() -> None:
    os.chdir(sys.argv[1])
    orders = json.load(sys.stdin)
    watch_the_disk()
    engines.get = lambda name: Negative  # type: ignore[assignment,method-assign]
    run("in", Path("warm"), lambda **told: None)
    gc.freeze()
    whole = tried()
    json.dump([[whole], *(cases(order, len(whole["first"]["changes"])) for order in orders)], sys.stdout)


if __name__ == "__main__":
    main()
