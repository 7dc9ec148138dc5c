"""Prompt files: safetensors with JSON metadata that identifies the backbone a prompt was learned on."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from sd4match.errors import ConfigError, InputError, PromptFileError, PromptMismatchError
from sd4match.interfaces import Backbone, Prompt
from sd4match.io.files import read_safetensors, to_safetensors, write_atomically
from sd4match.prompting.config import PromptConfig
from sd4match.registry import prompts
from sd4match.version import __version__

FORMAT_VERSION = 1


@dataclass(frozen=True)
class PromptInfo:
    """Metadata of a prompt file."""

    config: PromptConfig
    architecture: str
    """Architecture of the backbone that the prompt was learned on."""
    fingerprint: str
    """Fingerprint of its weights, or "unknown"."""
    library_version: str
    details: Mapping[str, Any]
    """Further JSON-able metadata: layer, timesteps, data set, categories, scores."""


def describe_prompt(info: PromptInfo) -> dict[str, Any]:
    """Return the metadata of a prompt file by readable names, for display.

    Args:
        info: metadata from `read_prompt`.
    """
    return {
        "kind": info.config.kind,
        "config": info.config.model_dump(mode="json"),
        "architecture": info.architecture,
        "fingerprint": info.fingerprint,
        "library version": info.library_version,
        **info.details,
    }


class UnknownWeightsWarning(UserWarning):
    """A prompt was learned on other weights of the same architecture."""


def save_prompt(
    prompt: Prompt, path: str | Path, *, backbone: Backbone, details: Mapping[str, Any] | None = None
) -> Path:
    """Write a learned prompt to a file, atomically.

    Args:
        prompt: learned prompt with the `config` that it was built from.
        path: usually `something.safetensors`.
        backbone: backbone that the prompt was learned on.
        details: further JSON-able metadata.

    Returns:
        The path of the file.

    Raises:
        InputError: the prompt has no config or no parameters.
        PromptFileError: the file cannot be written.

    >>> from tempfile import TemporaryDirectory
    >>> from sd4match.testing import FakeBackbone, FakeTextEncoder
    >>> backbone = FakeBackbone(text_encoder=FakeTextEncoder())
    >>> prompt = prompts.parse({"kind": "single", "num_tokens": 3}).build(backbone=backbone)
    >>> with TemporaryDirectory() as folder:
    ...     info, tensors = read_prompt(save_prompt(prompt, f"{folder}/single.safetensors", backbone=backbone))
    >>> info.config.num_tokens, list(tensors)
    (3, ['token_embeddings'])
    """
    path = Path(path)
    if prompt.config is None or not prompt.parameter_groups():
        raise InputError(f"{type(prompt).__name__} holds nothing learned, so there is nothing to save")
    info = PromptInfo(
        config=cast(PromptConfig, prompt.config),
        architecture=backbone.spec.architecture,
        fingerprint=backbone.fingerprint,
        library_version=__version__,
        details=dict(details or {}),
    )
    tensors = {name: value.detach().cpu().contiguous() for name, value in prompt.state_dict().items()}
    write_prompt(info, tensors, path)
    return path


def write_prompt(info: PromptInfo, tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Write a prompt file from its metadata and its tensors, atomically.

    Args:
        info: metadata.
        tensors: state dict of the prompt, on the CPU and contiguous.
        path: usually `something.safetensors`.

    Raises:
        PromptFileError: the file cannot be written.
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


def read_prompt(path: str | Path, *, changes: Mapping[str, Any] | None = None) -> tuple[PromptInfo, dict[str, Tensor]]:
    """Read the metadata and the tensors of a prompt file.

    Args:
        path: file written by `save_prompt`.
        changes: fields of the stored config to replace before it is validated.

    Raises:
        PromptFileError: the file is missing, is no prompt file, is damaged, or has another format version.
        ConfigError: the config has no such field, or a changed value is not valid.
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
        stored = dict(json.loads(metadata["config"]))
        info = PromptInfo(
            config=cast(PromptConfig, prompts.parse({**stored, **(changes or {})})),
            architecture=metadata["architecture"],
            fingerprint=metadata["fingerprint"],
            library_version=metadata["library_version"],
            details=json.loads(metadata["details"]),
        )
    except ConfigError as error:
        if changes and _is_valid(stored):
            raise
        raise PromptFileError(f"{path} is damaged: {error}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise PromptFileError(f"{path} is damaged: {error}") from None
    return info, tensors


def _is_valid(stored: Mapping[str, Any]) -> bool:
    """Return whether the config of a prompt file is valid without changes."""
    try:
        prompts.parse(stored)
    except ConfigError:
        return False
    return True


def check_fits(info: PromptInfo, path: str | Path, backbone: Backbone) -> None:
    """Check that a prompt was learned on the architecture and layer of a backbone.

    Args:
        info: metadata of the prompt.
        path: its file, for the message.
        backbone: backbone that the prompt is to condition.

    Raises:
        PromptMismatchError: it was not; the message names both.
    """
    if info.architecture != backbone.spec.architecture:
        raise PromptMismatchError(
            f"{path} was learned on another backbone: [{info.architecture}]; this one is [{backbone.spec.architecture}]"
        )
    learned, own = info.details.get("layer"), backbone.spec.layer
    if None not in (learned, own) and learned != own:
        raise PromptMismatchError(f"{path} was learned for layer {learned}; this backbone gives layer {own}")


def load_prompt(path: str | Path, *, backbone: Backbone, changes: Mapping[str, Any] | None = None) -> Prompt:
    """Load a learned prompt from its file, for a backbone of the architecture that it was learned on.

    Args:
        path: file written by `save_prompt`.
        backbone: backbone of the same architecture.
        changes: fields of the stored config to replace, for example `{"fallback": "text"}` of a class prompt, or
            `{"image_encoder": {"kind": "dinov2", "weights": FOLDER}}` of a conditional one.

    Returns:
        The prompt, on the device of the backbone.

    Raises:
        PromptFileError: the file cannot be read.
        PromptMismatchError: the prompt was learned on another architecture, or on another layer.
        ConfigError: the config has no such field, or a changed value is not valid.

    Warns:
        UnknownWeightsWarning: the weights of the backbone are others, or unknown.
    """
    info, tensors = read_prompt(path, changes=changes)
    check_fits(info, path, backbone)
    if not same_weights(info.fingerprint, backbone.fingerprint):
        warnings.warn(
            f"{path} was learned on other (or unknown) weights of the same architecture; its scores need not hold here",
            UnknownWeightsWarning,
            stacklevel=2,
        )
    prompt = info.config.build(backbone=backbone, initialize=False)
    try:
        prompt.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise PromptFileError(f"{path} is damaged: {' '.join(str(error).split())}") from None
    return prompt.to(backbone.device)


def same_weights(fingerprint: str, other: str) -> bool:
    """Return whether two fingerprints are of the same weights, up to what another dtype changes.

    Args:
        fingerprint: numbers separated by spaces, or "unknown".
        other: the other one.

    >>> same_weights("0.1234 -0.5", "0.1235 -0.4999"), same_weights("0.1234", "unknown")
    (True, False)
    """
    if "unknown" in (fingerprint, other):
        return False
    numbers, others = ([float(number) for number in text.split()] for text in (fingerprint, other))
    return len(numbers) == len(others) and all(
        abs(a - b) <= 1e-2 * max(abs(a), abs(b)) + 1e-5 for a, b in zip(numbers, others, strict=True)
    )
