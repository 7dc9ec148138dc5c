"""Reports: results with everything needed to repeat the run, and their files."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from sd4match.arguments import check_arguments, check_fields
from sd4match.config.experiment import ExperimentConfig
from sd4match.config.sections import SamplingConfig
from sd4match.documents import read_json
from sd4match.errors import InputError, shown
from sd4match.evaluation.published import PublishedRow, published_for
from sd4match.evaluation.run_folders import check_report_folder
from sd4match.evaluation.scores import AVERAGES, PairScores
from sd4match.hashing import digest
from sd4match.interfaces import Backbone, PairDataset
from sd4match.io.files import write_together
from sd4match.paths import as_path, is_folder, resolved
from sd4match.version import __version__

SCHEMA_VERSION = 3
REPORT_FILE = "report.json"

_PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "numpy", "pillow")
_COLUMNS = ("pair_ids", "categories", "visible", "correct", "difficulty", "skipped", "kept")
"""Columns of counts, each of which is one line of the file."""

_BACKBONE_FIELDS = ("name", "architecture", "fingerprint")
_LARGEST = 1e15

_Value = TypeVar("_Value")


@dataclass(frozen=True, eq=False)
class Row:
    """Result of one prompt or baseline under one matcher.

    Objects hold arrays and are compared by identity.

    Args:
        prompt: name of the prompt, or of the baseline.
        matcher: kind of the matcher; "none" for baselines.
        protocol: name of the evaluation protocol.
        pck: PCK in [0, 1] by average and alpha.
        ci95: 95 % bootstrap intervals by average and alpha.
        scores: counts of every pair.
        extra: further values that JSON can represent.

    Raises:
        InputError: a field is of another type, or PCK and intervals have other averages or alphas than the counts.

    >>> from sd4match.config import load_preset
    >>> from sd4match.evaluation import evaluate
    >>> config = load_preset("mini-empty", ["data.pairs=2", "data.photos_per_category=4"])
    >>> report = evaluate(config, baselines=["identity"], only_baselines=True)
    >>> report.results[0].prompt, report.results[0].matcher, report.results[0].pairs
    ('identity', 'none', 2)
    """

    prompt: str
    matcher: str
    protocol: str
    pck: Mapping[str, Mapping[str, float]]
    ci95: Mapping[str, Mapping[str, tuple[float, float]]]
    scores: PairScores
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self)
        alphas = [f"{alpha:g}" for alpha in self.scores.alphas]
        for name, table in (("pck", self.pck), ("ci95", self.ci95)):
            for average in AVERAGES:
                if set(table.get(average, ())) != set(alphas):
                    raise InputError(f"{name}.{average}: must have the alphas of the counts, {', '.join(alphas)}")

    @property
    def pairs(self) -> int:
        """Number of pairs with a visible point."""
        return len(self.scores)

    @property
    def pairs_skipped(self) -> int:
        """Number of pairs that could not be read."""
        return len(self.scores.skipped)

    @property
    def points(self) -> int:
        """Number of visible points."""
        return int(self.scores.visible.sum())

    def to_json(self) -> dict[str, Any]:
        """Return values that JSON can represent; inverse of `from_json`."""
        return {
            "prompt": self.prompt,
            "matcher": self.matcher,
            "protocol": self.protocol,
            "pairs": self.pairs,
            "pairs_without_visible_points": self.scores.left_out,
            "pairs_skipped": self.pairs_skipped,
            "points": self.points,
            "pck": {average: dict(values) for average, values in self.pck.items()},
            "ci95": {
                average: {alpha: list(interval) for alpha, interval in values.items()}
                for average, values in self.ci95.items()
            },
            "by_category": self.scores.by_category(),
            "by_difficulty": self.scores.by_difficulty(),
            "counts": self.scores.to_json(),
            **self._of_kept(),
            **self.extra,
        }

    def _of_kept(self) -> dict[str, Any]:
        """Return coverage and PCK of the accepted points, if the matcher rejects any."""
        if self.scores.kept is None:
            return {}
        return {"coverage": self.scores.coverage, "pck_of_kept": self.scores.pck_of_kept()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Row:
        """Rebuild a row from the values of `to_json`.

        Args:
            values: mapping from `to_json`.

        Raises:
            InputError: a field is missing or malformed; the message names it.
        """
        derived = (
            "pairs", "pairs_without_visible_points", "pairs_skipped", "points", "by_category", "by_difficulty",
            "coverage", "pck_of_kept",
        )  # fmt: skip
        known = {"prompt", "matcher", "protocol", "pck", "ci95", "counts", *derived}
        row = cls(
            prompt=_get(values, "prompt", str),
            matcher=_get(values, "matcher", str),
            protocol=_get(values, "protocol", str),
            pck=_numbers(_get(values, "pck", Mapping), "pck"),  # type: ignore[type-abstract]
            ci95=_intervals(_get(values, "ci95", Mapping), "ci95"),  # type: ignore[type-abstract]
            scores=PairScores.from_json(_get(values, "counts", Mapping)),  # type: ignore[type-abstract]
            extra={name: value for name, value in values.items() if name not in known},
        )
        row._check_against_counts()
        return row

    def _check_against_counts(self) -> None:
        """Check that the values follow from the counts."""
        for average in AVERAGES:
            counted = self.scores.pck(average)
            for alpha, value in counted.items():
                if not math.isclose(value, self.pck[average][alpha], abs_tol=1e-6):
                    raise InputError(
                        f"pck.{average}.{alpha}: is {self.pck[average][alpha]}, but the counts give {value:.6f}"
                    )


@dataclass(frozen=True)
class Comparison:
    """Difference a - b of two rows on the same pairs, with its paired bootstrap interval.

    Args:
        a: name of a row.
        b: name of the row that is subtracted.
        metric: average and threshold, for example "image PCK@0.1".
        difference: difference of PCK, in [-1, 1].
        ci95: 95 % interval of the difference.

    Raises:
        InputError: a field is of another type.

    >>> Comparison("single", "empty", "image PCK@0.1", 0.05, (0.02, 0.08)).to_json()["ci95"]
    [0.02, 0.08]
    """

    a: str
    b: str
    metric: str
    difference: float
    ci95: tuple[float, float]

    def __post_init__(self) -> None:
        check_fields(self)

    def to_json(self) -> dict[str, Any]:
        """Return values that JSON can represent; inverse of `from_json`."""
        return {**asdict(self), "ci95": list(self.ci95)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Comparison:
        """Rebuild a comparison from the values of `to_json`.

        Args:
            values: mapping from `to_json`.

        Raises:
            InputError: a field is missing or malformed; the message names it.
        """
        names = {name: _get(values, name, str) for name in ("a", "b", "metric")}
        difference, ci95 = _number(values, "difference", low=-1.0), _interval(values.get("ci95"), "ci95", low=-1.0)
        return cls(**names, difference=difference, ci95=ci95)


@dataclass(frozen=True)
class DataSummary:
    """Summary of the evaluated pairs.

    Args:
        name: name of the data set.
        split: split of the data set.
        pairs: number of pairs.
        published_pairs: number of pairs of the published split; None if unknown.
        complete: True if they are the whole published test split.
        pair_list_digest: digest of their ids in order.
        categories: categories of the data set.
        reference: length that alpha is a fraction of, "box" or "photo".
    """

    name: str
    split: str
    pairs: int
    published_pairs: int | None
    complete: bool
    pair_list_digest: str
    categories: tuple[str, ...]
    reference: str

    def __post_init__(self) -> None:
        check_fields(self)

    @classmethod
    def of(cls, data: PairDataset) -> DataSummary:
        """Summarize a data set."""
        ids = [key.pair_id for key in data.keys]
        published = data.published_pairs.get(data.split)
        return cls(
            name=data.name, split=data.split, pairs=len(ids), published_pairs=published,
            complete=data.split == "test" and published == len(ids), pair_list_digest=digest(*ids),
            categories=tuple(data.categories), reference=data.reference,
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Return values that JSON can represent; inverse of `from_json`."""
        return {**asdict(self), "categories": list(self.categories)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> DataSummary:
        """Rebuild a summary from the values of `to_json`.

        Args:
            values: mapping from `to_json`.

        Raises:
            InputError: a field is missing or malformed; the message names it.
        """
        texts = {name: _get(values, name, str) for name in ("name", "split", "pair_list_digest", "reference")}
        return cls(
            **texts, pairs=_count(values, "pairs"), complete=_get(values, "complete", bool),
            published_pairs=None if values.get("published_pairs") is None else _count(values, "published_pairs"),
            categories=_texts(values, "categories"),
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Report:
    """Results of a run, with everything needed to repeat it.

    Objects hold arrays and are compared by identity.

    Args:
        results: one row per prompt and matcher.
        comparisons: differences of rows.
        baselines: rows that are shown below the results.
        protocol: name of the evaluation protocol.
        data: summary of the evaluated pairs.
        not_comparable_because: reasons why no published number can be compared with the results.
        published: published results on the same data set.
        backbone: name, architecture and fingerprint; None if no model was used.
        config: the whole experiment.
        seed: seed of the training.
        versions: versions of this package, Python and the packages that numbers may depend on.
        platform: operating system and processor.
        wall_seconds: duration of the run.
        extra: further values that JSON can represent, stored beside the others.

    Raises:
        InputError: a field is of another type.

    >>> from sd4match.config import load_preset
    >>> from sd4match.evaluation import evaluate
    >>> config = load_preset("mini-empty", ["data.pairs=2", "data.photos_per_category=4"])
    >>> report = evaluate(config, baselines=["identity"], only_baselines=True)
    >>> report.data.pairs, report.protocol, [row.prompt for row in report.rows]
    (2, 'sd4match', ['identity'])
    """

    results: tuple[Row, ...]
    comparisons: tuple[Comparison, ...]
    baselines: tuple[Row, ...]
    protocol: str
    data: DataSummary
    not_comparable_because: tuple[str, ...]
    published: tuple[PublishedRow, ...]
    backbone: Mapping[str, str] | None
    config: Mapping[str, Any]
    seed: int
    versions: Mapping[str, str]
    platform: str
    wall_seconds: float
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def rows(self) -> tuple[Row, ...]:
        """Results, then baselines."""
        return self.results + self.baselines

    @check_arguments
    def row(self, prompt: str) -> Row:
        """Return the row of a prompt or a baseline.

        Args:
            prompt: name of a prompt or a baseline.

        Raises:
            InputError: no row has that name.
        """
        for row in self.rows:
            if row.prompt == prompt:
                return row
        raise InputError(f"no row {prompt!r}; it has {', '.join(row.prompt for row in self.rows)}")

    def to_json(self) -> dict[str, Any]:
        """Return values that JSON can represent; inverse of `from_json`."""
        return {
            "schema_version": SCHEMA_VERSION,
            "results": [row.to_json() for row in self.results],
            "comparisons": [comparison.to_json() for comparison in self.comparisons],
            "baselines": [row.to_json() for row in self.baselines],
            "protocol": self.protocol,
            "data": self.data.to_json(),
            "not_comparable_because": list(self.not_comparable_because),
            "published": [row.to_json() for row in self.published],
            "backbone": None if self.backbone is None else dict(self.backbone),
            "config": dict(self.config),
            "seed": self.seed,
            "versions": dict(self.versions),
            "platform": self.platform,
            "wall_seconds": self.wall_seconds,
            **self.extra,
        }

    @classmethod
    def from_json(cls, values: object) -> Report:
        """Rebuild a report from the values of `to_json`.

        Args:
            values: mapping from `to_json`, for example read from `report.json`.

        Raises:
            InputError: it is of another schema version, or a field is missing or malformed; the message names it.
        """
        found = values.get("schema_version") if isinstance(values, Mapping) else None
        if not isinstance(values, Mapping) or found != SCHEMA_VERSION:
            raise InputError(f"not a report of schema version {SCHEMA_VERSION} (schema_version: {shown(found)})")
        known = {own.name for own in fields(cls)} | {"schema_version"}
        report = cls(
            results=_each(values, "results", Row.from_json),
            comparisons=_each(values, "comparisons", Comparison.from_json),
            baselines=_each(values, "baselines", Row.from_json),
            protocol=_get(values, "protocol", str),
            data=_inside("data", lambda: DataSummary.from_json(_get(values, "data", Mapping))),  # type: ignore[type-abstract]
            not_comparable_because=_texts(values, "not_comparable_because"),
            published=_each(values, "published", PublishedRow.from_json),
            backbone=None if values.get("backbone") is None else _text_fields(values, "backbone", _BACKBONE_FIELDS),
            config=_get(values, "config", Mapping),  # type: ignore[type-abstract]
            seed=_count(values, "seed"),
            versions=_text_fields(values, "versions", ("sd4match", "torch")),
            platform=_get(values, "platform", str),
            wall_seconds=_number(values, "wall_seconds", high=math.inf),
            extra={name: value for name, value in values.items() if name not in known},
        )
        report._check_rows()
        return report

    @property
    def protocol_fields(self) -> Mapping[str, Any]:
        """Fields of the evaluation protocol in the config.

        Raises:
            InputError: they are missing or malformed.
        """
        evaluation = _get(self.config, "evaluation", Mapping)  # type: ignore[type-abstract]
        return _get(evaluation, "protocol", Mapping)  # type: ignore[type-abstract]

    def _check_rows(self) -> None:
        """Check that rows agree with one another, with the protocol and with the data."""
        if not self.rows:
            raise InputError("results: a report needs at least one row")
        protocol = _inside("config.evaluation.protocol", lambda: self.protocol_fields)
        for row in self.rows:
            counted = len(row.scores) + row.scores.left_out + row.pairs_skipped
            for field_name, found, wanted in (
                ("protocol", row.protocol, self.protocol),
                ("counts: alphas", list(row.scores.alphas), protocol.get("alphas")),
                ("counts", f"{counted} pairs", f"{self.data.pairs} pairs"),
            ):
                if found != wanted:
                    raise InputError(
                        f"the row {shown(row.prompt)}: {field_name}: {shown(found)} is not the report's {shown(wanted)}"
                    )


def make_row(
    prompt: str,
    scores: PairScores,
    config: ExperimentConfig,
    *,
    matcher: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Row:
    """Return the row of one prompt: PCK, 95 % bootstrap intervals and the counts of every pair.

    Args:
        prompt: name of the row.
        scores: counts.
        config: experiment, whose evaluation section is used.
        matcher: kind of the matcher, if it is not the config's; "none" for baselines.
        extra: further values that JSON can represent.

    Raises:
        InputError: no pair has a visible point.
    """
    evaluation = config.evaluation
    intervals = scores.intervals(samples=evaluation.bootstrap_samples, seed=evaluation.seed)
    return Row(
        prompt=prompt,
        matcher=matcher or config.matcher.kind,
        protocol=evaluation.protocol.name,
        pck={average: scores.pck(average) for average in AVERAGES},
        ci95={average: values for average, values in intervals.items()},  # noqa: C416 - keys of a wider type
        scores=scores,
        extra=dict(extra or {}),
    )


def make_report(
    *,
    config: ExperimentConfig,
    data: PairDataset,
    results: Sequence[Row],
    comparisons: Sequence[Comparison] = (),
    baselines: Sequence[Row] = (),
    backbone: Mapping[str, str] | None,
    wall_seconds: float,
    extra: Mapping[str, Any] | None = None,
    configs: Sequence[ExperimentConfig] = (),
) -> Report:
    """Return the report of a run, for all commands that evaluate.

    Args:
        config: the experiment.
        data: all pairs that were evaluated.
        results: rows from `make_row`.
        comparisons: differences of rows.
        baselines: rows from `make_row`.
        backbone: entry from `backbone_entry`; None if no model was used.
        wall_seconds: duration of the run.
        extra: further values that JSON can represent.
        configs: experiment of each result, if they differ; reasons that concern single results are then in their
            `extra`, as `not_comparable_because`.
    """
    protocol, summary = config.evaluation.protocol, DataSummary.of(data)
    name = None if backbone is None else backbone["name"]
    models = [own.backbone.model_name for own in configs] if configs else [name]
    reasons = [
        not_comparable_because(own, summary, model=model, skipped=any(row.pairs_skipped for row in results))
        for own, model in zip(configs or (config,), models, strict=True)
    ]
    against_all = tuple(reason for reason in reasons[0] if all(reason in own for own in reasons))
    if configs:
        results = [_with_reasons(row, own, against_all) for row, own in zip(results, reasons, strict=True)]
    return Report(
        results=tuple(results),
        comparisons=tuple(comparisons),
        baselines=tuple(baselines),
        protocol=protocol.name,
        data=summary,
        not_comparable_because=against_all,
        published=published_for(summary.name, protocol=protocol.name, against_all=against_all),
        backbone=None if backbone is None else dict(backbone),
        config=config.model_dump(mode="json"),
        seed=config.training.seed,
        versions=versions(),
        platform=platform.platform(),
        wall_seconds=round(wall_seconds, 2),
        extra=dict(extra or {}),
    )


def not_comparable_because(
    config: ExperimentConfig, data: DataSummary, *, model: str | None, skipped: bool = False
) -> tuple[str, ...]:
    """Return the reasons why no published number can be compared with the result of an experiment.

    Args:
        config: the experiment.
        data: pairs that were evaluated.
        model: name of the model whose features were used; None for baselines, which use none.
        skipped: True if pairs were left out because they could not be read.
    """
    protocol, sampling = config.evaluation.protocol, config.evaluation.sampling
    published_ensemble = sampling.ensemble == SamplingConfig().ensemble or sampling.ensemble_size == 1
    reasons = {
        "ours is not of the whole published test split": not data.complete,
        "some of our pairs were left out": skipped,
        "ours was matched otherwise than the protocol's benchmark": config.matcher != protocol.matcher,
        f"ours is of {sampling.ensemble} noises, not of independent ones": not published_ensemble,
        "ours is of mini, not of Stable Diffusion": model == "mini",
    }
    return tuple(reason for reason, holds in reasons.items() if holds)


def _with_reasons(row: Row, own: Sequence[str], against_all: Sequence[str]) -> Row:
    """Return a row with the reasons that keep only this row from being compared."""
    reasons = [reason for reason in own if reason not in against_all]
    return replace(row, extra={**row.extra, "not_comparable_because": reasons}) if reasons else row


def backbone_entry(config: ExperimentConfig, backbone: Backbone) -> dict[str, str]:
    """Return the description of a backbone in reports and prompt files: name, architecture and fingerprint."""
    weights = config.backbone.model_name
    name = weights if weights == "mini" else resolved(Path(weights).expanduser()).name
    return {"name": name, "architecture": backbone.spec.architecture, "fingerprint": backbone.fingerprint}


def versions() -> dict[str, str]:
    """Return the versions of this package, Python and the packages that numbers may depend on."""
    return {"sd4match": __version__, "python": platform.python_version()} | {name: _version(name) for name in _PACKAGES}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


@check_arguments
def write_report(
    report: Report, folder: str | Path, *, title: str, figures: Mapping[str, bytes] | None = None
) -> list[Path]:
    """Write `report.json`, `report.md`, `report.csv` and `report.tex`, and return their paths.

    The four files and the figures appear together or not at all.

    Args:
        report: the report.
        folder: folder to write to; it is created if it does not exist.
        title: heading of the report.
        figures: further files of the report by their names in the folder.

    Raises:
        InputError: the folder holds a report of another kind of run or a file of these names that sd4match did not
            write, or the report holds a value that JSON cannot represent.
        SD4MatchError: the folder cannot be written.

    >>> import tempfile
    >>> from sd4match.config import load_preset
    >>> from sd4match.evaluation import evaluate
    >>> config = load_preset("mini-empty", ["data.pairs=2", "data.photos_per_category=4"])
    >>> report = evaluate(config, baselines=["identity"], only_baselines=True)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [path.name for path in write_report(report, folder, title="Identity")]
    ['report.json', 'report.md', 'report.csv', 'report.tex']
    """
    from sd4match.evaluation.tables import to_csv, to_latex, to_markdown

    folder = as_path(folder, what="the folder of a report")
    check_report_folder(folder, report.extra)
    texts = {
        "report.json": _dump(report),
        "report.md": to_markdown(report, title=title),
        "report.csv": to_csv(report),
        "report.tex": to_latex(report, title=title),
    }
    contents = {folder / name: text.encode(errors="backslashreplace") for name, text in texts.items()}
    pictures = {folder / name: content for name, content in (figures or {}).items()}
    write_together({**contents, **pictures}, name=f"the report to {folder}")
    return list(contents)


def _dump(report: Report) -> str:
    """Return indented JSON in which each column of counts is one line."""
    values = report.to_json()
    columns: list[str] = []
    try:
        for row in (*values["results"], *values["baselines"]):
            for name in filter(row["counts"].__contains__, _COLUMNS):
                columns.append(json.dumps(row["counts"][name], allow_nan=False))
                row["counts"][name] = f"@column {len(columns) - 1}@"
        text = json.dumps(values, indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"the report holds a value that JSON does not have: {error}") from None
    for number, column in enumerate(columns):
        text = text.replace(f'"@column {number}@"', column, 1)
    return text + "\n"


@check_arguments
def read_report(path: str | Path) -> Report:
    """Read a report from its folder or its `report.json`.

    Args:
        path: folder of a report, or its `report.json`.

    Raises:
        InputError: there is no report, or it is malformed; the message names file and field.

    >>> import tempfile
    >>> from sd4match.config import load_preset
    >>> from sd4match.evaluation import evaluate
    >>> config = load_preset("mini-empty", ["data.pairs=2", "data.photos_per_category=4"])
    >>> report = evaluate(config, baselines=["identity"], only_baselines=True)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = write_report(report, folder, title="Identity")
    ...     read_report(folder).results[0].prompt
    'identity'
    """
    file = as_path(path, what="the report")
    file = file / REPORT_FILE if is_folder(file) else file
    content = read_json(file, what="report")
    return _inside(f"the report {file}", lambda: Report.from_json(content))


def _inside(name: str, action: Callable[[], _Value]) -> _Value:
    """Return what an action returns, with a name before the message of its error."""
    try:
        return action()
    except InputError as error:
        raise InputError(f"{name}: {error}") from None


def _each(values: Mapping[str, Any], name: str, build: Any) -> tuple[Any, ...]:
    """Build every entry of a list."""
    entries = _get(values, name, list)
    for number, entry in enumerate(entries):
        if not isinstance(entry, Mapping):
            raise InputError(f"{name}[{number}]: must be a mapping, not {shown(entry)}")
    return tuple(_inside(f"{name}[{number}]", partial(build, entry)) for number, entry in enumerate(entries))


def _get(values: Mapping[str, Any], name: str, kind: type[_Value]) -> _Value:
    """Return a field of a type."""
    if name not in values:
        raise InputError(f"{name}: is missing")
    value = values[name]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InputError(f"{name}: must be of type {kind.__name__}, not {shown(value)}")
    return value


def _number(values: Mapping[str, Any], name: str, *, low: float = 0.0, high: float = 1.0) -> float:
    if name not in values:
        raise InputError(f"{name}: is missing")
    return _as_number(values[name], name, low=low, high=high)


def _as_number(value: object, name: str, *, low: float = 0.0, high: float = 1.0) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= min(high, _LARGEST):
        bounds = f"{low:g} to {high:g}" if math.isfinite(high) else f"of at least {low:g}"
        raise InputError(f"{name}: must be a number {bounds}, not {shown(value)}")
    return float(value)


def _interval(value: object, name: str, *, low: float = 0.0) -> tuple[float, float]:
    if not isinstance(value, list) or len(value) != 2:
        raise InputError(f"{name}: must be two numbers, not {shown(value)}")
    first, last = (_as_number(bound, name, low=low) for bound in value)
    if first > last:
        raise InputError(f"{name}: must be two numbers, the smaller one first, not {shown(value)}")
    return first, last


def _count(values: Mapping[str, Any], name: str) -> int:
    value = _get(values, name, int)
    if not 0 <= value < 2**63:
        raise InputError(f"{name}: must be a whole number of at least 0, not {shown(value)}")
    return value


def _texts(values: Mapping[str, Any], name: str) -> tuple[str, ...]:
    texts = _get(values, name, list)
    for text in texts:
        if not isinstance(text, str):
            raise InputError(f"{name}: must be texts, not {shown(text)}")
    return tuple(texts)


def _text_fields(values: Mapping[str, Any], name: str, wanted: Sequence[str]) -> Mapping[str, str]:
    """Return a mapping of texts that has some fields at least."""
    texts = _get(values, name, Mapping)  # type: ignore[type-abstract]
    for field_name in (*wanted, *texts):
        _inside(name, lambda field_name=field_name: _get(texts, field_name, str))  # type: ignore[misc]
    return texts


def _by_average(values: Mapping[str, Any], name: str, convert: Any) -> dict[str, dict[str, Any]]:
    """Convert the values of a table by average and alpha."""
    table: dict[str, dict[str, Any]] = {}
    for average in AVERAGES:
        by_alpha = _inside(name, lambda average=average: _get(values, average, Mapping))  # type: ignore[misc, type-abstract]
        table[average] = {alpha: convert(value, f"{name}.{average}.{alpha}") for alpha, value in by_alpha.items()}
    return table


def _numbers(values: Mapping[str, Any], name: str) -> dict[str, dict[str, float]]:
    return _by_average(values, name, _as_number)


def _intervals(values: Mapping[str, Any], name: str) -> dict[str, dict[str, tuple[float, float]]]:
    return _by_average(values, name, _interval)
