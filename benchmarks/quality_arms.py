"""The arms that benchmarks/quality.py holds against each other: what stands first is the reference."""

from __future__ import annotations

import dataclasses
from typing import Any

from fruitgan.train_gan.recipe import Part, Recipe, Schedule, constant, recipes, until


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
    """`fast`, and in each row one change of it."""
    fast = recipes.get("fast")

    def discriminator(**options: Any) -> Recipe:
        return dataclasses.replace(
            fast, discriminator=Part(name="projected", options={**fast.discriminator.options, **options})
        )

    def generator(**options: Any) -> Recipe:
        return dataclasses.replace(fast, generator=Part(name="mobile", options=options))

    def weighed(**weights: Schedule) -> Recipe:
        return dataclasses.replace(fast, weights={**fast.weights, **weights})

    return {
        "fast": fast,
        "cycle from 2 to 0.5": weighed(cycle=Schedule(start=2.0, end=0.5)),
        "cycle 0.5": weighed(cycle=constant(0.5)),
        "generator of 56 channels": generator(base_channels=56),
        "strides 8 and 16": discriminator(strides="8,16"),
        "no discriminator of pixels": discriminator(pixel_scales=0),
        "pictures of one scale": dataclasses.replace(
            fast, augmentation=Part(name="jitter-mirror", options={"load_ratio": 1.25})
        ),
        "no mask": dataclasses.replace(
            generator(mask=False),
            objective=Part(name="cyclegan", options={**fast.objective.options, "mask_losses": False}),
            weights={name: weight for name, weight in fast.weights.items() if not name.startswith("mask")},
        ),
        "contrast instead of a cycle": dataclasses.replace(
            fast,
            objective=Part(name="cut", options={"gan_mode": "hinge", "mask_losses": True, "shift": 1 / 16}),
            weights={
                **{name: weight for name, weight in fast.weights.items() if name not in ("cycle", "identity")},
                "nce": constant(0.4),
                "identity_nce": constant(0.0),
            },
        ),
    }
