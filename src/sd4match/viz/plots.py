"""Plots of PCK: over thresholds, over another quantity such as the timestep, as bars, and by category.

PCK goes in as fractions in [0, 1] and is drawn in percent. NaN and missing values are not drawn. Rows differ in color,
marker and dashes, and each line has its name beside its end.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.transforms import ScaledTranslation

from sd4match.arguments import check_arguments
from sd4match.checks import check_count
from sd4match.errors import InputError, shown
from sd4match.viz.colors import BLUE, hex_color
from sd4match.viz.figures import (
    GRAY,
    INK,
    SMALL_TEXT,
    TEXT,
    label,
    new_axes,
    style,
    write_legend,
)

MOST_LINES, MOST_BARS, MOST_CATEGORY_ROWS, MOST_CATEGORIES = 24, 60, 12, 100
"""Largest numbers that a legible plot can show."""
_BAND_FROM = 9
"""Number of values from which intervals are drawn as bands."""
_THIRD_OF_LEGEND = 24
"""Characters of a name, so that three fit next to each other."""
_PCK_LABEL, _WITH_INTERVALS = "PCK (%)", "PCK (%), with 95 % intervals"

Interval = tuple[float, float]


@check_arguments
def plot_pck_over_alpha(
    rows: Mapping[str, Mapping[float, float]],
    *,
    intervals: Mapping[str, Mapping[float, tuple[float, float]]] | None = None,
    title: str = "",
) -> Figure:
    """Plot PCK over the threshold alpha, a line for each row.

    Args:
        rows: by name, PCK in [0, 1] by alpha; at most 24. NaN is left out.
        intervals: by name, (low, high) by alpha, 95 % intervals.
        title: text above the plot.

    Raises:
        InputError: no row or too many, a value outside [0, 1], or an interval of no row.

    >>> plot_pck_over_alpha({"text": {0.05: 0.3, 0.1: 0.5}}).axes[0].get_xlabel()
    'threshold alpha'
    """
    _check_rows(rows, MOST_LINES)
    bounds = _check_intervals(rows, intervals)
    lines = {name: _points(row.items(), bounds.get(name, {}), name) for name, row in rows.items()}
    return _line_plot(lines, xlabel="threshold alpha", title=title)


@check_arguments
def plot_pck_over(
    values: Sequence[float],
    rows: Mapping[str, Sequence[float]],
    *,
    intervals: Mapping[str, Sequence[tuple[float, float]]] | None = None,
    xlabel: str = "timestep",
    title: str = "",
) -> Figure:
    """Plot PCK over another quantity, a line for each row.

    Args:
        values: values of the quantity, for example the timesteps.
        rows: by name, PCK in [0, 1] at each value; at most 24. NaN is left out.
        intervals: by name, (low, high) at each value, 95 % intervals.
        xlabel: what the values are.
        title: text above the plot.

    Raises:
        InputError: no row or too many, a row of another length than the values, a value outside [0, 1], or an interval
            of no row.

    >>> plot_pck_over([0, 261], {"text": [0.3, 0.5]}).axes[0].get_xlabel()
    'timestep'
    """
    _check_rows(rows, MOST_LINES)
    for name, row in [*rows.items(), *(intervals or {}).items()]:
        if len(row) != len(values):
            raise InputError(f"the row {shown(name)} must have one entry for each of the {len(values)} values")
    bounds = _check_intervals(rows, intervals)
    lines = {}
    for name, row in rows.items():
        own = dict(zip(values, bounds[name], strict=True)) if name in bounds else {}
        lines[name] = _points(zip(values, row, strict=True), own, name)
    return _line_plot(lines, xlabel=xlabel, title=title)


@check_arguments
def plot_bars(
    rows: Mapping[str, float],
    *,
    intervals: Mapping[str, tuple[float, float]] | None = None,
    published: Mapping[str, float] | None = None,
    title: str = "",
) -> Figure:
    """Plot a bar for each row, with its value; published values are hatched bars below those of the same name.

    Args:
        rows: PCK in [0, 1] by name; at most 60. NaN is said to be no value.
        intervals: (low, high) by name, 95 % intervals.
        published: PCK in [0, 1] by name; names of no row are drawn below the others.
        title: text above the plot.

    Raises:
        InputError: no row or too many, a value outside [0, 1], or an interval of no row.

    >>> len(plot_bars({"text": 0.3, "single": 0.4}, published={"single": 0.7}).axes[0].patches)
    3
    """
    published = published or {}
    names = list(dict.fromkeys([*rows, *published]))
    _check_rows(names, MOST_BARS)
    bounds = _check_intervals(rows, intervals)
    thickness, gap = 1.0, 0.6
    ticks, top = [], 0.0
    bars: list[tuple[float, float, str | None]] = []
    for name in names:
        own = [(values[name], row) for values, row in ((rows, name), (published, None)) if name in values]
        ticks.append(top + len(own) * thickness / 2)
        for value, row in own:
            bars.append((top + thickness / 2, _percent(value, name), row))
            top += thickness
        top += gap
    figure, axes = new_axes(1.3 + 0.27 * top, title)
    largest = max([*(value for _, value, _ in bars if not math.isnan(value)), *_highs(bounds), 1.0])
    for middle, value, row in bars:
        end = _draw_bar(axes, middle, value, None if row is None else bounds.get(row), is_ours=row is not None)
        text = "no value" if math.isnan(value) else f"{value:.1f}"
        axes.text(end + largest / 80, middle, text, va="center", fontsize=SMALL_TEXT, color=INK)
    axes.set(xlim=(0, largest * 1.12), ylim=(top - gap + 0.3, -0.3))
    axes.set_xlabel(_WITH_INTERVALS if _intervals_in(bounds) else _PCK_LABEL, fontsize=TEXT, color=INK)
    axes.set_xticks([tick for tick in axes.get_xticks() if 0 <= tick <= 100])
    axes.set_yticks(ticks, [label(name, width=28) for name in names], parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    if published:
        ours, theirs = (Patch(**_bar_style(is_ours)) for is_ours in (True, False))
        _legend(figure, [ours, theirs] if rows else [theirs], ["ours", "published"] if rows else ["published"])
    return figure


@check_arguments
def plot_categories(
    rows: Mapping[str, Mapping[str, float]],
    *,
    intervals: Mapping[str, Mapping[str, tuple[float, float]]] | None = None,
    title: str = "",
) -> Figure:
    """Plot a mark for each row and category, one category below the other.

    Args:
        rows: by name, PCK in [0, 1] by category; at most 12 rows and 100 categories. NaN and missing ones are left out.
        intervals: by name, (low, high) by category, 95 % intervals.
        title: text above the plot.

    Raises:
        InputError: no row or category, too many, a value outside [0, 1], or an interval of no row.

    >>> figure = plot_categories({"text": {"cat": 0.3, "dog": float("nan")}, "single": {"cat": 0.5}})
    >>> [text.get_text() for text in figure.axes[0].get_yticklabels()]
    ['cat', 'dog (no value)']
    """
    _check_rows(rows, MOST_CATEGORY_ROWS)
    bounds = _check_intervals(rows, intervals)
    categories = list(dict.fromkeys(name for row in rows.values() for name in row))
    check_count("the number of categories", len(categories), 1, MOST_CATEGORIES)
    values = {
        (name, category): _percent(row.get(category, math.nan), name)
        for name, row in rows.items()
        for category in categories
    }
    step = 0.13 * (len(rows) - 1) + 0.3  # inches of a category
    figure, axes = new_axes(1.5 + 0.3 * math.ceil(len(rows) / 3) + step * len(categories), title)
    handles = []
    for number, name in enumerate(rows):
        marks = {**style(number), "linestyle": "none", "markersize": 7, "markeredgecolor": "white"}
        shift = (0.13 * (number - (len(rows) - 1) / 2)) / step
        heights = {
            category: index + shift
            for index, category in enumerate(categories)
            if not math.isnan(values[name, category])
        }
        known = [(heights[key], *pair) for key, pair in bounds.get(name, {}).items() if pair and key in heights]
        if known:
            ys, lows, highs = zip(*known, strict=True)
            axes.hlines(ys, lows, highs, color=marks["color"], linewidth=1.5)
            for ends in (lows, highs):
                axes.plot(ends, ys, color=marks["color"], linestyle="none", marker="|", markersize=5)
        axes.plot([values[name, category] for category in heights], list(heights.values()), **marks)
        handles.append(Line2D([], [], **marks))
    drawn = [value for value in values.values() if not math.isnan(value)]
    names = [
        label(category) + ("" if any(not math.isnan(values[name, category]) for name in rows) else " (no value)")
        for category in categories
    ]
    axes.set_yticks(range(len(categories)), names, parse_math=False)
    axes.set(ylim=(len(categories) - 0.5, -0.5), xlim=_limits([*drawn, *_highs(bounds), *_lows(bounds)]))
    for index in range(0, len(categories), 2):
        axes.axhspan(index - 0.5, index + 0.5, color="#f1f3f5", zorder=0)
    axes.set_xlabel(_WITH_INTERVALS if _intervals_in(bounds) else _PCK_LABEL, fontsize=TEXT, color=INK)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    _legend(figure, handles, list(rows))
    return figure


def _draw_bar(axes: Any, middle: float, value: float, interval: Interval | None, *, is_ours: bool) -> float:
    """Draw a bar with its interval, and return where it ends."""
    if math.isnan(value):
        return 0.0
    axes.barh(middle, value, height=0.86, **_bar_style(is_ours))
    if interval is None:
        return value
    axes.plot(interval, [middle] * 2, color="white", linewidth=4, solid_capstyle="butt")
    axes.plot(interval, [middle] * 2, color=INK, linewidth=1.5, marker="|", markersize=8)
    return max(value, interval[1])


def _bar_style(is_ours: bool) -> dict[str, Any]:
    if is_ours:
        return {"facecolor": hex_color(BLUE), "edgecolor": hex_color(BLUE)}
    return {"facecolor": "white", "edgecolor": GRAY, "hatch": "////"}


def _line_plot(lines: Mapping[str, list[tuple[float, float, Interval | None]]], *, xlabel: str, title: str) -> Figure:
    """Plot lines of (x, percent, interval), each with its name beside its end."""
    names = {name: label(name) for name in lines}
    space = [0.17 * (1 + text.count("\n")) + 0.06 for text in names.values()]  # inches of each name
    inside = max(3.2, sum(space))
    figure, axes = new_axes(inside + 1.1, title)
    ticks = sorted({x for line in lines.values() for x, *_ in line})
    drawn = [value for line in lines.values() for _, value, _ in line]
    has_intervals = any(interval for line in lines.values() for *_, interval in line)
    low, high = _limits([*drawn, *(bound for line in lines.values() for *_, pair in line for bound in pair or ())])
    ends: list[tuple[float, str, float | None]] = []
    for number, (name, line) in enumerate(lines.items()):
        looks = style(number)
        apart = 3.0 * (number - (len(lines) - 1) / 2) if len(ticks) < _BAND_FROM and len(lines) <= 6 else 0.0
        moved = axes.transData + ScaledTranslation(apart / 72, 0, figure.dpi_scale_trans)
        _draw_intervals(axes, line, looks["color"], moved, as_band=len(ticks) >= _BAND_FROM)
        if line:
            axes.plot(*zip(*[(x, value) for x, value, _ in line], strict=True), transform=moved, linewidth=2,
                      markersize=7, markeredgecolor="white", **looks)  # fmt: skip
        ends.append(((line[-1][1] - low) / (high - low) if line else 0.0, name, line[-1][0] if line else None))
    margin = 0.04 * (ticks[-1] - ticks[0]) if len(ticks) > 1 else 0.5
    limits = (ticks[0] - margin, ticks[-1] + margin) if ticks else (0.0, 1.0)
    axes.set(xlim=limits, ylim=(low, high))
    if 0 < len(ticks) < _BAND_FROM:
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xlabel(label(xlabel, width=60), fontsize=TEXT, color=INK, parse_math=False)
    axes.set_ylabel(_WITH_INTERVALS if has_intervals else _PCK_LABEL, fontsize=TEXT, color=INK)
    order = sorted(range(len(ends)), key=lambda index: ends[index][0])
    heights = _apart([ends[index][0] for index in order], [space[index] / inside for index in order])
    for index, height in zip(order, heights, strict=True):
        end, name, x = ends[index]
        looks = style(index)
        start = 1.0 if x is None else (x - limits[0]) / (limits[1] - limits[0])
        if x is not None:
            axes.plot([start, 1.02], [end, height], color=looks["color"], linewidth=0.8, alpha=0.7,
                      transform=axes.transAxes, clip_on=False)  # fmt: skip
        axes.plot([1.02, 1.06, 1.1], [height] * 3, transform=axes.transAxes, clip_on=False, linewidth=2, markersize=7,
                  markevery=[1], markeredgecolor="white", **looks)  # fmt: skip
        axes.text(1.115, height, names[name] + ("" if x is not None else " (no value)"), transform=axes.transAxes,
                  va="center", fontsize=SMALL_TEXT, color=INK, parse_math=False, linespacing=1.0)  # fmt: skip
    return figure


def _draw_intervals(
    axes: Any, line: list[tuple[float, float, Interval | None]], color: str, moved: Any, *, as_band: bool
) -> None:
    known = [(x, *interval) for x, _, interval in line if interval is not None]
    if not known:
        return
    if as_band:
        axes.fill_between(*zip(*known, strict=True), color=color, alpha=0.15, linewidth=0)
        return
    xs, lows, highs = zip(*known, strict=True)
    axes.vlines(xs, lows, highs, color=color, linewidth=1.2, transform=moved)
    for ends in (lows, highs):
        axes.plot(xs, ends, color=color, linestyle="none", marker="_", markersize=6, transform=moved)


def _apart(wanted: Sequence[float], space: Sequence[float]) -> list[float]:
    """Return heights near the wanted ones, which rise, so that each label has its space between 0 and 1."""
    gaps = [(first + second) / 2 for first, second in pairwise(space)]
    heights = [max(wanted[0], space[0] / 2)]
    for height, gap in zip(wanted[1:], gaps, strict=True):
        heights.append(max(height, heights[-1] + gap))
    heights[-1] = min(heights[-1], 1 - space[-1] / 2)
    for index in range(len(heights) - 2, -1, -1):
        heights[index] = min(heights[index], heights[index + 1] - gaps[index])
    return heights


def _limits(values: Iterable[float]) -> tuple[float, float]:
    """Return the part of 0 to 100 in which values lie, at least 10 wide, with a margin."""
    known = list(values)
    low, high = (min(known), max(known)) if known else (0.0, 100.0)
    margin = max(0.06 * (high - low), (10 - (high - low)) / 2, 0.5)
    return max(low - margin, -2.0), min(high + margin, 102.0)


def _legend(figure: Figure, handles: Sequence[Any], names: Sequence[str]) -> None:
    """Draw the legend below the plot."""
    columns = 3 if max(map(len, names)) <= _THIRD_OF_LEGEND else 2
    write_legend(figure, handles, [label(name, width=36) for name in names], columns=columns)


def _check_rows(rows: Iterable[str], most: int) -> None:
    count = len(list(rows))
    if not 1 <= count <= most:
        raise InputError(f"a plot shows 1 to {most} rows so that it can be read, not {count}: choose some of them")


def _check_intervals(rows: Mapping[str, Any], intervals: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return intervals in percent, by the names of rows."""
    found = dict(intervals or {})
    for name in found:
        if name not in rows:
            raise InputError(f"intervals: {shown(name)} is no row; the rows are {', '.join(map(shown, rows))}")
    return {name: _in_percent(value, name) for name, value in found.items()}


