"""Reports: everything needed to repeat a run, and its tables."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sd4match.config.experiment import ExperimentConfig
from sd4match.errors import InputError
from sd4match.evaluation.published import published_for
from sd4match.evaluation.scores import AVERAGES, Comparison, PairScores
from sd4match.evaluation.tables import to_csv, to_latex, to_markdown
from sd4match.hashing import digest
from sd4match.interfaces import Backbone, PairDataset
from sd4match.io.files import write_atomically
from sd4match.version import __version__

SCHEMA_VERSION = 2

_PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "numpy", "pillow")
_COMPACT = ("pair_ids", "categories", "visible", "correct", "difficulty", "skipped")
"""Columns of counts: one line each in the file, whatever their length."""


def result(prompt: str, scores: PairScores, config: ExperimentConfig, *, matcher: str | None = None) -> dict[str, Any]:
    """One row of `results`: what one prompt scored, with 95 % bootstrap intervals and the counts of every pair.

    Args:
        prompt: the row's name.
        scores: its counts.
        config: of which the evaluation settings are read.
        matcher: its kind, if it is not the config's; "none" for what needs no matcher.
    """
    settings = config.evaluation
    return {
        "prompt": prompt,
        "matcher": matcher or config.matcher.kind,
        "measurement": settings.measurement.name,
        "pairs": len(scores),
        "pairs_without_visible_points": scores.left_out,
        "pairs_skipped": len(scores.skipped),
        "points": int(scores.visible.sum()),
        "pck": {average: scores.pck(average) for average in AVERAGES},
        "ci95": scores.intervals(samples=settings.bootstrap_samples, seed=settings.seed),
        "by_category": scores.by_category(),
        "by_difficulty": scores.by_difficulty(),
        "counts": scores.to_plain(),
    }


def comparison(a: str, b: str, outcome: Comparison, *, metric: str) -> dict[str, Any]:
    """One row of `comparisons`: a - b with its paired bootstrap interval."""
    return {"a": a, "b": b, "metric": metric, "difference": outcome.difference, "ci95": list(outcome.ci95)}


def make_report(
    *,
    config: ExperimentConfig,
    data: PairDataset,
    results: Sequence[Mapping[str, Any]],
    comparisons: Sequence[Mapping[str, Any]] = (),
    baselines: Sequence[Mapping[str, Any]] = (),
    backbone: Mapping[str, str] | None,
    wall_seconds: float,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The whole report as JSON-able values.

    Args:
        config: the experiment.
        data: the pairs that were measured, all of them.
        results: from `result`.
        comparisons: from `comparison`.
        baselines: from `result`.
        backbone: from `backbone_entry`; None if no model was used.
        wall_seconds: of the run.
        extra: more fields.
    """
    rule = config.evaluation.measurement
    entry = data_entry(data)
    reasons = {
        "ours is not of the whole published test split": not entry["complete"],
        "some of our pairs were left out": any(row["pairs_skipped"] for row in results),
        "ours was matched otherwise than the measurement's benchmark": config.matcher != rule.matcher,
        "ours is of mini, not of Stable Diffusion": backbone is not None and backbone["name"] == "mini",
    }
    against_all = [reason for reason, holds in reasons.items() if holds]
    return {
        "schema_version": SCHEMA_VERSION,
        "results": list(results),
        "comparisons": list(comparisons),
        "baselines": list(baselines),
        "measurement": rule.name,
        "data": entry,
        "not_comparable_because": against_all,
        "published": published_for(entry["name"], measurement=rule.name, against_all=against_all),
        "backbone": None if backbone is None else dict(backbone),
        "config": config.model_dump(mode="json"),
        "seed": config.training.seed,
        "versions": versions(),
        "platform": platform.platform(),
        "wall_seconds": round(wall_seconds, 2),
        **(extra or {}),
    }


def data_entry(data: PairDataset) -> dict[str, Any]:
    """What a report says of the pairs: a digest of their ids in order, and whether they are a whole published split."""
    ids = [key.pair_id for key in data.keys]
    expected = getattr(data, "published_pairs", {}).get(data.split)
    return {
        "name": data.name,
        "split": data.split,
        "pairs": len(ids),
        "published_pairs": expected,
        "complete": data.split == "test" and expected == len(ids),
        "pair_list_digest": digest(*ids),
        "categories": list(data.categories),
        "reference": data.reference,
    }


def backbone_entry(config: ExperimentConfig, backbone: Backbone) -> dict[str, str]:
    """What a report or a prompt file says of the backbone."""
    weights: Any = getattr(config.backbone, "weights", config.backbone.kind)
    name = weights if weights == "mini" else Path(str(weights)).expanduser().resolve().name
    return {"name": name, "architecture": backbone.spec.architecture, "fingerprint": backbone.fingerprint}


def versions() -> dict[str, str]:
    """Of this package, Python, and what numbers may depend on."""
    return {"sd4match": __version__, "python": platform.python_version()} | {name: _version(name) for name in _PACKAGES}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def write_report(report: Mapping[str, Any], folder: Path, *, title: str) -> list[Path]:
    """Write `report.json`, `report.md`, `report.csv` and `report.tex`.

    Raises:
        SD4MatchError: the folder cannot be written.
    """
    files = {
        "report.json": _dump(report),
        "report.md": to_markdown(report, title=title),
        "report.csv": to_csv(report),
        "report.tex": to_latex(report, title=title),
    }
    for name, text in files.items():
        write_atomically(folder / name, text.encode(), name=f"the report to {folder}")
    return [folder / name for name in files]


def _dump(report: Mapping[str, Any]) -> str:
    """Indented JSON in which each long column of counts is one line."""
    columns: list[str] = []

    def shortened(row: Mapping[str, Any]) -> dict[str, Any]:
        counts = dict(row["counts"])
        for name in _COMPACT:
            columns.append(json.dumps(counts[name], allow_nan=False))
            counts[name] = f"@column {len(columns) - 1}@"
        return {**row, "counts": counts}

    short = {**report, **{part: [shortened(row) for row in report[part]] for part in ("results", "baselines")}}
    text = json.dumps(short, indent=2, allow_nan=False)
    for number, column in enumerate(columns):
        text = text.replace(f'"@column {number}@"', column, 1)
    return text + "\n"


def read_report(path: str | Path) -> dict[str, Any]:
    """A report from its folder or its `report.json`.

    Raises:
        InputError: there is none, or it is not one of this version.
    """
    file = Path(path)
    file = file / "report.json" if file.is_dir() else file
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the report {file}: {getattr(error, 'strerror', None) or error}") from None
    if not isinstance(content, dict) or content.get("schema_version") != SCHEMA_VERSION:
        found = content.get("schema_version") if isinstance(content, dict) else None
        raise InputError(f"{file} is not a report of schema version {SCHEMA_VERSION} (it says {found})")
    return content
