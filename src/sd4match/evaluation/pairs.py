"""Worst and best pairs of a report, and pictures of their matches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from sd4match.arguments import check_arguments, check_fields
from sd4match.checks import check_count
from sd4match.config.experiment import ExperimentConfig, build_dataset
from sd4match.data.config import Split
from sd4match.errors import ConfigError, InputError, choose_from, shown
from sd4match.evaluation.baselines import BASELINES
from sd4match.evaluation.report import Report, Row
from sd4match.evaluation.run import against_name, named_matchers
from sd4match.evaluation.run_folders import DEMO_PROMPT_FILE, PROMPT_FILE, kind_of_report
from sd4match.evaluation.scores import PairScores
from sd4match.evaluation.tables import shown_alpha
from sd4match.interfaces import PairDataset, learns
from sd4match.paths import as_path, exists, is_folder
from sd4match.pipeline import SemanticMatcher, build_for_matching
from sd4match.registry import Component
from sd4match.structures.pairs import PairRecord
from sd4match.viz.matches import draw_matches

if TYPE_CHECKING:
    from PIL import Image

Rank = Literal["worst", "best"]
PAIRS_RULE = (
    "Worst: the lowest PCK@{alpha} of {row}; best: the highest. Among equals come those with most visible points, then "
    "the first of the data set."
)
"""Rule by which pairs are chosen, in words for pages and pictures."""
_MOST_PAIRS = 100
_HEIGHT = 480

Flags = npt.NDArray[np.bool_]
Points = npt.NDArray[np.float64]
Found = Callable[[PairRecord], tuple[npt.NDArray[np.int64], Points]]
"""Function from a pair to the indices of its visible points that have a match, and the matches."""


@dataclass(frozen=True, eq=False)
class PairPicture:
    """Picture of the matches of a pair.

    Objects hold a picture and are compared by identity.

    Args:
        pair_id: id of the pair.
        category: category of the pair.
        row: prompt or baseline whose matches are drawn.
        rank: "worst" or "best".
        correct: number of correct points in the report.
        visible: number of visible points.
        drawn_correct: number of correct points in the picture; it differs if rounding does.
        picture: both photos with lines.

    >>> from PIL import Image
    >>> PairPicture("1-a-b", "cat", "single", "best", 5, 6, 5, Image.new("RGB", (8, 8))).caption
    '1-a-b (cat): 5 of 6 points correct'
    """

    pair_id: str
    category: str
    row: str
    rank: Rank
    correct: int
    visible: int
    drawn_correct: int
    picture: Image.Image

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def caption(self) -> str:
        """Caption of the picture, on one line."""
        text = f"{self.pair_id} ({self.category}): {self.correct} of {self.visible} points correct"
        return text if self.drawn_correct == self.correct else f"{text}; {self.drawn_correct} in this picture"


@check_arguments
def choose_pairs(scores: PairScores, count: int, *, alpha: float = 0.1) -> dict[str, Rank]:
    """Choose the worst and the best pairs by PCK.

    Among pairs of equal PCK, those with more visible points come first, then those earlier in the data set.

    Args:
        scores: counts of every pair.
        count: number of worst and of best pairs, from 0 to 100; if there are too few pairs, the worst are chosen first.
        alpha: threshold, one of those of the counts.

    Returns:
        "worst" or "best" by id of the pair: the worst first, then the best.

    Raises:
        InputError: alpha was not measured, or the count is out of bounds.

    >>> scores = PairScores(("a", "b", "c"), ("cat",) * 3, np.array([2, 4, 4]), np.array([[0], [0], [3]]), (0.1,))
    >>> choose_pairs(scores, 1)
    {'b': 'worst', 'c': 'best'}
    """
    check_count("the number of pairs", count, 0, _MOST_PAIRS)
    if alpha not in scores.alphas:
        raise InputError(f"alpha {alpha} was not measured; known: {', '.join(map(str, scores.alphas))}")
    share = scores.correct[:, scores.alphas.index(alpha)] / scores.visible
    order = np.arange(len(scores))
    rising, falling = (np.lexsort((order, -scores.visible, sign * share)) for sign in (1, -1))
    worst = rising[:count].tolist()
    best = [index for index in falling.tolist() if index not in worst][:count]
    ranks: dict[str, Rank] = {scores.pair_ids[index]: "worst" for index in worst}
    return {**ranks, **{scores.pair_ids[index]: "best" for index in best}}


@check_arguments
def pair_pictures(
    report: Report,
    *,
    count: int = 4,
    row: str | None = None,
    folder: str | Path | None = None,
    device: str | torch.device = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> list[PairPicture]:
    """Match the worst and the best pairs of a report again, and draw them; see `choose_pairs`.

    Data, backbone, prompt and matcher are built from the config of the report, and from the prompt file that the report
    or its folder has. Solid lines are correct matches, dashed ones wrong matches, crosses true points.

    Args:
        report: report, for example from `read_report`.
        count: number of worst and of best pairs, from 0 to 100.
        row: name of the row whose pairs are chosen; None: that of the experiment itself.
        folder: folder of the report, with the prompt files of trainings, sweeps and demos.
        device: device of all computations; "auto" for a GPU if there is one.
        progress: function of the number of drawn pairs and the number of all pairs.

    Raises:
        InputError: no such row, a row whose prompt is not known any more, other weights than the report's, or a pair
            that the data set does not have.
        SD4MatchError: data, weights or prompt file are not there, or cannot be read.

    >>> from sd4match.config import load_preset
    >>> from sd4match.evaluation import evaluate
    >>> config = load_preset("mini-empty", ["data.pairs=2", "data.photos_per_category=4"])
    >>> report = evaluate(config, baselines=["identity"], only_baselines=True)
    >>> [picture.rank for picture in pair_pictures(report, count=1)]
    ['worst', 'best']
    """
    chosen_row = report.row(row) if row is not None else own_row(report)
    alpha = float(shown_alpha(report))
    scores = chosen_row.scores
    ranks = choose_pairs(scores, count, alpha=alpha)
    if not ranks:
        return []
    config = _config_of(report)
    data = build_dataset(config, _split_of(report))
    numbers = {key.pair_id: number for number, key in enumerate(data.keys)}
    missing = [pair_id for pair_id in ranks if pair_id not in numbers]
    if missing:
        raise InputError(f"the data set {data.name} has no pair {shown(missing[0])}: it is not the one of the report")
    found = _finder(
        report, chosen_row, config, data, None if folder is None else as_path(folder, what="folder"), device
    )
    pictures = []
    for pair_id, rank in ranks.items():
        drawn_correct, picture = _draw(data, data[numbers[pair_id]], found, config, alpha)
        index = scores.pair_ids.index(pair_id)
        correct, visible = scores.correct[index, scores.alphas.index(alpha)], scores.visible[index]
        category = scores.categories[index]
        pictures.append(
            PairPicture(pair_id, category, chosen_row.prompt, rank, int(correct), int(visible), drawn_correct, picture)
        )
        if progress is not None:
            progress(len(pictures), len(ranks))
    return pictures


def own_row(report: Report) -> Row:
    """Return the row of the experiment itself: that of its prompt and matcher, or the first one."""
    config = report.config
    prompt, matcher = (
        fields.get("kind") if isinstance(fields := config.get(name), Mapping) else None
        for name in ("prompt", "matcher")
    )
    if kind_of_report(report.extra) in ("demo", "sweep"):
        own = [row for row in report.results if row.prompt == prompt and row.matcher == matcher]
        return own[0] if own else report.rows[0]
    return report.rows[0]


def _config_of(report: Report) -> ExperimentConfig:
    try:
        config = ExperimentConfig.model_validate(dict(report.config))
    except ConfigError as error:
        raise InputError(f"the report's config cannot be used: {error}") from None
    if kind_of_report(report.extra) != "training":
        return config
    training = config.training  # a validation uses the settings of the training
    evaluation = config.evaluation.model_copy(update={"sampling": training.sampling, "seed": training.seed})
    return config.model_copy(update={"evaluation": evaluation})


def _split_of(report: Report) -> Split:
    split = report.data.split
    if split == "train":
        return "train"
    return "validation" if split == "validation" else "test"


def _finder(
    report: Report,
    row: Row,
    config: ExperimentConfig,
    data: PairDataset,
    folder: Path | None,
    device: str | torch.device,
) -> Found:
    """Return the function that matches the visible points of a pair as in the row."""
    if row.matcher == "none":
        name = row.prompt.removesuffix(" (baseline)")
        if name not in BASELINES:
            raise InputError(f"the row {shown(row.prompt)} is no known baseline; {choose_from(name[:80], BASELINES)}")
        return lambda record: (
            np.arange(int(record.visible.sum())), BASELINES[name](record)[record.visible]
        )  # fmt: skip
    experiment = _experiment_of(report, row, config, folder)
    file = experiment.prompt_file
    components = build_for_matching(
        experiment.config, prompt=file, prompt_changes=experiment.prompt_changes, device=device
    )
    matcher = SemanticMatcher.from_components(components, experiment.config.with_learned(file))
    _check_weights(report, row, matcher.backbone.fingerprint)

    def match(record: PairRecord) -> tuple[npt.NDArray[np.int64], Points]:
        source, target = data.photo(record.source_id), data.photo(record.target_id)
        categories = record.sides[0][1], record.sides[1][1]
        pair = source, target, record.source_points[record.visible]
        (result,) = matcher.match_pairs([pair], category=[categories])
        return result.indices, result.target_points

    return match


def _check_weights(report: Report, row: Row, found: str) -> None:
    own = row.extra.get("backbone", report.backbone)  # rows of a sweep may have different backbones
    wanted = own.get("fingerprint") if isinstance(own, Mapping) else None
    if wanted is not None and found != wanted:
        raise InputError(f"the weights are not those of the report: {found[:12]}, not {shown(wanted)}")


@dataclass(frozen=True)
class _Experiment:
    """Experiment of a row: config, file of the prompt, and changes to the config in that file."""

    config: ExperimentConfig
    prompt_file: Path | None = None
    prompt_changes: Mapping[str, Any] = field(default_factory=dict)


def _experiment_of(report: Report, row: Row, config: ExperimentConfig, folder: Path | None) -> _Experiment:
    """Return the experiment of a row.

    Raises:
        InputError: the report does not name its prompt or matcher.
    """
    kind = kind_of_report(report.extra)
    if kind == "sweep":
        return _of_sweep(row, config, folder)
    config = _with_matcher(report, row, config)
    own, name = own_row(report).prompt, row.prompt.removesuffix(f" + {row.matcher}")
    if name == own and kind in ("training", "demo"):
        return _Experiment(config, _in_folder(folder, DEMO_PROMPT_FILE if kind == "demo" else PROMPT_FILE))
    if name == own:
        return _of_file(report, config)
    against = report.extra.get("against", name)
    if against in ("empty", "text") and name == against_name(against, own):
        return _Experiment(_changed(config, {"prompt": {"kind": against}}))
    if isinstance(against, str) and against != name and name == against_name(against, own):
        return _Experiment(config, as_path(against, what="the report's prompt file"))
    raise InputError(f"the report does not say what the prompt of the row {shown(name)} was: choose another row")


def _of_file(report: Report, config: ExperimentConfig) -> _Experiment:
    """Return the experiment of an evaluation, whose prompt may be in a given file."""
    given, changes = report.extra.get("prompt_file"), report.extra.get("prompt_changes")
    if not isinstance(given, str):
        return _Experiment(config)
    file = as_path(given, what="the report's prompt file")
    return _Experiment(config, file, changes if isinstance(changes, Mapping) else {})


def _of_sweep(row: Row, config: ExperimentConfig, folder: Path | None) -> _Experiment:
    """Return the experiment of a row of a sweep, from its differences to that of the report."""
    changes, file = row.extra.get("config"), row.extra.get("prompt_file")
    if not isinstance(changes, Mapping):
        raise InputError(f"the report does not say what was measured in the row {shown(row.prompt)}: sweep again")
    config = _changed(config, changes)
    if not isinstance(file, str):
        return _Experiment(config)
    path = as_path(file, what="the row's prompt file")
    if folder is None and not path.is_absolute():
        raise InputError(f"the prompt of the row {shown(row.prompt)} lies in the folder of the report: give the folder")
    return _Experiment(config, path if folder is None else folder / path)


def _changed(config: ExperimentConfig, fields: Mapping[str, Any]) -> ExperimentConfig:
    try:
        return ExperimentConfig.model_validate({**config.model_dump(mode="json"), **fields})
    except ConfigError as error:
        raise InputError(f"the config of a row cannot be used: {error}") from None


def _with_matcher(report: Report, row: Row, config: ExperimentConfig) -> ExperimentConfig:
    if kind_of_report(report.extra) == "training":
        return config.model_copy(update={"matcher": _validation_matcher(config)})
    if row.matcher not in (matchers := named_matchers(config)):
        raise InputError(f"the report does not say what the matcher {shown(row.matcher)} was: choose another row")
    return config.model_copy(update={"matcher": matchers[row.matcher]})


def _validation_matcher(config: ExperimentConfig) -> Component:
    """Return the matcher of a validation: that of the training, unless the experiment's matcher learns."""
    return config.matcher if learns(config.matcher.build()) else config.training.validation_matcher


def _in_folder(folder: Path | None, name: str) -> Path | None:
    return folder / name if folder is not None and is_folder(folder) and exists(folder / name) else None


def _draw(
    data: PairDataset, record: PairRecord, found: Found, config: ExperimentConfig, alpha: float
) -> tuple[int, Image.Image]:
    """Return the number of correct matches, and the picture."""
    points, truth = record.source_points[record.visible], record.target_points[record.visible]
    indices, matches = found(record)
    protocol = config.evaluation.protocol.derive(alphas=(alpha,))
    flags: Flags = protocol.correct(
        torch.from_numpy(matches)[None], torch.from_numpy(truth[indices])[None],
        torch.ones(1, len(indices), dtype=torch.bool), photo_sizes=[record.target_size], boxes=[record.target_box],
        reference=data.reference,
    )[0, :, 0].numpy()  # fmt: skip
    source, target = data.photo(record.source_id), data.photo(record.target_id)
    picture = draw_matches(source, target, points[indices], matches, hits=flags, truth=truth, height=_HEIGHT)
    return int(flags.sum()), picture
