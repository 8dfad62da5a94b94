"""Write anew the ONNX graphs of the bundles that ship, beside them.

    python benchmarks/ship_graphs.py

They hold no weights, so that another bundle of the same generator needs no other graph. Needs the extra `onnx`.
"""

from __future__ import annotations

from fruitgan import bundle as bundles
from fruitgan.engines import onnx_engine as onnx


def main() -> None:
    before = {*onnx.SHIPPED.glob("*.onnx"), *onnx.SHIPPED.glob("*.json")}
    for name in bundles.shipped_names():
        bundle = bundles.load(bundles.shipped(name))
        choice = bundle.card.generator
        graph = onnx.export_graph(choice, bundle.weights[bundle.card.directions[0]])
        path = onnx.SHIPPED / f"{onnx.shipped_stem(choice)}.onnx"
        onnx.write_graph(graph, path)
        before -= {path, path.with_suffix(".json")}
        print(f"{path.name}: {len(graph.onnx):,} bytes")
    for path in before:
        path.unlink()
        print(f"{path.name}: removed, since no bundle needs it")


if __name__ == "__main__":
    main()
