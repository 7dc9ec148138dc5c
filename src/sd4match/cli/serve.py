"""Command `sd4match app`, which serves the browser app."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from sd4match.cli.common import Device, ExperimentOptions, option_groups


@option_groups
def command(
    *,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of this machine; default: the first free one from 7860.")
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(help='"empty", "text", or the file of a learned prompt, to choose from; may be repeated.'),
    ] = None,
    open_browser: Annotated[
        bool, typer.Option("--open/--no-browser", help="Open the page in the browser, or only print its address.")
    ] = False,
    annotate: Annotated[
        Path | None,
        typer.Option(help="Folder of your own photos: mark points that correspond, saved there as you click."),
    ] = None,
    category: Annotated[
        str | None, typer.Option(help="With --annotate: what the photos show, where neither folder nor file says it.")
    ] = None,
    exif: Annotated[
        bool, typer.Option("--exif", help="With --annotate: turn photos as viewers do; goes with data.exif=true.")
    ] = False,
    device: Device = "auto",
    options: ExperimentOptions,
) -> None:
    """Match photos by clicks, train a prompt on them, or annotate your own photos, in the browser of this machine."""
    named = [name for name in prompt or () if name in ("empty", "text")]
    config = options.read("text" if category else "empty", [f"prompt={named[0]}"] if named else [])

    from sd4match.app.theme import require_gradio

    require_gradio()
    if annotate is not None:
        from sd4match.cli.annotate import serve_annotation

        serve_annotation(
            annotate, config, prompts=prompt or (), category=category, exif=exif, port=port, device=device,
            open_browser=open_browser,
        )  # fmt: skip
        return
    check_annotation_options(category=category, exif=exif)

    from sd4match.app.serving import choose_port
    from sd4match.app.session import find_prompts
    from sd4match.cli.common import prepare_device
    from sd4match.paths import as_path

    free = choose_port(port)
    device = prepare_device(device)
    given = {name: as_path(name, what="--prompt") for name in prompt or () if name not in named}
    typer.echo(f"Loading {config.backbone.model_name} ...")

    def build() -> object:
        from sd4match.app.layout import build_app

        return build_app(config, prompts={**given, **find_prompts(Path())}, device=device)

    serve_until_stopped(build, port=free, open_browser=open_browser)


def check_annotation_options(**options: object) -> None:
    """Check that options of the annotation are not given without --annotate.

    Raises:
        InputError: one is given.
    """
    from sd4match.errors import InputError

    for name, value in options.items():
        if value:
            raise InputError(f"--{name} goes with --annotate FOLDER")


def serve_until_stopped(build: Callable[[], object], *, port: int, open_browser: bool) -> None:
    """Serve an app until Ctrl-C, and print its address; arguments as for `served`."""
    from sd4match.app.serving import served

    with served(build, port=port) as address:
        typer.echo(f"The app runs at {address} (Ctrl-C ends it)")
        if open_browser:
            typer.launch(address)
        _wait()


def _wait() -> None:
    """Wait for Ctrl-C, the usual end of an app."""
    from threading import Event

    try:
        Event().wait()
    except KeyboardInterrupt:
        typer.echo("Stopped.")
