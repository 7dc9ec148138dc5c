"""`sd4match evaluate`: PCK of a prompt on held-out pairs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from sd4match.cli.common import BackboneName, ConfigFile, Device, Dtype, Fallback, Preset, Set, ShowConfig


def command(
    output: Annotated[Path, typer.Option(help="Folder for report.json and report.md.")] = Path("runs/evaluate"),
    preset: Preset = None,
    config: ConfigFile = None,
    prompt: Annotated[Path | None, typer.Option(help="The file of a learned prompt.")] = None,
    against: Annotated[
        str | None,
        typer.Option(help='Also measure "empty", "text" or another prompt file, and compare on the same pairs.'),
    ] = None,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many pairs.")] = None,
    fallback: Fallback = None,
    backbone: BackboneName = None,
    device: Device = "auto",
    dtype: Dtype = None,
    overrides: Set = None,
    show: ShowConfig = False,
) -> None:
    """Measure a prompt: PCK per image, per point and per category, with bootstrap intervals."""
    from sd4match.cli.common import (
        check_output,
        pick_device,
        progress_bar,
        prompt_settings,
        quiet_libraries,
        read_config,
        show_config,
    )

    settings = read_config(
        preset=preset,
        config=config,
        overrides=overrides,
        default="single" if prompt else "text",
        backbone=backbone,
        dtype=dtype,
    )
    if show:
        show_config(settings)

    from sd4match import registry
    from sd4match.config import build_dataset
    from sd4match.errors import ConfigError
    from sd4match.evaluation.report import backbone_entry, make_report, result, to_markdown, write_report
    from sd4match.evaluation.run import compare_prompts, evaluate_prompts
    from sd4match.pipeline import build_for_matching
    from sd4match.prompting.artifact import load_prompt

    if split not in ("train", "validation", "test"):
        raise ConfigError(f"--split must be train, validation or test, not {split!r}")
    check_output(output)
    started = time.perf_counter()
    where = pick_device(device)
    quiet_libraries()
    parts = build_for_matching(settings, prompt=prompt, prompt_settings=prompt_settings(fallback), device=where)
    providers = {prompt.stem if prompt else settings.prompt.kind: parts.prompt}
    if against is not None:
        other = (
            registry.prompts.build(registry.prompts.parse(against), backbone=parts.backbone)
            if against in ("empty", "text")
            else load_prompt(against, backbone=parts.backbone)
        )
        name = Path(against).stem
        providers[name if name not in providers else f"{name} (against)"] = other
    data = build_dataset(settings, split)  # type: ignore[arg-type]
    with progress_bar() as bar:
        count = min(limit or len(data), len(data))
        tasks = {name: bar.add_task(f"evaluating {name}", total=count) for name in providers}
        scores = evaluate_prompts(
            settings, parts, data, providers, limit=limit, progress=lambda name, done: bar.advance(tasks[name], done)
        )
    comparisons = [compare_prompts(settings, scores, *scores)] if len(scores) == 2 else []
    report = make_report(
        config=settings,
        results=[result(name, one, settings) for name, one in scores.items()],
        comparisons=comparisons,
        backbone=backbone_entry(settings, parts.backbone),
        wall_seconds=time.perf_counter() - started,
        extra={"split": split, "prompt_file": str(prompt) if prompt else None},
    )
    title = f"{' and '.join(scores)} on {data.name}, {split} split"
    write_report(report, output, title=title)
    typer.echo(to_markdown(report, title=title))
    typer.echo(f"Written: {output / 'report.json'}, {output / 'report.md'}")
