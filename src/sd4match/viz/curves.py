"""Plots of a training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure


def plot_training(
    losses: Sequence[float], validation: Sequence[tuple[int, float]], path: Path, *, title: str = ""
) -> None:
    """Loss of every step and its running mean, with validation PCK on a second axis.

    Args:
        losses: from step 1.
        validation: (step, PCK in [0, 1]).
        path: a .png.
        title: above the plot.
    """
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    steps = range(1, len(losses) + 1)
    smooth: list[float] = []
    for loss in losses:
        smooth.append(0.9 * smooth[-1] + 0.1 * loss if smooth else loss)
    axes.plot(steps, losses, color="tab:blue", alpha=0.25, linewidth=1)
    axes.plot(steps, smooth, color="tab:blue", label="loss (running mean)")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.set_title(title)
    if validation:
        right = axes.twinx()
        right.plot(*zip(*[(step, 100 * value) for step, value in validation], strict=True), "o-", color="tab:orange")
        right.set_ylabel("validation PCK@0.1 (%)", color="tab:orange")
    axes.legend(loc="center right")
    figure.savefig(path, dpi=130)
