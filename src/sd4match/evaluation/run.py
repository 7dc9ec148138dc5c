"""Several prompts on one data set, under one set of settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from sd4match.backbones.cached import cached
from sd4match.config import Components, ExperimentConfig
from sd4match.evaluation.evaluator import Evaluator
from sd4match.evaluation.report import comparison
from sd4match.evaluation.scores import PairScores, compare
from sd4match.measurement import measurement
from sd4match.protocols import PairDataset, PromptProvider


def evaluate_prompts(
    config: ExperimentConfig,
    parts: Components,
    data: PairDataset,
    prompts: Mapping[str, PromptProvider],
    *,
    limit: int | None = None,
    progress: Callable[[str, int], None] = lambda name, pairs: None,
) -> dict[str, PairScores]:
    """Measure each prompt with the config's evaluation settings.

    Args:
        config: of which only `evaluation` is read.
        parts: backbone and matcher.
        data: pairs.
        prompts: by the name that the answer gives them.
        limit: only the first so many pairs.
        progress: called with a prompt's name and the number of pairs just done.
    """
    options = config.evaluation
    evaluator = Evaluator(
        backbone=cached(parts.backbone),
        matcher=parts.matcher,
        measurement=measurement(options.measurement),
        sampling=options.sampling.sampling(options.seed),
        batch_size=options.batch_size,
    )
    return {
        name: evaluator.evaluate(data, prompt, limit=limit, progress=partial(progress, name))
        for name, prompt in prompts.items()
    }


def compare_prompts(config: ExperimentConfig, scores: Mapping[str, PairScores], a: str, b: str) -> dict[str, object]:
    """A report's row of a - b: per-image PCK@0.1, paired over pairs."""
    options = config.evaluation
    outcome = compare(
        scores[a], scores[b], average="image", alpha=0.1, samples=options.bootstrap_samples, seed=options.seed
    )
    return comparison(a, b, outcome, metric="image PCK@0.1")
