"""Prompt files: safetensors with JSON metadata that identifies the backbone a prompt was learned on."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from torch import Tensor

from sd4match.arguments import check_arguments, check_fields
from sd4match.checks import check_finite
from sd4match.documents import parse_json
from sd4match.errors import ConfigError, InputError, PromptFileError, PromptMismatchError, UnknownComponentError, shown
from sd4match.fingerprints import same_weights, what_differs
from sd4match.interfaces import Backbone, Learned, Prompt, learns
from sd4match.interfaces.calls import describe_component
from sd4match.io.files import read_safetensors, to_safetensors, write_atomically
from sd4match.paths import as_path, exists, require_file
from sd4match.prompting.config import EmptyPromptConfig, NoPromptConfig, PromptConfig, TextPromptConfig
from sd4match.prompting.layout import check_names, check_tensors, check_values
from sd4match.registry import Component, Registry, losses, matchers, packages_of, pair_transforms, prompts
from sd4match.version import __version__

FORMAT = "sd4match-prompt"
FORMAT_VERSION = 1
LARGEST_FILE = 1 << 30
"""Largest prompt file, in bytes, that is read."""
COMPONENTS: Mapping[str, Registry[Any, Any]] = {"matcher": matchers, "pair_transform": pair_transforms, "loss": losses}
"""Components that may be learned together with a prompt, by their names in prompt files."""
_FIXED = (NoPromptConfig, EmptyPromptConfig, TextPromptConfig)
"""Configs of prompts that learn nothing, and so have no files."""


@dataclass(frozen=True)
class PromptInfo:
    """Metadata of a prompt file.

    >>> config = prompts.parse({"kind": "single", "num_tokens": 3})
    >>> info = PromptInfo(config, "fake", "unknown", __version__, {"layer": 1})
    >>> info.config.kind, info.details["layer"]
    ('single', 1)
    """

    config: PromptConfig
    """Config of the prompt."""
    architecture: str
    """Architecture of the backbone that the prompt was learned on."""
    fingerprint: str
    """Fingerprint of the backbone's weights, or "unknown"."""
    library_version: str
    """Version of sd4match that wrote the file."""
    details: Mapping[str, Any]
    """Further JSON-able metadata: layer, timesteps, data set, categories, scores."""
    components: Mapping[str, Component] = field(default_factory=dict)
    """Configs of components that were learned together with the prompt: "matcher", "pair_transform", "loss"."""

    def __post_init__(self) -> None:
        check_fields(self)


def describe_prompt(info: PromptInfo) -> dict[str, Any]:
    """Return the metadata of a prompt file by readable names, for display.

    Args:
        info: metadata from `read_prompt`.
    """
    facts = {
        "kind": info.config.kind,
        "config": info.config.model_dump(mode="json"),
        "architecture": info.architecture,
        "fingerprint": info.fingerprint,
        "library version": info.library_version,
    }
    if info.components:
        facts["components"] = {name: config.model_dump(mode="json") for name, config in info.components.items()}
    return facts | {name: value for name, value in info.details.items() if name not in facts}


class UnknownWeightsWarning(UserWarning):
    """Warning that a prompt was learned on other weights of the same architecture."""


