"""Command `sd4match extract`, which writes the features of photos to files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from sd4match.cli.answer import Document
from sd4match.cli.common import Category, Device, ExperimentOptions, PromptFile, option_groups


@option_groups
def command(
    photos: Annotated[list[Path], typer.Argument(help="Photos.")],
    *,
    output: Annotated[Path, typer.Option(help="Folder for one .safetensors file per photo.")] = Path("features"),
    category: Category = None,
    prompt: PromptFile = None,
    device: Device = "auto",
    options: ExperimentOptions,
) -> Document:
    """Write the feature map of each photo, with the frame of its cells and its provenance."""
    from sd4match.checks import check_text

    if category is not None:
        check_text("--category", category)
    config = options.read("text" if category else "empty")

    from sd4match.cli.common import check_output, prepare_device
    from sd4match.cli.progress import progress_bar, waiting
    from sd4match.evaluation.report import backbone_entry
    from sd4match.io.features import write_features
    from sd4match.io.files import check_output_file
    from sd4match.pipeline import SemanticMatcher, build_for_matching
    from sd4match.structures.images import Photo
    from sd4match.version import __version__

    names = _file_names(photos)
    for path in photos:  # before the work, so that a bad photo among many does not end it in the middle
        Photo.open(path)
    check_output(output)
    inputs = [*photos, *(path for path in (prompt, options.config) if path is not None)]
    for name in names:
        check_output_file(output / name, inputs=inputs, is_own=_is_feature_file, what="file of features")
    device = prepare_device(device)
    with waiting(f"loading {config.backbone.model_name}"):
        components = build_for_matching(config, prompt=prompt, device=device)
        matcher = SemanticMatcher.from_components(components, config)
    provenance = {
        "library_version": __version__,
        "backbone": {**backbone_entry(config, components.backbone), "layer": components.backbone.spec.layer},
        "prompt": str(prompt) if prompt else config.prompt.model_dump(mode="json"),
        "category": category,
        "sampling": config.evaluation.sampling.model_dump(mode="json"),
        "seed": config.evaluation.seed,
    }
    maps = []
    with progress_bar() as bar:
        task = bar.add_task("extracting", total=len(photos))
        for path, name in zip(photos, names, strict=True):
            photo = Photo.open(path)
            features = matcher.feature_map(photo, category=category)
            write_features(features, output / name, provenance={**provenance, "photo": path.name, "key": photo.key})
            maps.append({"photo": path, "file": output / name, "shape": list(features.values.shape[1:])})
            bar.advance(task)
    shape = " x ".join(map(str, features.values.shape[1:]))
    typer.echo(f"{len(photos)} maps of {shape} in {output}")
    return {"maps": maps, **provenance}


def _is_feature_file(path: Path) -> bool:
    """Return whether an earlier `extract` wrote a file."""
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("format") == "sd4match-features"
    except Exception:  # of safetensors, or of torch where it cannot open the file
        return False


def _file_names(photos: Sequence[Path]) -> list[str]:
    """Return the name of each photo's feature file.

    Raises:
        InputError: two photos have the same name.
    """
    from sd4match.errors import InputError

    names = [f"{photo.stem}.safetensors" for photo in photos]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"two photos would both be written to {twice}; rename one, or extract them into two folders")
    return names
