"""`sd4match app`: match photos and train a prompt in the browser."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sd4match.cli.common import Category, Device, ExperimentOptions, option_groups

if TYPE_CHECKING:
    import gradio

    from sd4match.app.annotation_store import AnnotationStore
    from sd4match.config.experiment import ExperimentConfig


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
        Path | None, typer.Option(help="Mark corresponding points on the photos of this folder instead.")
    ] = None,
    category: Category = None,
    device: Device = "auto",
    options: ExperimentOptions,
) -> None:
    """Match photos by clicks, and train a prompt on clicked points, in the browser of this machine."""
    named = [name for name in prompt or () if name in ("empty", "text")]
    config = options.read("text" if category else "empty", [f"prompt={named[0]}"] if named else [])

    from sd4match.app.serving import choose_port
    from sd4match.cli.common import prepare_device
    from sd4match.paths import as_path

    free = choose_port(port)
    device = prepare_device(device)
    files = {name: as_path(name, what="--prompt") for name in prompt or () if name not in named}
    if annotate is None:
        _run(lambda: _matching_app(config, files, device), config, free, open_browser=open_browser)
        return
    from sd4match.app.annotation_store import AnnotationStore

    with AnnotationStore.open(annotate) as store:
        _run(
            lambda: _annotation_app(store, config, next(iter(files.values()), None), category, device),
            config, free, open_browser=open_browser,
        )  # fmt: skip


def _matching_app(config: ExperimentConfig, prompts: Mapping[str, Path], device: str) -> gradio.Blocks:
    from sd4match.app.layout import build_app
    from sd4match.app.session import find_prompts

    return build_app(config, prompts={**prompts, **find_prompts(Path())}, device=device)


def _annotation_app(
    store: AnnotationStore, config: ExperimentConfig, prompt: Path | None, category: str | None, device: str
) -> gradio.Blocks:
    from sd4match.app.annotate import build_annotation_app
    from sd4match.app.session import MINI_NOTE
    from sd4match.pipeline import SemanticMatcher

    matcher = SemanticMatcher.from_config(config, prompt=prompt, device=device)
    note = MINI_NOTE if config.backbone.model_name == "mini" else ""
    return build_annotation_app(store, matcher, category=category, note=note)


def _run(build: Callable[[], gradio.Blocks], config: ExperimentConfig, port: int, *, open_browser: bool) -> None:
    """Serve an app until Ctrl-C, which is its usual end and no failure."""
    from threading import Event

    from sd4match.app.serving import served
    from sd4match.app.theme import import_gradio

    def load() -> gradio.Blocks:
        import_gradio()  # not before: it remembers where its temporary files go
        typer.echo(f"Loading {config.backbone.model_name} ...")
        return build()

    with served(load, port=port) as address:
        typer.echo(f"The app runs at {address} (Ctrl-C ends it)")
        if open_browser:
            typer.launch(address)
        try:
            Event().wait()
        except KeyboardInterrupt:
            typer.echo("Stopped.")
