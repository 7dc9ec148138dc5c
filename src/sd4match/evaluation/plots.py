"""Plots of a report; several if it has more rows than a plot can show."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import islice

from matplotlib.figure import Figure

from sd4match.arguments import check_arguments
from sd4match.evaluation.report import Report, Row
from sd4match.evaluation.tables import shown_alpha
from sd4match.viz.plots import (
    MOST_BARS,
    MOST_CATEGORIES,
    MOST_CATEGORY_ROWS,
    plot_bars,
    plot_categories,
    plot_pck_over_alpha,
)

_MOST_LINES = 12
_SAMPLES = 2000
"""Bootstrap samples of the intervals of categories, which reports do not store."""

Rows = Mapping[str, Row]


@check_arguments
def plot_report_over_alpha(report: Report) -> list[Figure]:
    """Plot the per-image PCK of all rows over alpha, with the report's intervals, twelve rows per plot.

    Args:
        report: report, for example from `read_report`.

    Returns:
        One figure or more.

    >>> from sd4match.config import load_preset
    >>> from sd4match.evaluation import evaluate
    >>> config = load_preset("mini-empty", ["data.pairs=2", "data.photos_per_category=4"])
    >>> report = evaluate(config, baselines=["identity"], only_baselines=True)
    >>> len(plot_report_over_alpha(report))
    1
    """
    return [
        plot_pck_over_alpha(
            {name: {float(alpha): value for alpha, value in row.pck["image"].items()} for name, row in rows.items()},
            intervals={
                name: {float(alpha): interval for alpha, interval in row.ci95["image"].items()}
                for name, row in rows.items()
            },
            title=_title(report, "PCK per image over alpha"),
        )
        for rows in _chunks(_by_name(report.rows), _MOST_LINES)
    ]


@check_arguments
def plot_report_categories(report: Report) -> list[Figure]:
    """Plot the per-image PCK of each category at 0.1 (or the largest alpha), with 95 % intervals over its pairs.

    A category of one pair has no interval. A plot has at most twelve rows and a hundred categories.

    Args:
        report: report, for example from `read_report`.

    Returns:
        One figure or more.

    >>> from sd4match.config import load_preset
    >>> from sd4match.evaluation import evaluate
    >>> config = load_preset("mini-empty", ["data.pairs=2", "data.photos_per_category=4"])
    >>> report = evaluate(config, baselines=["identity"], only_baselines=True)
    >>> len(plot_report_categories(report))
    1
    """
    alpha = shown_alpha(report)
    figures = []
    for rows in _chunks(_by_name(report.results or report.rows), MOST_CATEGORY_ROWS):
        values = {name: _at(row.scores.by_category(), alpha) for name, row in rows.items()}
        bounds = {
            name: {
                category: by_alpha[alpha]
                for category, by_alpha in row.scores.category_intervals(samples=_SAMPLES, seed=0).items()
            }
            for name, row in rows.items()
        }
        categories = sorted({category for row in values.values() for category in row})
        for first in range(0, len(categories), MOST_CATEGORIES):
            some = categories[first : first + MOST_CATEGORIES]
            figures.append(
                plot_categories(
                    {
                        name: {category: row.get(category, math.nan) for category in some}
                        for name, row in values.items()
                    },
                    intervals={name: {c: row[c] for c in some if c in row} for name, row in bounds.items()},
                    title=_title(report, f"PCK@{alpha} per image, by category"),
                )
            )
    return figures


def plot_report_bars(report: Report) -> list[Figure]:
    """Plot the per-image PCK of all rows, and the published results that can be compared with them."""
    alpha = shown_alpha(report)
    published = {
        f"{row.method} ({row.trained_on})" if row.trained_on else row.method: row.pck_percent[alpha] / 100
        for row in report.published
        if row.comparable and alpha in row.pck_percent
    }
    chunks = list(_chunks(_by_name(report.rows), MOST_BARS - len(published)))
    return [
        plot_bars(
            {name: row.pck["image"][alpha] for name, row in rows.items()},
            intervals={name: row.ci95["image"][alpha] for name, row in rows.items()},
            published=published,
            title=_title(report, f"PCK@{alpha} per image"),
        )
        for rows in chunks
    ]


def plot_report_difficulty(report: Report) -> list[Figure]:
    """Plot the per-image PCK for each value of each difficulty flag; [] where the data set has none."""
    alpha = shown_alpha(report)
    figures = []
    for rows in _chunks(_by_name(report.results or report.rows), MOST_CATEGORY_ROWS):
        values = {
            name: {
                f"{flag}: {value}": pck
                for flag, groups in row.scores.by_difficulty().items()
                for value, pck in _at(groups, alpha).items()
            }
            for name, row in rows.items()
        }
        if 0 < len({flag for row in values.values() for flag in row}) <= MOST_CATEGORIES:
            figures.append(plot_categories(values, title=_title(report, f"PCK@{alpha} per image, by difficulty")))
    return figures


def _at(groups: Mapping[str, Mapping[str, Mapping[str, float]]], alpha: str) -> dict[str, float]:
    return {name: group["image"][alpha] for name, group in groups.items()}


def _title(report: Report, text: str) -> str:
    backbone = "no model" if report.backbone is None else report.backbone["name"]
    return f"{text}: {report.data.name}, {report.data.split} split, {backbone}"


def _by_name(rows: tuple[Row, ...]) -> Rows:
    """Return rows by name; repeated names get a number."""
    named: dict[str, Row] = {}
    for row in rows:
        name, number = row.prompt, 2
        while name in named:
            name, number = f"{row.prompt} ({number})", number + 1
        named[name] = row
    return named


def _chunks(rows: Rows, most: int) -> Iterator[Rows]:
    """Iterate over chunks of nearly equal numbers of rows, at most `most`."""
    size = math.ceil(len(rows) / math.ceil(len(rows) / most))
    items = iter(rows.items())
    while chunk := dict(islice(items, size)):
        yield chunk