@check_arguments
def save_prompt(
    prompt: Prompt,
    path: str | Path,
    *,
    backbone: Backbone,
    details: Mapping[str, Any] | None = None,
    components: Mapping[str, Any] | None = None,
) -> Path:
    """Write a learned prompt, and components that were learned together with it, to a file, atomically.

    Args:
        prompt: prompt with the `config` that it was built from.
        path: usually `something.safetensors`.
        backbone: backbone that the prompt was learned on.
        details: further JSON-able metadata.
        components: components that were learned together with the prompt, by name: "matcher", "pair_transform", "loss".
            With one of them the prompt may be one that learns nothing.

    Returns:
        The path of the file.

    Raises:
        InputError: nothing is learned, the prompt or a component has no config, or `details` are no JSON.
        NonFiniteError: a learned value is NaN or infinite.
        PromptFileError: the file cannot be written, or an existing file at `path` is no prompt file.

    >>> from tempfile import TemporaryDirectory
    >>> from sd4match.testing import FakeBackbone, FakeTextEncoder
    >>> backbone = FakeBackbone(text_encoder=FakeTextEncoder())
    >>> prompt = prompts.parse({"kind": "single", "num_tokens": 3}).build(backbone=backbone)
    >>> with TemporaryDirectory() as folder:
    ...     info, tensors = read_prompt(save_prompt(prompt, f"{folder}/single.safetensors", backbone=backbone))
    >>> info.config.num_tokens, list(tensors)
    (3, ['token_embeddings'])
    """
    path = as_path(path, what="prompt file", error=PromptFileError)
    if not isinstance(prompt, Prompt):
        raise InputError(f"prompt must be a Prompt, not {shown(prompt)}")
    _check_backbone(backbone)
    name = type(prompt).__name__
    learned = [Learned(role, component) for role, component in (components or {}).items() if learns(component)]
    if not prompt.parameter_groups() and not learned:
        raise InputError(f"{name} holds nothing learned, so there is nothing to save")
    if not isinstance(prompt.config, PromptConfig):
        raise InputError(
            f"{name} has no config, without which its file cannot be loaded: register the class with "
            "register_prompt, and build it with arguments that YAML can hold"
        )
    tensors = {tensor: value.detach().cpu().clone() for tensor, value in prompt.state_dict().items()}
    for own in learned:
        if own.role not in COMPONENTS:
            raise InputError(f"components are {', '.join(COMPONENTS)}, not {shown(own.role)}")
        if not isinstance(own.config, Component):
            raise InputError(
                f"{describe_component(own.role, own.component)} has no config, without which it cannot be loaded: "
                f"register the class with register_{own.role}"
            )
        tensors |= {f"{own.role}/{key}": value.detach().cpu().clone() for key, value in own.state_dict().items()}
    for tensor, value in tensors.items():
        check_finite(f"the values of {tensor} in {name}", value, "a prompt that diverged is not saved")
    info = PromptInfo(
        components={own.role: own.config for own in learned if own.config is not None},
        config=prompt.config,
        architecture=backbone.spec.architecture,
        fingerprint=backbone.fingerprint,
        library_version=__version__,
        details={} if details is None else details,
    )
    write_prompt(info, tensors, path)
    return path


