"""Command `sd4match evaluate`, which measures the PCK of prompts and baselines on the pairs of a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sd4match.cli.answer import Document
from sd4match.cli.common import (
    DataOptions,
    Device,
    ExperimentOptions,
    Fallback,
    PromptFile,
    SplitName,
    changed,
    option_groups,
)

if TYPE_CHECKING:
    from sd4match.evaluation.report import Report


@option_groups
def command(
    *,
    output: Annotated[Path, typer.Option(help="Folder for report.json, .md, .csv and .tex.")] = Path("runs/evaluate"),
    data: DataOptions,
    split: SplitName = "test",
    category: Annotated[list[str] | None, typer.Option(help="Only pairs of this category; may be repeated.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only this many pairs, from the first.")] = None,
    prompt: PromptFile = None,
    fallback: Fallback = None,
    against: Annotated[
        str | None, typer.Option(help='Also evaluate "empty", "text" or another prompt file, and compare.')
    ] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(help='"identity" or "random", which need no model; may be repeated. Alone: nothing else is run.'),
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="How to count: sd4match, dift, sd-dino or geoaware, with its own matcher.")
    ] = None,
    matcher: Annotated[
        list[str] | None, typer.Option(help="Further matcher on the same features; may be repeated.")
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Skip pairs that cannot be read.")] = False,
    maps: Annotated[
        Path | None, typer.Option(help="Folder in which feature maps are kept for other protocols and matchers.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(help='Memory for feature maps, for example "8 GB"; default: half of the free memory.')
    ] = None,
    draw: Annotated[
        list[str] | None,
        typer.Option(help="alpha, categories or pairs: write a picture beside the report; may be repeated."),
    ] = None,
    device: Device = "auto",
    options: ExperimentOptions,
) -> Document | None:
    """Evaluate prompts on a data set: PCK per image, point, category and difficulty, with bootstrap intervals."""
    changes = [
        *data.changes(),
        *_protocol_changes(protocol),
        *changed("evaluation.matchers", matcher),
        *changed("evaluation.categories", category),
        *changed("evaluation.limit", limit),
        *changed("evaluation.skip_bad", skip_bad),
        *changed("evaluation.memory", memory),
    ]
    config = options.read("single" if prompt else "text", changes)
    config.require_data()

    from sd4match.cli.common import check_output, check_split, prepare_device, prompt_changes
    from sd4match.cli.progress import count_progress, evaluation_progress, progress_bar, tell
    from sd4match.cli.run_folder import held
    from sd4match.distributed import Processes
    from sd4match.evaluation.baselines import check_baselines
    from sd4match.evaluation.drawings import check_drawings, draw_report
    from sd4match.evaluation.report import write_report
    from sd4match.evaluation.run import evaluate
    from sd4match.evaluation.run_folders import check_maps_folder, check_run_folder, earlier_report
    from sd4match.paths import exists, require_folder

    checked_split = check_split(split)
    kinds = check_drawings(draw or [])
    baselines = check_baselines(baseline or [])
    scratch = check_output(output)
    is_main = Processes().is_main
    with held(output):
        check_run_folder(output, "evaluation")
        if maps is not None:
            if exists(maps):
                require_folder(maps, what="folder for --maps")
            check_maps_folder(maps, output)
        replaced = earlier_report(output)
        chooses_model = prompt or options.preset or options.config or against or options.backbone or matcher
        with progress_bar(visible=is_main, before="loading") as bar:
            report = evaluate(
                config, split=checked_split, prompt=prompt, prompt_changes=prompt_changes(fallback, prompt),
                against=against, baselines=baselines, only_baselines=bool(baselines) and not chooses_model, maps=maps,
                scratch=scratch, device=prepare_device(device), progress=evaluation_progress(bar),
                tell=tell if is_main else lambda line: None,
            )  # fmt: skip
        if is_main:
            title = f"{', '.join(row.prompt for row in report.results)} on {report.data.name}, {split} split"
            with progress_bar() as bar:
                figures = draw_report(
                    report, kinds, device=prepare_device(device), progress=count_progress(bar, "drawing pairs")
                )
            files = [*write_report(report, output, title=title, figures=figures), *map(output.joinpath, figures)]
            _print(report, files, title=title)
            if replaced:
                typer.echo(replaced)
            return {**report.to_json(), "files": files}
    return None


def _protocol_changes(name: str | None) -> list[str]:
    """Return the changes of an experiment for a protocol: counting, matcher, and the frame of photos."""
    if name is None:
        return []
    from sd4match.config.protocols import get_protocol

    protocol = get_protocol(name)
    return [
        *changed("evaluation.protocol", name),
        *changed("matcher", protocol.matcher.model_dump(mode="json")),
        *changed("backbone.frame", protocol.frame if protocol.frame != "squash" else None),
    ]


def _print(report: Report, files: list[Path], *, title: str) -> None:
    from sd4match.evaluation.tables import left_out, to_summary

    typer.echo(to_summary(report, title=title))
    skipped = report.results[0].pairs_skipped
    if skipped:
        typer.echo(f"{left_out(skipped)}; see {files[0]}", err=True)
    typer.echo(f"Written: {', '.join(map(str, files))}")
