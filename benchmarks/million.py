"""Translation by actors of Ray beside the same by one process: throughput, memory, and what is left where actors and nodes die.

    python benchmarks/million.py --pictures 20000 --side 64 --kills 10
    python benchmarks/million.py --pictures 300 --kills 2

Drawn fruit as PNG in a tree, the bundle that ships, on the CPU. First one process on all cores; then a cluster of two nodes on
loopback with as many cores together, undisturbed and again while actors (SIGKILL to their process) and the second node (its
raylet killed, a new one added) die at random moments. The cluster is up before the clock starts; the actors and their
engines are not. Each run's results must be those of the first, byte by byte, each told once. Memory is that of this process,
after a tenth of the pictures and at the end.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fruitgan.demo.fruit import draw
from fruitgan.machine import cores
from fruitgan.parallel import STORE_BYTES
from fruitgan.progress import Event, Progress
from fruitgan.translate.job import TranslateResult, TranslateSettings, translate

FOLDER_PICTURES = 500
DRAWN = 1000
"""Pictures that are drawn; the others are these, moved sideways over their edge."""


def resident_mib() -> float:
    """What this process holds of the memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Cluster:
    """Two nodes with all cores, and what kills parts of them."""

    def __init__(self) -> None:
        import ray
        from ray.cluster_utils import Cluster as Nodes

        half = max(1, cores() // 2)
        self.node: dict[str, Any] = {"num_cpus": half, "object_store_memory": STORE_BYTES}
        head = {**self.node, "num_cpus": max(1, cores() - half), "include_dashboard": False}
        self.nodes: Any = Nodes(initialize_head=True, head_node_args=head)
        ray.init(address=self.nodes.address, log_to_driver=False, logging_level=logging.ERROR)
        self.second = self.nodes.add_node(**self.node)

    def kill_actor(self) -> str:
        """One at random, of either node."""
        raylets = {
            processes[0].process.pid for node in self.nodes.list_all_nodes() for processes in [node.all_processes["raylet"]]
        }
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if parent in raylets and b"MapWorker" in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:  # it has ended meanwhile
                continue
        if not found:
            return "no actor there"
        os.kill(random.choice(found), signal.SIGKILL)
        return "actor"

    def kill_node(self) -> str:
        self.nodes.remove_node(self.second, allow_graceful=False)
        self.second = self.nodes.add_node(**self.node)
        return "node"

    def close(self) -> None:
        import ray

        ray.shutdown()
        self.nodes.shutdown()


def run(
    sources: Path, out: Path, ray: str | None, deaths: dict[int, Callable[[], str]]
) -> tuple[TranslateResult, dict[str, Any]]:
    """A translation, in which at these numbers of pictures something is killed, and what it took."""
    held: list[float] = []
    killed: list[str] = []

    def on_progress(event: Event) -> None:
        if isinstance(event, Progress):
            if event.done in (max(1, event.total // 10), event.total):
                held.append(resident_mib())
            if event.done in deaths:
                killed.append(deaths[event.done]())

    settings = TranslateSettings(
        sources=(str(sources),), output=str(out), bundle="apple2orange", recursive=True, gpu="none", ray=ray
    )
    result = translate(settings, on_progress)
    told = {"images_per_second": result.images_per_second, "seconds": result.seconds, "mib": [round(each, 1) for each in held]}
    return result, {**told, "killed": killed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    random.seed(asked.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        drawn = [draw("apple", asked.side, asked.seed, index) for index in range(min(DRAWN, asked.pictures))]
        for index in range(asked.pictures):
            path = folder / "in" / f"{index // FOLDER_PICTURES:04}" / f"{index:07}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.roll(drawn[index % DRAWN], index // DRAWN, axis=1)).save(path)
        _, here = run(folder / "in", folder / "here", None, {})
        print(json.dumps({"run": "one process", **here}), flush=True)
        expected = files_of(folder / "here")
        cluster = Cluster()
        try:
            moments = sorted(random.sample(range(1, asked.pictures), asked.kills))
            kinds = [cluster.kill_node if number % 3 == 2 else cluster.kill_actor for number in range(asked.kills)]
            for name, deaths in (("undisturbed", {}), ("with deaths", dict(zip(moments, kinds, strict=True)))):
                result, there = run(folder / "in", folder / name, "auto", deaths)
                made = files_of(folder / name)
                same = made == expected and len(set(result.outputs)) == len(result.outputs) == asked.pictures
                if not same:
                    other = [key for key in expected if made.get(key) != expected[key]]
                    print(len(made), len(expected), len(result.outputs), other[:5], result.engine)
                share = there["images_per_second"] / here["images_per_second"]
                print(json.dumps({"run": name, "share": round(share, 3), "each once, same bytes": same, **there}), flush=True)
        finally:
            cluster.close()


if __name__ == "__main__":
    main()
