"""`python -m benchmarks.ensembles`: how near few passes come to the mean of many, and the PCK that they reach.

Measures on `mini`, with text, Single and CPM prompts, and on a quarter-width Stable Diffusion 2.1 with random weights.
The learned prompts are trained first. Each result is one line of a file; a stopped run goes on there.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from rich.progress import track
from torch import Tensor

from benchmarks.models import write_stable_diffusion_2
from sd4match.backbones import Backbone, EvaluationNoise, NoiseEnsemble, Sampling, StableDiffusionConfig
from sd4match.config import build_components, load_preset
from sd4match.data import PairDataset, SyntheticConfig
from sd4match.data.collate import make_pairs
from sd4match.evaluation import Evaluator
from sd4match.evaluation.scores import PairScores, compare
from sd4match.prompting import Prompt
from sd4match.prompting.pairing import pair_prompts, preprocessors
from sd4match.registry import register
from sd4match.structures.tensors import PromptEmbedding
from sd4match.training import train

TIMESTEPS = (40, 50, 100, 261)
SEEDS = (0, 1, 2)
SIZES = {"independent": (1, 2, 4, 8), "antithetic": (2, 3, 4, 8), "matched": (2, 3, 4, 8)}
PUBLISHED = ("independent", 8)
COMPARED = {
    timestep: [("independent", 1), ("antithetic", 2), ("matched", 2), *([("matched", 3)] if timestep > 200 else [])]
    for timestep in TIMESTEPS
}
REFERENCE = 256
PROMPTS = ("text", "single", "cpm")
TRAININGS = {
    "independent 1": (),
    "clean pass": ("training.sampling.ensemble=noiseless",),
    "antithetic 2, half the steps": (
        "training.sampling.ensemble=antithetic", "training.sampling.ensemble_size=2", "training.steps=50",
    ),
    "antithetic 2, half the pairs": (
        "training.sampling.ensemble=antithetic", "training.sampling.ensemble_size=2", "training.batch_size=2",
    ),
}  # fmt: skip
"""Overrides of trainings of as many passes of the UNet."""


@register
class NoNoise(NoiseEnsemble):
    """The clean pass: z_t without noise."""

    kind: Literal["noiseless"] = "noiseless"

    def noises(self, draw: Callable[[int], Tensor], size: int, members: Sequence[int]) -> Tensor:
        """Return zeros."""
        return torch.zeros_like(torch.stack([draw(member) for member in members]))


class Results:
    """Results by key, each a line of JSON in a file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        lines = file.read_text().splitlines() if file.exists() else []
        self.known: dict[str, Any] = dict(json.loads(line) for line in lines)

    def add(self, key: str, value: object) -> None:
        """Append a result."""
        self.known[key] = value
        with self.file.open("a") as stream:
            stream.write(json.dumps([key, value]) + "\n")


def learned(kind: str, output: Path, device: str, overrides: Sequence[str] = ()) -> Path:
    """Return the file of a prompt of mini, which is trained if it is not there."""
    if not (output / "report.json").exists():
        config = load_preset(kind, overrides)
        train(config, build_components(config, device=device), output, resume=(output / "checkpoints").exists())
    return output / "prompt.safetensors"


def mini_prompt(kind: str, folder: Path, device: str) -> tuple[Backbone, Prompt]:
    """Return mini and a prompt."""
    components = build_components(
        load_preset(kind), prompt_file=None if kind == "text" else learned(kind, folder / kind, device), device=device
    )
    return components.backbone, components.prompt.eval()


