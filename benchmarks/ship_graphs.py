"""Write anew the ONNX graphs that ship: those of our own generators at their usual options and at the shipped bundles'.

    python benchmarks/ship_graphs.py

They hold no weights, so that another bundle of the same generator needs no other graph. Needs the extra `onnx`.
"""

from __future__ import annotations

from collections.abc import Iterator

from fruitgan import bundle as bundles
from fruitgan import weights
from fruitgan.engines import graphs
from fruitgan.engines.torch_engine import arrays_of
from fruitgan.networks.contracts import generators
from fruitgan.registry import Choice


def wanted() -> Iterator[Choice]:
    """Each once."""
    seen = []
    usual = [generators.choose(entry.name) for entry in generators.entries() if entry.package == graphs.OWN_PACKAGE]
    shipped = [bundles.load_card(weights.shipped(name)).generator for name in weights.shipped_names()]
    for choice in [*usual, *shipped]:
        if (stem := graphs.shipped_stem(choice)) not in seen:
            seen.append(stem)
            yield choice


def main() -> None:
    before = {*graphs.SHIPPED.glob("*.onnx"), *graphs.SHIPPED.glob("*.json")}
    for choice in wanted():
        graph = graphs.exported(choice, arrays_of(generators.build(choice)))
        path = graphs.SHIPPED / f"{graphs.shipped_stem(choice)}.onnx"
        graphs.write(graph, path)
        before -= {path, path.with_suffix(".json")}
        print(f"{path.name}: {len(graph.onnx):,} bytes")
    for path in before:
        path.unlink()
        print(f"{path.name}: removed, since nothing needs it any more")


if __name__ == "__main__":
    main()
