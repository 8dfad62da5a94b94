"""Write anew the ONNX graphs that ship: of the bundles that do, and of what `fast` trains where nothing else is asked for.

    python benchmarks/ship_graphs.py

They hold no weights, so that any bundle of the same generator is translated by them. Needs the extra `onnx`.
"""

from __future__ import annotations

from fruitgan import bundle as bundles
from fruitgan.engines import onnx_engine as onnx
from fruitgan.engines.onnx_export import export
from fruitgan.engines.torch_engine import arrays_of
from fruitgan.networks.contracts import generators
from fruitgan.settings import SHIPPED
from fruitgan.train_gan.recipe import recipes


def main() -> None:
    before = {*SHIPPED.glob("*.onnx"), *SHIPPED.glob("*.json")}
    part = recipes.get("fast").generator
    choices = [generators.choose(part.name, part.options)]
    choices += [bundles.load_card(bundles.shipped(name)).generator for name in bundles.shipped_names()]
    for choice in choices:
        graph = export(choice, arrays_of(generators.build(choice)))
        path = SHIPPED / f"{onnx.shipped_stem(choice)}.onnx"
        onnx.write_graph(graph, path)
        before -= {path, path.with_suffix(".json")}
        print(f"{path.name}: {len(graph.onnx):,} bytes")
    for path in before:
        path.unlink()
        print(f"{path.name}: removed, since nothing needs it")


if __name__ == "__main__":
    main()
