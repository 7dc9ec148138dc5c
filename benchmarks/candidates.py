"""`python -m benchmarks.candidates [--full]`: what might make a pass faster, in turns with the plain one.

Prints a Markdown table: how many times as fast, and how far the result is from the plain one's.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import warnings
from collections.abc import Callable, Mapping

import torch
from diffusers import AutoencoderTiny
from torch import Tensor

from benchmarks.models import build_unet, build_vae
from benchmarks.operations import LAYER
from benchmarks.rows import difference
from benchmarks.table import duration
from benchmarks.timing import in_turns, ratio
from sd4match.backbones.unet import features_at, prune


def main() -> None:
    """UNet and VAE."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.candidates", description=__doc__)
    parser.add_argument("--full", action="store_true", help="the whole architecture at 768, not a quarter at 384")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    size = 768 if options.full else 384
    print("| candidate | time | times as fast | results differ by |\n| --- | --- | --- | --- |")
    with torch.no_grad():
        _compare(unets(quarter=not options.full, image_size=size), rounds=options.rounds)
        _compare(encoders(quarter=not options.full, image_size=size), rounds=options.rounds)


def unets(*, quarter: bool, image_size: int) -> dict[str, Callable[[], Tensor]]:
    """Return passes of one image up to the layer; the first is the plain one."""
    plain = build_unet(quarter=quarter).requires_grad_(False).eval()
    prune(plain, [LAYER])
    latents = torch.randn(1, 4, image_size // 8, image_size // 8)
    prompt = torch.randn(1, 77, plain.config.cross_attention_dim)

    def run(unet=plain, kind: torch.dtype = torch.float32) -> Tensor:  # type: ignore[no-untyped-def]
        return features_at(unet, latents.to(kind), 261, prompt.to(kind), [LAYER])[0]

    last = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    fused = copy.deepcopy(plain)
    fused.fuse_qkv_projections()
    half = copy.deepcopy(plain).to(torch.bfloat16)
    both = copy.deepcopy(half).to(memory_format=torch.channels_last)
    blocks = copy.deepcopy(plain)
    for block in (*blocks.down_blocks, blocks.mid_block, *blocks.up_blocks):
        block.compile()
    return {
        "UNet to the layer": run,
        "UNet, channels last": lambda: run(last),
        "UNet, fused QKV": lambda: run(fused),
        "UNet, `torch.compile` of each block": lambda: run(blocks),
        "UNet, bfloat16": lambda: run(half, kind=torch.bfloat16),
        "UNet, bfloat16, channels last": lambda: run(both, kind=torch.bfloat16),
    }


def encoders(*, quarter: bool, image_size: int) -> dict[str, Callable[[], Tensor]]:
    """Return encodings of one photo by the VAE; the first is the plain one."""
    plain = build_vae(quarter=quarter).requires_grad_(False).eval()
    plain.decoder = plain.post_quant_conv = None
    photo = torch.rand(1, 3, image_size, image_size) * 2 - 1
    last = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    half = copy.deepcopy(plain).to(torch.bfloat16)
    tiny = AutoencoderTiny().requires_grad_(False).eval()
    return {
        "VAE, encode": lambda: plain.encode(photo).latent_dist.mean,
        "VAE, channels last": lambda: last.encode(photo).latent_dist.mean,
        "VAE, bfloat16": lambda: half.encode(photo.bfloat16()).latent_dist.mean,
        "AutoencoderTiny (another model: random weights, time alone)": lambda: tiny.encode(photo).latents,
    }


def _compare(contenders: Mapping[str, Callable[[], Tensor]], *, rounds: int) -> None:
    plain = next(iter(contenders))
    expected = contenders[plain]()
    apart = {name: difference(work(), expected) for name, work in contenders.items()}
    times = in_turns(contenders, rounds=rounds)
    for name, found in times.items():
        far = "" if name == plain or "another model" in name else f"{apart[name]:.0e}"
        fast = "" if name == plain else f"{ratio(times[plain], found):.2f}"
        print(f"| {name} | {duration(statistics.median(found))} | {fast} | {far} |", flush=True)


if __name__ == "__main__":
    main()
