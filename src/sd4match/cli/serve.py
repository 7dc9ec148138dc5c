"""`sd4match app`: match photos and train a prompt in the browser."""

from __future__ import annotations

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
    device: Device = "auto",
    options: ExperimentOptions,
) -> None:
    """Match photos by clicks, and train a prompt on clicked points, in the browser of this machine."""
    from sd4match.app.theme import import_gradio

    named = [name for name in prompt or () if name in ("empty", "text")]
    config = options.read("empty", [f"prompt={named[0]}"] if named else [])
    import_gradio()

    from sd4match.app.serving import choose_port, served
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

    with served(build, port=free) as address:
        typer.echo(f"The app runs at {address} (Ctrl-C ends it)")
        if open_browser:
            typer.launch(address)
        _wait()


def _wait() -> None:
    """Wait for Ctrl-C, which is the usual end of an app and no failure."""
    from threading import Event

    try:
        Event().wait()
    except KeyboardInterrupt:
        typer.echo("Stopped.")
