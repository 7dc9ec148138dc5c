"""Reproduction of tables and figures: training, measurement, and a page, numbers and a picture of each target."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from sd4match.arguments import check_arguments
from sd4match.config.experiment import ExperimentConfig
from sd4match.distributed import Processes
from sd4match.documents import read_json
from sd4match.errors import InputError, SD4MatchError
from sd4match.evaluation.published import PublishedRow, beside_ours
from sd4match.evaluation.report import DataSummary, backbone_entry, not_comparable_because, versions
from sd4match.evaluation.run_folders import CONFIG_FILE, has_learned, kind_of_run
from sd4match.evaluation.scores import PairScores
from sd4match.evaluation.seeds import Estimate, by_category, estimate, image_values
from sd4match.hashing import digest
from sd4match.io.files import check_no_link, write_together
from sd4match.io.locks import locked_folder
from sd4match.io.pictures import check_png, png_of
from sd4match.paths import as_path, exists, read_text
from sd4match.reproduction.claims import SHORTEST, Judged, judge
from sd4match.reproduction.differences import differences_from_paper, row_differences
from sd4match.reproduction.settings import ReproductionSettings
from sd4match.reproduction.targets import Place, Prompted, Target, make_target, target_names
from sd4match.training.measuring import Bench, Job, SweepCallbacks
from sd4match.training.run import can_resume

RUNS = "runs"
"""Folder of the trainings and scores that all targets share."""
NUMBERS, PAGE, PICTURE = "reproduction.json", "reproduction.md", "figure.png"
_MADE_BY = "sd4match reproduce"
_DIGITS = 10
"""Digits of the digest in the name of a folder."""


@dataclass(frozen=True)
class PlannedRow:
    """Seed of one cell of the grid of a target, with its row and column and the name of its experiment."""

    name: str
    position: Place
    job: Job
    experiment: str
    seed: int


@dataclass(frozen=True)
class Cell:
    """Result of one cell of the grid.

    Args:
        scores: scores of each seed.
        pck: per-image PCK over seeds and pairs, by alpha.
        not_comparable_because: reasons why no published number can be compared with it.
        published: numbers of the paper for it.
        runs: folders of the scores of each seed, in the folder of the reproduction.
        by_category: PCK@0.1 of each category, if the target shows it; {} otherwise.
    """

    scores: tuple[PairScores, ...]
    pck: Mapping[str, Estimate]
    not_comparable_because: tuple[str, ...]
    published: tuple[PublishedRow, ...]
    runs: tuple[str, ...]
    by_category: Mapping[str, Estimate] = field(default_factory=dict)


@dataclass(frozen=True)
class Reproduction:
    """Result of a reproduced table or figure of the paper.

    Args:
        target: the table or figure.
        settings: model, data and extent.
        cells: results by row and column; {} for a figure without numbers.
        judged: claims of the paper with our differences.
        differences_from_paper: differences in training, measurement and drawing, a phrase each.
        seeds: seeds of the trainings; () if there is none.
        backbone: name, architecture and fingerprint.
        wall_seconds: duration of this run.
        versions: versions of the packages.
    """

    target: Target
    settings: ReproductionSettings
    cells: Mapping[Place, Cell]
    judged: Sequence[Judged]
    differences_from_paper: Sequence[str]
    seeds: tuple[int, ...]
    backbone: Mapping[str, str]
    wall_seconds: float
    versions: Mapping[str, str] = field(default_factory=versions)


def plan(target: Target, settings: ReproductionSettings, output: Path) -> list[PlannedRow]:
    """Return the rows that a target measures, in the order of execution, rows of one prompt together.

    Rows that two targets share have the same folder in both. The name of a folder that is not of the default form
    (`mini`, reduced) ends with a digest of its experiment, so that results of other models, data, extents and overrides
    can coexist.

    Args:
        target: target from `make_target`.
        settings: model, data and extent.
        output: folder of the reproduction.

    Raises:
        ConfigError: an experiment cannot work.
    """
    planned = []
    for row, prompted in target.rows.items():
        for seed in _seeds_of(target, prompted, settings):
            folder = output / RUNS / prompted.folder
            training: ExperimentConfig | None = None
            if prompted.is_learned:
                trained = (prompted.experiment, seed, prompted.trained_on, prompted.changes, True)
                training = _experiment(settings, *trained)
                folder = output / RUNS / f"{prompted.folder}-seed-{seed}{_suffix(training, _usual(*trained))}"
            for column, condition in target.columns.items() or [("", None)]:
                changes = (*prompted.changes, *prompted.measured, *(condition.changes if condition else ()))
                measured = (prompted.experiment, seed, condition.data if condition else None, changes, False)
                config = _experiment(settings, *measured)
                name = f"{row}, {column}" if len(target.columns) > 1 else row
                name = f"{name}, seed {seed}" if prompted.is_learned else name
                named = "-".join(filter(None, (prompted.measured_folder, condition.folder if condition else "")))
                suffix = _suffix(config, _usual(*measured))
                scores_folder = folder / f"{named or 'scores'}{suffix}" if named or suffix else folder
                job = Job(config, scores_folder, training=training, trained_in=folder if prompted.is_learned else None)
                planned.append(PlannedRow(name, (row, column), job, prompted.experiment, seed))
    return planned


def _experiment(
    settings: ReproductionSettings, name: str, seed: int, data: str | None, changes: tuple[str, ...], for_training: bool
) -> ExperimentConfig:
    data = data or settings.main_data()
    return settings.experiment(name, seed=seed, data=data, changes=changes, for_training=for_training)


@cache
def _usual(*what: Any) -> ExperimentConfig:
    """Return the same experiment in the default form."""
    return _experiment(ReproductionSettings(), *what)


def _suffix(config: ExperimentConfig, usual: ExperimentConfig) -> str:
    """Return the end of a folder's name, a digest of its experiment; "" for the default form."""
    if config == usual:
        return ""
    return f"-{digest(json.dumps(config.model_dump(mode='json'), sort_keys=True))[:_DIGITS]}"


