"""Models of timm: finding them, reading their shapes, and loading them. Importing this module does not import timm.

timm has no file with the shapes of a model's layers. They are read from the model itself, which is created without
memory for its weights (torch's "meta" device).
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sd4match.backbones.loading import check_values
from sd4match.backbones.model_files import Fields, refuse_pointers
from sd4match.backbones.preprocessing import Colors
from sd4match.backbones.pretrained import folders_of, known_instead
from sd4match.errors import CheckpointError, ConfigError, shown
from sd4match.fields import LARGEST_SIDE
from sd4match.hashing import digest
from sd4match.io.hub import explain, recognize
from sd4match.paths import is_folder
from sd4match.structures.specs import FeatureSpec

if TYPE_CHECKING:
    from sd4match.backbones.config import TimmConfig


@dataclass(frozen=True)
class Declared:
    """Shapes, colors and source that a model of timm declares."""

    spec: FeatureSpec
    normalization: tuple[Colors, Colors]
    """Mean and standard deviation of the colors, which are in [0, 1]."""
    source: str
    """Name of the model for `timm.create_model`."""
    options: dict[str, Any]
    """Keywords for `timm.create_model`."""


def declared(config: TimmConfig) -> Declared:
    """Return the shapes, colors and source of a model of timm, without loading weights.

    Args:
        config: model and layers.

    Raises:
        ConfigError: timm cannot be imported, or a layer is given twice.
        CheckpointError: timm does not have the model or cannot create it, or the model has no such layer, or no
            intermediates that can be read.
    """
    source = _source(config.weights)
    model = _created(config.weights, source, torch.device("meta"))
    name = shown(config.weights)
    layers = _feature_info(model, name)
    chosen = _chosen(config, len(layers), name)
    (height, width), normalization = _data_config(model, name)
    multiple = max(stride for _, stride in layers)
    native = (max(multiple, height // multiple * multiple), max(multiple, width // multiple * multiple))
    side = config.image_size or native[0]
    cfg = model.pretrained_cfg
    resized = (cfg.get("fixed_input_size") or _own_size(model)) and (side, side) != (height, width)
    widths = dict.fromkeys(width for width, _ in layers)
    channels = tuple(layers[layer][0] for layer in chosen)
    spec = FeatureSpec(
        channels=sum(channels), stride=min(layers[layer][1] for layer in chosen), prompt_width=None, max_length=0,
        layers=len(layers), native_size=native, size_multiple=multiple,
        architecture=f"timm {cfg.get('architecture')} {'-'.join(map(str, widths))} x {len(layers)} layers",
        layer=chosen[0] if len(chosen) == 1 else "+".join(map(str, chosen)), frame=config.frame, dtype=config.dtype,
        groups=channels if len(chosen) > 1 else (),
    )  # fmt: skip
    return Declared(spec, normalization, source, {"img_size": side} if resized else {})


def _chosen(config: TimmConfig, count: int, name: str) -> tuple[int, ...]:
    """Return the layers of a config, after a check that they are below `count`; by default the last one."""
    layers = count - 1 if config.layers is None else config.layers
    chosen = (layers,) if isinstance(layers, int) else layers
    if not chosen or len(set(chosen)) < len(chosen):
        raise ConfigError(f"layers must be at least one, each once, not {shown(chosen)}")
    if max(chosen) >= count:
        raise CheckpointError(f"layer {max(chosen)} does not exist in {name}: its layers are 0 to {count - 1}")
    return chosen


def _data_config(model: Any, name: str) -> tuple[tuple[int, int], tuple[Colors, Colors]]:
    """Return the (H, W) of a model's images, and mean and standard deviation of their colors."""
    about = _timm().data.resolve_model_data_config(model)
    content = {key: list(value) if isinstance(value, tuple) else value for key, value in about.items()}
    fields = Fields(content, f"{name} (its data config)")
    channels, height, width = fields.whole_list("input_size", high=LARGEST_SIDE)
    if channels != 3:
        raise CheckpointError(f"{name} takes images of {channels} channels, and photos have 3")
    normalization = fields.colors("mean", low=-10.0, default=None), fields.colors("std", low=1e-3, default=None)
    return _own_size(model) or (height, width), normalization


def _own_size(model: Any) -> tuple[int, int] | None:
    """Return the (H, W) for which a model was created, which may differ from its data config."""
    size = getattr(getattr(model, "patch_embed", None), "img_size", None)
    return size if isinstance(size, tuple) and len(size) == 2 else None


