"""Evaluation of an experiment: prompts and baselines on one data set, and comparisons of their counts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sd4match import registry
from sd4match.arguments import check_arguments
from sd4match.backbones.cached import cached
from sd4match.checks import LARGEST_SEED, check_count
from sd4match.config.experiment import Components, ExperimentConfig, build_dataset
from sd4match.config.sections import parse_size
from sd4match.data.checked import check_dataset
from sd4match.data.config import Split
from sd4match.data.subset import first, of_categories
from sd4match.errors import InputError
from sd4match.evaluation.baselines import BASELINES, check_baselines
from sd4match.evaluation.counting import Predictions, Progress, batches_of_process, count_pairs, no_progress
from sd4match.evaluation.evaluator import Evaluator
from sd4match.evaluation.report import Comparison, Report, Row, backbone_entry, make_report, make_row, read_report
from sd4match.evaluation.scores import PairScores, check_samples, compare
from sd4match.interfaces import PairDataset, Prompt
from sd4match.pipeline import build_for_matching
from sd4match.prompting.serialization import load_prompt
from sd4match.structures.pairs import PairRecord

PromptProgress = Callable[[str, str, int, int], None]
"""Called with the name of a prompt, followed by the arguments of `counting.Progress`."""
Tell = Callable[[str], None]
"""Called with lines that a command prints."""


def _no_prompt_progress(name: str, what: str, done: int, total: int) -> None:
    """Do nothing."""


def _tell_nothing(line: str) -> None:
    """Do nothing."""


@dataclass(frozen=True, eq=False)
class PromptScores:
    """Counts of one prompt under one matcher. Compared by identity, since it holds arrays."""

    prompt: str
    matcher: str
    scores: PairScores

    def label(self, default_matcher: str) -> str:
        """Return the prompt's name, followed by the matcher if it is not the experiment's."""
        return self.prompt if self.matcher == default_matcher else f"{self.prompt} + {self.matcher}"


@check_arguments
def evaluate(
    config: ExperimentConfig,
    *,
    split: Split = "test",
    prompt: str | Path | None = None,
    prompt_changes: Mapping[str, Any] | None = None,
    against: str | Path | None = None,
    baselines: Sequence[str] = (),
    only_baselines: bool = False,
    maps: str | Path | None = None,
    scratch: str | Path | None = None,
    device: str | torch.device = "cpu",
    progress: PromptProgress = _no_prompt_progress,
    tell: Tell = _tell_nothing,
) -> Report:
    """Evaluate an experiment: its prompt, another prompt beside it, and baselines, on the same pairs.

    All processes must call it; each returns the whole report.

    Args:
        config: the experiment.
        split: split of its data set.
        prompt: file of a learned prompt, instead of the config's prompt.
        prompt_changes: changes to the config of that file; see `load_prompt`.
        against: "empty", "text" or the file of another prompt, which is evaluated too.
        baselines: names of baselines that are evaluated too; see `BASELINES`.
        only_baselines: evaluate the baselines alone, without building a model.
        maps: folder in which feature maps are kept; see `Evaluator`.
        scratch: folder in which a temporary folder of maps is made; see `Evaluator`.
        device: of all computations, for example "cpu" or "cuda".
        progress: called after each batch.
        tell: called with lines about the run, for example the memory that feature maps may take.

    Returns:
        The report: one row per prompt and matcher, then the baselines, all compared with the first row.

    Raises:
        ConfigError: components that do not fit together, or a learned prompt without its file.
        InputError: an unknown category, a missing file, or no pair with a visible point.
        DatasetError, PhotoError: an annotation or a photo cannot be read, and `evaluation.skip_bad` is off.
    """
    started = time.perf_counter()
    check_samples(config.evaluation.bootstrap_samples)
    check_baselines(baselines)
    if only_baselines and not baselines:
        raise InputError("only_baselines needs the names of baselines: without one there is nothing to evaluate")
    data = chosen_pairs(config, build_dataset(config, split))
    check_dataset(data)
    config = config.with_learned(prompt)
    components: Components | None = None
    rows: list[Row] = []
    if not only_baselines:
        components = build_for_matching(
            config, prompt=prompt, prompt_changes=prompt_changes, device=device, cache=config.cache.open()
        )
        prompts = _named_prompts(config, components, prompt, against)
        evaluated = evaluate_prompts(
            config, components, data, prompts, maps=maps, scratch=scratch, progress=progress, tell=tell
        )
        rows += [
            make_row(found.label(config.matcher.kind), found.scores, config, matcher=found.matcher)
            for found in evaluated
        ]
    counts = evaluate_baselines(config, data, baselines, progress=partial(progress, "baselines"))
    names = {row.prompt for row in rows}
    rows += [
        make_row(f"{name} (baseline)" if name in names else name, scores, config, matcher="none")
        for name, scores in counts.items()
    ]
    scores = {row.prompt: row.scores for row in rows}
    return make_report(
        config=config,
        data=data,
        results=rows,
        comparisons=[compare_prompts(config, scores, rows[0].prompt, other.prompt) for other in rows[1:]],
        backbone=None if components is None else backbone_entry(config, components.backbone),
        wall_seconds=time.perf_counter() - started,
        extra={"split": split, "prompt_file": str(prompt) if prompt else None, **_given(prompt_changes, against)},
    )


def _given(prompt_changes: Mapping[str, Any] | None, against: str | Path | None) -> dict[str, Any]:
    """Return what a report says of the prompts besides the file of the first one."""
    changes = {"prompt_changes": dict(prompt_changes)} if prompt_changes else {}
    return {**changes, **({"against": str(against)} if against is not None else {})}


def against_name(against: str | Path, own: str) -> str:
    """Return the name of the row of the prompt that stands beside the experiment's own prompt."""
    name = Path(against).stem
    return name if name != own else f"{name} (against)"


