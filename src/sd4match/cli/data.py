"""`sd4match data`: data sets on disk."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

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