def load(config: TimmConfig, found: Declared) -> Any:
    """Load a model of timm on the CPU and in its own dtype.

    Args:
        config: model and layers.
        found: result of `declared` for this config.

    Raises:
        CheckpointError: the weights are not found, damaged, not those of the model, or not finite.
    """
    kind, _, folder = found.source.partition(":")
    if kind == "local-dir":
        refuse_pointers(Path(folder))
    model = _created(config.weights, found.source, torch.device("cpu"), pretrained=True, **found.options)
    saved = model.pretrained_cfg.get("num_classes")
    classes = getattr(model, "num_classes", saved)
    if classes != saved:  # then timm loads what fits, and leaves the rest random
        raise CheckpointError(
            f"{shown(config.weights)} declares {shown(classes)} classes for weights of {shown(saved)}, so timm would "
            "not compare their names: set num_classes in its config.json to that of the weights"
        )
    check_values(model, Path(config.weights))
    return model


def settings_digest(model: nn.Module) -> str:
    """Return a digest of everything but weights that a model's results depend on: classes, numbers, flags, texts.

    Args:
        model: any.
    """
    return digest([
        (name, type(module).__name__, sorted(
            (key, repr(value)) for key, value in vars(module).items()
            if not key.startswith("_") and key != "training" and isinstance(value, bool | int | float | str | tuple)
        ))
        for name, module in model.named_modules()
    ])  # fmt: skip


def _timm() -> Any:
    """Import timm.

    Raises:
        ConfigError: timm is not installed, or cannot be imported.
    """
    try:
        return import_module("timm")
    except Exception as error:  # RuntimeError of a torchvision that is of another build than torch
        raise ConfigError(
            f"backbone kind 'timm' needs the library timm, which cannot be imported ({_short(error)}): "
            "pip install 'sd4match[timm]', with torchvision from where torch is"
        ) from None


def _source(weights: str) -> str:
    """Return the name of a model for `timm.create_model`: a folder on this machine, an id of the hub, or its own."""
    name = weights.removeprefix("hf-hub:")
    folder = next((folder for folder in folders_of(name) if is_folder(folder)), None)
    if folder is not None:
        return f"local-dir:{folder}"
    return f"hf-hub:{name}" if "/" in name else name


def _created(weights: str, source: str, device: torch.device, **options: Any) -> Any:
    """Create a model with timm.

    Raises:
        CheckpointError: timm fails.
    """
    timm = _timm()
    try:
        with device:
            model = timm.create_model(source, **options)
    except Exception as error:  # timm and the hub client raise many types of errors
        if source.startswith("local-dir:") or recognize(error, "") is None:
            raise CheckpointError(f"timm cannot load {shown(weights)}: {_short(error)}. {_HINT}") from None
        raise CheckpointError(f"timm cannot load {shown(weights)}: {_refusal(error, source)}") from None
    return model.requires_grad_(False).eval()


def _refusal(error: Exception, source: str) -> str:
    """Return why the weights of a model cannot be downloaded from the hub, and what to do."""
    hub_id = source.removeprefix("hf-hub:")
    if hub_id == source:
        hub_id = str(_timm().get_pretrained_cfg(source).hf_hub_id)
    refused = explain(error, hub_id)
    folder = "the path of a folder that timm.models.save_for_hf wrote"
    return f"{refused}; {refused.advice}; or give {folder}{known_instead(hub_id)}"


_HINT = (
    "It must be a name of timm.list_models(pretrained=True), the path of a folder that timm.models.save_for_hf wrote, "
    "or an id of the hub (owner/name)"
)


def _feature_info(model: Any, name: str) -> list[tuple[int, int]]:
    """Return channels and stride of each intermediate of a model."""
    info = getattr(model, "feature_info", None)
    info = getattr(info, "info", info)
    if not callable(getattr(model, "forward_intermediates", None)) or not info:
        raise CheckpointError(
            f"{name} is a {type(model).__name__}, which has no forward_intermediates: its layers cannot be read"
        )
    return [(int(layer["num_chs"]), int(layer["reduction"])) for layer in info]


def _short(error: BaseException) -> str:
    """Return the first words of a foreign error."""
    return " ".join(str(error).split())[:300].rstrip(".") or shown(error)
