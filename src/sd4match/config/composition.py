"""Composition of the fields of an experiment from packaged files of models and experiments.

A file may name a packaged `model` and `experiment`, or a `preset` for both, and then holds only the fields that differ:

    model: sd2-1
    experiment: cpm
    training: {steps: 10000}

The settings of a model's file (timesteps, temperatures, lengths of training, sizes of prompts) are only for weights of
that architecture. They come from the file of the model of the backbone, whichever model a file names; a file that names
none has the backbone `mini` and its settings. Importing this module loads no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from sd4match.backbones.config import StableDiffusionConfig
from sd4match.documents import check_extent, parse_yaml
from sd4match.errors import CheckpointError, ConfigError, choose_from, shown

Fields = Mapping[str, Any]
Folder = Literal["models", "experiments", "baselines"]

PRESETS = files("sd4match.config").joinpath("presets")
"""Folder of the packaged files."""

_PRESET, _MODEL, _EXPERIMENT = "preset", "model", "experiment"
COMPOSED_FIELDS = (_PRESET, _MODEL, _EXPERIMENT)
"""Fields of a file that are names of packaged files, not fields of the config."""
_PROMPT_DEFAULTS = "prompt_defaults"
"""Field of a model's file: defaults for that model by kind of prompt."""
_AROUND_OTHERS = ("mirrored", "debiased")
"""Kinds of backbones that wrap another one."""
_OTHER_MODEL = "other-model.yaml"
"""File with the settings of models that have no file of their own."""
_LONGEST_NAME = 80

Changes = list[tuple[str, Any]]


