"""`sd4match models` and `sd4match doctor`: known models, and checks of the installation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sd4match.cli.common import Device, Dtype, Set

if TYPE_CHECKING:
    from sd4match.interfaces import Backbone

app = typer.Typer(help="Known models.", no_args_is_help=True, rich_markup_mode=None)

_PACKAGES = (
    "torch", "diffusers", "transformers", "accelerate", "safetensors", "huggingface_hub", "pydantic", "scipy",
)  # fmt: skip


@app.callback()
def root() -> None:
    """Known models."""


@app.command("list")
def list_models() -> None:
    """List the known models and where each is found on this machine."""
    from rich.console import Console
    from rich.table import Table

    from sd4match.backbones.pretrained import PRETRAINED, whereabouts

    table = Table("name", "kind", "hub", "license", "GB", "here")
    for model in PRETRAINED.values():
        folder = whereabouts(model.name)
        overlay = [f"{model.overlay[0]}: {model.overlay[1]}"] if model.overlay else []
        hub = ", ".join([*model.hub_ids[:1], *overlay])
        table.add_row(
            model.name, model.kind, hub, model.license, f"{model.gigabytes:g}", str(folder) if folder else "no"
        )
    Console(highlight=False, markup=False, width=160).print(table)
    typer.echo("Any diffusers or transformers folder and any hub id (owner/name) can be used as well.")


@app.command("check")
def check(
    name: Annotated[str, typer.Argument(help="A known model, a folder, or a hub id.")],
    device: Device = "auto",
    dtype: Dtype = None,
    overrides: Set = None,
) -> None:
    """Load a model, extract features of one photo, and print shapes, memory and time."""
    import time

    from sd4match.backbones.config import BackboneConfig
    from sd4match.backbones.pretrained import likely_kinds, model_facts
    from sd4match.cli.common import prepare_device
    from sd4match.errors import CheckpointError
    from sd4match.registry import backbones

    kinds = likely_kinds(name)
    fields = _parse_fields(dtype, overrides)
    device = prepare_device(device)
    errors: list[CheckpointError] = []
    for kind in kinds:
        started = time.perf_counter()
        try:
            config = backbones.parse({"kind": kind, "weights": name, **fields})
            assert isinstance(config, BackboneConfig)
            config.check()
            backbone = config.build(device=device)
        except CheckpointError as error:
            errors.append(error)
            continue
        _print_line("license", model_facts(name).get("license", "not known here: see where the weights are from"))
        _print_extraction(backbone, loading_seconds=time.perf_counter() - started)
        return
    raise errors[0]


def _parse_fields(dtype: str | None, overrides: list[str] | None) -> dict[str, object]:
    """Return the fields of the backbone that --dtype and --set FIELD=VALUE give."""
    from sd4match.documents import parse_yaml
    from sd4match.errors import ConfigError, shown

    fields: dict[str, object] = {} if dtype is None else {"dtype": dtype}
    for change in overrides or ():
        name, equals, value = change.removeprefix("backbone.").partition("=")
        if not equals:
            raise ConfigError(f"--set is FIELD=VALUE of the backbone, for example image_size=512, not {shown(change)}")
        if name in ("kind", "weights"):
            raise ConfigError(f"--set {name} is not possible here: give the model as the argument")
        fields[name] = parse_yaml(value, what=f"--set {shown(change)}", error=ConfigError)
    return fields


def _print_extraction(backbone: Backbone, *, loading_seconds: float) -> None:
    """Extract features of a photo of noise under the empty prompt, and print shapes, memory and time.

    Raises:
        NonFiniteError: the features are not finite.
    """
    import time

    import numpy as np
    import torch

    from sd4match.checks import check_finite
    from sd4match.data.collate import make_images
    from sd4match.fingerprints import abbreviated
    from sd4match.prompting.text import EmptyPrompt, NoPrompt
    from sd4match.structures.images import Photo
    from sd4match.structures.tensors import Sampling

    spec = backbone.spec
    photo = Photo(np.random.default_rng(0).integers(0, 256, (*spec.native_size, 3), dtype=np.uint8), "noise")
    prompt = EmptyPrompt(backbone=backbone) if backbone.text_encoder else NoPrompt(backbone=backbone)
    images = make_images([photo], [None], {"backbone": backbone.prepare})
    with torch.no_grad():
        embedding = prompt(images)
        started = time.perf_counter()
        encoded = backbone.encode(images.views["backbone"])
        encoded_at = time.perf_counter()
        features = backbone.extract(encoded, embedding, Sampling(50))
        done = time.perf_counter()
    check_finite("the features of a photo of noise", features.values)
    weights = list(backbone.parameters())
    count, size = sum(w.numel() for w in weights), sum(w.numel() * w.element_size() for w in weights)
    shapes = ", ".join(f"{name} {tuple(value.shape[1:])}" for name, value in encoded.tensors.items())
    times = f"load {loading_seconds:.1f} s, encode {encoded_at - started:.2f} s, extract {done - encoded_at:.2f} s"
    lines = {
        "weights": f"{count / 1e6:.1f} M parameters, {size / 2**20:.0f} MiB in {spec.dtype}",
        "architecture": f"{spec.architecture}, layer {spec.layer} of {spec.layers}",
        "fingerprint": abbreviated(backbone.fingerprint),
        "image": f"{tuple(images.views['backbone'].pixels.shape[1:])}, {spec.frame}",
        "prompt": f"{tuple(embedding.values.shape[1:])}" if backbone.text_encoder else "none",
        "encoded": shapes,
        "features": f"{tuple(features.values.shape[1:])}, finite: True",
        "time": times,
        "peak memory": f"{_peak_memory():.0f} MiB of this process{_device_memory()}",
    }
    for label, text in lines.items():
        _print_line(label, text)


def _peak_memory() -> float:
    """Return the peak memory of this process in MiB."""
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
    """Print versions, devices, caches and known models, and what is missing."""
    import os
    import platform

    import torch
    from huggingface_hub import constants

    from sd4match.backbones.pretrained import MODELS_VARIABLE, PRETRAINED, whereabouts
    from sd4match.paths import is_folder
    from sd4match.version import __version__

    _print_line("sd4match", f"{__version__}, Python {platform.python_version()}, {platform.platform()}")
    for package in _PACKAGES:
        _print_line(package, _version(package))
    devices = [f"cpu ({torch.get_num_threads()} threads)"]
    devices += [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    devices += ["mps"] if torch.backends.mps.is_available() else []
    _print_line("devices", ", ".join(devices))
    models = os.environ.get(MODELS_VARIABLE)
    state = "" if models is None or is_folder(Path(models)) else " (no such folder)"
    _print_plugins()
    _print_line(MODELS_VARIABLE, f"{models or 'not set'}{state}")
    _print_line("hub cache", f"{constants.HF_HUB_CACHE}{', offline' if constants.HF_HUB_OFFLINE else ''}")
    found = [name for name in PRETRAINED if whereabouts(name)]
    missing = [name for name in PRETRAINED if name not in found]
    _print_line("models here", ", ".join(found))
    _print_line("not here", ", ".join(missing) or "none")
    if missing:
        _print_line("", "they are downloaded when first used; `sd4match models list` has their licenses")


def _print_plugins() -> None:
    """Print the packages that register components, and those that are left out."""
    import warnings

    from sd4match.registry import REGISTRIES, PluginWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PluginWarning)  # each is a line below
        kinds = [(each, kind) for each in REGISTRIES for kind in each.kinds()]
    plugins: dict[str, list[str]] = {}
    for registry, kind in kinds:
        package = registry.package(kind)
        if package.split()[0] != "sd4match":
            plugins.setdefault(package, []).append(f"{registry.sort} {kind}")
    lines = [f"{package}: {', '.join(found)}" for package, found in sorted(plugins.items())]
    lines += [reason for registry in REGISTRIES for reason in registry.left_out()]
    for label, line in zip(["plugins", *[""] * len(lines)], lines or ["none"], strict=False):
        _print_line(label, line)


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "MISSING"


def _print_line(label: str, text: str) -> None:
    typer.echo(f"{label:<15}{text}")
