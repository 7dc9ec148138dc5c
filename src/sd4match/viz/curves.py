"""Plots of a training."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from sd4match.io.files import write_atomically


def plot_training(
    losses: Sequence[float],
    validation: Sequence[tuple[int, float]],
    path: Path,
    *,
    excess: Sequence[float] = (),
    title: str = "",
) -> None:
    """Loss of every step and its running mean, with validation PCK on a second axis.

    Args:
        losses: from step 1.
        validation: (step, PCK in [0, 1]).
        path: a .png.
        excess: of the loss over its floor, if it knows one: this is drawn in its place.
        title: above the plot.

    Raises:
        SD4MatchError: the file cannot be written.
    """
    shown, label = (excess, "loss above its floor") if excess else (losses, "loss")
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    steps = range(1, len(shown) + 1)
    smooth: list[float] = []
    for loss in shown:
        smooth.append(0.9 * smooth[-1] + 0.1 * loss if smooth else loss)
    axes.plot(steps, shown, color="tab:blue", alpha=0.25, linewidth=1)
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
    write_atomically(path, picture.getvalue())
