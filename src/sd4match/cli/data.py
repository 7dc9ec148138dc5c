"""`sd4match data`: data sets on disk."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sd4match.cli.common import Set

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

app = typer.Typer(help="Data sets on disk.", no_args_is_help=True)


@app.callback()
def root() -> None:
    """Data sets on disk."""


@app.command("make-synthetic")
def make_synthetic(
    folder: Annotated[Path, typer.Argument(help="Where to write; must be empty or not exist.")],
    pairs: Annotated[int | None, typer.Option(min=1, help="Pairs a split; without: 2000, 160 and 480.")] = None,
    photos: Annotated[
        int | None, typer.Option(min=2, help="Photos a category and split; without: 120, 24 and 50.")
    ] = None,
    size: Annotated[int, typer.Option(min=32, help="Side of a photo in pixels.")] = 96,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Write the synthetic data set in SPair-71k's layout."""
    from typing import get_args

    from sd4match.cli.common import progress_bar
    from sd4match.data.config import Split
    from sd4match.data.spair_layout import write_spair_layout
    from sd4match.data.synthetic.dataset import SyntheticPairs
    from sd4match.errors import DatasetError

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DatasetError(f"{folder} is not an empty folder; give one that is empty or does not exist")
    counts = {}
    with progress_bar() as bar:
        for split in get_args(Split):
            dataset = SyntheticPairs(split=split, pairs=pairs, photos_per_category=photos, size=size, seed=seed)
            task = bar.add_task(f"writing {split}", total=len(dataset))
            counts[split] = write_spair_layout(dataset, folder, progress=partial(bar.advance, task))
    listing = ", ".join(f"{count} {split}" for split, count in counts.items())
    typer.echo(f"{folder}: {listing} pairs in SPair-71k's layout")


@app.command("check")
def check(
    kind: Annotated[str, typer.Argument(help="spair, pf_pascal, pf_willow, ap10k or folder.")],
    root: Annotated[Path, typer.Argument(help="Its folder, as it was unpacked.")],
    split: Annotated[str | None, typer.Option(help="train, validation or test; without: all that it has.")] = None,
    overrides: Set = None,
) -> None:
    """Look for what is wrong with a data set: a line for each problem, exit code 1 if there is one."""
    from typing import get_args

    from sd4match.cli.common import data_changes, progress_bar, read_config
    from sd4match.config.experiment import build_dataset
    from sd4match.data.check import check_split
    from sd4match.data.config import DatasetConfig, Split
    from sd4match.errors import ConfigError

    known = get_args(Split)
    if split is not None and split not in known:
        raise ConfigError(f"--split must be train, validation or test, not {split!r}")
    changes = [*data_changes(kind, root), *(f"data.{change}" for change in overrides or ())]
    settings = read_config(preset=None, config=None, overrides=changes, default="empty")
    assert isinstance(settings.data, DatasetConfig)
    splits = [one for one in known if one == split] or list(settings.data.splits)
    problems = 0
    with progress_bar() as bar:
        for name in splits:
            tell = partial(_tell, bar, bar.add_task(f"checking {name}", total=None))
            for finding in check_split(partial(build_dataset, settings, name), name, progress=tell):
                problems += finding.is_problem
                typer.echo(finding.text if finding.is_problem else f"note: {finding.text}")
    typer.echo(f"{root}: {problems or 'no'} problem{'' if problems == 1 else 's'} in {', '.join(splits)}", err=True)
    if problems:
        raise typer.Exit(1)


def _tell(bar: Progress, task: TaskID, done: int, total: int) -> None:
    bar.update(task, completed=done, total=total)
