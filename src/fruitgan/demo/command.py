"""`fruitgan demo`: the whole loop on drawn fruit, in minutes, without a network."""

from __future__ import annotations

from pathlib import Path

from fruitgan.console import Console, options


def demo(
    out: Path = options.option("--out DIR", "A new folder for everything.", default=Path("fruitgan-demo")),
    quick: bool = options.option("--quick", "Under a minute: shows that it runs, not what it can do.", default=False),
    seed: options.Seed = None,
    gpu: options.Gpu = None,
    device: options.Device = None,
    quiet: options.Quiet = False,
    json: options.Json = False,
    config: options.Config = None,
) -> None:
    """Run the whole loop on fruit drawn on the spot: train, translate, export, detect, evaluate, report.

    Example: fruitgan demo --quick
    """
    from fruitgan.demo import job

    settings = options.settings_of(job.DemoSettings, locals())
    console = Console(json=json, quiet=quiet)
    result = console.run(job.demo, settings, f"stopped; {out} is not complete: remove it, or give another --out", unit="")
    r = "{:.2f} ({:.2f} to {:.2f})".format(result.r, *result.r_interval)
    accuracy = "{:.1%} ({:.1%} to {:.1%})".format(result.detector_accuracy, *result.detector_interval)
    console.table(
        "",
        ("what", "how much (95% interval)", "what it says"),
        [
            ("R", r, "of colour and texture alone; 0: as good as oranges, 1: no nearer to them than the apples"),
            ("detector", accuracy, "of images classified correctly; 50% would be guessing"),
        ],
    )
    console.out(f"{result.report}: the whole story, in {result.seconds:.0f} s")
