"""The recipes that come with fruitgan."""

from __future__ import annotations

from fruitgan.train_gan.recipe import Adam, Part, Recipe
from fruitgan.train_gan.schedules import Schedule, constant, until

cyclegan = Recipe(
    summary="The CycleGAN paper: ResNet-9, 70 x 70 PatchGAN, least squares, pool of 50, 100 + 100 epochs.",
    why={
        "generator": "the paper's for 256 px; biases before its norms are dead weight, and kept",
        "weights": "cycle 10 and identity 5, as the paper has for paintings and as its authors' published models have",
        "learning_rate": "constant for half the epochs, then linear towards 0, stepping once an epoch",
        "averaging": "none: the paper's result is the last step's weights",
        "pairing": "one pass through the larger domain is an epoch; its partner is drawn at random",
    },
    objective=Part(name="cyclegan", options={"gan_mode": "lsgan", "pool_size": 50}),
    generator=Part(name="resnet-9"),
    discriminator=Part(name="patch-70"),
    augmentation=Part(name="jitter-mirror"),
    weights={"adversarial": constant(1.0), "cycle": constant(10.0), "identity": constant(5.0)},
    optimizers={"generators": Adam(), "discriminators": Adam()},
    learning_rate=Schedule(start=1.0, end=0.0, begin=0.5, unit="epoch"),
    averaging=None,
    pairing="random-b",
    resample="bicubic",
    fit="squash",
    image_size_px=256,
    batch_size=1,
    epochs=200,
)

_KERAS_ADAM = Adam(epsilon=1e-7)  # Keras' default; the paper's code has 1e-8

seed_unet = Recipe(
    summary="The lab report that fruitgan grew from: UNet-256 with instance norm, 70 x 70 PatchGAN, 40 epochs.",
    why={
        "generator": "the TensorFlow tutorial's; its innermost map is 1 x 1, where instance norm leaves nothing of the image",
        "objective": "the report writes a squared error to 1, and shows the discriminator the current fakes alone",
        "resample": "the report enlarged with nearest neighbours, which aliases",
        "pairing": "both domains are zipped, so the smaller one ends the epoch",
        "learning_rate": "constant, as in the report",
    },
    objective=Part(name="cyclegan", options={"gan_mode": "lsgan", "pool_size": 0}),
    generator=Part(name="unet-256"),
    discriminator=Part(name="patch-70-affine"),
    augmentation=Part(name="jitter-mirror"),
    weights={"adversarial": constant(1.0), "cycle": constant(10.0), "identity": constant(5.0)},
    optimizers={"generators": _KERAS_ADAM, "discriminators": _KERAS_ADAM},
    learning_rate=constant(1.0),
    averaging=None,
    pairing="zip",
    resample="nearest",
    fit="squash",
    image_size_px=256,
    batch_size=1,
    epochs=40,
)

fruit = Recipe(
    summary="For GPUs: no aliasing, three discriminators, a looser cycle, averaged weights; no more work than `cyclegan`.",
    why={
        "generator": "blurred halvings and bilinear doublings leave no checkerboard; it changes the source where its mask says "
        "and starts as the identity; as many multiply-adds as the reference's",
        "discriminator": "three scales see texture, parts and the whole; spectral norm keeps each layer from being steep, and "
        "instance norm lets it learn: without, it told fakes from real ones little better than chance after as many images",
        "weights": "the cycle loosens, so that more than colour may change; identity steers the first half alone; the mask is "
        "kept smooth and small; no gradient penalty, which was worse in every number of the small ablation",
        "objective": "a pool as the reference's; what the discriminators see is changed mildly once they grow too sure",
        "optimizers": "a shorter memory of squares than the reference's, for losses whose weights move",
        "learning_rate": "constant for 60% of the training, then down to 0 within it: the last averaged weights are the result",
        "averaging": "steadier pictures than any single step's",
        "precision": "chosen for the machine: bf16 where there are instructions for it",
    },
    objective=Part(
        name="cyclegan",
        options={"gan_mode": "lsgan", "pool_size": 50, "mask_losses": True, "augment_target": 0.6},
    ),
    generator=Part(name="resnet-aa"),
    discriminator=Part(name="patch-multiscale", options={"scales": 3, "norm": "spectral-instance"}),
    augmentation=Part(name="jitter-mirror"),
    weights={
        "adversarial": constant(1.0),
        "cycle": Schedule(start=10.0, end=2.5, shape="cosine"),
        "identity": until(0.5, 5.0),
        "mask_roughness": constant(0.1),
        "mask_area": constant(0.01),
    },
    optimizers={"generators": Adam(beta_2=0.99), "discriminators": Adam(beta_2=0.99)},
    learning_rate=Schedule(start=1.0, end=0.0, begin=0.6, shape="cosine"),
    averaging=0.999,
    pairing="passes",
    resample="lanczos",
    fit="squash",
    image_size_px=256,
    batch_size=1,
    epochs=200,
    precision="auto",
)

