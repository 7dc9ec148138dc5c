"""Plots of trainings and of calibrations."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from sd4match.arguments import check_arguments
from sd4match.io.files import write_atomically
from sd4match.paths import as_path


@check_arguments
def plot_training(
    losses: Sequence[float],
    validation: Sequence[tuple[int, float]],
    path: str | Path,
    *,
    excess_losses: Sequence[float] = (),
    title: str = "",
) -> None:
    """Plot the loss of every step and its running mean, with the validation PCK on a second axis.

    Args:
        losses: loss of each step, from step 1.
        validation: (step, PCK in [0, 1]) of each validation.
        path: PNG file to write.
        excess_losses: loss of each step above its lower bound; if given, it is drawn instead of the loss.
        title: of the plot.

    Raises:
        SD4MatchError: the file cannot be written.
    """
    file = as_path(path, what="the file of a plot")
    values, label = (excess_losses, "loss above its lower bound") if excess_losses else (losses, "loss")
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    steps = range(1, len(values) + 1)
    smooth: list[float] = []
    for value in values:
        smooth.append(0.9 * smooth[-1] + 0.1 * value if smooth else value)
    axes.plot(steps, values, color="tab:blue", alpha=0.25, linewidth=1)
    axes.plot(steps, smooth, color="tab:blue", label=f"{label} (running mean)")
    axes.set_xlabel("step")
    axes.set_ylabel(label)
    axes.set_title(title)
    if validation:
        right = axes.twinx()
        right.plot(*zip(*[(step, 100 * value) for step, value in validation], strict=True), "o-", color="tab:orange")
        right.set_ylabel("validation PCK@0.1 (%)", color="tab:orange")
    axes.legend(loc="center right")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=130)
    write_atomically(file, picture.getvalue())


@check_arguments
def draw_calibration(table: Sequence[tuple[float, float, int, float]], *, title: str = "") -> Image.Image:
    """Draw the share of correct matches, and the number of matches, against the score.

    Args:
        table: (low, high, matches, share of correct ones) of each bin of scores; see `Calibration.table`.
        title: text above the plot.
    """
    figure = Figure(figsize=(5, 5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    middles, widths = [(low + high) / 2 for low, high, *_ in table], [high - low for low, high, *_ in table]
    upper.bar(middles, [share for *_, share in table], widths, color="tab:blue", edgecolor="white")
    upper.plot([0, 1], [0, 1], color="tab:gray", linestyle="--", label="score = share")
    upper.set(ylabel="share of correct matches", xlim=(0, 1), ylim=(0, 1), title=title)
    upper.legend(loc="upper left")
    lower.bar(middles, [count for _, _, count, _ in table], widths, color="tab:gray", edgecolor="white")
    lower.set(xlabel="score", ylabel="matches")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    return Image.open(picture)
