"""`python -m benchmarks.accelerator`: Stable Diffusion 2.1's architecture at 768 x 768 on a GPU, with random weights.

Prints Markdown: photos and training steps in a second, peak memory, and the share of the rate that a large product of
matrices reaches on the same device. `--output FILE` writes the same as JSON.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch

from benchmarks.models import write_stable_diffusion_2
from benchmarks.operations import Operations, count
from sd4match.backbones.cached import cached
from sd4match.backbones.config import StableDiffusionConfig
from sd4match.backbones.stable_diffusion import StableDiffusionBackbone
from sd4match.config.sections import TrainingConfig
from sd4match.matching.losses import GaussianCrossEntropyConfig
from sd4match.prompting.learned import SinglePrompt
from sd4match.prompting.pairing import preprocessors
from sd4match.prompting.text import EmptyPrompt
from sd4match.structures.images import ImageBatch, Views
from sd4match.structures.tensors import PromptEmbedding, Sampling
from sd4match.testing import FakePairs
from sd4match.training.accumulation import GradientAccumulator
from sd4match.training.batches import Batches, BatchSplit

_DEVICE = "cuda"
_IMAGE_SIZE = 768
_PHOTOS = 8
_SIDE = 8_192
_ROUNDS = 3

Dtype = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Line:
    """One measurement."""

    what: str
    dtype: str
    rate: float
    """Photos, or training steps, in a second."""
    peak: float
    """GiB that PyTorch's allocator held at most."""
    share: float
    """Of the rate of a product of 8,192 x 8,192 matrices in this dtype."""


def seconds_of(work: Callable[[], object], *, rounds: int = _ROUNDS) -> float:
    """Return the median time of some work on the device, after one call that does not count."""
    times = []
    for _ in range(rounds + 1):
        torch.cuda.synchronize()
        began = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def matrix_rate(dtype: Dtype) -> float:
    """Return the floating-point operations in a second of a product of large matrices with random content."""
    one, other = (torch.randn(_SIDE, _SIDE, device=_DEVICE, dtype=getattr(torch, dtype)) for _ in range(2))
    return 2 * _SIDE**3 / seconds_of(lambda: [one @ other for _ in range(10)]) * 10


class Device:
    """Models on the GPU in one dtype, and the rate of that dtype."""

    def __init__(self, folder: Path, dtype: Dtype, operations: Operations) -> None:
        self.folder, self.dtype, self.operations = folder, dtype, operations
        self.rate = matrix_rate(dtype)

    def backbone(self, **options: object) -> StableDiffusionBackbone:
        """Load the model."""
        config = StableDiffusionConfig(weights=str(self.folder), image_size=_IMAGE_SIZE, dtype=self.dtype, **options)  # type: ignore[arg-type]
        return config.build(device=_DEVICE)

    def features(
        self, backbone: StableDiffusionBackbone, members: int, name: str = "", *, encoded: bool = False
    ) -> Line:
        """Measure the features of eight photos, from pixels or from kept latents on."""
        views = Views.of([backbone.prepare(FakePairs().photo(str(number))) for number in range(_PHOTOS)])
        empty = EmptyPrompt(backbone=backbone)(ImageBatch({}, (None,))).values
        prompt = PromptEmbedding(empty.expand(_PHOTOS, -1, -1))
        sampling = Sampling(261, members)
        with torch.no_grad():
            latents = backbone.encode(views)
            torch.cuda.reset_peak_memory_stats()
            seconds = seconds_of(
                lambda: backbone.extract(latents if encoded else backbone.encode(views), prompt, sampling)
            )
        work = members * self.operations.unet_to_layer + (0 if encoded else self.operations.encode)
        start = "from kept latents" if encoded else "from pixels"
        what = f"features, ensemble {members}, {start}{name}"
        return self._line(what, _PHOTOS / seconds, _PHOTOS * work / seconds)

    def training(self, batch: int, at_once: int) -> Line:
        """Measure one step of Single: `batch` pairs, `at_once` of them at once, from kept latents on."""
        backbone = cached(self.backbone())
        prompt = SinglePrompt(backbone=backbone).to(_DEVICE)
        config = TrainingConfig(batch_size=batch, both_directions=False)
        batches = Batches(FakePairs(points=20), preprocessors(backbone, prompt), seed=0, batch_size=batch)
        accumulator = GradientAccumulator(
            backbone=backbone, prompt=prompt, loss=GaussianCrossEntropyConfig().build(), config=config, batches=batches,
            split=BatchSplit(batch, devices=1, per_device=at_once),
        )  # fmt: skip

        def step() -> None:
            prompt.zero_grad(set_to_none=True)
            accumulator.accumulate(1, 0, reset=lambda: prompt.zero_grad(set_to_none=True))

        step()
        torch.cuda.reset_peak_memory_stats()
        seconds = seconds_of(step)
        work = 2 * batch * (self.operations.unet_to_layer + self.operations.backward)
        how = "" if at_once == batch else f", {at_once} at once"
        return self._line(f"training step of {batch} pairs{how}", 1 / seconds, work / seconds)

    def _line(self, what: str, rate: float, operations: float) -> Line:
        peak = torch.cuda.max_memory_allocated() / 2**30
        return Line(what, self.dtype, rate, peak, operations / self.rate)


