"""Learned prompts as files: safetensors with JSON metadata, which know what they were learned on."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sd4match.errors import ConfigError, InputError, PromptFileError, PromptMismatchError
from sd4match.interfaces import Backbone, PromptProvider
from sd4match.io.files import read_safetensors, to_safetensors, write_atomically
from sd4match.prompting.config import PromptConfig
from sd4match.registry import prompts
from sd4match.version import __version__

FORMAT_VERSION = 1


@dataclass(frozen=True)
class PromptInfo:
    """What a prompt file says of itself."""

    config: PromptConfig
    architecture: str
    fingerprint: str
    library_version: str
    details: Mapping[str, Any]
    """Whatever else was known when it was saved: layer, timesteps, data set, categories, scores."""


def describe_prompt(info: PromptInfo) -> dict[str, Any]:
    """Everything a prompt file says of itself, by the words that a reader would use."""
    return {
        "kind": info.config.kind,
        "config": info.config.model_dump(mode="json"),
        "architecture": info.architecture,
        "fingerprint": info.fingerprint,
        "library version": info.library_version,
        **info.details,
    }


class UnknownWeightsWarning(UserWarning):
    """The prompt was learned on other weights of the same architecture."""


def save_prompt(
    provider: PromptProvider, path: str | Path, *, backbone: Backbone, details: Mapping[str, Any] | None = None
) -> Path:
    """Write a learned prompt; the file appears whole or not at all.

    Args:
        provider: a learned one, with the `config` that it was built from.
        path: usually `something.safetensors`.
        backbone: what it was learned on.
        details: JSON-able extras.

    Raises:
        InputError: nothing is learned in this prompt.
        PromptFileError: the file cannot be written.
    """
    path = Path(path)
    config = getattr(provider, "config", None)
    if not isinstance(provider, nn.Module) or not isinstance(config, PromptConfig) or not provider.parameter_groups():
        raise InputError(f"{type(provider).__name__} holds nothing learned, so there is nothing to save")
    tensors = {name: value.detach().cpu().contiguous() for name, value in provider.state_dict().items()}
    info = PromptInfo(config, backbone.spec.architecture, backbone.fingerprint, __version__, dict(details or {}))
    write_prompt(info, tensors, path)
    return path


def write_prompt(info: PromptInfo, tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Write a prompt file from its parts; the file appears whole or not at all.

    Raises:
        PromptFileError: it cannot be written.
    """
    metadata = {
        "format": "sd4match-prompt",
        "format_version": str(FORMAT_VERSION),
        "config": info.config.model_dump_json(),
        "architecture": info.architecture,
        "fingerprint": info.fingerprint,
        "library_version": info.library_version,
        "details": json.dumps(dict(info.details)),
    }
    write_atomically(Path(path), to_safetensors(tensors, metadata), error=PromptFileError)


def read_prompt(path: str | Path) -> tuple[PromptInfo, dict[str, Tensor]]:
    """What a prompt file says of itself, and its tensors.

    Raises:
        PromptFileError: missing, not a prompt file, or of a format that this version does not read.
    """
    path = Path(path)
    if not path.is_file():
        raise PromptFileError(f"no such prompt file: {path}")
    try:
        tensors, metadata = read_safetensors(path)
    except (OSError, ValueError) as error:
        raise PromptFileError(f"{path} is not a safetensors file ({error})") from None
    if metadata.get("format") != "sd4match-prompt":
        raise PromptFileError(f"{path} is a safetensors file, but not a prompt of sd4match")
    if metadata.get("format_version") != str(FORMAT_VERSION):
        raise PromptFileError(
            f"{path} has format version {metadata.get('format_version')}; this is sd4match {__version__}, "
            f"which reads version {FORMAT_VERSION}"
        )
    try:
        config = prompts.parse(json.loads(metadata["config"]))
        if not isinstance(config, PromptConfig):
            raise ConfigError(f"{type(config).__name__} is not a PromptConfig")
        info = PromptInfo(
            config=config,
            architecture=metadata["architecture"],
            fingerprint=metadata["fingerprint"],
            library_version=metadata["library_version"],
            details=json.loads(metadata["details"]),
        )
    except (KeyError, ValueError) as error:
        raise PromptFileError(f"{path} is damaged: {error}") from None
    return info, tensors


def check_fits(info: PromptInfo, path: str | Path, backbone: Backbone) -> None:
    """Refuse a prompt that was learned on another architecture or layer.

    Raises:
        PromptMismatchError: it was; names both.
    """
    if info.architecture != backbone.spec.architecture:
        raise PromptMismatchError(
            f"{path} was learned on another backbone: [{info.architecture}]; this one is [{backbone.spec.architecture}]"
        )
    layer, own = info.details.get("layer"), backbone.spec.layer
    if None not in (layer, own) and layer != own:
        raise PromptMismatchError(f"{path} was learned for layer {layer}; this backbone gives layer {own}")


def load_prompt(path: str | Path, *, backbone: Backbone, settings: Mapping[str, Any] | None = None) -> PromptProvider:
    """A learned prompt from its file, for a backbone of the architecture that it was learned on.

    Args:
        path: from `save_prompt`.
        backbone: of the same architecture.
        settings: fields of its config to change, for example `{"fallback": "text"}` of a class prompt, or
            `{"image_encoder": {"kind": "dinov2", "weights": FOLDER}}` of a conditional one.

    Raises:
        PromptFileError: the file cannot be read.
        PromptMismatchError: it was learned on another architecture, or on another layer.
        ConfigError: its config has no such field, or the value does not fit.

    Warns:
        UnknownWeightsWarning: same architecture, other or unknown weights.
    """
    info, tensors = read_prompt(path)
    check_fits(info, path, backbone)
    if not same_weights(info.fingerprint, backbone.fingerprint):
        warnings.warn(
            f"{path} was learned on other (or unknown) weights of the same architecture; its scores need not hold here",
            UnknownWeightsWarning,
            stacklevel=2,
        )
    config = prompts.parse({**info.config.model_dump(), **(settings or {})})
    assert isinstance(config, PromptConfig)
    provider: PromptProvider = prompts.build(config.without_start(), backbone=backbone)
    assert isinstance(provider, nn.Module)
    try:
        provider.load_state_dict(tensors)
    except RuntimeError as error:
        raise PromptFileError(f"{path} is damaged: {' '.join(str(error).split())}") from None
    provider.config = config  # type: ignore[assignment]  # what it says of itself, its start included, when it is saved again
    return provider.to(next(iter(backbone.parameters())).device) if isinstance(backbone, nn.Module) else provider


def same_weights(one: str, other: str) -> bool:
    """Whether two fingerprints are of the same weights, up to what another dtype changes.

    >>> same_weights("0.1234 -0.5", "0.1235 -0.4999"), same_weights("0.1234", "unknown")
    (True, False)
    """
    if "unknown" in (one, other):
        return False
    pairs = list(zip(one.split(), other.split(), strict=False))
    return len(one.split()) == len(other.split()) and all(
        abs(float(a) - float(b)) <= 1e-2 * max(abs(float(a)), abs(float(b))) + 1e-5 for a, b in pairs
    )
