"""`sd4match match`: two photos in; a table, a JSON file and a picture out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sd4match.cli.common import BackboneName, ConfigFile, Device, Dtype, Fallback, Preset, Set, ShowConfig

if TYPE_CHECKING:
    from sd4match.structures.results import MatchResult

_ON_SCREEN = 20

MINI_REMARK = (
    "These matches come from mini, a small model that has only seen drawings: on real photos they mean little. "
    "For real ones give a Stable Diffusion folder: --backbone FOLDER."
)


def command(
    source: Annotated[Path, typer.Argument(help="The photo whose points are looked for.")],
    target: Annotated[Path, typer.Argument(help="The photo in which they are found.")],
    output: Annotated[Path, typer.Option(help="Folder for matches.json and matches.png.")] = Path("matches"),
    point: Annotated[
        list[str] | None, typer.Option(help="X,Y in pixels of SOURCE; may be repeated. Without: a grid.")
    ] = None,
    category: Annotated[str | None, typer.Option(help="What is in both photos, for text prompts.")] = None,
    prompt: Annotated[str | None, typer.Option(help='"empty", "text", or the file of a learned prompt.')] = None,
    fallback: Fallback = None,
    mutual: Annotated[
        bool, typer.Option("--mutual", help="Keep only points that come back when matched back.")
    ] = False,
    grid: Annotated[int, typer.Option(min=1, max=64, help="Points a side of the grid.")] = 8,
    preset: Preset = None,
    config: ConfigFile = None,
    backbone: BackboneName = None,
    device: Device = "auto",
    dtype: Dtype = None,
    overrides: Set = None,
    show: ShowConfig = False,
) -> None:
    """Find points of one photo in another."""
    from sd4match.cli.common import (
        check_output,
        pick_device,
        prompt_settings,
        quiet_libraries,
        read_config,
        show_config,
    )

    named = prompt in ("empty", "text")
    settings = read_config(
        preset=preset,
        config=config,
        overrides=[*(overrides or []), *([f"prompt={prompt}"] if named else [])],
        default="text" if category else "empty",
        backbone=backbone,
        dtype=dtype,
    )
    if show:
        show_config(settings)

    from sd4match.errors import InputError
    from sd4match.pipeline import SemanticMatcher, as_photo, build_for_matching, check_points
    from sd4match.prompting.config import PromptConfig

    photos = as_photo(source), as_photo(target)
    points = [_parse_point(text) for text in point] if point else None
    if points:
        check_points(points, photos[0])
    file = None if named or prompt is None else prompt
    if (
        file is None
        and category is None
        and isinstance(settings.prompt, PromptConfig)
        and settings.prompt.needs_category
    ):
        raise InputError("a text prompt needs to know what is in the photos: give --category NAME, or --prompt empty")
    check_output(output)

    where = pick_device(device)
    quiet_libraries()
    parts = build_for_matching(settings, prompt=file, prompt_settings=prompt_settings(fallback, file), device=where)
    matcher = SemanticMatcher.from_components(parts, settings)
    result = matcher.match(*photos, points, category=category, mutual=mutual, grid=grid)
    on_mini = getattr(settings.backbone, "weights", None) == "mini"
    facts = {
        "source": {"path": str(source), "size": list(photos[0].size)},
        "target": {"path": str(target), "size": list(photos[1].size)},
        "backbone": getattr(settings.backbone, "weights", settings.backbone.kind),
        "prompt": str(file) if file else settings.prompt.model_dump(mode="json"),
        "category": category,
        "mutual": mutual,
        "note": MINI_REMARK if on_mini else None,
    }
    write_matches(result, output, facts)
    _show(result, output)
    if on_mini:
        typer.echo(MINI_REMARK)


def _parse_point(text: str) -> tuple[float, float]:
    from sd4match.errors import InputError

    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--point is X,Y in pixels, for example 120,80; not {text!r}") from None
    return x, y


def write_matches(result: MatchResult, output: Path, facts: dict[str, Any]) -> None:
    """Write `matches.json` and `matches.png`."""
    import json

    from sd4match.errors import InputError
    from sd4match.viz.matches import draw_matches

    rows = zip(result.source_points.tolist(), result.target_points.tolist(), result.scores.tolist(), strict=True)
    content = facts | {
        "matches": [
            {"source": [round(v, 2) for v in start], "target": [round(v, 2) for v in end], "score": round(score, 4)}
            for start, end, score in rows
        ]
    }
    picture = draw_matches(
        result.source, result.target, result.source_points, result.target_points, scores=result.scores.tolist()
    )
    try:
        output.mkdir(parents=True, exist_ok=True)
        (output / "matches.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        picture.save(output / "matches.png")
    except OSError as error:
        raise InputError(f"cannot write to {output}: {error.strerror or error}") from None


def _show(result: MatchResult, output: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("source x, y", "target x, y", "score")
    best = result.scores.argsort()[::-1][:_ON_SCREEN]
    for i in sorted(best):
        (x, y), (u, v) = result.source_points[i], result.target_points[i]
        table.add_row(f"{x:.0f}, {y:.0f}", f"{u:.1f}, {v:.1f}", f"{result.scores[i]:.3f}")
    Console(highlight=False).print(table)
    more = f", of which the {len(best)} best are shown" if len(result) > len(best) else ""
    typer.echo(f"{len(result)} matches{more}. Written: {output / 'matches.json'}, {output / 'matches.png'}")
