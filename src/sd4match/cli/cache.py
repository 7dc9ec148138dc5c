"""`sd4match cache`: what is kept on disk between runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Latents of photos and features of image encoders, kept between runs.", no_args_is_help=True,
    rich_markup_mode=None,
)  # fmt: skip

Folder = Annotated[
    Path | None, typer.Option(help="Of the cache; without: SD4MATCH_CACHE, or sd4match in the user's cache folder.")
]


@app.command("info")
def info(folder: Folder = None) -> None:
    """Where the cache is, and what it holds."""
    from sd4match.io.cache import Cache, cache_folder

    cache = Cache(folder or cache_folder(), limit=0)
    typer.echo(f"{cache.folder}")
    sizes = cache.sizes()
    for sort, held in sizes.items():
        typer.echo(f"  {sort}: {held.entries} entries, {readable(held.bytes)}")
    if not sizes:
        typer.echo("  nothing yet")


@app.command("clear")
def clear(folder: Folder = None) -> None:
    """Remove what the cache holds; it is computed again when it is wanted."""
    from sd4match.io.cache import Cache, cache_folder

    cache = Cache(folder or cache_folder(), limit=0)
    gone = cache.clear()
    typer.echo(f"Removed {gone.entries} entries, {readable(gone.bytes)}, from {cache.folder}")


def readable(count: int) -> str:
    """Bytes as people read them.

    >>> readable(999), readable(1_234_567), readable(10_000_000_000)
    ('999 B', '1.2 MB', '10.0 GB')
    """
    value, unit = float(count), "B"
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"
