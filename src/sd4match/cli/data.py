"""Commands `sd4match data`, which write the synthetic data set and check data sets on disk."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from sd4match.cli.answer import Document, Leave
from sd4match.cli.common import Set, check_split, data_changes, read_config

if TYPE_CHECKING:
    from rich.progress import TaskID

app = typer.Typer(help="Data sets on disk.", no_args_is_help=True, rich_markup_mode=None)


@app.command("make-synthetic")
def make_synthetic(
    folder: Annotated[Path, typer.Argument(help="Where to write; must be empty or not exist.")],
    pairs: Annotated[int | None, typer.Option(help="Pairs of each split. Default: 2000, 160 and 480.")] = None,
    photos: Annotated[
        int | None, typer.Option(help="Photos of each category and split. Default: 120, 24 and 50.")
    ] = None,
    size: Annotated[int | None, typer.Option(help="Side of a photo in pixels.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the drawings and pairs.")] = None,
) -> Document:
    """Write the synthetic data set in SPair-71k's layout; fields without an option have the data set's defaults."""
    from sd4match.cli.progress import progress_bar
    from sd4match.data.config import Split, SyntheticConfig
    from sd4match.data.spair_layout import new_folder, write_spair_layout
    from sd4match.paths import as_path

    options = {"pairs": pairs, "photos_per_category": photos, "size": size, "seed": seed}
    given = {name: value for name, value in options.items() if value is not None}
    configs = [SyntheticConfig(split=split, **given) for split in get_args(Split)]
    counts: dict[str, int] = {}
    with new_folder(as_path(folder, what="FOLDER")) as whole, progress_bar() as bar:
        for config in configs:
            dataset = config.build()
            task = bar.add_task(f"writing {config.split}", total=len(dataset))
            counts[config.split] = write_spair_layout(dataset, whole, progress=partial(bar.advance, task))
    listing = ", ".join(f"{count} {name}" for name, count in counts.items())
    typer.echo(f"{folder}: {listing} pairs in SPair-71k's layout")
    return {"folder": folder, "pairs": counts}


@app.command("check")
def check(
    kind: Annotated[str, typer.Argument(help="spair, pf_pascal, pf_willow, ap10k or folder.")],
    root: Annotated[Path, typer.Argument(help="Folder of the data set, as it was unpacked.")],
    split: Annotated[
        str | None, typer.Option(help="train, validation or test. Default: all that the data set has.")
    ] = None,
    overrides: Set = None,
) -> Document:
    """Print a line for each problem of a data set; the exit code is 1 if there is one."""
    from sd4match.cli.progress import progress_bar
    from sd4match.config.experiment import build_dataset
    from sd4match.data import check as checks

    only = None if split is None else check_split(split)
    changes = [*data_changes(kind, root), *(f"data.{change}" for change in overrides or ())]
    config = read_config(preset=None, config=None, overrides=changes, default="empty")
    splits = [only] if only else list(config.require_data().splits)
    findings: list[dict[str, str | bool]] = []

    def report(finding: checks.Finding) -> None:
        text = " ".join(finding.text.split())
        findings.append({"text": text, "is_problem": finding.is_problem})
        typer.echo(text if finding.is_problem else f"note: {text}")

    with progress_bar() as bar:
        for name in splits:
            task = bar.add_task(f"checking {name}", total=None)

            def on_progress(done: int, total: int, task: TaskID = task) -> None:
                bar.update(task, completed=done, total=total)

            for finding in checks.check_split(partial(build_dataset, config, name), name, progress=on_progress):
                report(finding)
        for finding in checks.check_splits(partial(build_dataset, config), tuple(splits)):
            report(finding)
    problems = sum(bool(finding["is_problem"]) for finding in findings)
    typer.echo(f"{root}: {problems or 'no'} problem{'' if problems == 1 else 's'} in {', '.join(splits)}", err=True)
    answer: Document = {"root": root, "splits": splits, "problems": problems, "findings": findings}
    if problems:
        raise Leave(answer, 1)
    return answer
