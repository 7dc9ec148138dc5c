"""`python -m benchmarks.half_precision`: what half precision changes on `mini`, against float32.

Of the model, of cached latents, and of stored feature maps. The first two compare the best cells of visible points of
validation pairs, and features; the last one compares verdicts at alpha 0.1 on the test pairs.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from rich.progress import track

from sd4match import SemanticMatcher
from sd4match.config import CacheConfig, build_components, load_preset
from sd4match.config.experiment import build_dataset
from sd4match.evaluation.run import evaluate_prompts

HALVES = ("float16", "bfloat16")


def cells_and_features(overrides: list[str], cache: CacheConfig | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the best cells (N, 2) of all visible points of the validation pairs, and the features of their sources."""
    config = load_preset("text", overrides)
    components = build_components(config, cache=None if cache is None else cache.open())
    matcher = SemanticMatcher.from_components(components, config)
    data = build_dataset(config, "validation")
    cells, features = [], []
    for record in track(list(data), description=" ".join(overrides) or "float32"):
        photos = [data.photo(name) for name in (record.source_id, record.target_id)]
        source, target = (matcher.extract(photo, category=record.category) for photo in photos)
        with torch.no_grad():
            cells.append(matcher.correlate(source, target, record.source_points[record.visible]).peak[0])
        features.append(source.map.values.flatten())
    return torch.cat(cells), torch.stack(features)


def compare(name: str, found: tuple[torch.Tensor, torch.Tensor], exact: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Print the share of equal cells, of neighbors, and the relative change of features."""
    distance = (found[0] - exact[0]).abs().amax(dim=1)
    change = (found[1] - exact[1]).norm(dim=1) / exact[1].norm(dim=1)
    equal, near = (float((distance <= limit).double().mean()) for limit in (0, 1))
    print(
        f"{name}: of {len(distance)} matches {int((distance == 0).sum())} ({equal:.1%}) have the same cell, "
        f"{near:.1%} it or a neighbor; features change by {float(change.mean()):.3%}"
    )


def compare_maps(prompt_file: Path | None) -> None:
    """Print how many verdicts at alpha 0.1 change with the precision of stored maps."""
    for kind in ("text",) if prompt_file is None else ("text", "single"):
        exact = None
        for dtype in ("float32", *HALVES):
            config = load_preset(kind, [f"evaluation.map_dtype={dtype}"])
            components = build_components(config, prompt_file=prompt_file if kind == "single" else None)
            data = build_dataset(config, "test")
            (result,) = evaluate_prompts(config, components, data, {kind: components.prompt})
            column = result.scores.alphas.index(0.1)
            correct = result.scores.correct[:, column]
            exact = correct if exact is None else exact
            changed, pck = int(abs(correct - exact).sum()), 100 * result.scores.pck("image")["0.1"]
            print(f"maps in {dtype}, {kind}: PCK@0.1 {pck:.2f}, {changed} or more verdicts of {len(data)} pairs change")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.half_precision", description=__doc__)
    parser.add_argument("--prompt", type=Path, help="file of a Single prompt of mini, for stored maps")
    options = parser.parse_args()
    exact = cells_and_features([])
    for dtype in HALVES:
        compare(f"model in {dtype}", cells_and_features([f"backbone.dtype={dtype}"]), exact)
        with tempfile.TemporaryDirectory() as folder:
            compare(f"latents in {dtype}", cells_and_features([], CacheConfig(folder=folder, dtype=dtype)), exact)
    compare_maps(options.prompt)


if __name__ == "__main__":
    main()