def _in_percent(bounds: Any, name: str) -> Any:
    """Return an interval, or a mapping or a sequence of intervals, in percent; None for one that is NaN."""
    if isinstance(bounds, Mapping):
        return {key: _in_percent(value, name) for key, value in bounds.items()}
    if not isinstance(bounds, tuple):
        return [_in_percent(value, name) for value in bounds]
    low, high = (_percent(bound, name) for bound in bounds)
    if low > high:
        raise InputError(f"intervals: {shown(name)} must be (low, high), not {shown(bounds)}")
    return None if math.isnan(low + high) else (low, high)


def _percent(value: float, name: str) -> float:
    """Return a fraction in percent; NaN for NaN."""
    if not (math.isnan(value) or 0 <= value <= 1):
        raise InputError(f"PCK must be fractions in [0, 1], not {shown(value)} as in the row {shown(name)}")
    return 100 * value


def _points(
    row: Iterable[tuple[float, float]], bounds: Mapping[float, Interval | None], name: str
) -> list[tuple[float, float, Interval | None]]:
    """Return (x, percent, interval) of the values that are not NaN, by x."""
    for x, _ in (row := list(row)):
        if not math.isfinite(x):
            raise InputError(f"the values at which PCK was measured must be finite, not {shown(x)}")
    return [(x, _percent(value, name), bounds.get(x)) for x, value in sorted(row) if not math.isnan(value)]


def _highs(bounds: Any) -> list[float]:
    return [high for _, high in _intervals_in(bounds)]


def _lows(bounds: Any) -> list[float]:
    return [low for low, _ in _intervals_in(bounds)]


def _intervals_in(bounds: Any) -> list[Interval]:
    if isinstance(bounds, Mapping):
        return [interval for value in bounds.values() for interval in _intervals_in(value)]
    return [] if bounds is None else [bounds]