def _seeds_of(target: Target, prompted: Prompted, settings: ReproductionSettings) -> tuple[int, ...]:
    """Return the seeds of a row: a figure without numbers shows the first, and a row without training has none."""
    if not prompted.is_learned:
        return (0,)
    return settings.seeds if target.measures else settings.seeds[:1]


def work_of(row: PlannedRow, *, done: Iterable[Path] = ()) -> int:
    """Return the work of a row, in evaluated pairs, for the remaining time of a progress bar.

    Args:
        row: planned row.
        done: folders of trainings that belong to other rows.
    """
    config, folder = row.job.own_training
    pairs = row.job.config.evaluation.limit or 500
    evaluated = pairs * row.job.config.evaluation.sampling.ensemble_size
    if row.job.training is None or folder in set(done):
        return evaluated
    return evaluated + 3 * config.training.steps * config.training.batch_size


def check_output_of(target: Target, planned: Sequence[PlannedRow], output: Path) -> None:
    """Check, before any work is done, that a reproduction replaces no other files.

    Raises:
        InputError: a folder holds other files.
    """
    folder = output / target.name
    for path in (output, folder):
        if kind_of_run(path) is not None:
            raise InputError(f"--output {path} holds another kind of run: choose another folder")
    own = False
    if exists(folder / NUMBERS):
        try:
            content = read_json(folder / NUMBERS, what="reproduction")
        except InputError:
            content = None
        own = isinstance(content, dict) and content.get("target") == target.name
    for name in (NUMBERS, PAGE):
        check_no_link(folder / name)
        if exists(folder / name) and not own:
            raise InputError(
                f"--output {output}: {folder / name} was not made by such a run, and would be lost: choose another "
                "folder, or move it away"
            )
    check_png(folder / PICTURE, made_by=_MADE_BY)
    for row in planned:
        row.job.check()
        _check_training(row)


def _check_training(row: PlannedRow) -> None:
    """Check that the folder of a training holds no training of another experiment.

    Raises:
        InputError: it holds one, which would be lost.
    """
    config, folder = row.job.own_training
    if row.job.training is None or not has_learned(folder) or can_resume(config, folder):
        return
    try:
        is_same = read_text(folder / CONFIG_FILE, what="config file") == config.to_yaml()
    except SD4MatchError:
        is_same = False
    if not is_same:
        raise InputError(
            f"--output: {folder} holds a training of another experiment, which would be lost: choose another folder, "
            "or move it away"
        )


@check_arguments
def reproduce(
    target: str,
    output: str | Path,
    *,
    settings: ReproductionSettings | None = None,
    device: str | torch.device = "cpu",
    callbacks: SweepCallbacks | None = None,
) -> Reproduction:
    """Reproduce a table or a figure of the paper, and write it to a folder of its name.

    Trainings and scores are stored in `output / "runs"`: other targets use them too, and stopped ones are resumed. All
    processes of a run must call it.

    Args:
        target: one of `target_names()`.
        output: folder of all targets.
        settings: model, data and extent; None: `mini` in its reduced form.
        device: device of all computations, for example "cpu" or "cuda".
        callbacks: functions to call during the work.

    Returns:
        Numbers and claims; the page, the numbers as JSON and the picture are in `output / target`.

    Raises:
        ConfigError: the target is unknown, or a data set that it needs is not given.
        InputError: the folder holds other files, or another run writes to it.
    """
    settings = settings or ReproductionSettings()
    made = make_target(target, settings)
    folder = as_path(output, what="output")
    planned = plan(made, settings, folder)
    bench = Bench("test", device, callbacks or SweepCallbacks())
    return reproduce_planned(made, settings, planned, folder, bench)


