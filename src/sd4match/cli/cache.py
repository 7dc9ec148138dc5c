"""Commands `sd4match cache`, which show and clear the disk cache."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sd4match.cli.answer import Document

if TYPE_CHECKING:
    from sd4match.io.cache import Cache

app = typer.Typer(help="Disk cache of encoded photos and image features.", no_args_is_help=True, rich_markup_mode=None)

Folder = Annotated[
    str | None,
    typer.Option(help="Folder of the cache; default: SD4MATCH_CACHE, or sd4match in the user's cache folder."),
]


@app.command("info")
def info(folder: Folder = None) -> Document:
    """Print where the cache is and what it contains."""
    cache = _open(folder)
    usage = cache.usage()
    typer.echo(f"{cache.folder}")
    for name, used in usage.items():
        typer.echo(f"  {name}: {used.entries} entries, {format_size(used.bytes)}")
    if not usage:
        typer.echo("  nothing yet")
    contents = {name: {"entries": used.entries, "bytes": used.bytes} for name, used in usage.items()}
    return {"folder": str(cache.folder), "contents": contents}


@app.command("clear")
def clear(folder: Folder = None) -> Document:
    """Remove everything from the cache, and no other file; it is computed again when needed."""
    cache = _open(folder)
    removed = cache.clear()
    typer.echo(f"Removed {removed.entries} entries, {format_size(removed.bytes)}, from {cache.folder}")
    return {"folder": str(cache.folder), "removed": {"entries": removed.entries, "bytes": removed.bytes}}


def _open(folder: str | None) -> Cache:
    """Return the cache in a folder, which need not exist yet.

    Raises:
        InputError: the path is no folder, or no folder can be created there.
    """
    from sd4match.io.cache import Cache, cache_folder
    from sd4match.paths import as_path, require_folder

    path = cache_folder() if folder is None else as_path(folder, what="--folder")
    if _may_exist(path):
        require_folder(path, what="cache folder")
    return Cache(path, limit=0)


def _may_exist(path: Path) -> bool:
    """Return False if the path does not exist but could be created, True otherwise."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True


def format_size(count: int) -> str:
    """Return a number of bytes with a unit.

    >>> format_size(999), format_size(1_234_567), format_size(10_000_000_000)
    ('999 B', '1.2 MB', '10.0 GB')
    """
    value, unit = float(count), "B"
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"
