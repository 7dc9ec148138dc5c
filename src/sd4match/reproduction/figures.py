"""Pictures of a reproduction, in the form of the paper's tables and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from sd4match.config.experiment import build_components
from sd4match.errors import InputError
from sd4match.pipeline import SemanticMatcher
from sd4match.structures.images import ImageBatch
from sd4match.viz import draw_heat_maps, plot_bars, plot_categories, plot_pck_over, stack

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sd4match.config.experiment import Components
    from sd4match.evaluation.seeds import Estimate
    from sd4match.interfaces import PairDataset
    from sd4match.reproduction.run import Cell, PlannedRow, Reproduction
    from sd4match.structures.tensors import Correlation, Matches
    from sd4match.training.measuring import Bench

_MOST_CATEGORIES = 6
_IMAGES, _STEPS, _GUIDANCE = 3, 30, 4.0
_PAIRS, _HEIGHT = 3, 320


def draw(result: Reproduction, planned: Sequence[PlannedRow], bench: Bench) -> Image.Image | Figure:
    """Draw the figure of a target.

    Args:
        result: numbers of the target.
        planned: rows of the target, whose prompts are loaded for pictures.
        bench: bench that holds the backbone.
    """
    kind = result.target.figure
    if kind == "images":
        return _images(result, planned, bench)
    if kind == "heat maps":
        return _heat_maps(result, planned, bench)
    if kind == "lines":
        return _lines(result)
    if kind == "categories":
        return _categories(result)
    return _bars(result)


def title_of(result: Reproduction) -> str:
    """Return the title of a picture, with the model and the form of the reproduction."""
    form = ", reduced" if result.settings.is_reduced else ""
    is_drawn = result.target.figure == "bars" and any(_drawn_number(cell) is not None for cell in result.cells.values())
    differs = "; published: another model and other data" if is_drawn and result.settings.is_synthetic else ""
    return f"{result.target.where}: {result.target.title} ({result.settings.model_name}{form}{differs})"


def _drawn_number(cell: Cell) -> float | None:
    """Return the number of the paper that is drawn below ours: the first at alpha 0.1, in [0, 1]."""
    return next((row.pck_percent["0.1"] / 100 for row in cell.published if "0.1" in row.pck_percent), None)


def _with_width(found: Mapping[str, Estimate]) -> dict[str, tuple[float, float]]:
    """Return the intervals of positive width; that of a single pair has none."""
    return {name: own.ci95 for name, own in found.items() if own.ci95[0] < own.ci95[1]}


def _bars(result: Reproduction) -> Figure:
    rows, published = {}, {}
    several_rows, several_columns = len(result.target.rows) > 1, len(result.target.columns) > 1
    positions = [
        (row, column) for column in result.target.columns for row in result.target.rows
    ]  # the order of the paper's tables
    for row, column in positions:
        cell = result.cells[row, column]
        name = f"{row}, tested on {column}" if several_rows and several_columns else column if several_columns else row
        rows[name] = cell.pck["0.1"]
        if (number := _drawn_number(cell)) is not None:
            published[name] = number
    return plot_bars(
        {name: found.mean for name, found in rows.items()},
        intervals=_with_width(rows), published=published or None, title=title_of(result),
    )  # fmt: skip


def _categories(result: Reproduction) -> Figure:
    found = {row: cell.by_category for (row, _), cell in result.cells.items()}
    return plot_categories(
        {row: {name: own.mean for name, own in group.items()} for row, group in found.items()},
        intervals={row: _with_width(group) for row, group in found.items()},
        title=title_of(result),
    )


def _lines(result: Reproduction) -> Figure:
    columns = list(result.target.columns)
    found = {row: [result.cells[row, column].pck["0.1"] for column in columns] for row in result.target.rows}
    return plot_pck_over(
        [float(timestep) for timestep in result.settings.timesteps],
        {row: [own.mean for own in line] for row, line in found.items()},
        intervals={row: [own.ci95 for own in line] for row, line in found.items()},
        title=title_of(result),
    )


def _loaded(planned: Sequence[PlannedRow], bench: Bench) -> dict[str, tuple[PlannedRow, Components]]:
    """Return the components of the first seed of each row."""
    found: dict[str, tuple[PlannedRow, Components]] = {}
    for row in planned:
        if row.position[0] not in found:
            file = bench.trained(row.name, row.job)
            backbone = bench.backbone(row.job.config)
            found[row.position[0]] = row, build_components(row.job.config, backbone=backbone, prompt_file=file)
    return found


def _images(result: Reproduction, planned: Sequence[PlannedRow], bench: Bench) -> Image.Image:
    from sd4match.prompting.text import EmptyPrompt
    from sd4match.viz.imagine import draw_grid, load_painter, paint  # they import diffusers

    ((row, components),) = _loaded(planned, bench).values()
    config, backbone = row.job.config, components.backbone
    painter = load_painter(config.backbone.model_name, device=str(backbone.device))
    categories = sorted(bench.pairs(config).categories)[:_MOST_CATEGORIES]
    batch = ImageBatch({}, (categories[0],))
    empty = EmptyPrompt(backbone=backbone)(batch).values[0]
    drawn = []
    for name in categories:
        embedding = components.prompt(ImageBatch({}, (name,))).values[0].detach()
        pictures = paint(painter, embedding, empty=empty, images=_IMAGES, steps=_STEPS, guidance=_GUIDANCE)
        drawn.append((name, (), pictures))
    return draw_grid(drawn, title=title_of(result))


def _heat_maps(result: Reproduction, planned: Sequence[PlannedRow], bench: Bench) -> Image.Image:
    loaded = _loaded(planned, bench)
    data = bench.pairs(planned[0].job.config)
    pictures: list[Image.Image] = []
    for index in _first_of_categories(data):
        record = data[index]
        source, target = data.photo(record.source_id), data.photo(record.target_id)
        name = record.category or record.pair_id
        point = int(np.flatnonzero(record.visible)[0])
        correlations: dict[str, Correlation] = {}
        for prompt, (row, components) in loaded.items():
            seen: list[Correlation] = []
            matcher = SemanticMatcher.from_components(
                replace(components, matcher=_Recording(components.matcher, seen)), row.job.config
            )
            matcher.match(source, target, record.source_points[point : point + 1], category=record.category)
            correlations[prompt] = seen[0]
        pictures.append(
            draw_heat_maps(
                source, target, correlations, truth=record.target_points[point],
                title=name if pictures else f"{title_of(result)}: {name}", height=_HEIGHT,
            )
        )  # fmt: skip
    return stack(pictures)


class _Recording:
    """Matcher that records the correlations that it is called with."""

    def __init__(self, matcher: object, seen: list[Correlation]) -> None:
        self._matcher, self._seen = matcher, seen

    def __call__(self, correlation: Correlation) -> Matches:
        self._seen.append(correlation)
        return self._matcher(correlation)  # type: ignore[operator, no-any-return] # a function of matches


def _first_of_categories(data: PairDataset) -> list[int]:
    """Return the index of the first pair, with a visible point, of each of the first categories."""
    found: dict[str | None, int] = {}
    for index, key in enumerate(data.keys):
        if key.category not in found and data[index].visible.any():
            found[key.category] = index
        if len(found) == _PAIRS:
            break
    if not found:
        raise InputError("no pair has a visible point")
    return list(found.values())
