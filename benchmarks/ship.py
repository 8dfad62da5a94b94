"""Make the bundle that ships of a run's bundle: its name, its terms, what was measured on it, what it is known to get wrong.

    python benchmarks/ship.py --run runs/train-gan/NAME --card card.json

The weights are those of the run as they are. `card.json` holds what a run cannot know: {"name", "licence", "notes",
"measured"}. The result is src/fruitgan/weights/NAME.safetensors.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from fruitgan import bundle as bundles

WEIGHTS = Path(__file__).resolve().parent.parent / "src" / "fruitgan" / "weights"
LIMIT_BYTES = 6_000_000
KNOWN = {"name", "licence", "notes", "measured"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--card", type=Path, required=True)
    given = parser.parse_args()
    words = json.loads(given.card.read_text(encoding="utf-8"))
    if set(words) != KNOWN:
        parser.error(f"{given.card}: expected exactly the keys {', '.join(sorted(KNOWN))}")
    trained = bundles.load(given.run / bundles.FILE_NAME)
    shipped = dataclasses.replace(trained, card=dataclasses.replace(trained.card, **words))
    target = WEIGHTS / f"{shipped.card.name}.safetensors"
    bundles.save(shipped, target)
    size = target.stat().st_size
    if size > LIMIT_BYTES:
        target.unlink()
        parser.error(f"{size:,} bytes are more than the {LIMIT_BYTES:,} that fit into the wheel")
    print(f"{target}: {size:,} bytes, weights {bundles.weights_sha256(shipped)}")


if __name__ == "__main__":
    main()
