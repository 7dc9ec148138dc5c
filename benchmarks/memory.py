"""Peak memory of one training step against what a device takes at once; each measurement in a process of its own.

What stands before the step, weights, libraries and the encoding of photos, is in the peak. Latents are cached, as in a
training.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

from benchmarks.table import Row, duration


def step(weights: str, image_size: int, at_once: int, *, checkpointing: bool, precision: str) -> dict[str, float]:
    """One step in this process: MiB at its peak and before the step, and seconds."""
    import torch

    from sd4match.backbones.cached import cached
    from sd4match.config import build_components, build_dataset, load_preset
    from sd4match.prompting.pairing import preprocessors
    from sd4match.training.accumulation import GradientAccumulator
    from sd4match.training.batches import Batches, BatchSplit, MicroBatch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = load_preset(
        "single",
        [
            f"backbone.weights={weights}",
            "data=synthetic",
            f"backbone.image_size={image_size}",
            f"backbone.gradient_checkpointing={checkpointing}",
            f"training.batch_size={at_once}",
            f"training.mixed_precision={precision!r}",
            "training.both_directions=false",
        ],
    )
    components = build_components(config, device=device)
    backbone = cached(components.backbone)
    prepare = preprocessors(backbone, components.prompt)
    batches = Batches(build_dataset(config, "train"), prepare, seed=0, batch_size=at_once)
    accumulator = GradientAccumulator(
        backbone=backbone, prompt=components.prompt, loss=components.loss, config=config.training, batches=batches,
        split=BatchSplit(at_once, devices=1, per_device=at_once), precision=precision,
    )  # fmt: skip
    pairs = batches.load(MicroBatch(1, range(at_once)))
    for side in (pairs.source, pairs.target):
        backbone.encode(side.views["backbone"])
    encoded = peak(device)
    started = time.perf_counter()
    accumulator.accumulate(1, 0, reset=lambda: None)
    seconds = time.perf_counter() - started
    return {"peak": peak(device), "before": encoded, "seconds": seconds}


def peak(device: str) -> float:
    """MiB of this process so far, on its device."""
    import torch

    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status").read_text()  # getrusage would tell the parent's peak too
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 2**10


def rows(weights: str, image_size: int, at_once: Sequence[int], *, precision: str = "no") -> Iterator[Row]:
    """With and without gradient checkpointing; each in a process of its own."""
    with tempfile.TemporaryDirectory() as cache:
        for count, checkpointing in product(at_once, (False, True)):
            one = [weights, str(image_size), str(count), str(checkpointing), precision]
            command = [sys.executable, "-m", "benchmarks.memory", *one]
            run = subprocess.run(
                command, check=True, capture_output=True, text=True, env={**os.environ, "SD4MATCH_CACHE": cache}
            )
            found = json.loads(run.stdout.splitlines()[-1])
            pairs = "a pair" if count == 1 else f"{count} pairs at once"
            how = "with gradient checkpointing" if checkpointing else "plain"
            yield Row(
                f"peak memory, training, {pairs}, {how}", f"{found['peak']:,.0f} MiB", "", None, None, "", None,
                f"Before the step {found['before']:,.0f} MiB; the step took {duration(found['seconds'])}.",
            )  # fmt: skip


if __name__ == "__main__":
    name, size, at_once, checkpointing, precision = sys.argv[1:]
    print(json.dumps(step(name, int(size), int(at_once), checkpointing=checkpointing == "True", precision=precision)))
