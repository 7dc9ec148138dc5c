"""Sweep over fields of an experiment: every combination of their values is a row of one report."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sd4match.arguments import check_arguments
from sd4match.config.composition import COMPOSED_FIELDS
from sd4match.config.experiment import ExperimentConfig
from sd4match.config.presets import load_preset
from sd4match.data.config import Split
from sd4match.distributed import Processes
from sd4match.documents import parse_yaml
from sd4match.errors import ConfigError, choose_from, shown
from sd4match.evaluation.report import Comparison, Report, backbone_entry, make_report, make_row
from sd4match.evaluation.run import compare_prompts
from sd4match.evaluation.seeds import Estimate, estimate, image_values
from sd4match.hashing import digest
from sd4match.paths import as_path
from sd4match.training.measuring import Bench, Job, MeasuredScores, SweepCallbacks, check_jobs, may_learn, row_record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ExperimentConfigReader = Callable[[list[str]], ExperimentConfig]
"""Function that returns an experiment with some changes `a.b=c`."""

MOST_ROWS = 1000
_COMMON = ("data", "evaluation.protocol", "evaluation.categories", "evaluation.limit", "evaluation.skip_bad")
"""Fields in which rows must agree, because they determine which pairs are counted, and how."""
_USED_IN_TRAINING = ("evaluation.protocol", "evaluation.batch_size")
"""Fields of the evaluation that the validation of a training also uses."""
_OF_A_TRAINING = ("training", "loss", "seed")
"""Groups of fields that matter only for trainings."""
_WITHOUT_EFFECT = (
    "backbone.gradient_checkpointing", "cache.folder", "cache.limit", "evaluation.bootstrap_samples",
    "evaluation.matchers", "evaluation.memory", "training.checkpoint_every", "training.keep_checkpoints",
    "training.per_device", "training.trackers",
)  # fmt: skip
"""Fields that do not change the counts of a row."""
_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_LIKE_A_RANGE = re.compile(r"(?=[^:]*:)[-+.0-9eE:\s]+")
"""Text of only numbers and colons, which is no value of any field."""
_BUILT_IN_ENSEMBLES = ("independent", "antithetic", "matched")
_WORDS = re.compile(r"[A-Za-z][\w {}-]*")
_LONGEST_FOLDER = 80


@dataclass(frozen=True)
class SweptField:
    """Field of an experiment and the values that it takes.

    Args:
        path: of the field, for example "evaluation.sampling.timestep".
        values: as YAML reads them.
    """

    path: str
    values: tuple[Any, ...]

    @property
    def name(self) -> str:
        """Last name of the path."""
        return self.path.rpartition(".")[2]

    @property
    def is_evaluated_only(self) -> bool:
        """True if the field changes the evaluation and no training."""
        return self.path.startswith("evaluation.") and not self.path.startswith(_USED_IN_TRAINING)

    @property
    def is_numeric(self) -> bool:
        """True if all values are numbers."""
        return all(isinstance(value, int | float) and not isinstance(value, bool) for value in self.values)


def parse_swept(text: str) -> SweptField:
    """Read "FIELD=a,b,c" or "FIELD=start:stop:step".

    Values are YAML; commas within brackets, braces and quotes separate nothing. A range includes its stop if a step
    hits it; without a step, the step is 1.

    Raises:
        ConfigError: it is not written like that, a value is no YAML or given twice, or there are too many.

    >>> parse_swept("evaluation.sampling.timestep=0:100:50").values
    (0, 50, 100)
    >>> parse_swept("learning_rate=0.001,0.01").values, parse_swept("a=[1, 2],[3]").values
    ((0.001, 0.01), ([1, 2], [3]))
    """
    path, equals, listed = text.partition("=")
    path = path.strip()
    if not equals or not path or not all(path.split(".")) or not listed.strip():
        raise ConfigError(
            "a swept field is FIELD=a,b,c or FIELD=start:stop:step, for example evaluation.sampling.timestep=0:500:50, "
            f"not {shown(text)}"
        )
    if _LIKE_A_RANGE.fullmatch(listed):
        values = _range(listed.split(":"), text=text)
    else:
        pieces = _split(listed)
        if any(map(_LIKE_A_RANGE.fullmatch, pieces)):
            raise ConfigError(f"{shown(text)} has a range among other values: write its numbers out")
        values = tuple(parse_yaml(piece, what=f"the value in {shown(text)}", error=ConfigError) for piece in pieces)
        if any(not piece.strip() for piece in pieces):
            raise ConfigError(f"a value in {shown(text)} is empty: write null for no value")
    repeated = next((value for number, value in enumerate(values) if value in values[:number]), None)
    if repeated is not None:
        raise ConfigError(f"{path} is {shown(repeated)} twice in {shown(text)}")
    return SweptField(path, values)


def _range(pieces: Sequence[str], *, text: str) -> tuple[Any, ...]:
    """Return the numbers of a range, with the decimals in which they would be written."""
    numbers = [piece.strip() for piece in pieces]
    if len(numbers) not in (2, 3) or not all(map(_NUMBER.fullmatch, numbers)):
        raise ConfigError(f"a range is start:stop or start:stop:step, of numbers, not {shown(text)}")
    start, stop, width = map(Decimal, [*numbers, "1"][:3])
    if not width:
        raise ConfigError(f"the step in {shown(text)} must not be 0")
    try:
        steps = (stop - start) / width
    except ArithmeticError:  # out of the range of decimal numbers
        raise ConfigError(f"the range in {shown(text)} is of numbers that are too large or too small") from None
    if steps < 0:
        raise ConfigError(f"the range in {shown(text)} has no value: its step leads away from its stop")
    if steps >= MOST_ROWS:
        raise ConfigError(f"the range in {shown(text)} has more than {MOST_ROWS} values")
    whole = all(re.fullmatch("[-+]?[0-9]+", number) for number in numbers)
    values = tuple((int if whole else float)(start + number * width) for number in range(int(steps) + 1))
    if not all(map(math.isfinite, values)):
        raise ConfigError(f"the range in {shown(text)} is of numbers that are too large or too small")
    return values


def _split(text: str) -> list[str]:
    """Split at commas outside of brackets, braces and quotes."""
    pieces, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        depth += (letter in "[{" and not quote) - (letter in "]}" and not quote)
        if letter == "," and depth == 0 and not quote:
            pieces.append("")
        else:
            pieces[-1] += letter
    return pieces


def find_field(config: ExperimentConfig, name: str) -> str:
    """Return the whole path of a field that is given by the end of its path, if one field alone ends like that.

    Raises:
        ConfigError: several fields end like that, or none.

    >>> find_field(load_preset("single"), "learning_rate")
    'training.learning_rate'
    """
    if name.partition(".")[0] in (*ExperimentConfig.model_fields, *COMPOSED_FIELDS):
        return name  # the config rejects an unknown field below it, with the known ones
    paths = _paths(config.model_dump(mode="json"))
    found = [path for path in paths if path.endswith(f".{name}")]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(f"{name} is the end of several fields: write {' or '.join(found)}")
    raise ConfigError(f"no field {shown(name)} in this experiment; {choose_from(name[:_LONGEST_FOLDER], paths)}")


def _paths(fields: Mapping[str, Any], above: str = "") -> list[str]:
    paths = []
    for name, value in fields.items():
        paths.append(above + name)
        paths += _paths(value, f"{above}{name}.") if isinstance(value, dict) else []
    return paths


@dataclass(frozen=True)
class SweptRow:
    """Row of a sweep: its name, its values by path of the field, and its job."""

    name: str
    values: Mapping[str, Any]
    job: Job


def field_rows(
    output: Path, fields: Sequence[str], base: ExperimentConfigReader, *, prompt: Path | None = None
) -> tuple[list[SweptField], list[SweptRow]]:
    """Return the swept fields and the rows of a sweep, the last field varying fastest.

    A training is shared by all rows that differ in fields of the evaluation alone.

    Args:
        output: folder of the sweep.
        fields: "FIELD=VALUES" each; see `parse_swept`.
        base: reads the experiment with some changes `a.b=c`.
        prompt: file of a learned prompt, which is evaluated in every row.

    Raises:
        ConfigError: a field or a value does not fit, rows are of different pairs or protocols, or a field changes
            nothing of what is measured.
    """
    if not fields:
        raise ConfigError("a sweep needs a field, for example evaluation.sampling.timestep=0:500:50")
    parsed = [parse_swept(text) for text in fields]
    swept = [SweptField(find_field(base([]), field.path), field.values) for field in parsed]
    paths = [field.path for field in swept]
    for path in paths:
        if paths.count(path) > 1:
            raise ConfigError(f"{path} is swept twice: write all its values in one")
        if prompt is not None and path.partition(".")[0] in (*_OF_A_TRAINING, "prompt"):
            raise ConfigError(f"{path} changes nothing of a prompt that is learned: leave --prompt out, or the field")
    rows = 1
    for field in swept:
        rows *= len(field.values)
    if rows > MOST_ROWS:
        raise ConfigError(f"the sweep has {rows} rows; it may have {MOST_ROWS}")
    found = [_row(output, swept, values, base, prompt) for values in product(*(field.values for field in swept))]
    _check_common({row.name: row.job.config for row in found})
    _check_different(found)
    return swept, found


def _row(
    output: Path, swept: Sequence[SweptField], values: Sequence[Any], base: ExperimentConfigReader, prompt: Path | None
) -> SweptRow:
    named = dict(zip((field.path for field in swept), values, strict=True))
    texts = _value_texts(named, labels(named))
    config = base(_changes(swept, values)).with_learned(prompt)
    trained = [number for number, field in enumerate(swept) if not field.is_evaluated_only]
    job = Job(config, output / _folder(texts), prompt)
    if prompt is None and len(trained) < len(swept):
        training = base(_changes([swept[n] for n in trained], [values[n] for n in trained]))
        folder = _folder(["training", *(texts[number] for number in trained)])
        job = Job(config, job.folder, training=training, trained_in=output / folder)
    return SweptRow(", ".join(texts), named, job)


def labels(paths: Iterable[str]) -> dict[str, str]:
    """Return the name of each field in rows: the last name of its path, or the whole path if two are equal.

    >>> labels(["seed", "training.sampling.timestep", "evaluation.sampling.timestep"])["seed"]
    'seed'
    >>> labels(["training.sampling.timestep", "evaluation.sampling.timestep"])["evaluation.sampling.timestep"]
    'evaluation.sampling.timestep'
    """
    last = {path: path.rpartition(".")[2] for path in paths}
    return {path: path if list(last.values()).count(name) > 1 else name for path, name in last.items()}


def _value_texts(values: Mapping[str, Any], names: Mapping[str, str], *, without: str | None = None) -> list[str]:
    """Return the values of a row as texts "name=value", without those of one field."""
    return [f"{names[path]}={_text(value)}" for path, value in values.items() if path != without]


def _changes(swept: Iterable[SweptField], values: Iterable[Any]) -> list[str]:
    return [f"{field.path}={_text(value)}" for field, value in zip(swept, values, strict=True)]


def _text(value: Any) -> str:
    """Return a value as YAML in one line."""
    if isinstance(value, str) and _WORDS.fullmatch(value) and parse_yaml(value, what="a value") == value:
        return value
    return json.dumps(value)


def _folder(texts: Sequence[str]) -> str:
    """Return the name of a folder for a row; unusual characters are replaced, with a digest to keep names distinct."""
    name = ",".join(texts)
    safe = re.sub(r"[^A-Za-z0-9=.,_+-]", "-", name)
    return safe if safe == name and len(name) <= _LONGEST_FOLDER else f"{safe[:_LONGEST_FOLDER]}-{digest(name)[:8]}"


def _check_common(configs: Mapping[str, ExperimentConfig]) -> None:
    (first_name, first), *others = configs.items()
    for name, config in others:
        for path in _COMMON:
            if _value(config, path) != _value(first, path):
                raise ConfigError(
                    f"{name} and {first_name} differ in {path}: they are not counted by one protocol on the same "
                    "pairs, so no table can hold both"
                )


def _check_different(rows: Sequence[SweptRow]) -> None:
    """Check that rows differ in a field that their counts depend on."""
    seen: dict[str, SweptRow] = {}
    for row in rows:
        other = seen.setdefault(json.dumps(_measured_fields(row.job), sort_keys=True), row)
        if other is not row:
            fields = [path for path, value in row.values.items() if value != other.values[path]]
            raise ConfigError(
                f"{row.name} and {other.name} would be the same row: nothing that is measured here depends on "
                f"{' or '.join(fields)}"
            )


def _measured_fields(job: Job) -> dict[str, Any]:
    """Return the fields of an experiment on which the counts of a row depend."""
    fields = job.config.model_dump(mode="json")
    trains = job.prompt_file is None and may_learn(job.config)
    for path in (*_WITHOUT_EFFECT, *(() if trains else _OF_A_TRAINING)):
        *groups, last = path.split(".")
        group = fields
        for name in groups:
            group = group.get(name) or {}
        group.pop(last, None)
    for section in ("training", "evaluation"):
        sampling = fields.get(section, {}).get("sampling", {})
        if sampling.get("ensemble_size") == 1 and sampling.get("ensemble") in _BUILT_IN_ENSEMBLES:
            sampling.pop("ensemble")  # one noise is the same in all of them
    return fields


def _value(config: Any, path: str) -> Any:
    for name in path.split("."):
        config = getattr(config, name)
    return config


@check_arguments
def sweep_fields(
    output: str | Path,
    fields: Sequence[str],
    *,
    preset: str = "single",
    overrides: Iterable[str] = (),
    prompt: str | Path | None = None,
    split: Split = "test",
    device: str | torch.device = "cpu",
    callbacks: SweepCallbacks | None = None,
) -> Report:
    """Measure an experiment with every combination of the values of some fields, after training where that is needed.

    Results in `output` are not trained or measured again, and a stopped training is resumed.

    Args:
        output: folder; each row has a subfolder of its name.
        fields: "FIELD=a,b,c" or "FIELD=start:stop:step" each, which includes the stop if a step reaches it; the end of
            the path of a field suffices if it is unique.
        preset: name of the experiment.
        overrides: changes `a.b=c` to all rows.
        prompt: file of a learned prompt for all rows; None: the experiment's prompt is trained once for each
            combination of the fields that a training depends on.
        split: split that is measured.
        device: device of all computations, for example "cpu" or "cuda".
        callbacks: functions to call during the sweep.

    Returns:
        The report of all rows, each compared with the first.

    Raises:
        ConfigError: a field or a value does not fit; see `field_rows`.
        InputError: the folder of a row holds other files than those of an earlier sweep.

    Warns:
        DamagedScoresWarning: scores of an earlier sweep are damaged.
    """
    changes = list(overrides)
    file = None if prompt is None else as_path(prompt, what="prompt")
    folder = as_path(output, what="output")
    swept, rows = field_rows(folder, fields, lambda more: load_preset(preset, [*changes, *more]), prompt=file)
    return measure_rows(folder, swept, rows, split=split, device=device, callbacks=callbacks)


def measure_rows(
    folder: Path,
    swept: Sequence[SweptField],
    rows: Sequence[SweptRow],
    *,
    split: Split = "test",
    device: str | torch.device = "cpu",
    callbacks: SweepCallbacks | None = None,
) -> Report:
    """Measure rows of `field_rows`; see `sweep_fields`."""
    started = time.perf_counter()
    rows[0].job.config.require_data()
    Processes().on_main(lambda: check_jobs(folder, {row.name: row.job for row in rows}))
    bench = Bench(split, device, callbacks or SweepCallbacks())
    measured: dict[str, MeasuredScores] = {}
    entries = []
    for row in rows:
        measured[row.name] = bench.measure(row.name, row.job)
        entries.append(backbone_entry(row.job.config, bench.backbone(row.job.config)))
    first = rows[0].job.config
    scores = {name: measurement.scores for name, measurement in measured.items()}
    over_seeds = {name: _as_json(found) for name, found in seed_means(swept, rows, measured).items()}
    return make_report(
        config=first,
        data=bench.pairs(first),
        results=[
            make_row(
                row.name,
                scores[row.name],
                first,
                matcher=row.job.config.matcher.kind,
                extra={"swept_values": dict(row.values), "backbone": entry, **row_record(row.job, first, folder)},
            )
            for row, entry in zip(rows, entries, strict=True)
        ],
        comparisons=_against_first(first, scores),
        backbone=_all_of(entries),
        wall_seconds=time.perf_counter() - started,
        extra={
            "split": split,
            "seconds": {name: measurement.seconds for name, measurement in measured.items()},
            "swept": {field.path: list(field.values) for field in swept},
            **({"over_seeds": over_seeds} if over_seeds else {}),
        },
        configs=[row.job.config for row in rows],
    )


def _against_first(config: ExperimentConfig, scores: Mapping[str, Any]) -> list[Comparison]:
    first, *others = scores
    return [compare_prompts(config, scores, name, first) for name in others]


def _all_of(entries: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return the description of the backbones of all rows in a report."""
    return {key: ", ".join(dict.fromkeys(entry[key] for entry in entries)) for key in entries[0]}


