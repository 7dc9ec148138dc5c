"""Command `sd4match match`, which matches two photos and writes a table, a JSON file and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sd4match.cli.answer import Document
from sd4match.cli.common import Category, Device, ExperimentOptions, Fallback, option_groups

if TYPE_CHECKING:
    from sd4match.results import Features, MatchResult
    from sd4match.structures.images import Photo

_ROWS_SHOWN = 20

MINI_REMARK = (
    "These matches come from mini, a small model that has only seen drawings: on real photos they mean little. "
    "For real ones give a Stable Diffusion folder (--backbone FOLDER), or take what needs no download (--preset hog)."
)


@option_groups
def command(
    source: Annotated[Path, typer.Argument(help="Photo with the points to find.")],
    target: Annotated[Path, typer.Argument(help="Photo in which they are found.")],
    *,
    output: Annotated[Path, typer.Option(help="Folder for matches.json, matches.png and what is drawn.")] = Path(
        "matches"
    ),
    point: Annotated[
        list[str] | None, typer.Option(help="X,Y in pixels of SOURCE; may be repeated. Default: a grid.")
    ] = None,
    category: Category = None,
    prompt: Annotated[str | None, typer.Option(help='"empty", "text", or the file of a learned prompt.')] = None,
    fallback: Fallback = None,
    mutual: Annotated[bool, typer.Option("--mutual", help="Keep only points that match back to themselves.")] = False,
    grid: Annotated[int, typer.Option(min=1, max=64, help="Points per side of the grid.")] = 8,
    draw: Annotated[
        list[str] | None,
        typer.Option(
            help="heat: similarity to each --point (or to the best match's point), heat.png; dense: every match in "
            "colors, dense.png; warp: TARGET in the frame of SOURCE, warp.png; features: their principal components, "
            "features.png; attention: of the photos to the tokens of the prompt, attention.png. May be repeated."
        ),
    ] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(help='Draw the heat maps under this prompt too: "empty", "text", or a file. May be repeated.'),
    ] = None,
    device: Device = "auto",
    options: ExperimentOptions,
) -> Document:
    """Find points of one photo in another."""
    from sd4match.checks import check_text

    if category is not None:
        check_text("--category", category)
    is_named = prompt in ("empty", "text")
    config = options.read("text" if category else "empty", [f"prompt={prompt}"] if is_named else [])
    file = None if is_named else prompt

    from sd4match.cli.common import check_output, prepare_device, prompt_changes
    from sd4match.cli.match_pictures import Pictures, check_pictures, compared_matchers
    from sd4match.cli.progress import waiting
    from sd4match.documents import read_json
    from sd4match.errors import InputError
    from sd4match.pipeline import SemanticMatcher, build_for_matching
    from sd4match.results import check_matches_folder
    from sd4match.structures.inputs import as_photo, check_points

    photos = as_photo(source), as_photo(target)
    points = [_parse_point(text) for text in point] if point else None
    if points:
        check_points(points, photos[0])
    if file is None and category is None and config.prompt.needs_category:
        raise InputError("a text prompt needs to know what is in the photos: give --category NAME, or --prompt empty")
    kinds = check_pictures(draw, compare, category)
    check_output(output)
    others = [name for name in compare or () if name not in ("empty", "text")]
    inputs = [source, target, *(Path(path) for path in (file, options.config, *others) if path is not None)]
    check_matches_folder(output, inputs=inputs, pictures=kinds)
    device = prepare_device(device)
    changes = prompt_changes(fallback, file)
    with waiting(f"loading {config.backbone.model_name}"):
        components = build_for_matching(config, prompt=file, prompt_changes=changes, device=device)
        experiment = config.with_learned(file)
        matcher = SemanticMatcher.from_components(components, experiment)
        label, compared = compared_matchers(compare or (), components, experiment, category, file=file)
    sides: tuple[Photo | Features, Photo | Features] = photos
    with waiting("matching"):
        if kinds and matcher.prompt.scope != "pair":
            sides = matcher.extract(photos[0], category=category), matcher.extract(photos[1], category=category)
        result = matcher.match(*sides, points, category=category, mutual=mutual, grid=grid)
    with waiting("drawing"):
        pictures = Pictures(matcher, sides, photos, result, points, category, label, compared).draw(kinds)
    note = MINI_REMARK if config.backbone.model_name == "mini" else None
    details = {
        "source": {"path": str(source), "size": list(photos[0].size)},
        "target": {"path": str(target), "size": list(photos[1].size)},
        "backbone": config.backbone.model_name,
        "prompt": str(file) if file else config.prompt.model_dump(mode="json"),
        "category": category,
        "mutual": mutual,
        "note": note,
        "pictures": [f"{name}.png" for name in kinds],
    }
    result.save(output, details=details, pictures=pictures)
    files = [output / name for name in ("matches.json", "matches.png", *(f"{kind}.png" for kind in kinds))]
    _print(result, files)
    if note:
        typer.echo(note)
    return {**read_json(output / "matches.json", what="result"), "files": files}


def _parse_point(text: str) -> tuple[float, float]:
    import math

    from sd4match.errors import InputError, decimal_of, shown

    numbers = [decimal_of(coordinate) for coordinate in text.split(",")]
    x, y = numbers if len(numbers) == 2 else (math.nan, math.nan)
    if not (math.isfinite(x) and math.isfinite(y)):
        raise InputError(f"--point is X,Y in pixels, for example 120,80; not {shown(text)}")
    return x, y


def _print(result: MatchResult, files: Sequence[Path]) -> None:
    """Print the matches of the highest scores, in the order of their points."""
    from rich.console import Console
    from rich.table import Table

    table = Table("source x, y", "target x, y", "score")
    best = result.scores.argsort()[::-1][:_ROWS_SHOWN]
    for i in sorted(best):
        (x, y), (u, v) = result.source_points[i], result.target_points[i]
        table.add_row(f"{x:.0f}, {y:.0f}", f"{u:.1f}, {v:.1f}", f"{result.scores[i]:.3f}")
    Console(highlight=False).print(table)
    more = f", of which the {len(best)} best are shown" if len(result) > len(best) else ""
    count = "1 match" if len(result) == 1 else f"{len(result)} matches"
    typer.echo(f"{count}{more}. Written: {', '.join(map(str, files))}")
