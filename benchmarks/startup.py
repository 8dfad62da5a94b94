"""How long `fruitgan --help` and `fruitgan list` take, beside a bare typer app of ten commands.

    python benchmarks/startup.py [ROUNDS]

The runs are interleaved, so that a busy machine slows all alike; the medians are compared. The help is held against the bare
app's help, the list against a bare command's run, and both may take 1.5 times as long.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT = 1.5
BARE_APP = "import typer\napp = typer.Typer()\n" + "".join(
    f'@app.command()\ndef command_{n}(kind: str | None = None) -> None:\n    """Does a thing."""\n    print("done")\n'
    for n in range(10)
)


def seconds(arguments: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "bare.py"
        bare.write_text(BARE_APP + "app()\n")
        fruitgan = str(Path(sys.executable).with_name("fruitgan"))
        runs = {
            "bare --help": [sys.executable, str(bare), "--help"],
            "fruitgan --help": [fruitgan, "--help"],
            "bare command-3": [sys.executable, str(bare), "command-3"],
            "fruitgan list": [fruitgan, "list"],
        }
        for arguments in runs.values():  # compile and warm the disk
            seconds(arguments)
        taken: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(rounds):
            for name, arguments in runs.items():
                taken[name].append(seconds(arguments))
    medians = {name: statistics.median(values) for name, values in taken.items()}
    for name, median in medians.items():
        print(f"{name:16} {median * 1000:6.0f} ms")
    ratios = {
        "help": medians["fruitgan --help"] / medians["bare --help"],
        "list": medians["fruitgan list"] / medians["bare command-3"],
    }
    for name, ratio in ratios.items():
        print(f"{name:16} {ratio:6.2f} times the bare app (limit {LIMIT})")
    return int(max(ratios.values()) > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
