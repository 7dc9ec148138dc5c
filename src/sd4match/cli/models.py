"""`sd4match models` and `sd4match doctor`: what there is, and whether it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sd4match.cli.common import Device, Dtype, Set

app = typer.Typer(help="Models by name.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def root() -> None:
    """Models by name."""


@app.command("list")
def list_models() -> None:
    """List the models that have a name, and where each is."""
    from rich.console import Console
    from rich.table import Table

    from sd4match.backbones.pretrained import KNOWN, whereabouts

    table = Table("name", "sort", "hub", "GB", "here")
    for one in KNOWN.values():
        place = whereabouts(one.name)
        hub = ", ".join([*one.hub_ids[:1], *([f"{one.overlay[0]}: {one.overlay[1]}"] if one.overlay else [])])
        table.add_row(one.name, one.sort, hub, f"{one.gigabytes:g}", str(place) if place else "no")
    Console(highlight=False, width=160).print(table)
    typer.echo("Any diffusers or transformers folder, and any id of the hub (owner/name), will do as well.")


@app.command("check")
def check(
    name: Annotated[str, typer.Argument(help="A known name, a folder, or a hub id.")],
    device: Device = "auto",
    dtype: Dtype = None,
    overrides: Set = None,
) -> None:
    """Load a model, run one photo through it, and print shapes, memory and time."""
    import time

    from sd4match.backbones.pretrained import KNOWN
    from sd4match.cli.common import pick_device, quiet_libraries
    from sd4match.errors import CheckpointError
    from sd4match.registry import backbones

    known = KNOWN.get(name)
    kinds = [known.sort] if known else ["stable_diffusion", "vision_transformer"]
    where = pick_device(device)
    quiet_libraries()
    problem: CheckpointError | None = None
    for kind in kinds:
        started = time.perf_counter()
        try:
            config = backbones.parse({"kind": kind, "weights": name, **_fields(dtype, overrides)})
            backbone = backbones.build(config, device=where)
        except CheckpointError as error:
            problem = problem or error
            continue
        _run(backbone, started)
        return
    assert problem is not None
    raise problem


def _fields(dtype: str | None, overrides: list[str] | None) -> dict[str, object]:
    """--set FIELD=VALUE of the backbone."""
    import yaml

    from sd4match.errors import ConfigError

    fields: dict[str, object] = {} if dtype is None else {"dtype": dtype}
    for change in overrides or ():
        name, equals, value = change.removeprefix("backbone.").partition("=")
        if not equals:
            raise ConfigError(f"--set is FIELD=VALUE of the backbone, for example image_size=512, not {change!r}")
        fields[name] = yaml.safe_load(value)
    return fields


def _run(backbone: object, started: float) -> None:
    import time

    import numpy as np
    import torch

    from sd4match.data.collate import make_images
    from sd4match.interfaces import Backbone
    from sd4match.prompting.text import EmptyPrompt, NoPrompt
    from sd4match.structures.images import Photo
    from sd4match.structures.tensors import Sampling

    assert isinstance(backbone, Backbone)
    spec = backbone.spec
    loaded = time.perf_counter() - started
    photo = Photo(np.random.default_rng(0).integers(0, 256, (*spec.native_size, 3), dtype=np.uint8), "noise")
    prompt = NoPrompt(backbone=backbone) if backbone.text is None else EmptyPrompt(backbone=backbone)
    images = make_images([photo], [None], {"backbone": backbone.prepare})
    with torch.no_grad():
        embedding = prompt(images)
        begun = time.perf_counter()
        latents = backbone.encode(images.views["backbone"])
        encoded = time.perf_counter()
        features = backbone.extract(latents, embedding, Sampling(50))
        done = time.perf_counter()
    if isinstance(backbone, torch.nn.Module):
        weights = sum(value.numel() * value.element_size() for value in backbone.parameters())
        count = sum(value.numel() for value in backbone.parameters())
        typer.echo(f"weights kept   {count / 1e6:.1f} M parameters, {weights / 2**20:.0f} MiB in {spec.dtype}")
    typer.echo(f"architecture   {spec.architecture}, layer {spec.layer} of {spec.layers}")
    typer.echo(f"fingerprint    {backbone.fingerprint}")
    typer.echo(f"image          {tuple(images.views['backbone'].pixels.shape[1:])}, {spec.frame}")
    typer.echo(f"prompt         {tuple(embedding.values.shape[1:]) if backbone.text is not None else 'none'}")
    typer.echo(f"latents        {tuple(latents.mean.shape[1:])}")
    typer.echo(f"features       {tuple(features.values.shape[1:])}, finite: {bool(features.values.isfinite().all())}")
    typer.echo(f"time           load {loaded:.1f} s, encode {encoded - begun:.2f} s, extract {done - encoded:.2f} s")
    typer.echo(f"peak memory    {_peak_memory():.0f} MiB of this process{_device_memory()}")


def _peak_memory() -> float:
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def _device_memory() -> str:
    import torch

    if not torch.cuda.is_available():
        return ""
    return f", {torch.cuda.max_memory_allocated() / 2**20:.0f} MiB of {torch.cuda.get_device_name()}"


def doctor() -> None:
    """Print versions, devices, caches, and what is missing."""
    import os
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import torch
    from huggingface_hub import constants

    from sd4match.backbones.pretrained import KNOWN, MODELS_VARIABLE, whereabouts
    from sd4match.version import __version__

    typer.echo(f"sd4match       {__version__}, Python {platform.python_version()}, {platform.platform()}")
    packages = (
        "torch",
        "diffusers",
        "transformers",
        "accelerate",
        "safetensors",
        "huggingface_hub",
        "pydantic",
        "scipy",
    )
    for package in packages:
        try:
            typer.echo(f"{package:<15}{version(package)}")
        except PackageNotFoundError:
            typer.echo(f"{package:<15}MISSING")
    devices = [f"cpu ({torch.get_num_threads()} threads)"]
    devices += [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    devices += ["mps"] if torch.backends.mps.is_available() else []
    typer.echo(f"devices        {', '.join(devices)}")
    root = os.environ.get(MODELS_VARIABLE)
    state = "" if root is None or Path(root).is_dir() else " (no such folder)"
    typer.echo(f"{MODELS_VARIABLE:<15}{root or 'not set'}{state}")
    typer.echo(f"hub cache      {constants.HF_HUB_CACHE}{', offline' if constants.HF_HUB_OFFLINE else ''}")
    places = {name: whereabouts(name) for name in KNOWN}
    typer.echo(f"models here    {', '.join(name for name, place in places.items() if place)}")
    missing = [name for name, place in places.items() if not place]
    typer.echo(f"not here       {', '.join(missing) or 'none'}")
    if missing:
        typer.echo("               they are fetched when first used, or see `sd4match models list`")