def compose(own: Fields, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """Return the fields of an experiment: the model's, the experiment's over them, the file's own over both.

    A group of fields that names its kind replaces the group below it; any other group changes single fields of it. If
    `own` or an override gives the backbone weights of another model than the named one, the settings are those of that
    other model. The data set of a model's file is only for the weights in that file: with other weights the experiment
    has no data set, unless `own` or an override gives one.

    Args:
        own: fields of a file, which may name a `preset`, or a `model` and an `experiment`.
        overrides: changes `a.b=c`, applied last; `preset=NAME`, `model=NAME` and `experiment=NAME` change the
            composed files.

    Raises:
        ConfigError: no packaged file has that name, an experiment has no model, a preset is combined with a model or an
            experiment, or an override is malformed.

    >>> compose({"model": "mini", "experiment": "single"}, ["training.steps=5"])["training"]["steps"]
    5
    >>> compose({"preset": "single"}, ["backbone.weights=sd2-1"])["evaluation"]["sampling"]["timestep"]
    50
    """
    check_extent(own, what="a config", error=ConfigError)
    names, changes = _split(overrides)
    own = _resolve_names(own, names)
    model, experiment = own.pop(_MODEL, None), own.pop(_EXPERIMENT, None)
    if experiment is not None and model is None:
        raise ConfigError(f"experiment = {shown(experiment)} needs a model: {', '.join(packaged_names('models'))}")
    composed = _compose_on(model, experiment, own, changes, data_of=model)
    actual = _model_of(composed.get("backbone"))
    if actual == model:
        return composed
    return _compose_on(actual, experiment, own, changes, data_of=actual if model is None else model)


def _compose_on(model: object, experiment: object, own: Fields, changes: Changes, *, data_of: object) -> dict[str, Any]:
    """Return the fields of an experiment with the settings of a packaged model, and with the data set of one.

    None stands for any other model.
    """
    base = dict(read_fields(_OTHER_MODEL) if model is None else read_packaged("models", model))
    prompt_defaults = base.pop(_PROMPT_DEFAULTS, {})
    with_data = {} if data_of is None else read_packaged("models", data_of)
    base["data"] = with_data.get("data")
    if experiment is not None:
        base = _merge(base, read_packaged("experiments", experiment))
    composed = _merge(base, own)
    for path, value in changes:
        _set(composed, path, value)
    names_data = "data" in own or any(path.split(".")[0] == "data" for path, _ in changes)
    if not names_data and _weights(composed) != _weights(with_data):
        composed["data"] = None  # the model's data set is for its own weights
    prompt = _as_group(composed.get("prompt"))
    if prompt is not None:
        kind = prompt.get("kind")
        composed["prompt"] = _merge(prompt_defaults.get(kind, {}) if isinstance(kind, str) else {}, prompt)
    return composed


def _resolve_names(own: Fields, names: Fields) -> dict[str, Any]:
    """Return the fields of a file with those of its preset, or of the preset in `names`.

    Raises:
        ConfigError: there is no such preset, or a name does not fit it.
    """
    for given in (own, names):
        beside = [name for name in (_MODEL, _EXPERIMENT) if name in given]
        if _PRESET in given and beside:
            raise ConfigError(f"{_PRESET} stands for a model and an experiment: leave {' and '.join(beside)} out")
    below = {name: value for name, value in own.items() if name not in COMPOSED_FIELDS or _PRESET not in names}
    below.pop(_PRESET, None)
    if _PRESET in names or _PRESET in own:
        preset = names.get(_PRESET, own.get(_PRESET))
        fields = read_preset(preset)
        if _MODEL not in fields and not names.keys() <= {_PRESET}:
            raise ConfigError(f"{_PRESET} = {preset} is for a model of its own: {', '.join(names)} cannot be changed")
        below = _merge(fields, below)
    return {**below, **{name: value for name, value in names.items() if name != _PRESET}}


def _model_of(backbone: object) -> str | None:
    """Return the packaged model whose settings are for a backbone; None if there is none.

    It is the model of that name, or of that architecture if the weights are a folder, a hub id or a variant. A fusion
    has the settings of its first Stable Diffusion, a backbone around another one those of that other.
    """
    group = _as_group(backbone) or {}
    while group.get("kind") in _AROUND_OTHERS:
        group = _as_group(group.get("backbone")) or {}
    if group.get("kind") == "fusion" and isinstance(group.get("backbones"), (list, tuple)):
        members = [_as_group(member) or {} for member in group["backbones"]]
        group = next((member for member in members if member.get("kind") == StableDiffusionConfig().kind), {})
    if group.get("kind") != StableDiffusionConfig().kind:
        return None
    (_, weights), models = _weights({"backbone": group}), packaged_names("models")
    if weights in models or not isinstance(weights, str):
        return str(weights) if weights in models else None
    architecture = _architecture(weights)
    same = (model for model in models if architecture is not None and _architecture(model) == architecture)
    return next(same, None)


def _architecture(weights: str) -> str | None:
    """Return the architecture that a Stable Diffusion declares; None if it cannot be read, which is refused later."""
    try:
        return StableDiffusionConfig(weights=weights, layers=0).spec().architecture
    except (CheckpointError, ConfigError):
        return None


def read_preset(name: object) -> Fields:
    """Return the fields of a preset: a model and an experiment, or those of a baseline.

    Raises:
        ConfigError: there is no such preset.
    """
    if not isinstance(name, str):
        raise ConfigError(f"the name of a preset must be text, not {shown(name)}")
    index = read_fields("index.yaml")
    if name in index:
        fields: Fields = index[name]
        return fields
    if name in packaged_names("baselines"):
        return read_packaged("baselines", name)
    raise ConfigError(f"unknown preset {shown(name)}; {choose_from(name[:_LONGEST_NAME], preset_names())}")


def preset_names() -> tuple[str, ...]:
    """Return the names of all presets, in alphabetical order.

    >>> {"cpm", "mini-cpm", "sd1-5-cpm", "sd2-1-cpm", "dift"} <= set(preset_names())
    True
    """
    return tuple(sorted({*read_fields("index.yaml"), *packaged_names("baselines")}))


def packaged_names(folder: Folder) -> tuple[str, ...]:
    """Return the names of the packaged files in a folder, in alphabetical order."""
    names = (file.name for file in PRESETS.joinpath(folder).iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml")))


def read_packaged(folder: Folder, name: object) -> Fields:
    """Read a packaged file.

    Raises:
        ConfigError: there is none of that name.
    """
    known = packaged_names(folder)
    if not isinstance(name, str) or name not in known:
        hint = choose_from(name[:_LONGEST_NAME] if isinstance(name, str) else "", known)
        raise ConfigError(f"unknown {folder.rstrip('s')} {shown(name)}; {hint}")
    return read_fields(f"{folder}/{name}.yaml")


@cache
def read_fields(path: str) -> Fields:
    """Parse a packaged YAML file.

    Args:
        path: relative to the folder of presets.
    """
    fields: Fields = parse_yaml(PRESETS.joinpath(path).read_text(encoding="utf-8"), what=path, error=ConfigError)
    return fields


def _split(overrides: Iterable[str]) -> tuple[dict[str, Any], Changes]:
    """Parse overrides; return those of the composed names, and the others as (path, value)."""
    names: dict[str, Any] = {}
    changes = []
    for override in _listed(overrides):
        path, equals, text = override.partition("=")
        path = path.strip()
        if not equals or not all(path.split(".")):
            raise ConfigError(f"an override is FIELD=VALUE, for example training.steps=100, not {shown(override)}")
        value = parse_yaml(text, what=f"the value in {shown(override)}", error=ConfigError)
        if path in COMPOSED_FIELDS:
            names[path] = value
        else:
            changes.append((path, value))
    return names, changes


def _listed(overrides: object) -> list[str]:
    """Return overrides as a list.

    Raises:
        ConfigError: they are one text, no list, or hold what is no text.
    """
    if isinstance(overrides, Iterable) and not isinstance(overrides, (str, bytes, Mapping)):
        listed = list(overrides)
        if all(isinstance(override, str) for override in listed):
            return listed
        overrides = listed
    raise ConfigError(
        f'overrides are a list of FIELD=VALUE, for example ["training.steps=100"], not {shown(overrides)}'
    )


def _merge(base: Fields, own: Fields) -> dict[str, Any]:
    """Return `base` changed by `own`, without changing either."""
    merged = {key: _copy(value) for key, value in base.items()}
    for key, value in own.items():
        below = _as_group(merged.get(key))
        changes_fields = below is not None and isinstance(value, Mapping) and "kind" not in value
        merged[key] = _merge(below, value) if below is not None and changes_fields else _copy(value)
    return merged


def _set(fields: dict[str, Any], path: str, value: Any) -> None:
    """Set a field, in place. Another kind replaces the whole group, because kinds have different fields.

    Raises:
        ConfigError: a parent of the field is not a group of fields.
    """
    *parents, last = path.split(".")
    group = fields
    for parent in parents:
        below = {} if group.get(parent) is None else _as_group(group[parent])
        if below is None:
            raise ConfigError(f"{shown(path)} cannot be set: {shown(parent)} is not a group of fields")
        group[parent] = below
        group = below
    if last == "kind" and parents and group.get(last, value) != value:
        group.clear()
    group[last] = _copy(value)


def _weights(fields: Fields) -> tuple[object, object]:
    """Return the kind of the backbone, and its weights."""
    backbone = _as_group(fields.get("backbone")) or {}
    return backbone.get("kind"), backbone.get("weights", StableDiffusionConfig().weights)


def _as_group(value: object) -> dict[str, Any] | None:
    """Return a group of fields; a bare string is a group of that kind; None for anything else."""
    if isinstance(value, str):
        return {"kind": value}
    return value if isinstance(value, dict) else None


def _copy(value: Any) -> Any:
    return {key: _copy(below) for key, below in value.items()} if isinstance(value, Mapping) else value
