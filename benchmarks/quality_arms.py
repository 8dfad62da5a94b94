"""The arms that benchmarks/quality.py holds against each other: what stands first is the reference."""

from __future__ import annotations

import dataclasses
from typing import Any

from fruitgan.train_gan.recipe import Adam, Part, Recipe, Schedule, constant, recipes, until


def of_fruit() -> dict[str, Recipe]:
    """The reference, then one change more in each row up to `fruit`."""
    fruit = recipes.get("fruit")
    rows = {"cyclegan": recipes.get("cyclegan")}

    def add(name: str, **changes: Any) -> None:
        rows[name] = dataclasses.replace(list(rows.values())[-1], **changes)

    add("+ averages, decay", ema_decay=0.999, learning_rate=Schedule(start=1.0, end=0.0, begin=0.6, shape="cosine"))
    weights = {
        "adversarial": constant(1.0),
        "cycle": Schedule(start=10.0, end=2.5, shape="cosine"),
        "identity": until(0.5, 5.0),
    }
    add("+ loose cycle", weights=weights)
    add(
        "+ three scales",
        discriminator=Part(name="patch-multiscale", options={"scales": 3, "norm": "spectral-instance"}),
        objective=Part(name="cyclegan", options={"gan_mode": "lsgan", "pool_size": 50}),
    )
    add("+ antialiased", generator=Part(name="resnet-aa", options={"residual": False}))
    add("+ change of the source", generator=Part(name="resnet-aa", options={"mask": False}))
    rows["fruit (+ mask, adaptive changes)"] = fruit
    return rows


SMALL = (0, 2, 3, 6)
"""The rows of a CPU's form."""
LARGE = (0, 6)


def fitted(recipe: Recipe, size_px: int, small: bool) -> Recipe:
    """At the benchmark's size; with `small` narrow networks, a quarter of the width in all arms, and two scales, not three."""
    if not small:
        return dataclasses.replace(recipe, image_size_px=size_px)
    options = {"base_channels": 14, "blocks": 6} if recipe.generator.name == "resnet-aa" else {"base_channels": 16}
    name = "resnet-6" if recipe.generator.name == "resnet-9" else recipe.generator.name
    scales = {"scales": 2} if "scales" in recipe.discriminator.options else {}
    return dataclasses.replace(
        recipe,
        image_size_px=size_px,
        generator=Part(name=name, options={**recipe.generator.options, **options}),
        discriminator=Part(
            name=recipe.discriminator.name, options={**recipe.discriminator.options, **scales, "base_channels": 16}
        ),
    )


def of_fast() -> dict[str, Recipe]:
    """`fast` as it was, with spectral norm alone; what it became; what else it might take over. A row changes what it names."""
    fast, fruit = recipes.get("fast"), recipes.get("fruit")
    former = dataclasses.replace(fast, discriminator=_judges("spectral"))
    normed = dataclasses.replace(fast, discriminator=_judges("spectral-instance"))
    loose = {"adversarial": constant(1.0), "cycle": Schedule(start=4.0, end=0.5), "identity": until(0.2, 2.0)}
    quick = {player: Adam(learning_rate=4e-4, beta_2=0.99) for player in fast.optimizers}
    return {
        "norm spectral": former,
        "norm spectral-instance (S)": normed,
        "norm instance": dataclasses.replace(fast, discriminator=_judges("instance")),
        "fast (norm mixed)": fast,
        "S, loss weights of fruit": dataclasses.replace(
            normed,
            weights=fruit.weights,
            objective=Part(name="cyclegan", options={**fast.objective.options, "mask_losses": True}),
        ),
        "S, cycle 4 to 0.5, identity 2 for a fifth": dataclasses.replace(normed, weights=loose),
        "S, all rates 4e-4": dataclasses.replace(normed, optimizers=quick),
        "S, no mask": dataclasses.replace(normed, generator=Part(name="mobile", options={"mask": False})),
        "S, generator of 48 channels": dataclasses.replace(
            normed, generator=Part(name="mobile", options={"base_channels": 48})
        ),
        "narrow fruit": fitted(fruit, fast.image_size_px, small=True),
    }


def _judges(norm: str) -> Part:
    return Part(name="patch-multiscale", options={"base_channels": 32, "norm": norm})
