"""The recipes that come with fruitgan; all are `cyclegan`, or what was made of it, with other parts."""

from __future__ import annotations

from dataclasses import replace

from fruitgan.train_gan.recipe import Adam, Part, Recipe, Schedule, constant

cyclegan = Recipe(
    summary="The CycleGAN paper: ResNet-9, 70 x 70 PatchGAN, least squares, replay buffer of 50, 100 + 100 epochs.",
    why={
        "generator": "the paper's for 256 px; biases before its norms are dead weight, and kept",
        "weights": "cycle 10 and identity 5, as the paper has for paintings and as its authors' published models have",
        "learning_rate": "constant for half the epochs, then linear towards 0, stepping once an epoch",
        "ema_decay": "none: the paper's result is the last step's weights",
        "pairing": "one pass through the larger domain is an epoch; its partner is drawn at random",
    },
    objective=Part(name="cyclegan", options={"gan_mode": "lsgan", "pool_size": 50}),
    generator=Part(name="resnet-9"),
    discriminator=Part(name="patch-70"),
    augmentation=Part(name="jitter-mirror"),
    weights={"adversarial": constant(1.0), "cycle": constant(10.0), "identity": constant(5.0)},
    optimizers={"generators": Adam(), "discriminators": Adam()},
    learning_rate=Schedule(start=1.0, end=0.0, begin=0.5, unit="epoch"),
    ema_decay=None,
    pairing="random-b",
    resample="bicubic",
    fit="squash",
    image_size_px=256,
    batch_size=1,
    epochs=200,
)

_KERAS_ADAM = Adam(epsilon=1e-7)  # Keras' default; the paper's code has 1e-8

seed_unet = replace(
    cyclegan,
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
    optimizers={"generators": _KERAS_ADAM, "discriminators": _KERAS_ADAM},
    learning_rate=constant(1.0),
    pairing="zip",
    resample="nearest",
    epochs=40,
)

fruit = replace(
    cyclegan,
    summary="For GPUs: no aliasing, heads on pretrained features as discriminators, a loose cycle, averaged weights.",
    why={
        "generator": "blurred downsampling and bilinear upsampling leave no checkerboard; it changes the source where its mask "
        "says and starts as the identity; as many multiply-adds as the reference's",
        "discriminator": "heads on a pretrained network's features learn texture and objects soon; small discriminators of "
        "pixels beside them, without a norm that would hide it, see absolute colour",
        "objective": "hinge loss goes with spectral norm; what they are shown is shifted, so that they do not learn places",
        "weights": "discriminators first find their bearings; a loose cycle lets more than colour change, but one that fell to "
        "0.5 painted white grounds; no identity term, which left one apple in fourteen as it was; the mask is kept smooth, and "
        "its area is free",
        "optimizers": "no momentum, since the target moves; discriminators twice as fast as generators",
        "learning_rate": "constant for 60% of the training, then down to 0 within it: the last averaged weights are the result",
        "ema_decay": "steadier pictures than any single step's",
        "precision": "chosen for the machine: bf16 where a product is faster in it",
    },
    objective=Part(name="cyclegan", options={"gan_mode": "hinge", "pool_size": 0, "mask_losses": True, "shift": 1 / 16}),
    generator=Part(name="resnet-aa"),
    discriminator=Part(name="projected"),
    weights={
        "adversarial": Schedule(start=0.0, end=0.4, finish=0.02),
        "cycle": constant(2.0),
        "identity": constant(0.0),
        "mask_roughness": constant(0.1),
        "mask_area": constant(0.0),
    },
    optimizers={
        "generators": Adam(beta_1=0.0, beta_2=0.99),
        "discriminators": Adam(learning_rate=4e-4, beta_1=0.0, beta_2=0.99),
    },
    learning_rate=Schedule(start=1.0, end=0.0, begin=0.6),
    ema_decay=0.999,
    pairing="passes",
    resample="lanczos",
    precision="auto",
)

fast = replace(
    fruit,
    summary="For CPUs: a light generator that starts as the identity, heads on pretrained features, averaged weights.",
    why={
        **fruit.why,
        "generator": "0.3 M parameters at half and quarter size; it adds to the image and masks what it leaves alone",
        "augmentation": "whole fruit from afar has no pores, and pores from near no shape: crops at scales between both",
        "image_size_px": "a seventh of the pixels of the reference, and so more steps; crops of pictures of up to 256 px",
        "batch_size": "more steps from as many images",
    },
    generator=Part(name="mobile"),
    discriminator=Part(name="projected", options={"base_channels": 32}),
    augmentation=Part(name="crop-scales", options={"largest": 8 / 3}),
    image_size_px=96,
    batch_size=2,
    epochs=None,
    steps=12_000,
)

cut = replace(
    fast,
    summary="One direction, from a to b: one generator, and content kept by contrast of features instead of a cycle.",
    why={
        "objective": "the paper's contrast: 5 inner maps, 256 positions of each, temperature 0.07; no replay buffer, as there",
        "generator": "that of `fast`; the one network serves as translator and as the encoder that is contrasted",
        "discriminator": "two scales: the finer has instance norm and learns texture soon, the coarser sees colour",
        "weights": "the paper's 1, 1 and 1; what is b already is to keep its content too, which holds the generator back",
        "optimizers": "the paper's code: betas 0.5 and 0.999",
        "learning_rate": "constant for 60% of the training, then down",
        "ema_decay": "steadier pictures than any single step's",
        "image_size_px": "a quarter of the pixels of the reference",
        "precision": "chosen for the machine: bf16 where a product is faster in it",
    },
    objective=Part(name="cut"),
    discriminator=Part(name="patch-multiscale", options={"base_channels": 32, "norm": "mixed"}),
    augmentation=Part(name="jitter-mirror"),
    weights={"adversarial": constant(1.0), "nce": constant(1.0), "identity_nce": constant(1.0)},
    optimizers={"generators": Adam(), "discriminators": Adam()},
    learning_rate=Schedule(start=1.0, end=0.02, begin=0.6),
    image_size_px=128,
    batch_size=4,
    steps=4000,
)

lesson = replace(
    fast,
    summary="For `fruitgan distill`: a small generator imitates a large one's pictures.",
    why={
        "generator": "a view of the whole for half the multiply-adds of the other students",
        "weights": "the teacher's pixels, and their structure beside them; real images join in for the last third, when there "
        "is something to sharpen",
        "augmentation": "crops from pictures half as large again: the teacher's answers cost no labels, so the images may vary",
        "optimizers": "a student learns from targets, which bears a higher rate and more momentum than a game does",
        "learning_rate": "down to 0 within the training, the averaged weights are the result",
        "precision": "chosen for the machine: bf16 where a product is faster in it",
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
    image_size_px=128,
    batch_size=4,
    steps=8000,
)
