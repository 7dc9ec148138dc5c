"""Reports: everything needed to repeat a run, as JSON and as Markdown."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sd4match.config import ExperimentConfig
from sd4match.evaluation.scores import Comparison, PairScores, describe
from sd4match.files import write_atomically
from sd4match.protocols import Backbone
from sd4match.version import __version__

SCHEMA_VERSION = 1

MINI_NOTE = (
    "Measured on `mini`, the small model that the package carries, on synthetic pairs. These are not numbers of Stable "
    "Diffusion and say nothing about real photos. `mini` was pre-trained with part masks of other synthetic photos, so "
    "none of its numbers is unsupervised."
)

_PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "numpy", "pillow")


def result(prompt: str, scores: PairScores, config: ExperimentConfig) -> dict[str, Any]:
    """One row of `results`: what one prompt scored, with 95 % bootstrap intervals."""
    settings = config.evaluation
    return {"prompt": prompt, **describe(scores, samples=settings.bootstrap_samples, seed=settings.seed)}


def comparison(a: str, b: str, outcome: Comparison, *, metric: str) -> dict[str, Any]:
    """One row of `comparisons`: a - b with its paired bootstrap interval."""
    return {"a": a, "b": b, "metric": metric, "difference": outcome.difference, "ci95": list(outcome.ci95)}


def make_report(
    *,
    config: ExperimentConfig,
    results: Sequence[Mapping[str, Any]],
    comparisons: Sequence[Mapping[str, Any]] = (),
    baselines: Sequence[Mapping[str, Any]] = (),
    backbone: Mapping[str, str],
    wall_seconds: float,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The whole report as JSON-able values."""
    versions = {"sd4match": __version__, "python": platform.python_version()} | {
        name: _version(name) for name in _PACKAGES
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "results": list(results),
        "comparisons": list(comparisons),
        "baselines": list(baselines),
        "measurement": config.evaluation.measurement,
        "backbone": dict(backbone),
        "config": config.model_dump(mode="json"),
        "seed": config.training.seed,
        "versions": versions,
        "wall_seconds": round(wall_seconds, 2),
        **(extra or {}),
    }


def backbone_entry(config: ExperimentConfig, backbone: Backbone) -> dict[str, str]:
    """What a report or a prompt file says of the backbone."""
    weights: Any = getattr(config.backbone, "weights", config.backbone.kind)
    name = weights if weights == "mini" else Path(str(weights)).expanduser().resolve().name
    return {"name": name, "architecture": backbone.spec.architecture, "fingerprint": backbone.fingerprint}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def write_report(report: Mapping[str, Any], folder: Path, *, title: str) -> None:
    """Write `report.json` and `report.md`.

    Raises:
        SD4MatchError: the folder cannot be written.
    """
    for name, text in (
        ("report.json", json.dumps(report, indent=2, allow_nan=False) + "\n"),
        ("report.md", to_markdown(report, title=title)),
    ):
        write_atomically(folder / name, text.encode(), name=f"the report to {folder}")


def to_markdown(report: Mapping[str, Any], *, title: str) -> str:
    """The report as a page: a table of results, the comparisons, and what the numbers are of."""
    rows = [*report["results"], *report["baselines"]]
    alphas = list(rows[0]["pck"]["image"])
    header = ["prompt", *[f"image @{a}" for a in alphas], *[f"point @{a}" for a in alphas], "category @0.1", "pairs"]
    lines = [f"# {title}", "", _row(header), _row(["---"] * len(header))]
    for row in rows:
        cells = [row["prompt"]]
        for average in ("image", "point"):
            for alpha in alphas:
                low, high = row["ci95"][average][alpha]
                cells.append(f"{percent(row['pck'][average][alpha])} [{percent(low)}, {percent(high)}]")
        cells += [percent(row["pck"]["category"].get("0.1", float("nan"))), str(row["pairs"])]
        lines.append(_row(cells))
    lines += [
        "",
        "PCK in %, with 95 % bootstrap intervals over pairs. Measurement: " + str(report["measurement"]) + ".",
    ]
    if report["comparisons"]:
        lines += ["", "| a | b | metric | a - b | 95 % interval, paired |", "| --- | --- | --- | --- | --- |"]
        for c in report["comparisons"]:
            low, high = c["ci95"]
            cells = [
                c["a"],
                c["b"],
                c["metric"],
                f"{100 * c['difference']:+.1f}",
                f"[{100 * low:+.1f}, {100 * high:+.1f}]",
            ]
            lines.append(_row(cells))
    lines += ["", f"Backbone: {report['backbone']['name']} ({report['backbone']['architecture']})."]
    if report["backbone"]["name"] == "mini":
        lines += ["", MINI_NOTE]
    lines += [
        "",
        f"Wall time {report['wall_seconds']} s, seed {report['seed']}, sd4match {report['versions']['sd4match']}.",
    ]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def percent(share: float) -> str:
    """A share as percent with one decimal.

    >>> percent(0.1234)
    '12.3'
    """
    return f"{100 * share:.1f}"
