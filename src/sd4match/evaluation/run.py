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
"""Function of the name of a prompt, followed by the arguments of `counting.Progress`."""
Tell = Callable[[str], None]
"""Function that takes the lines that a command prints."""


def _no_prompt_progress(name: str, what: str, done: int, total: int) -> None:
    """Do nothing."""


def _tell_nothing(line: str) -> None:
    """Do nothing."""


@dataclass(frozen=True, eq=False)
class PromptScores:
    """Counts of one prompt under one matcher.

    Objects hold arrays and are compared by identity.
    """

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
    """Evaluate the prompt of an experiment, another prompt and baselines on the same pairs.

    All processes must call it; each returns the whole report.

    Args:
        config: the experiment.
        split: split of its data set.
        prompt: file of a learned prompt, in place of the config's prompt.
        prompt_changes: changes to the config of that file; see `load_prompt`.
        against: "empty", "text" or the file of another prompt to evaluate.
        baselines: names of baselines to evaluate; see `BASELINES`.
        only_baselines: evaluate only the baselines, without building a model.
        maps: folder in which feature maps are stored; see `Evaluator`.
        scratch: folder of the temporary folder of maps; see `Evaluator`.
        device: device of all computations, for example "cpu" or "cuda".
        progress: called after each batch.
        tell: called with lines about the run, for example the memory of feature maps.

    Returns:
        The report: one row per prompt and matcher, then the baselines, all compared with the first row.

    Raises:
        ConfigError: components do not fit together, or a learned prompt has no file.
        InputError: a category is unknown, a file is missing, or no pair has a visible point.
        DatasetError, PhotoError: an annotation or a photo cannot be read and `evaluation.skip_bad` is False.

    >>> from sd4match.config import load_preset
    >>> config = load_preset("mini-empty", ["data.pairs=2", "data.photos_per_category=4"])
    >>> report = evaluate(config, baselines=["identity", "random"], only_baselines=True)
    >>> [row.prompt for row in report.results]
    ['identity', 'random']
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
    """Return the description of the prompts in a report, besides the file of the first one."""
    changes = {"prompt_changes": dict(prompt_changes)} if prompt_changes else {}
    return {**changes, **({"against": str(against)} if against is not None else {})}


def against_name(against: str | Path, own: str) -> str:
    """Return the name of the row of the prompt that is compared with the experiment's own prompt."""
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
    """Return the experiment's matcher and the further matchers of its evaluation, by their names in reports."""
    named: dict[str, registry.Component] = {config.matcher.kind: config.matcher}
    for number, matcher in enumerate(config.evaluation.matchers, start=2):
        named[matcher.kind if matcher.kind not in named else f"{matcher.kind} {number}"] = matcher
    return named


def chosen_pairs(config: ExperimentConfig, data: PairDataset) -> PairDataset:
    """Return the pairs that the evaluation section of a config selects.

    Raises:
        InputError: it names a category that the data set does not have.
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
        config: experiment, of which `matcher` and `evaluation` are used.
        components: built components, of which backbone, matcher and pair transform are used.
        data: pairs.
        prompts: prompts by the names of their rows.
        maps: folder in which feature maps are stored; see `Evaluator`.
        scratch: folder of the temporary folder of maps; see `Evaluator`.
        progress: called after each batch.
        tell: called with lines about the run.

    Returns:
        Counts of each prompt under each matcher, the experiment's matcher first.

    Raises:
        DatasetError, PhotoError: an annotation or a photo cannot be read and `evaluation.skip_bad` is False.
        NonFiniteError, ComponentError: as in `Evaluator.evaluate`.

    >>> from sd4match.config import Components
    >>> from sd4match.matching import GaussianCrossEntropy, NearestNeighbor
    >>> from sd4match.prompting import EmptyPrompt
    >>> from sd4match.testing import FakeBackbone, FakePairs, FakeTextEncoder
    >>> backbone = FakeBackbone(text_encoder=FakeTextEncoder())
    >>> prompt = EmptyPrompt(backbone=backbone)
    >>> components = Components(backbone, prompt, NearestNeighbor(), GaussianCrossEntropy())
    >>> config = ExperimentConfig(matcher=NearestNeighbor())
    >>> [(found.prompt, found.matcher) for found in evaluate_prompts(config, components, FakePairs(), {"mine": prompt})]
    [('mine', 'nearest_neighbor')]
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
        config: experiment, of which `evaluation` is used.
        data: pairs from `chosen_pairs`.
        names: names of baselines; see `BASELINES`.
        progress: called after each batch.

    Returns:
        Counts by name.

    Raises:
        ConfigError: a baseline is unknown.
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
    assert scores is not None  # it has no `should_stop`
    return scores


def compare_prompts(config: ExperimentConfig, scores: Mapping[str, PairScores], a: str, b: str) -> Comparison:
    """Compare two rows on the same pairs: per-image PCK at 0.1, or at the largest alpha if 0.1 is not evaluated.

    Args:
        config: experiment, of which `evaluation` is used.
        scores: counts by name of the row.
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
    """Compare rows of two reports on the same pairs: per image, point and category, at each common alpha.

    Args:
        a: folder or file of a report.
        b: folder or file of the report that is subtracted.
        row_a: name of a prompt or baseline of `a`; None: the first row.
        row_b: name of a prompt or baseline of `b`; None: the first row.
        samples: number of bootstrap samples, from 1 to 100,000.
        seed: seed of the bootstrap, at least 0.

    Returns:
        Differences a - b, by average and alpha.

    Raises:
        InputError: there is no such report or row, pairs or protocols differ, or a number is out of bounds; the message
            names the difference.

    >>> import tempfile
    >>> from sd4match.config import load_preset
    >>> from sd4match.evaluation import write_report
    >>> config = load_preset("mini-empty", ["data.pairs=2", "data.photos_per_category=4"])
    >>> report = evaluate(config, baselines=["identity", "random"], only_baselines=True)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = write_report(report, folder, title="Baselines")
    ...     compare_reports(folder, folder, row_b="identity", samples=10)[0].difference
    0.0
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
