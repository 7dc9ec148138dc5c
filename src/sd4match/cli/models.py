"""Commands `sd4match models`, which list the known models and check one on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from sd4match.cli.answer import Document
from sd4match.cli.common import Device, Dtype, Set

if TYPE_CHECKING:
    from sd4match.interfaces import Backbone

app = typer.Typer(help="Known models.", no_args_is_help=True, rich_markup_mode=None)

_REMARK = "Any diffusers or transformers folder or hub id (owner/name) works as well."


@app.callback()
def root() -> None:
    """Known models."""


@app.command("list")
def list_models() -> Document:
    """List the known models and where each is found on this machine."""
    from sd4match.backbones.pretrained import PRETRAINED, whereabouts

    models: list[dict[str, Any]] = [
        {
            "name": model.name,
            "kind": model.kind,
            "hub": [*model.hub_ids[:1], *([model.overlay[0]] if model.overlay else [])],
            "license": model.license,
            "gigabytes": model.gigabytes,
            "folder": whereabouts(model.name),
        }
        for model in PRETRAINED.values()
    ]
    _print_models(models)
    typer.echo(_REMARK)
    return models


def _print_models(models: list[dict[str, Any]]) -> None:
    """Print two lines for each model, within 80 columns except for long folders."""
    name, license = (max(len(model[field]) for model in models) + 2 for field in ("name", "license"))
    typer.echo(f"{'name':<{name}}{'download':<10}{'license':<{license}}here")
    for model in models:
        size = f"{model['gigabytes']:g} GB" if model["gigabytes"] else "none"
        here = "yes" if model["folder"] else "no"
        typer.echo(f"{model['name']:<{name}}{size:<10}{model['license']:<{license}}{here}")
        locations = [" + ".join(model["hub"])] if model["hub"] else ["comes with this package"]
        locations += [str(model["folder"])] if model["folder"] and model["hub"] else []
        for location in locations:
            typer.echo(f"{'':<{name}}{location}")


@app.command("check")
def check(
    name: Annotated[str, typer.Argument(help="A known model, a folder, or a hub id.")],
    device: Device = "auto",
    dtype: Dtype = None,
    overrides: Set = None,
) -> Document:
    """Load a model, extract features of one photo, and print shapes, memory and time."""
    import time

    from sd4match.backbones.config import BackboneConfig
    from sd4match.backbones.pretrained import likely_kinds, model_facts
    from sd4match.cli.common import prepare_device
    from sd4match.cli.facts import print_facts
    from sd4match.cli.progress import waiting
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
            with waiting(f"loading {name}"):
                backbone = config.build(device=device)
        except CheckpointError as error:
            errors.append(error)
            continue
        loading = time.perf_counter() - started
        license = model_facts(name).get("license")
        with waiting("extracting features of one photo"):
            facts = {"license": license, **_extract(backbone), "load_seconds": loading}
        print_facts(_lines(facts))
        return facts
    raise errors[0]


def _parse_fields(dtype: str | None, overrides: list[str] | None) -> dict[str, object]:
    """Return --dtype and --set FIELD=VALUE as fields of the backbone."""
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


def _extract(backbone: Backbone) -> dict[str, Any]:
    """Extract features of a photo of noise under the empty prompt, and return shapes, memory and time.

    Raises:
        NonFiniteError: the features are not finite.
    """
    import time

    import numpy as np
    import torch

    from sd4match.checks import check_finite
    from sd4match.data.collate import make_images
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
    return {
        "parameters": sum(w.numel() for w in weights),
        "bytes": sum(w.numel() * w.element_size() for w in weights),
        "dtype": spec.dtype,
        "architecture": spec.architecture,
        "layer": spec.layer,
        "layers": spec.layers,
        "fingerprint": backbone.fingerprint,
        "image": list(images.views["backbone"].pixels.shape[1:]),
        "frame": spec.frame,
        "prompt": list(embedding.values.shape[1:]) if backbone.text_encoder else None,
        "encoded": {name: list(value.shape[1:]) for name, value in encoded.tensors.items()},
        "features": list(features.values.shape[1:]),
        "encode_seconds": encoded_at - started,
        "extract_seconds": done - encoded_at,
        "peak_memory_mib": _peak_memory(),
        "peak_device_memory_mib": torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else None,
    }


def _lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the facts of an extraction as text."""
    from sd4match.fingerprints import abbreviated

    def shape(values: list[int]) -> str:
        return str(tuple(values))

    on_device = facts["peak_device_memory_mib"]
    device = "" if on_device is None else f", {on_device:.0f} MiB of the GPU"
    weights = f"{facts['parameters'] / 1e6:.1f} M parameters, {facts['bytes'] / 2**20:.0f} MiB in {facts['dtype']}"
    seconds = f"encode {facts['encode_seconds']:.2f} s, extract {facts['extract_seconds']:.2f} s"
    return [
        ("license", facts["license"] or "not known here: see where the weights are from"),
        ("weights", weights),
        ("architecture", f"{facts['architecture']}, layer {facts['layer']} of {facts['layers']}"),
        ("fingerprint", abbreviated(facts["fingerprint"])),
        ("image", f"{shape(facts['image'])}, {facts['frame']}"),
        ("prompt", shape(facts["prompt"]) if facts["prompt"] else "none"),
        ("encoded", ", ".join(f"{name} {shape(values)}" for name, values in facts["encoded"].items())),
        ("features", f"{shape(facts['features'])}, finite: True"),
        ("time", f"load {facts['load_seconds']:.1f} s, {seconds}"),
        ("peak memory", f"{facts['peak_memory_mib']:.0f} MiB of this process{device}"),
    ]


def _peak_memory() -> float:
    """Return the peak memory of this process in MiB."""
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