def write_prompt(info: PromptInfo, tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Write a prompt file from its metadata and its tensors, atomically.

    Args:
        info: metadata.
        tensors: state dict of the prompt, on the CPU and contiguous.
        path: usually `something.safetensors`.

    Raises:
        InputError: config or details are no JSON: they hold NaN, bytes, or text that is not UTF-8.
        PromptFileError: the file cannot be written, or an existing file at `path` is no prompt file.
    """
    path = as_path(path, what="prompt file", error=PromptFileError)
    try:
        details = json.dumps(dict(info.details), allow_nan=False)
        config = info.config.model_dump_json()
        components = json.dumps({name: own.model_dump(mode="json") for name, own in info.components.items()})
        parse_json(details, what="details")
    except (TypeError, ValueError, RecursionError) as error:  # of pydantic and json, for text that is not UTF-8 or JSON
        raise InputError(f"config and details of {path} must be JSON: {_one_line(error)}") from None
    metadata = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "config": config,
        "architecture": info.architecture,
        "fingerprint": info.fingerprint,
        "library_version": info.library_version,
        "components": components,
        "packages": json.dumps(packages_of([info.config, *info.components.values()])),
        "details": details,
    }
    if exists(path) and not is_prompt_file(path):
        raise PromptFileError(f"{path} exists and is no prompt file: give another name, or move it away")
    write_atomically(path, to_safetensors(tensors, metadata), error=PromptFileError)


def is_prompt_file(path: Path) -> bool:
    """Return whether the metadata of a file name it a prompt file, of any version, even if it is damaged.

    Args:
        path: any file.
    """
    return stored_metadata(path).get("format") == FORMAT


def stored_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a safetensors file, without reading its tensors; {} for any other file.

    Args:
        path: any file.
    """
    from safetensors import safe_open

    try:
        require_file(path, what="file")
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except Exception:  # safetensors raises many types of errors for other files
        return {}


@check_arguments
def read_prompt(path: str | Path, *, changes: Mapping[str, Any] | None = None) -> tuple[PromptInfo, dict[str, Tensor]]:
    """Read the metadata and the tensors of a prompt file.

    Args:
        path: file written by `save_prompt`.
        changes: fields of the stored config to replace before it is validated.

    Returns:
        Metadata, and tensors on the CPU by name. Names of tensors of other components are "COMPONENT/NAME".

    Raises:
        PromptFileError: the file is missing, is no prompt file, is damaged, or has another format version.
        ConfigError: `changes` are no fields by name, the config has no such field, or a changed value is not valid.

    >>> from tempfile import TemporaryDirectory
    >>> from sd4match.testing import FakeBackbone, FakeTextEncoder
    >>> backbone = FakeBackbone(text_encoder=FakeTextEncoder())
    >>> prompt = prompts.build({"kind": "single", "num_tokens": 3}, backbone=backbone)
    >>> with TemporaryDirectory() as folder:
    ...     info, tensors = read_prompt(save_prompt(prompt, f"{folder}/single.safetensors", backbone=backbone))
    >>> info.architecture, tensors["token_embeddings"].shape
    ('fake', torch.Size([3, 8]))
    """
    path = as_path(path, what="prompt file", error=PromptFileError)
    tensors, metadata = _read_file(path)
    packages = _packages(metadata, path)
    components = {
        name: _parse_component(name, fields, path, packages=packages)
        for name, fields in _json_object({"components": "{}", **metadata}, "components", path).items()
    }
    config = _parse_config(
        _json_object(metadata, "config", path), changes, path, packages=packages, is_learned=not components
    )
    details = _json_object(metadata, "details", path)
    architecture, fingerprint, version, *_ = (
        _text(metadata, name, path)
        for name in ("architecture", "fingerprint", "library_version", "packages", "components")
    )
    try:
        same_weights(fingerprint, fingerprint)
    except InputError as error:
        raise PromptFileError(f"{path} is damaged: {error}") from None
    layer = details.get("layer")
    if isinstance(layer, (bool, float, dict)):
        raise PromptFileError(f"{path} is damaged: its layer is {shown(layer)}, not a whole number")
    own = prompt_tensors(tensors)
    if not components or own:
        check_tensors(own, config, name=str(path))
    for name, value in tensors.items():
        if "/" in name and name.partition("/")[0] not in components:
            raise PromptFileError(f"{path} is damaged: it holds surplus tensors: {shown(name)}")
        if "/" in name and value.is_floating_point():
            check_values(value, name=f"{path} is damaged: {shown(name)}")
    return PromptInfo(config, architecture, fingerprint, version, details, components), tensors


def prompt_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of the prompt, without those of other components ("COMPONENT/NAME").

    Args:
        tensors: tensors from `read_prompt`.
    """
    return {name: value for name, value in tensors.items() if "/" not in name}


def _read_file(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return tensors and metadata of a file after a check of its format and version."""
    if not exists(path) and (near := get_close_matches(str(path), [config().kind for config in _FIXED], n=1)):
        raise PromptFileError(
            f"no such prompt file: {path}; did you mean {near[0]!r}? It is the prompt of a preset or config, not a file"
        )
    require_file(path, what="prompt file", error=PromptFileError)
    size = path.stat().st_size
    if size > LARGEST_FILE:
        raise PromptFileError(f"{path} is no prompt file: it has {size:,} bytes, and at most {LARGEST_FILE:,} are read")
    try:
        tensors, metadata = read_safetensors(path)
    except Exception as error:  # of safetensors and torch, also for unknown dtypes
        raise PromptFileError(f"{path} is not a safetensors file ({why_unreadable(path, error)})") from None
    if metadata.get("format") != FORMAT:
        raise PromptFileError(f"{path} is a safetensors file, but not a prompt of sd4match")
    if metadata.get("format_version") != str(FORMAT_VERSION):
        raise PromptFileError(
            f"{path} has format version {_one_line(metadata.get('format_version'))}; this is sd4match {__version__}, "
            f"which reads version {FORMAT_VERSION}"
        )
    return tensors, metadata


def why_unreadable(path: Path, error: Exception) -> str:
    """Return the reason for a message why a file of tensors could not be read.

    Args:
        path: the file.
        error: error of the reader.
    """
    if is_lfs_pointer(path):
        return "it is a Git-LFS pointer: fetch the file with `git lfs pull`"
    return _one_line(error) or f"{type(error).__name__}: it is damaged"


def _one_line(value: object) -> str:
    return " ".join(str(value).split())[:200]


def is_lfs_pointer(path: Path) -> bool:
    """Return whether a file is a Git-LFS pointer.

    Args:
        path: an existing file.
    """
    with path.open("rb") as file:
        return file.read(64).startswith(b"version https://git-lfs")


def _text(metadata: Mapping[str, str], name: str, path: Path) -> str:
    if not metadata.get(name):
        raise PromptFileError(f"{path} is damaged: its metadata have no {name!r}")
    return metadata[name]


def _json_object(metadata: Mapping[str, str], name: str, path: Path) -> dict[str, Any]:
    value = parse_json(_text(metadata, name, path), what=f"{path} is damaged: {name!r}", error=PromptFileError)
    if not isinstance(value, dict):
        raise PromptFileError(f"{path} is damaged: {name!r} must be a JSON object, not {shown(value)}")
    return value


def _packages(metadata: Mapping[str, str], path: Path) -> Sequence[str]:
    """Return the packages of plugins that a file names."""
    value = parse_json(metadata.get("packages", "[]"), what=f"{path} is damaged: 'packages'", error=PromptFileError)
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise PromptFileError(f"{path} is damaged: 'packages' must be names, not {shown(value)}")
    return value


def _parse_config(
    stored: Mapping[str, Any],
    changes: object,
    path: Path,
    *,
    packages: Sequence[str] = (),
    is_learned: bool = True,
) -> PromptConfig:
    """Return the config of a prompt file with some fields changed.

    Args:
        stored: config in the file.
        changes: values of fields to change, by name.
        path: the file.
        packages: packages of the plugins that its components come from.
        is_learned: whether the prompt must be one that learns.

    Raises:
        PromptFileError: the stored config is not valid.
        ConfigError: the changes are not valid.
    """
    changes = {} if changes is None else changes
    if not isinstance(changes, Mapping) or not all(isinstance(field, str) for field in changes):
        raise ConfigError(f"changes must be values by names of fields, not {shown(changes)}")
    if changes.get("kind", stored.get("kind")) != stored.get("kind"):
        raise ConfigError(f"{path} holds a prompt of the kind {shown(stored.get('kind'))}: it cannot be changed")
    try:
        config = prompts.parse({**stored, **changes})
    except ConfigError as error:
        if changes:
            _parse_config(stored, None, path, packages=packages, is_learned=is_learned)
            raise ConfigError(f"the changes do not fit the prompt in {path}: {error}") from None
        raise _unreadable_component(path, error, packages) from None
    if is_learned and isinstance(config, _FIXED):
        raise PromptFileError(f"{path} is damaged: a prompt of kind {config.kind!r} learns nothing, and has no file")
    return config


def _parse_component(name: str, fields: object, path: Path, *, packages: Sequence[str]) -> Component:
    """Return the config of a component that was learned together with the prompt."""
    if name not in COMPONENTS:
        raise PromptFileError(f"{path} is damaged: it holds a learned {shown(name)}, none of {', '.join(COMPONENTS)}")
    try:
        config: Component = COMPONENTS[name].parse(fields)
        return config
    except ConfigError as error:
        raise _unreadable_component(path, error, packages) from None


def _unreadable_component(path: Path, error: ConfigError, packages: Sequence[str]) -> PromptFileError:
    """Return the error about a component whose config cannot be read."""
    if isinstance(error, UnknownComponentError) and packages:
        how = "import what registers it" if packages[0] == "__main__" else "install it"
        return PromptFileError(
            f"{path} needs components of {' and '.join(map(shown, packages))}: {how} to read the file. {error}"
        )
    hint = " (or the kind is of a plugin that is not installed)" if isinstance(error, UnknownComponentError) else ""
    return PromptFileError(f"{path} is damaged: {error}{hint}")


def check_fits(info: PromptInfo, path: str | Path, backbone: Backbone) -> None:
    """Check that a prompt was learned on the architecture and layer of a backbone.

    Args:
        info: metadata of the prompt.
        path: its file, for the message.
        backbone: backbone that the prompt is to condition.

    Raises:
        PromptMismatchError: architecture or layer differ; the message names both.
    """
    _check_backbone(backbone)
    if info.architecture != backbone.spec.architecture:
        raise PromptMismatchError(
            f"{path} was learned on another backbone: [{_one_line(info.architecture)}]; "
            f"this one is [{backbone.spec.architecture}]"
        )
    learned, own = info.details.get("layer"), backbone.spec.layer
    if None not in (learned, own) and learned != own:
        raise PromptMismatchError(f"{path} was learned for layer {shown(learned)}; this backbone gives layer {own}")


def _check_backbone(backbone: object) -> None:
    if not isinstance(backbone, Backbone):
        raise InputError(f"backbone must be a Backbone, not {shown(backbone)}")


@check_arguments
def load_prompt(path: str | Path, *, backbone: Backbone, changes: Mapping[str, Any] | None = None) -> Prompt:
    """Load a learned prompt from its file, for a backbone of the architecture that it was learned on.

    Args:
        path: file written by `save_prompt`.
        backbone: backbone of the same architecture.
        changes: fields of the stored config to replace, for example `{"fallback": "text"}` of a class prompt, or
            `{"image_encoder": {"kind": "dinov2", "weights": FOLDER}}` of a conditional one.

    Returns:
        The prompt, on the device of the backbone, in evaluation mode.

    Raises:
        PromptFileError: the file cannot be read.
        PromptMismatchError: the prompt was learned on another architecture, or on another layer.
        ConfigError: the config has no such field, or a changed value is not valid.

    Warns:
        UnknownWeightsWarning: the weights of the backbone are others, or unknown.

    >>> from tempfile import TemporaryDirectory
    >>> from sd4match.testing import FakeBackbone, FakeTextEncoder
    >>> backbone = FakeBackbone(text_encoder=FakeTextEncoder())
    >>> backbone.fingerprint = "1.5"
    >>> prompt = prompts.build({"kind": "single", "num_tokens": 3}, backbone=backbone)
    >>> with TemporaryDirectory() as folder:
    ...     path = save_prompt(prompt, f"{folder}/single.safetensors", backbone=backbone)
    ...     loaded = load_prompt(path, backbone=backbone)
    >>> loaded.token_embeddings.equal(prompt.token_embeddings)
    True
    """
    info, tensors = read_prompt(path, changes=changes)
    check_fits(info, path, backbone)
    if not same_weights(info.fingerprint, backbone.fingerprint):
        warnings.warn(
            f"{path} was learned on other (or unknown) weights or settings of the same architecture"
            f"{_difference(info.fingerprint, backbone.fingerprint)}; its scores need not hold here",
            UnknownWeightsWarning,
            stacklevel=2,
        )
    try:
        prompt = info.config.build(backbone=backbone, initialize=False)
    except ConfigError as error:
        if changes:
            raise
        raise PromptFileError(f"{path} is damaged: {error}") from None
    except (RuntimeError, MemoryError) as error:  # out of memory
        raise PromptFileError(
            f"the prompt that the config in {path} describes cannot be built: {_one_line(error)}"
        ) from None
    tensors = prompt_tensors(tensors)
    described = "the prompt that its config describes"
    _check_state(tensors, prompt.state_dict(), path, whose=described, where=" on this backbone")
    prompt.load_state_dict(tensors)
    prompt.details = dict(info.details)
    return prompt.to(backbone.device).eval()


@check_arguments
def load_components(path: str | Path) -> dict[str, Any]:
    """Load the components that were learned together with the prompt of a file.

    Args:
        path: file written by `save_prompt`.

    Returns:
        The built components by name, in evaluation mode: "matcher", "pair_transform", "loss"; {} if there is none.

    Raises:
        PromptFileError: the file cannot be read.
        PromptMismatchError: its tensors are not those of the components that it describes.

    >>> from tempfile import TemporaryDirectory
    >>> from sd4match.testing import FakeBackbone, FakeTextEncoder
    >>> backbone = FakeBackbone(text_encoder=FakeTextEncoder())
    >>> prompt = prompts.build({"kind": "single", "num_tokens": 3}, backbone=backbone)
    >>> loss = losses.build({"kind": "gaussian_cross_entropy", "temperature": "learned"})
    >>> with TemporaryDirectory() as folder:
    ...     path = save_prompt(prompt, f"{folder}/both.safetensors", backbone=backbone, components={"loss": loss})
    ...     components = load_components(path)
    >>> list(components)
    ['loss']
    """
    info, tensors = read_prompt(path)
    loaded: dict[str, Any] = {}
    for name, config in info.components.items():
        try:
            loaded[name] = config.build()
        except (ConfigError, RuntimeError, MemoryError) as error:
            raise PromptFileError(f"the {name} in {path} cannot be built: {_one_line(error)}") from None
        learned = Learned(name, loaded[name])
        found = {key.partition("/")[2]: value for key, value in tensors.items() if key.partition("/")[0] == name}
        _check_state(found, learned.state_dict(), path, whose=f"the {name} that it describes")
        learned.load_state_dict(found)
        learned.train(False)
    return loaded


def _check_state(
    tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], path: str | Path, *, whose: str, where: str = ""
) -> None:
    """Check that tensors are those of a state dict.

    Raises:
        PromptFileError: some are missing or surplus.
        PromptMismatchError: one has another shape or type.
    """
    if not where and set(tensors) != set(own):  # the class has changed since
        raise PromptMismatchError(
            f"{path} has the tensors {shown(sorted(tensors))}; {whose}, as its class is now, has {shown(sorted(own))}"
        )
    check_names(tensors, own, name=str(path))
    for name, value in tensors.items():
        if value.shape != own[name].shape or value.is_floating_point() != own[name].is_floating_point():
            raise PromptMismatchError(
                f"{path} has {name} {tuple(value.shape)} of {value.dtype}; {whose} has "
                f"{tuple(own[name].shape)} of {own[name].dtype}{where}"
            )


def _difference(fingerprint: str, own: str) -> str:
    """Return for a message which networks differ between the backbone of a prompt and another one."""
    if ":" in own and ":" not in fingerprint and fingerprint != "unknown":
        return " (the file is of an earlier release, whose fingerprints say less: learn or save the prompt again)"
    names = what_differs(fingerprint, own)
    return f": the weights or settings of {', '.join(names)} differ" if names else ""
