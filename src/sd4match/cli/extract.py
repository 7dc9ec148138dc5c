"""`sd4match extract`: the features of photos, as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sd4match.cli.common import BackboneName, ConfigFile, Device, Dtype, Preset, Set, ShowConfig


def command(
    photos: Annotated[list[Path], typer.Argument(help="Photos.")],
    output: Annotated[Path, typer.Option(help="Folder for one .safetensors a photo.")] = Path("features"),
    category: Annotated[str | None, typer.Option(help="What is in the photos, for text prompts.")] = None,
    prompt: Annotated[Path | None, typer.Option(help="The file of a learned prompt.")] = None,
    preset: Preset = None,
    config: ConfigFile = None,
    backbone: BackboneName = None,
    device: Device = "auto",
    dtype: Dtype = None,
    overrides: Set = None,
    show: ShowConfig = False,
) -> None:
    """Write the feature map of each photo, with the frame in which its cells lie and where it comes from."""
    from sd4match.cli.common import check_output, pick_device, progress_bar, quiet_libraries, read_config, show_config

    settings = read_config(
        preset=preset, config=config, overrides=overrides, default="text" if category else "empty", backbone=backbone,
        dtype=dtype,
    )  # fmt: skip
    if show:
        show_config(settings)

    from sd4match.errors import InputError
    from sd4match.evaluation.report import backbone_entry
    from sd4match.io.features import write_features
    from sd4match.pipeline import SemanticMatcher, build_for_matching
    from sd4match.structures.images import Photo
    from sd4match.version import __version__

    names = [f"{photo.stem}.safetensors" for photo in photos]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"two photos would both be written to {twice}; rename one, or extract them into two folders")
    for photo in photos:
        Photo.size_of(photo)
    check_output(output)
    where = pick_device(device)
    quiet_libraries()
    parts = build_for_matching(settings, prompt=prompt, device=where)
    matcher = SemanticMatcher.from_components(parts, settings)
    provenance = {
        "library_version": __version__,
        "backbone": backbone_entry(settings, parts.backbone) | {"layer": parts.backbone.spec.layer},
        "prompt": str(prompt) if prompt else settings.prompt.model_dump(mode="json"),
        "category": category,
        "sampling": settings.evaluation.sampling.model_dump(mode="json"),
        "seed": settings.evaluation.seed,
    }
    with progress_bar() as bar:
        task = bar.add_task("extracting", total=len(photos))
        for path, name in zip(photos, names, strict=True):
            opened = Photo.open(path)
            features = matcher.feature_map(opened, category=category)
            write_features(features, output / name, provenance={**provenance, "photo": path.name, "key": opened.key})
            bar.advance(task)
    shape = " x ".join(map(str, features.values.shape[1:]))
    typer.echo(f"{len(photos)} maps of {shape} in {output}")
