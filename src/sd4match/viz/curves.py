"""Plots of a training."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

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
