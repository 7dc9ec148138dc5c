"""Measure a model of `train_mini.py` on synthetic pairs: empty, text and part words, and a learned Single prompt.

    python tools/measure_mini.py runs/mini/model --split validation --output figures.json

PCK@0.1 per image; each layer and timestep is measured without learning, and the first of both with it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch

from sd4match.backbones import StableDiffusionConfig
from sd4match.cli.demo import hand_written_prompts
from sd4match.config import build_components, load_preset
from sd4match.config.experiment import ExperimentConfig, build_dataset
from sd4match.evaluation.run import evaluate_prompts
from sd4match.training import train


def figures(
    model: str, *, split: str, layers: list[int], timesteps: list[int], seeds: list[int], steps: int, device: str
) -> dict[str, float]:
    """Measure a model folder, or the packaged model for "mini".

    Returns:
        PCK@0.1 per image by layer, timestep and prompt.
    """
    found: dict[str, float] = {}
    for layer in layers:
        backbone = StableDiffusionConfig(weights=model, layers=layer).build(device=device)
        for timestep in timesteps:
            config = _config(layer, timestep, [])
            components = build_components(config, backbone=backbone, device=device)
            prompts = hand_written_prompts(backbone)
            for result in evaluate_prompts(config, components, build_dataset(config, split), prompts):
                found[f"layer {layer}, t {timestep}, {result.prompt}"] = 100 * result.scores.pck("image")["0.1"]
    backbone = StableDiffusionConfig(weights=model, layers=layers[0]).build(device=device)
    for seed in seeds:
        config = _config(layers[0], timesteps[0], [f"seed={seed}", f"training.steps={steps}"])
        components = build_components(config, backbone=backbone, device=device)
        with tempfile.TemporaryDirectory() as folder:
            train(config, components, Path(folder) / "run")
        (result,) = evaluate_prompts(config, components, build_dataset(config, split), {"single": components.prompt})
        found[f"layer {layers[0]}, t {timesteps[0]}, single {seed}"] = 100 * result.scores.pck("image")["0.1"]
    return found


def _config(layer: int, timestep: int, overrides: list[str]) -> ExperimentConfig:
    """Return the experiment of a Single prompt on the packaged model, whose settings are used for every model."""
    noise = [f"{section}.sampling.timestep={timestep}" for section in ("training", "evaluation")]
    return load_preset("single", [f"backbone.layers={layer}", *noise, *overrides])


def main() -> None:
    """Measure what the command line describes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help='model folder, or "mini" for the packaged model')
    parser.add_argument("--output", type=Path, required=True, help="file of the figures, JSON")
    parser.add_argument("--split", default="validation", choices=("validation", "test"))
    parser.add_argument("--layers", default="1", help="up-blocks")
    parser.add_argument("--timesteps", default="40")
    parser.add_argument("--seeds", default="0", help="of learned Single prompts; empty for none")
    parser.add_argument("--steps", type=int, default=100, help="of each learned prompt")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    if options.output.exists():
        parser.error(f"{options.output} exists: give another --output")
    lists = {
        name: [int(part) for part in getattr(options, name).split(",") if part]
        for name in ("layers", "timesteps", "seeds")
    }
    started = time.perf_counter()
    found = figures(options.model, split=options.split, steps=options.steps, device=options.device, **lists)
    text = {"model": options.model, "split": options.split, "steps": options.steps, "device": options.device}
    record = text | {"seconds": round(time.perf_counter() - started), "pck@0.1": found}
    options.output.write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record))


if __name__ == "__main__":
    main()
