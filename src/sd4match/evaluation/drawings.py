"""Pictures of an evaluation, for the folder of its report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image

from sd4match.errors import ConfigError, choose_from, shown
from sd4match.evaluation.pairs import pair_pictures
from sd4match.evaluation.plots import plot_report_categories, plot_report_over_alpha
from sd4match.evaluation.report import Report
from sd4match.evaluation.run_folders import DRAWING_FILES
from sd4match.viz.figures import figure_to_image, png_bytes
from sd4match.viz.matches import stack
from sd4match.viz.sheets import draw_contact_sheet


def check_drawings(kinds: Sequence[str]) -> tuple[str, ...]:
    """Return kinds of pictures, each once.

    Raises:
        ConfigError: one is unknown.

    >>> check_drawings(["alpha", "alpha"])
    ('alpha',)
    """
    for kind in kinds:
        if kind not in DRAWING_FILES:
            raise ConfigError(f"--draw: unknown picture {shown(kind)}; {choose_from(kind[:80], DRAWING_FILES)}")
    return tuple(dict.fromkeys(kinds))


def draw_report(
    report: Report,
    kinds: Sequence[str],
    *,
    folder: Path | None = None,
    device: str | torch.device = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, bytes]:
    """Return PNG files of a report by their names; the other arguments and errors are those of `pair_pictures`.

    Args:
        report: report to draw.
        kinds: "alpha", "categories" and "pairs", a contact sheet of the worst and the best pairs.
        folder: as in `pair_pictures`.
        device: as in `pair_pictures`.
        progress: as in `pair_pictures`.
    """
    pictures: dict[str, Image.Image] = {}
    for kind, plot in (("alpha", plot_report_over_alpha), ("categories", plot_report_categories)):
        if kind in kinds:
            pictures[kind] = stack([figure_to_image(figure) for figure in plot(report)])
    if "pairs" in kinds:
        pairs = pair_pictures(report, folder=folder, device=device, progress=progress)
        captions = [f"{pair.rank}: {pair.caption}" for pair in pairs]
        title = f"Worst and best pairs of {pairs[0].row}: {report.data.name}, {report.data.split} split"
        pictures["pairs"] = draw_contact_sheet([pair.picture for pair in pairs], captions, title=title)
    return {DRAWING_FILES[kind]: png_bytes(picture) for kind, picture in pictures.items()}
