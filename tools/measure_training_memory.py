"""Peak memory of one training step against what a device takes at once; each row in a process of its own.

    python tools/measure_training_memory.py --weights FOLDER --at-once 1 2 3

Prints a Markdown table: the process's peak (resident, or on the GPU if there is one), and seconds for a step. What
stands before the step, weights, libraries and the encoding of photos, is in the peak. Latents are kept, as in a
training.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time

ROW = ("pairs at once", "gradient checkpointing", "precision", "peak memory", "before the step", "seconds a step")


def step(weights: str, at_once: int, *, checkpointing: bool, precision: str) -> None:
    """One step, measured, as a row of the table."""
    import torch

    from sd4match.backbones.cached import cached
    from sd4match.config import build, build_dataset, load_preset
    from sd4match.prompting.pairing import wanted_views
    from sd4match.training.batches import Batches, BatchPlan
    from sd4match.training.gradient import Gradient

    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = load_preset(
        "single",
        [
            f"backbone.weights={weights}",
            f"backbone.gradient_checkpointing={checkpointing}",
            f"training.batch_size={at_once}",
            f"training.mixed_precision={precision!r}",
            "training.both_directions=false",
        ],
    )
    parts = build(config, device=device)
    backbone, settings = cached(parts.backbone), config.training
    views = wanted_views(backbone, parts.prompt)
    batches = Batches(build_dataset(config, "train"), views, seed=0, batch_size=at_once)
    gradient = Gradient(
        backbone=backbone, prompt=parts.prompt, loss=parts.loss, settings=settings, batches=batches,
        plan=BatchPlan(at_once, devices=1, per_device=at_once), precision=precision,
    )  # fmt: skip
    pairs = batches.pairs((1, range(at_once)))
    for side in (pairs.source, pairs.target):
        backbone.encode(side.views["backbone"])
    encoded = peak(device)
    started = time.perf_counter()
    gradient.accumulate(1, 0, begin=lambda: None)
    seconds = time.perf_counter() - started
    cells = (at_once, "yes" if checkpointing else "no", precision, peak(device), encoded, f"{seconds:.1f}")
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def peak(device: str) -> str:
    """Of this process so far, on its device."""
    import torch

    if device == "cuda":
        return f"{torch.cuda.max_memory_allocated() / 2**20:,.0f} MiB"
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:,.0f} MiB"


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="mini", help="a name or a diffusers folder")
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--precision", nargs="+", default=["no"], choices=["no", "bf16"])
    parser.add_argument("--checkpointing", nargs="+", default=["no", "yes"], choices=["no", "yes"])
    parser.add_argument("--row", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        at_once, checkpointing, precision = options.row
        step(options.weights, int(at_once), checkpointing=checkpointing == "yes", precision=precision)
        return
    print("| " + " | ".join(ROW) + " |\n|" + " --- |" * len(ROW), flush=True)
    with tempfile.TemporaryDirectory() as cache:
        for precision in options.precision:
            for checkpointing in options.checkpointing:
                for at_once in options.at_once:
                    row = [str(at_once), checkpointing, precision]
                    command = [sys.executable, __file__, "--weights", options.weights, "--row", *row]
                    subprocess.run(command, check=True, env={**os.environ, "SD4MATCH_CACHE": cache})


if __name__ == "__main__":
    main()