def _as_json(found: Estimate) -> dict[str, Any]:
    return {"mean": found.mean, "ci95": list(found.ci95), "by_seed": list(found.by_seed)}


def seed_means(
    swept: Sequence[SweptField], rows: Sequence[SweptRow], measured: Mapping[str, MeasuredScores], *, alpha: float = 0.1
) -> dict[str, Estimate]:
    """Return the mean of each combination of the other fields over the seeds, per image; {} if no seed is swept."""
    seed = next((field for field in swept if field.path in ("seed", "training.seed")), None)
    if seed is None or len(swept) == 1:
        return {}
    groups: dict[str, list[Any]] = {}
    names = labels(field.path for field in swept)
    for row in rows:
        others = _value_texts(row.values, names, without=seed.path)
        groups.setdefault(", ".join(others), []).append(measured[row.name].scores)
    if any(alpha not in scores.alphas for group in groups.values() for scores in group):
        return {}
    return {name: estimate(image_values(group, alpha=alpha)) for name, group in groups.items()}


def plot_sweep(report: Report, *, title: str) -> Figure | None:
    """Plot the PCK of a sweep over its numeric field, a line for each combination of the others; otherwise as bars.

    Args:
        report: from `sweep_fields`.
        title: title of the plot.

    Returns:
        The plot; None if there is more than one can show.
    """
    from sd4match.viz.plots import MOST_BARS, MOST_LINES, plot_bars, plot_pck_over

    alpha = "0.1" if "0.1" in report.results[0].pck["image"] else list(report.results[0].pck["image"])[-1]
    swept = [SweptField(path, tuple(values)) for path, values in report.extra["swept"].items()]
    over = next((field for field in swept if field.is_numeric and len(field.values) > 1 and field.name != "seed"), None)
    pck = {row.prompt: row.pck["image"][alpha] for row in report.results}
    intervals = {row.prompt: row.ci95["image"][alpha] for row in report.results}
    if over is None:
        return plot_bars(pck, intervals=intervals, title=title) if len(pck) <= MOST_BARS else None
    lines: dict[str, list[str]] = {}
    names = labels(field.path for field in swept)
    for row in report.results:
        others = _value_texts(row.extra["swept_values"], names, without=over.path)
        lines.setdefault(", ".join(others) or "PCK", []).append(row.prompt)
    if len(lines) > MOST_LINES:
        return None
    return plot_pck_over(
        [float(value) for value in over.values],
        {name: [pck[row] for row in rows] for name, rows in lines.items()},
        intervals={name: [intervals[row] for row in rows] for name, rows in lines.items()},
        xlabel=over.path, title=title,
    )  # fmt: skip