def reproduce_planned(
    target: Target, settings: ReproductionSettings, planned: Sequence[PlannedRow], output: Path, bench: Bench
) -> Reproduction:
    """Reproduce a target with rows from `plan`; see `reproduce`."""
    from contextlib import nullcontext

    started = time.perf_counter()
    processes = Processes()
    with locked_folder(output) if processes.is_main else nullcontext():
        processes.on_main(lambda: check_output_of(target, planned, output))
        scores: dict[Place, list[PairScores]] = {}
        reasons: dict[Place, tuple[str, ...]] = {}
        for row in planned:
            if not target.measures:
                bench.callbacks.on_start(row.name)
                bench.trained(row.name, row.job)
                continue
            scores.setdefault(row.position, []).append(bench.measure(row.name, row.job).scores)
            if row.position not in reasons:
                reasons[row.position] = _reasons(target, settings, row, bench)
        cells = {
            position: _cell(
                target, tuple(found), reasons[position], [row for row in planned if row.position == position], output
            )
            for position, found in scores.items()
        }
        first = planned[0].job.config
        counts = {position: cell.scores for position, cell in cells.items()}
        result = Reproduction(
            target, settings, cells, judge(target, counts, too_short=_too_short(settings, planned)),
            differences_from_paper(target, settings, planned),
            tuple(dict.fromkeys(row.seed for row in planned if row.job.training is not None)),
            backbone_entry(first, bench.backbone(first)), round(time.perf_counter() - started, 2),
        )  # fmt: skip
        processes.on_main(lambda: _write(result, planned, output / target.name, bench))
    return result


def _too_short(settings: ReproductionSettings, planned: Sequence[PlannedRow]) -> frozenset[str]:
    """Return the rows whose trainings are too short to tell: shorter than a tenth of the model's usual steps."""
    learned = [row for row in planned if row.job.training is not None]
    usual = replace(settings, reduced=False, steps=None, overrides=())
    found = set()
    for row in learned:
        whole = usual.experiment(row.experiment, data=usual.main_data(), for_training=True).training.steps
        if row.job.own_training[0].training.steps * SHORTEST < whole:
            found.add(row.position[0])
    return frozenset(found)


def _reasons(target: Target, settings: ReproductionSettings, row: PlannedRow, bench: Bench) -> tuple[str, ...]:
    """Return the reasons why a row cannot be compared with the paper: the rules of reports, and differences from the
    paper.

    The rules of reports already include mini and missing test pairs.
    """
    config = row.job.config
    found = list(not_comparable_because(config, DataSummary.of(bench.pairs(config)), model=config.backbone.model_name))
    for difference in row_differences(target, settings, row):
        if difference.topic not in ("extent", "data") and not (
            difference.topic == "model" and config.backbone.model_name == "mini"
        ):
            found.append(difference.text)
    return tuple(found)


def _cell(
    target: Target,
    scores: tuple[PairScores, ...],
    reasons: tuple[str, ...],
    rows: Sequence[PlannedRow],
    output: Path,
) -> Cell:
    config, position = rows[0].job.config, rows[0].position
    protocol, kind = config.evaluation.protocol.name, config.require_data().kind
    return Cell(
        scores,
        {f"{alpha:g}": estimate(image_values(scores, alpha=alpha)) for alpha in target.alphas},
        reasons,
        tuple(
            replace(row, why_not=f"of {published.dataset}, ours of {kind}", comparable=False)
            if published.dataset != kind
            else row
            for published in target.published.get(position, ())
            for row in [beside_ours(published, protocol=protocol, against_all=reasons)]
        ),
        tuple(row.job.folder.relative_to(output).as_posix() for row in rows),
        by_category(scores) if target.figure == "categories" else {},
    )


def _write(result: Reproduction, planned: Sequence[PlannedRow], folder: Path, bench: Bench) -> None:
    from sd4match.reproduction.figures import draw
    from sd4match.reproduction.pages import to_json, to_markdown

    picture = png_of(draw(result, planned, bench), made_by=_MADE_BY)
    numbers = json.dumps(to_json(result), indent=2, allow_nan=False) + "\n"
    contents = {NUMBERS: numbers.encode(), PAGE: to_markdown(result).encode(), PICTURE: picture}
    write_together({folder / name: content for name, content in contents.items()}, name=f"the results to {folder}")


def chosen_targets(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of targets, in the order of the paper; "all" means all of them."""
    if "all" in names:
        return target_names()
    return tuple(dict.fromkeys(names))