fast = Recipe(
    summary="For CPUs: a light generator that starts as the identity, two light discriminators, averaged weights.",
    why={
        "generator": "0.3 M parameters at half and quarter size; it adds to the image and masks what it leaves alone",
        "discriminator": "two scales: the finer with instance norm, which learns texture soon, the coarser without any, which "
        "sees colour; spectral norm alone was worse from oranges to apples, and level within the scatter the other way",
        "weights": "the cycle loosens with time, and identity steers the beginning alone, so that more than colour may change",
        "averaging": "steadier pictures than any single step's",
        "image_size_px": "a quarter of the pixels of the reference; an hour on two cores is to show something",
        "precision": "chosen for the machine: bf16 where a CPU has instructions for it, which halves the step",
    },
    objective=Part(name="cyclegan", options={"gan_mode": "lsgan", "pool_size": 0}),
    generator=Part(name="mobile"),
    discriminator=Part(name="patch-multiscale", options={"base_channels": 32, "norm": "mixed"}),
    augmentation=Part(name="jitter-mirror"),
    weights={
        "adversarial": constant(1.0),
        "cycle": Schedule(start=8.0, end=2.0),
        "identity": until(0.35, 5.0),
    },
    optimizers={"generators": Adam(beta_2=0.99), "discriminators": Adam(beta_2=0.99)},
    learning_rate=Schedule(start=1.0, end=0.02, begin=0.6),
    averaging=0.999,
    pairing="passes",
    resample="lanczos",
    fit="squash",
    image_size_px=128,
    batch_size=4,
    steps=4000,
    precision="auto",
)

refine = Recipe(
    summary="For `train-gan --init-from BUNDLE`: goes on from generators of `fast`, nearer to the full size.",
    why={
        "generator": "that of `fast`, whose bundles it goes on from",
        "discriminator": "a third, coarser scale than `fast` has; the finer two with instance norm, which learn texture soon, "
        "and the coarsest without any, which sees colour",
        "augmentation": "crops of 128 px from pictures of 192: texture nearer to the size at which pictures are translated",
        "weights": "discriminators start anew and first find their bearings; the cycle falls to 1, so that more may change; no "
        "identity, which the bundle has learned",
        "optimizers": "discriminators twice as fast as generators, which are ahead of them",
        "learning_rate": "constant for 60% of the training, then down",
        "batch_size": "more steps from as many images",
    },
    objective=Part(name="cyclegan", options={"gan_mode": "lsgan", "pool_size": 0}),
    generator=Part(name="mobile"),
    discriminator=Part(name="patch-multiscale", options={"base_channels": 32, "scales": 3, "norm": "mixed"}),
    augmentation=Part(name="jitter-mirror", options={"load_ratio": 1.5}),
    weights={
        "adversarial": Schedule(start=0.0, end=1.0, finish=0.05),
        "cycle": Schedule(start=2.5, end=1.0, finish=0.6),
        "identity": constant(0.0),
    },
    optimizers={"generators": Adam(beta_2=0.99), "discriminators": Adam(learning_rate=4e-4, beta_2=0.99)},
    learning_rate=Schedule(start=1.0, end=0.02, begin=0.6),
    averaging=0.999,
    pairing="passes",
    resample="lanczos",
    fit="squash",
    image_size_px=128,
    batch_size=2,
    steps=4000,
    precision="auto",
)

lesson = Recipe(
    summary="For `fruitgan distill`: a small generator imitates a large one's pictures.",
    why={
        "generator": "a view of the whole for half the multiply-adds of the other students",
        "weights": "the teacher's pixels, and their structure beside them; real images join in for the last third, when there "
        "is something to sharpen",
        "augmentation": "crops from pictures half as large again: the teacher's answers cost no labels, so the images may vary",
        "optimizers": "a student learns from targets, which bears a higher rate and more momentum than a game does",
        "learning_rate": "down to 0 within the training, the averaged weights are the result",
        "precision": "chosen for the machine: bf16 where there are instructions for it",
    },
    objective=Part(name="distillation"),
    generator=Part(name="lite-u"),
    discriminator=Part(name="patch-multiscale", options={"base_channels": 32}),
    augmentation=Part(name="jitter-mirror", options={"load_ratio": 1.5}),
    weights={
        "imitation": constant(10.0),
        "structure": constant(5.0),
        "adversarial": Schedule(start=0.0, end=1.0, begin=2 / 3, finish=2 / 3),
    },
    optimizers={"students": Adam(learning_rate=4e-4, beta_1=0.9, beta_2=0.99), "discriminators": Adam(beta_2=0.99)},
    learning_rate=Schedule(start=1.0, end=0.0, shape="cosine"),
    averaging=0.999,
    pairing="passes",
    resample="lanczos",
    fit="squash",
    image_size_px=128,
    batch_size=4,
    steps=8000,
    precision="auto",
)