def embeddings(backbone: Backbone, prompt: Prompt, data: PairDataset, count: int) -> tuple[Any, PromptEmbedding]:
    """Return encoded photos and their embeddings: the sources of pairs from all over the data set."""
    step = max(1, len(data) // count)
    pairs = make_pairs([data[step * index] for index in range(count)], data, preprocessors(backbone, prompt))
    with torch.no_grad():
        own, _ = pair_prompts(prompt, pairs.source, pairs.target)
        return backbone.encode(pairs.source.views["backbone"]), PromptEmbedding(own.values.expand(count, -1, -1))


@torch.no_grad()
def errors(backbone: Backbone, encoded: Any, prompt: PromptEmbedding, timestep: int) -> Iterator[tuple[str, float]]:
    """Yield, for each ensemble, the relative error of the averaged map against the mean of many passes.

    The mean is that of 128 antithetic pairs, whose noises are standard normal as the published ones are.
    """

    def features(kind: str, size: int, seed: int) -> torch.Tensor:
        maps = backbone.extract(encoded, prompt, Sampling(timestep, size, EvaluationNoise(seed), "image", kind))
        return maps.values.flatten(1)

    parts = [features("antithetic", REFERENCE // 8, 1000 + part) for part in range(8)]
    mean = torch.stack(parts).mean(dim=0)
    halves = (torch.stack(parts[:4]).mean(dim=0) - torch.stack(parts[4:]).mean(dim=0)).norm(dim=1) / mean.norm(dim=1)
    yield "reference", float(halves.mean()) / 2
    for kind, sizes in SIZES.items():
        for size in sizes:
            found = [(features(kind, size, seed) - mean).norm(dim=1) / mean.norm(dim=1) for seed in SEEDS]
            yield f"{kind} {size}", float(torch.stack(found).mean())


def pooled(scores: list[PairScores]) -> PairScores:
    """Return the counts of all seeds together, by pair."""
    first = scores[0]
    return replace(first, visible=sum(one.visible for one in scores), correct=sum(one.correct for one in scores))  # type: ignore[arg-type]


def pck(backbone: Backbone, prompt: Prompt, kind: str, data: PairDataset, timestep: int) -> Iterator[tuple[str, Any]]:
    """Yield PCK@0.1 per image of the published ensemble over three seeds, and the difference of others to it."""
    config = load_preset(kind)

    def counts(ensemble: str, size: int) -> PairScores:
        found = []
        for seed in SEEDS:
            sampling = Sampling(timestep, size, EvaluationNoise(seed), "image", ensemble)
            evaluator = Evaluator(
                backbone=backbone, protocol=config.evaluation.protocol, matchers={"it": config.matcher},
                sampling=sampling, batch_size=16,
            )  # fmt: skip
            scores = evaluator.evaluate(data, prompt)
            assert scores is not None
            found.append(scores["it"])
        return pooled(found)

    published = counts(*PUBLISHED)
    yield "independent 8", {"pck": published.pck("image")["0.1"]}
    for ensemble, size in COMPARED[timestep]:
        difference = compare(counts(ensemble, size), published, average="image", alpha=0.1, samples=2000, seed=0)
        yield f"{ensemble} {size}", {"difference": difference.difference, "ci95": list(difference.ci95)}


def trainings(data: PairDataset, folder: Path, device: str) -> Iterator[tuple[str, Any]]:
    """Yield PCK@0.1 of Single prompts that were learned with other noises, over three seeds, against the published one.

    The prompts are evaluated as mini's preset is.
    """
    found: dict[str, PairScores] = {}
    for name, overrides in TRAININGS.items():
        scores = []
        for seed in SEEDS:
            output = folder / "trainings" / f"{name.replace(' ', '-').replace(',', '')}-{seed}"
            config = load_preset("single")
            prompt = learned("single", output, device, [*overrides, f"training.seed={seed}"])
            components = build_components(config, prompt_file=prompt, device=device)
            evaluator = Evaluator(
                backbone=components.backbone, protocol=config.evaluation.protocol, matchers={"it": config.matcher},
                sampling=config.evaluation.sampling.sampling(),
            )  # fmt: skip
            scores.append(evaluator.evaluate(data, components.prompt.eval())["it"])
        found[name] = pooled(scores)
        yield name, {"pck": [one.pck("image")["0.1"] for one in scores]}
        if name != "independent 1":
            difference = compare(found[name], found["independent 1"], average="image", alpha=0.1, samples=2000, seed=0)
            yield f"{name} difference", {"difference": difference.difference, "ci95": list(difference.ci95)}


def measure(
    folder: Path,
    *,
    photos: int,
    pairs: int,
    parts: Sequence[str],
    prompts: Sequence[str],
    timesteps: Sequence[int],
    device: str,
) -> Mapping[str, Any]:
    """Measure what is not in the file of results yet."""
    results = Results(folder / "ensembles.jsonl")
    data = SyntheticConfig(split="test", pairs=pairs).build()

    def run(name: str, what: Iterator[tuple[str, Any]]) -> None:
        if f"{name} done" not in results.known:
            found = dict(track(what, description=name))
            for key, value in found.items():
                results.add(f"{name} {key}", value)
            results.add(f"{name} done", True)

    for kind in prompts if {"error", "pck"} & set(parts) else ():
        backbone, prompt = mini_prompt(kind, folder, device)
        encoded, embedding = embeddings(backbone, prompt, data, photos)
        for timestep in timesteps:
            if "error" in parts:
                run(f"mini {kind} t{timestep} error", errors(backbone, encoded, embedding, timestep))
            if "pck" in parts:
                run(f"mini {kind} t{timestep} pck", pck(backbone, prompt, kind, data, timestep))
    if "training" in parts:
        run("mini single training", trainings(data, folder, device))
    if "layers" in parts:
        for layer in (0, 1, 2):
            backbone = StableDiffusionConfig(weights="mini", layers=layer).build(device=device)
            _, prompt = mini_prompt("text", folder, device)
            encoded, embedding = embeddings(backbone, prompt, data, photos)
            for timestep in timesteps:
                run(f"mini layer {layer} t{timestep} error", errors(backbone, encoded, embedding, timestep))
    if "sd2-1" in parts:
        with tempfile.TemporaryDirectory() as temporary:
            weights = write_stable_diffusion_2(Path(temporary) / "model", quarter=True)
            backbone = StableDiffusionConfig(weights=str(weights), image_size=384).build(device=device)
            prompt = load_preset("empty").prompt.build(backbone=backbone)
            encoded, embedding = embeddings(backbone, prompt, data, 4)
            for timestep in timesteps:
                run(f"sd2-1 quarter t{timestep} error", errors(backbone, encoded, embedding, timestep))
    return results.known


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ensembles", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("ensembles"), help="folder of results and learned prompts")
    parser.add_argument("--photos", type=int, default=16, help="whose features are compared")
    parser.add_argument("--pairs", type=int, default=480, help="held-out pairs of which PCK is counted")
    parser.add_argument("--parts", nargs="+", default=["error", "layers", "sd2-1", "pck", "training"])
    parser.add_argument("--prompts", nargs="+", default=PROMPTS, help="of the parts error and pck")
    parser.add_argument("--timesteps", nargs="+", type=int, default=TIMESTEPS)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    found = measure(
        options.output, photos=options.photos, pairs=options.pairs, parts=options.parts, prompts=options.prompts,
        timesteps=options.timesteps, device=options.device,
    )  # fmt: skip
    for key, value in found.items():
        print(key, value)


if __name__ == "__main__":
    main()
