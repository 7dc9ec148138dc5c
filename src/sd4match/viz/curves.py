"""Plots of trainings and of calibrations."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from sd4match.arguments import check_arguments
from sd4match.errors import InputError
from sd4match.viz.colors import BLUE, VERMILION, hex_color
from sd4match.viz.figures import GRAY, INK, SMALL_TEXT, TEXT, WIDTH, set_title, style_axes

_LOSS, _PCK = hex_color(BLUE), hex_color(VERMILION)


@check_arguments
def plot_training(
    losses: Sequence[float],
    validation: Sequence[tuple[int, float]],
    *,
    excess_losses: Sequence[float] = (),
    title: str = "",
) -> Figure:
    """Plot the loss of every step and its running mean, with the validation PCK below.

    Args:
        losses: loss of each step, from step 1.
        validation: (step, PCK in [0, 1]) of each validation.
        excess_losses: loss of each step above its lower bound; if given, it is drawn instead of the loss.
        title: text above the plot.

    >>> [axes.get_ylabel() for axes in plot_training([3.0, 2.0], [(0, 0.1), (2, 0.2)]).axes]
    ['loss', 'PCK@0.1 (%)']
    """
    values, name = (excess_losses, "loss above its lower bound") if excess_losses else (losses, "loss")
    figure = Figure(figsize=(WIDTH, 5 if validation else 3.6), layout="constrained", facecolor="white")
    set_title(figure, title)
    upper, *lower = figure.subplots(2, 1, sharex=True, squeeze=False).flat if validation else [figure.subplots()]
    steps = range(1, len(values) + 1)
    smooth: list[float] = []
    for value in values:
        smooth.append(0.9 * smooth[-1] + 0.1 * value if smooth else value)
    upper.plot(steps, values, color=_LOSS, alpha=0.3, linewidth=1, label="each step")
    upper.plot(steps, smooth, color=_LOSS, linewidth=2, label="running mean")
    upper.legend(loc="upper right", fontsize=SMALL_TEXT, frameon=False, labelcolor=INK)
    upper.set_ylabel(name, fontsize=TEXT, color=INK)
    for axes in lower:
        axes.plot(*zip(*[(step, 100 * value) for step, value in validation], strict=True), "o--", color=_PCK)
        axes.set_ylabel("PCK@0.1 (%)", fontsize=TEXT, color=INK)
        axes.set_title("validation pairs", fontsize=SMALL_TEXT, color=INK, loc="left")
    for axes in (upper, *lower):
        style_axes(axes)
    (lower[0] if lower else upper).set_xlabel("step", fontsize=TEXT, color=INK)
    return figure


@check_arguments
def plot_calibration(table: Sequence[tuple[float, float, int, float]], *, title: str = "") -> Figure:
    """Plot the share of correct matches, and the number of matches, against the score.

    Args:
        table: (low, high, matches, share of correct ones) of each bin of scores; see `Calibration.table`.
        title: text above the plot.

    Raises:
        InputError: there is no bin.

    >>> [axes.get_ylabel() for axes in plot_calibration([(0.0, 0.5, 3, 0.25), (0.5, 1.0, 2, 1.0)]).axes]
    ['share correct (%)', 'matches']
    """
    if not table:
        raise InputError("a calibration needs one bin of scores or more")
    figure = Figure(figsize=(WIDTH, 6), layout="constrained", facecolor="white")
    set_title(figure, title)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    middles, widths = [(low + high) / 2 for low, high, *_ in table], [high - low for low, high, *_ in table]
    upper.bar(middles, [100 * share for *_, share in table], widths, color=_LOSS, edgecolor="white")
    upper.plot([0, 1], [0, 100], color=INK, linestyle="--", label="score = share")
    upper.set(xlim=(0, 1), ylim=(0, 103))
    upper.legend(loc="upper left", fontsize=SMALL_TEXT, frameon=False, labelcolor=INK)
    lower.bar(middles, [count for _, _, count, _ in table], widths, color=GRAY, edgecolor="white")
    for axes, text in ((upper, "share correct (%)"), (lower, "matches")):
        axes.set_ylabel(text, fontsize=TEXT, color=INK)
        style_axes(axes)
    lower.set_xlabel("score", fontsize=TEXT, color=INK)
    return figure
