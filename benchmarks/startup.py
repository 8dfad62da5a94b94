"""How long commands take to start: those that only speak beside a bare typer app of ten commands, a translation by the clock.

    python benchmarks/startup.py [ROUNDS]

The runs are interleaved, so that a busy machine slows all alike; the medians are compared. The help is held against the bare
app's help, the list and the version against a bare command's run, and all may take 1.5 times as long. A picture of 256 px
through the bundle that ships may take 1.0 s through onnxruntime and 4 s through torch, all of it counted.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from fruitgan.demo.fruit import draw

LIMIT = 1.5
LIMIT_SECONDS = {"translate (onnx)": 1.0, "translate (torch)": 4.0}
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
        bare, photo = Path(folder) / "bare.py", Path(folder) / "photo.jpg"
        bare.write_text(BARE_APP + "app()\n")
        Image.fromarray(draw("apple", 256, 0, 0)).save(photo)
        fruitgan = str(Path(sys.executable).with_name("fruitgan"))
        translate = [fruitgan, "translate", str(photo), "-o", f"{folder}/out", "--overwrite", "--gpu", "none", "--engine"]
        runs = {
            "bare --help": [sys.executable, str(bare), "--help"],
            "fruitgan --help": [fruitgan, "--help"],
            "bare command-3": [sys.executable, str(bare), "command-3"],
            "fruitgan list": [fruitgan, "list"],
            "fruitgan --version": [fruitgan, "--version"],
            "translate (onnx)": [*translate, "onnx"],
            "translate (torch)": [*translate, "torch"],
        }
        for arguments in runs.values():  # compile and warm the disk
            seconds(arguments)
        taken: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(rounds):
            for name, arguments in runs.items():
                taken[name].append(seconds(arguments))
    medians = {name: statistics.median(values) for name, values in taken.items()}
    for name, median in medians.items():
        print(f"{name:18} {median * 1000:6.0f} ms ({min(taken[name]) * 1000:.0f} to {max(taken[name]) * 1000:.0f})")
    ratios = {
        "help": medians["fruitgan --help"] / medians["bare --help"],
        "list": medians["fruitgan list"] / medians["bare command-3"],
        "version": medians["fruitgan --version"] / medians["bare command-3"],
    }
    for name, ratio in ratios.items():
        print(f"{name:18} {ratio:6.2f} times the bare app (limit {LIMIT})")
    return int(max(ratios.values()) > LIMIT or any(medians[name] > limit for name, limit in LIMIT_SECONDS.items()))


if __name__ == "__main__":
    sys.exit(main())
