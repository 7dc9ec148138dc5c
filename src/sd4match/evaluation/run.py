"""Several prompts on one data set, under one set of settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sd4match import registry
from sd4match.backbones.cached import cached
from sd4match.config.experiment import Components, ExperimentConfig
from sd4match.data.subset import first, of_categories
from sd4match.errors import InputError
from sd4match.evaluation.baselines import BASELINES
from sd4match.evaluation.counting import Predictions, count_pairs, no_progress
from sd4match.evaluation.counting import Progress as Counted
from sd4match.evaluation.evaluator import Evaluator, Rule
from sd4match.evaluation.report import comparison, read_report
from sd4match.evaluation.scores import PairScores, compare
from sd4match.interfaces import PairDataset, PromptProvider
from sd4match.structures.pairs import PairRecord

NamedProgress = Callable[[str, str, int, int], None]
"""Called with a prompt's name, and then as `counting.Progress` is."""


def _silent(name: str, what: str, done: int, total: int) -> None:
    """Says nothing."""


@dataclass(frozen=True)
class Measured:
    """Counts of one prompt under one matcher."""

    prompt: str
    matcher: str
    scores: PairScores

    def named(self, own: str) -> str:
        """The prompt's name, with the matcher if it is not the experiment's `own`."""
        return self.prompt if self.matcher == own else f"{self.prompt} + {self.matcher}"


def chosen_pairs(config: ExperimentConfig, data: PairDataset) -> PairDataset:
    """The pairs that the evaluation settings ask for.

    Raises:
        InputError: a category that the data set does not have.
    """
    return first(of_categories(data, config.evaluation.categories), config.evaluation.limit)


def evaluate_prompts(
    config: ExperimentConfig,
    parts: Components,
    data: PairDataset,
    prompts: Mapping[str, PromptProvider],
    *,
    maps: Path | None = None,
    scratch: Path | None = None,
    progress: NamedProgress = _silent,
) -> list[Measured]:
    """Measure each prompt with the config's evaluation settings and each of its matchers, the experiment's own first.

    Args:
        config: of which `matcher` and `evaluation` are read.
        parts: backbone and the experiment's matcher.
        data: from `chosen_pairs`.
        prompts: by the name that the answer gives them.
        maps: where feature maps stay; see `Evaluator`.
        scratch: where a temporary folder of maps is made; see `Evaluator`.
        progress: called on the way.
    """
    options = config.evaluation
    rules = {config.matcher.kind: Rule(options.measurement, parts.matcher)}
    for number, one in enumerate(options.matchers, start=2):
        name = one.kind if one.kind not in rules else f"{one.kind} {number}"
        rules[name] = Rule(options.measurement, registry.matchers.build(one))
    evaluator = Evaluator(
        backbone=cached(parts.backbone), rules=rules, sampling=options.sampling.sampling(options.seed),
        batch_size=options.batch_size, maps=maps, scratch=scratch, skip_bad=options.skip_bad,
        pair_transform=parts.pair_transform,
    )  # fmt: skip
    measured = []
    for name, prompt in prompts.items():

        def tell(what: str, done: int, total: int, name: str = name) -> None:
            progress(name, what, done, total)

        scores = evaluator.evaluate(data, prompt, progress=tell)
        measured += [Measured(name, matcher, scores[matcher]) for matcher in rules]
    return measured


def evaluate_baselines(
    config: ExperimentConfig, data: PairDataset, names: Sequence[str], *, progress: Counted = no_progress
) -> dict[str, PairScores]:
    """Measure predictions that need no model, by name."""
    if not names:
        return {}
    options = config.evaluation

    def predict(records: Sequence[PairRecord]) -> Predictions:
        return {name: BASELINES[name](records) for name in names}

    measurements = dict.fromkeys(names, options.measurement)
    return count_pairs(
        data, predict, measurements, batch_size=options.batch_size, skip_bad=options.skip_bad, progress=progress
    )


def compare_prompts(config: ExperimentConfig, scores: Mapping[str, PairScores], a: str, b: str) -> dict[str, object]:
    """A report's row of a - b: per-image PCK@0.1, paired over pairs."""
    options = config.evaluation
    alpha = 0.1 if 0.1 in scores[a].alphas else scores[a].alphas[-1]
    outcome = compare(
        scores[a], scores[b], average="image", alpha=alpha, samples=options.bootstrap_samples, seed=options.seed
    )
    return comparison(a, b, outcome, metric=f"image PCK@{alpha:g}")


def compare_reports(
    a: str | Path,
    b: str | Path,
    *,
    row_a: str | None = None,
    row_b: str | None = None,
    samples: int = 2000,
    seed: int = 0,
) -> list[dict[str, object]]:
    """Paired bootstrap of two reports on the same pairs: per image and per point, at each alpha that both have.

    Args:
        a: a report's folder or file.
        b: likewise.
        row_a: which result of A, by its prompt's name; the first, if not given.
        row_b: likewise.
        samples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        InputError: no report, no such row, other pairs, or another measurement; the message says what differs.
    """
    reports = [read_report(path) for path in (a, b)]
    rows = [_row(report, name, path) for report, name, path in zip(reports, (row_a, row_b), (a, b), strict=True)]
    one, other = (PairScores.from_plain(row["counts"]) for row in rows)  # type: ignore[arg-type]
    missing = sorted(set(one.pair_ids) ^ set(other.pair_ids))
    if missing or one.pair_ids != other.pair_ids:
        raise InputError(
            f"{a} and {b} are not of the same pairs: {len(one)} and {len(other)}, "
            + (f"{len(missing)} of them only in one, for example {missing[0]}" if missing else "in another order")
        )
    names = [str(row["measurement"]) for row in rows]
    settings = [report["config"]["evaluation"]["measurement"] for report in reports]
    differing = [key for key in settings[0] if key != "alphas" and settings[0][key] != settings[1].get(key)]
    if differing:
        raise InputError(
            f"{a} was counted by {names[0]}, {b} by {names[1]} (they differ in {', '.join(differing)}): not comparable"
        )
    label_a, label_b = (f"{path}: {row['prompt']}" for path, row in zip((a, b), rows, strict=True))
    alphas = [alpha for alpha in one.alphas if alpha in other.alphas]
    if not alphas:
        raise InputError(f"{a} and {b} have no alpha in common")
    return [
        comparison(
            label_a,
            label_b,
            compare(one, other, average=average, alpha=alpha, samples=samples, seed=seed),
            metric=f"{average} PCK@{alpha:g}",
        )
        for average in ("image", "point", "category")
        for alpha in alphas
    ]  # fmt: skip


def _row(report: Mapping[str, object], name: str | None, path: str | Path) -> Mapping[str, object]:
    rows = [*report["results"], *report["baselines"]]  # type: ignore[misc]
    if name is None:
        return dict(rows[0])
    for row in rows:
        if row["prompt"] == name:
            return dict(row)
    raise InputError(f"{path} has no row {name!r}; it has {', '.join(row['prompt'] for row in rows)}")
