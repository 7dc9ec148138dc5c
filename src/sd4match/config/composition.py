"""Composition of the fields of an experiment from packaged files of models and experiments.

A file may name a packaged `model` and a packaged `experiment` at its top, and then holds only what differs:

    model: sd2-1
    experiment: cpm
    training: {steps: 10000}

Importing this module loads no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from sd4match.documents import parse_yaml
from sd4match.errors import ConfigError, choose_from, shown

Fields = Mapping[str, Any]
Folder = Literal["models", "experiments", "baselines"]

PRESETS = files("sd4match.config").joinpath("presets")
"""Folder of the packaged files."""

_MODEL, _EXPERIMENT = "model", "experiment"
COMPOSED_FIELDS = (_MODEL, _EXPERIMENT)
"""Fields of a file that are names of packaged files, not fields of the config."""
_PROMPT_DEFAULTS = "prompt_defaults"
"""Field of a model's file: defaults for that model by kind of prompt."""


def compose(own: Fields, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """Return the fields of an experiment: the model's, the experiment's over them, the file's own over both.

    A group of fields that names its kind replaces the group below it; any other group changes single fields of it. The
    data set of a model's file is for the weights in that file: with other weights the experiment names no data set,
    unless `own` or an override names one.

    Args:
        own: fields of a file, which may name a `model` and an `experiment`.
        overrides: changes `a.b=c`, applied last; `model=NAME` and `experiment=NAME` change what is composed.

    Raises:
        ConfigError: no packaged file has that name, an experiment has no model, or an override is malformed.

    >>> compose({"model": "mini", "experiment": "single"}, ["training.steps=5"])["training"]["steps"]
    5
    """
    names, changes = _split(overrides)
    own = {**own, **names}
    model, experiment = own.pop(_MODEL, None), own.pop(_EXPERIMENT, None)
    if experiment is not None and model is None:
        raise ConfigError(f"experiment = {experiment!r} needs a model: {', '.join(packaged_names('models'))}")
    base = {} if model is None else dict(read_packaged("models", model))
    prompt_defaults = base.pop(_PROMPT_DEFAULTS, {})
    if experiment is not None:
        base = _merge(base, read_packaged("experiments", experiment))
    composed = _merge(base, own)
    for path, value in changes:
        _set(composed, path, value)
    names_data = "data" in own or any(path.split(".")[0] == "data" for path, _ in changes)
    if not names_data and _weights(composed) != _weights(base):
        composed.pop("data", None)  # the model's data set is for its own weights
    prompt = _as_group(composed.get("prompt"))
    if prompt is not None:
        composed["prompt"] = _merge(prompt_defaults.get(prompt.get("kind"), {}), prompt)
    return composed


def packaged_names(folder: Folder) -> tuple[str, ...]:
    """Return the names of the packaged files in a folder, in alphabetical order."""
    names = (file.name for file in PRESETS.joinpath(folder).iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml")))


def read_packaged(folder: Folder, name: object) -> Fields:
    """Read a packaged file.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in packaged_names(folder):
        raise ConfigError(f"unknown {folder.rstrip('s')} {name!r}; {choose_from(str(name), packaged_names(folder))}")
    return read_fields(f"{folder}/{name}.yaml")


@cache
def read_fields(path: str) -> Fields:
    """Parse a packaged YAML file.

    Args:
        path: relative to the folder of presets.
    """
    fields: Fields = parse_yaml(PRESETS.joinpath(path).read_text(encoding="utf-8"), what=path, error=ConfigError)
    return fields


def _split(overrides: Iterable[str]) -> tuple[dict[str, Any], list[tuple[str, Any]]]:
    """Parse overrides; return those of the composed names, and the others as (path, value)."""
    names: dict[str, Any] = {}
    changes = []
    for override in overrides:
        path, equals, text = override.partition("=")
        path = path.strip()
        if not equals or not path:
            raise ConfigError(f"an override is FIELD=VALUE, for example training.steps=100, not {override!r}")
        value = parse_yaml(text, what=f"the value in {shown(override)}", error=ConfigError)
        if path in COMPOSED_FIELDS:
            names[path] = value
        else:
            changes.append((path, value))
    return names, changes


def _merge(base: Fields, own: Fields) -> dict[str, Any]:
    """Return `base` changed by `own`, without changing either."""
    merged = {key: _copy(value) for key, value in base.items()}
    for key, value in own.items():
        below = _as_group(merged.get(key))
        changes_fields = below is not None and isinstance(value, Mapping) and "kind" not in value
        merged[key] = _merge(below, value) if below is not None and changes_fields else _copy(value)
    return merged


def _set(fields: dict[str, Any], path: str, value: Any) -> None:
    """Set a field, in place.

    Raises:
        ConfigError: something above it is not a group of fields.
    """
    *parents, last = path.split(".")
    group = fields
    for parent in parents:
        below = {} if group.get(parent) is None else _as_group(group[parent])
        if below is None:
            raise ConfigError(f"{path!r} cannot be set: {parent!r} is not a group of fields")
        group[parent] = below
        group = below
    group[last] = value


def _weights(fields: Fields) -> object:
    backbone = _as_group(fields.get("backbone")) or {}
    return backbone.get("weights")


def _as_group(value: object) -> dict[str, Any] | None:
    """Return a group of fields; a bare string is a group of that kind; None for anything else."""
    if isinstance(value, str):
        return {"kind": value}
    return value if isinstance(value, dict) else None


def _copy(value: Any) -> Any:
    return {key: _copy(below) for key, below in value.items()} if isinstance(value, Mapping) else value
