"""Command `sd4match report`, which writes one HTML page of a report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sd4match.cli.answer import Document
from sd4match.cli.common import Device

if TYPE_CHECKING:
    from PIL import Image

    from sd4match.evaluation.pairs import PairPicture
    from sd4match.evaluation.report import Report


def command(
    folder: Annotated[Path, typer.Argument(help="Folder of an evaluation, sweep, training or demo.")],
    output: Annotated[Path | None, typer.Option(help="HTML file to write; default: report.html in the folder.")] = None,
    pairs: Annotated[int, typer.Option(min=0, max=100, help="Worst and best pairs to draw, each; 0 for none.")] = 4,
    row: Annotated[
        str | None, typer.Option(help="Prompt whose worst and best pairs are drawn; default: the experiment's own.")
    ] = None,
    device: Device = "auto",
) -> Document:
    """Write one HTML page of a report: tables, plots, worst and best pairs. It needs no other file and no network."""
    from sd4match.cli.common import prepare_device
    from sd4match.cli.progress import count_progress, progress_bar
    from sd4match.evaluation.page import write_page
    from sd4match.evaluation.report import REPORT_FILE, read_report
    from sd4match.evaluation.run_folders import PAGE_FILE, check_page_file, kind_of_report
    from sd4match.paths import is_folder

    report = read_report(folder)
    file = folder / REPORT_FILE if is_folder(folder) else folder
    target = file.parent / PAGE_FILE if output is None else output
    check_page_file(target, option="--output" if output else "the page", inputs=[file])
    if row is not None:
        report.row(row)
    device = prepare_device(device)
    with progress_bar() as bar:
        progress = count_progress(bar, "drawing pairs")
        pictures, remark = _pictures(report, file.parent, pairs, row, device, progress)
    has_curve = kind_of_report(report.extra) in ("training", "demo")
    curve = _curve(file.parent) if has_curve else None
    write_page(report, target, pictures=pictures, remark=remark, curve=curve)
    if remark:
        typer.echo(remark, err=True)
    typer.echo(f"Written: {target}")
    return {"files": [target], "remark": remark or None}


def _pictures(
    report: Report, folder: Path, count: int, row: str | None, device: str, progress: Callable[[int, int], None]
) -> tuple[list[PairPicture], str]:
    """Return pictures of pairs, or none and the reason."""
    from sd4match.errors import SD4MatchError
    from sd4match.evaluation.pairs import pair_pictures

    try:
        return pair_pictures(report, count=count, row=row, folder=folder, device=device, progress=progress), ""
    except SD4MatchError as error:
        return [], f"The page has no pictures of pairs: {error}"


def _curve(folder: Path) -> Image.Image | None:
    """Return the plot of a training in a folder; None if there is none."""
    from sd4match.errors import PhotoError
    from sd4match.evaluation.run_folders import CURVE_FILE
    from sd4match.structures.images import Photo

    try:
        return Photo.open(folder / CURVE_FILE).to_image()
    except PhotoError:
        return None
