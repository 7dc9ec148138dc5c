"""Command `sd4match app --annotate FOLDER`, which opens an annotation app for a folder of photos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from sd4match.config.experiment import ExperimentConfig


def serve_annotation(
    folder: Path,
    config: ExperimentConfig,
    *,
    prompts: Sequence[str] = (),
    category: str | None = None,
    exif: bool = False,
    port: int | None = None,
    device: str = "auto",
    open_browser: bool = False,
) -> None:
    """Serve the annotation of a folder until Ctrl-C.

    Args:
        folder: folder of photos, with the file of points if there is one.
        config: experiment of the matcher that guesses.
        prompts: prompt of the matcher, "empty", "text" or a file; the one of the config, if none is given.
        category: category of photos whose annotation has none.
        exif: whether points are in the frame that image viewers show.
        port: port of this machine; None: a free one.
        device: device of the matcher.
        open_browser: whether to open the page, or only to print its address.

    Raises:
        SD4MatchError: the folder cannot be annotated, another app has locked it, there are several prompts, or as
            `build_for_matching`.
    """
    from sd4match.app.serving import choose_port
    from sd4match.checks import check_text
    from sd4match.cli.common import prepare_device
    from sd4match.cli.match import MINI_REMARK
    from sd4match.cli.serve import serve_until_stopped
    from sd4match.errors import InputError

    if category is not None:
        check_text("--category", category)
    if len(prompts) > 1:
        raise InputError("--annotate takes one --prompt, of the matcher that guesses")
    file = next((name for name in prompts if name not in ("empty", "text")), None)
    free = choose_port(port)

    from sd4match.app.annotate import build_annotation_app
    from sd4match.app.annotation_store import AnnotationStore
    from sd4match.pipeline import SemanticMatcher, build_for_matching

    with AnnotationStore.open(folder, exif=exif) as store:
        typer.echo(f"{len(store.photos)} photos; points go to {store.file}. Loading {config.backbone.model_name} ...")
        if store.left_out:
            typer.echo(store.left_out)
        components = build_for_matching(config, prompt=file, device=prepare_device(device))
        matcher = SemanticMatcher.from_components(components, config.with_learned(file))
        note = MINI_REMARK.replace("These matches come", "Guesses come") if config.backbone.model_name == "mini" else ""
        serve_until_stopped(
            lambda: build_annotation_app(store, matcher, category=category, note=note),
            port=free,
            open_browser=open_browser,
        )