def _named_prompts(
    config: ExperimentConfig, components: Components, file: str | Path | None, against: str | Path | None
) -> dict[str, Prompt]:
    """Return the prompts to evaluate, by the names of their rows."""
    backbone = components.backbone
    prompts = {Path(file).stem if file else config.prompt.kind: components.prompt}
    if against is not None:
        if against in ("empty", "text"):
            other = registry.prompts.parse(against).build(backbone=backbone)
        else:
            other = load_prompt(against, backbone=backbone)
        prompts[against_name(against, *prompts)] = other
    return prompts


def named_matchers(config: ExperimentConfig) -> dict[str, registry.Component]:
    """Return the experiment's matcher and those that are evaluated beside it, by their names in reports."""
    named: dict[str, registry.Component] = {config.matcher.kind: config.matcher}
    for number, matcher in enumerate(config.evaluation.matchers, start=2):
        named[matcher.kind if matcher.kind not in named else f"{matcher.kind} {number}"] = matcher
    return named


def chosen_pairs(config: ExperimentConfig, data: PairDataset) -> PairDataset:
    """Return the pairs that the evaluation section of a config asks for.

    Raises:
        InputError: it asks for a category that the data set does not have.
    """
    return first(of_categories(data, config.evaluation.categories), config.evaluation.limit)


@check_arguments
def evaluate_prompts(
    config: ExperimentConfig,
    components: Components,
    data: PairDataset,
    prompts: Mapping[str, Prompt],
    *,
    maps: str | Path | None = None,
    scratch: str | Path | None = None,
    progress: PromptProgress = _no_prompt_progress,
    tell: Tell = _tell_nothing,
) -> list[PromptScores]:
    """Evaluate prompts with the experiment's matcher and the further matchers of its evaluation section.

    Args:
        config: of which `matcher` and `evaluation` are read.
        components: of which backbone, matcher and pair transform are used.
        data: from `chosen_pairs`.
        prompts: by the names of their rows.
        maps: folder in which feature maps are kept; see `Evaluator`.
        scratch: folder in which a temporary folder of maps is made; see `Evaluator`.
        progress: called after each batch.
        tell: called with lines about the run.

    Returns:
        Counts of each prompt under each matcher, the experiment's matcher first.
    """
    options = config.evaluation
    own, *others = named_matchers(config).items()
    matchers = {own[0]: components.matcher}
    matchers |= {name: matcher.build() for name, matcher in others}
    evaluator = Evaluator(
        backbone=cached(components.backbone), protocol=options.protocol, matchers=matchers,
        sampling=options.sampling.sampling(options.seed), batch_size=options.batch_size, maps=maps, scratch=scratch,
        memory=None if options.memory is None else parse_size(options.memory),
        map_dtype=getattr(torch, options.map_dtype), skip_bad=options.skip_bad,
        pair_transform=components.pair_transform,
    )  # fmt: skip
    tell(f"Feature maps: up to {evaluator.memory / 1e9:.1f} GB in memory, the rest on disk")
    evaluated = []
    for name, prompt in prompts.items():
        scores = evaluator.evaluate(data, prompt, progress=partial(progress, name))
        evaluated += [PromptScores(name, matcher, scores[matcher]) for matcher in matchers]
    return evaluated