def lines(device: Device, *, compiled: bool) -> Iterator[Line]:
    """Measure everything in one dtype."""
    backbone = device.backbone()
    for members in (1, 8):
        yield device.features(backbone, members)
        yield device.features(backbone, members, encoded=True)
    del backbone
    for batch, at_once in ((3, 3), (9, 9), (9, 3)):
        gc.collect()
        torch.cuda.empty_cache()
        try:
            yield device.training(batch, at_once)
        except torch.OutOfMemoryError:
            print(f"<!-- {batch} pairs, {at_once} at once: out of memory in {device.dtype} -->", flush=True)
    for at_once in (1, 2, 4, 16, 32):
        backbone = device.backbone(passes_at_once=at_once)
        yield device.features(backbone, 8, f", {at_once} passes at once", encoded=True)
        del backbone
    yield device.features(device.backbone(channels_last=True), 8, ", channels last", encoded=True)
    if compiled:
        backbone = device.backbone()
        for block in (*backbone.unet.down_blocks, backbone.unet.mid_block, *backbone.unet.up_blocks[:2]):
            block.compile()
        yield device.features(backbone, 8, ", `torch.compile` of each block", encoded=True)


def main() -> None:
    """Measure on the first GPU."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accelerator", description=__doc__)
    parser.add_argument("--weights", type=Path, help="folder to which the random weights are written, and kept")
    parser.add_argument("--output", type=Path, help="file of the measurements, JSON")
    parser.add_argument("--write-only", action="store_true", help="write the weights and stop")
    parser.add_argument("--dtypes", default="bfloat16,float32")
    parser.add_argument("--without-compile", action="store_true")
    options = parser.parse_args()
    if options.output and options.output.exists():
        parser.error(f"{options.output} exists: give another --output")
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.weights or Path(temporary)
        if not (folder / "model_index.json").exists():
            write_stable_diffusion_2(folder)
        if options.write_only:
            return
        operations = count(quarter=False, image_size=_IMAGE_SIZE)
        name = torch.cuda.get_device_name()
        print(f"{name}, PyTorch {torch.__version__}\n", flush=True)
        print("| what | dtype | a second | peak memory | share of the matrix rate |\n| --- | --- | --- | --- | --- |")
        found, rates = [], {}
        for dtype in options.dtypes.split(","):
            device = Device(folder, dtype, operations)
            rates[dtype] = device.rate
            print(f"<!-- product of matrices in {dtype}: {device.rate / 1e12:.0f} TFLOP/s -->", flush=True)
            for line in lines(device, compiled=dtype == "bfloat16" and not options.without_compile):
                found.append(line)
                print(
                    f"| {line.what} | {line.dtype} | {line.rate:.2f} | {line.peak:.1f} GiB | {line.share:.0%} |",
                    flush=True,
                )
                if options.output:
                    record = {"device": name, "rates": rates, "lines": [asdict(one) for one in found]}
                    options.output.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