def evaluate_baselines(
    config: ExperimentConfig, data: PairDataset, names: Sequence[str], *, progress: Progress = no_progress
) -> dict[str, PairScores]:
    """Count the correct predictions of baselines, which need no model.

    Args:
        config: of which `evaluation` is read.
        data: from `chosen_pairs`.
        names: of the baselines; see `BASELINES`.
        progress: called after each batch.

    Returns:
        Counts by name.

    Raises:
        ConfigError: an unknown baseline.
    """
    if not check_baselines(names):
        return {}

    def predict(records: Sequence[PairRecord]) -> list[Predictions]:
        return [{name: torch.from_numpy(BASELINES[name](record)) for name in names} for record in records]

    options = config.evaluation
    batches = batches_of_process(data, options.batch_size)
    scores = count_pairs(
        data, predict, options.protocol, names, batches=batches, skip_bad=options.skip_bad, progress=progress
    )
    assert scores is not None  # nothing stops it
    return scores


def compare_prompts(config: ExperimentConfig, scores: Mapping[str, PairScores], a: str, b: str) -> Comparison:
    """Compare two rows on the same pairs: per-image PCK at 0.1, or at the largest alpha if 0.1 is not evaluated.

    Args:
        config: of which `evaluation` is read.
        scores: counts by the name of the row.
        a: name of a row.
        b: name of the row that is subtracted.
    """
    options = config.evaluation
    alpha = 0.1 if 0.1 in scores[a].alphas else scores[a].alphas[-1]
    found = compare(
        scores[a], scores[b], average="image", alpha=alpha, samples=options.bootstrap_samples, seed=options.seed
    )
    return Comparison(a, b, f"image PCK@{alpha:g}", found.difference, found.ci95)


@check_arguments
def compare_reports(
    a: str | Path,
    b: str | Path,
    *,
    row_a: str | None = None,
    row_b: str | None = None,
    samples: int = 2000,
    seed: int = 0,
) -> list[Comparison]:
    """Compare rows of two reports on the same pairs: per image, point and category, at each alpha that both have.

    Args:
        a: folder or file of a report.
        b: folder or file of the report that is subtracted.
        row_a: name of the prompt or baseline of `a`; the first row, if not given.
        row_b: name of the prompt or baseline of `b`; the first row, if not given.
        samples: number of bootstrap samples.
        seed: of the bootstrap.

    Raises:
        InputError: no such report or row, other pairs, another protocol, or a number beyond its bounds; the message
            says what differs.
    """
    reports = [read_report(path) for path in (a, b)]
    check_samples(samples)
    check_count("seed", seed, 0, LARGEST_SEED)
    rows = [_row(report, name, path) for report, name, path in zip(reports, (row_a, row_b), (a, b), strict=True)]
    scores_a, scores_b = (row.scores for row in rows)
    missing = sorted(set(scores_a.pair_ids) ^ set(scores_b.pair_ids))
    if missing or scores_a.pair_ids != scores_b.pair_ids:
        raise InputError(
            f"{a} and {b} are not of the same pairs: {len(scores_a)} and {len(scores_b)}, "
            + (f"{len(missing)} of them only in one, for example {missing[0]}" if missing else "in another order")
        )
    protocols = [report.protocol_fields for report in reports]
    differing = [
        key
        for key in sorted({*protocols[0], *protocols[1]})
        if key != "alphas" and protocols[0].get(key) != protocols[1].get(key)
    ]
    if differing:
        raise InputError(
            f"{a} was counted by {rows[0].protocol}, {b} by {rows[1].protocol} (they differ in "
            f"{', '.join(differing)}): not comparable"
        )
    alphas = [alpha for alpha in scores_a.alphas if alpha in scores_b.alphas]
    if not alphas:
        raise InputError(f"{a} and {b} have no alpha in common")
    label_a, label_b = (f"{path}: {row.prompt}" for path, row in zip((a, b), rows, strict=True))
    comparisons = []
    for average in ("image", "point", "category"):
        for alpha in alphas:
            found = compare(scores_a, scores_b, average=average, alpha=alpha, samples=samples, seed=seed)
            metric = f"{average} PCK@{alpha:g}"
            comparisons.append(Comparison(label_a, label_b, metric, found.difference, found.ci95))
    return comparisons


def _row(report: Report, name: str | None, path: str | Path) -> Row:
    if name is None:
        return report.rows[0]
    try:
        return report.row(name)
    except InputError as error:
        raise InputError(f"{path} has {error}") from None
