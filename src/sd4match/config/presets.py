"""Experiments that come with the package.

`presets/index.yaml` says for each name which model and which experiment it is. The baselines of the field are files of
their own. Importing this module loads no torch.
"""

from __future__ import annotations

from collections.abc import Iterable

from sd4match.config.composition import packaged_names, read_fields, read_packaged
from sd4match.config.experiment import ExperimentConfig, make_config
from sd4match.errors import ConfigError, choose_from


def preset_names() -> tuple[str, ...]:
    """Return the names of all presets, in alphabetical order.

    >>> {"cpm", "mini-cpm", "sd1-5-cpm", "sd2-1-cpm", "dift"} <= set(preset_names())
    True
    """
    return tuple(sorted({*read_fields("index.yaml"), *packaged_names("baselines")}))


def load_preset(name: str, overrides: Iterable[str] = ()) -> ExperimentConfig:
    """Load an experiment that comes with the package.

    Args:
        name: one of `preset_names()`.
        overrides: changes `a.b=c`, for example `training.steps=100`.

    Raises:
        ConfigError: there is no such preset, or an override does not fit.

    >>> load_preset("single", ["training.steps=5"]).training.steps
    5
    """
    index = read_fields("index.yaml")
    if name in index:
        fields = index[name]
    elif name in packaged_names("baselines"):
        fields = read_packaged("baselines", name)
    else:
        raise ConfigError(f"unknown preset {name!r}; {choose_from(name, preset_names())}")
    return make_config(fields, origin=f"preset {name}", overrides=overrides)


def load_experiment(experiment: str, *, model: str, overrides: Iterable[str] = ()) -> ExperimentConfig:
    """Load an experiment of the paper on a model.

    Args:
        experiment: name of a file in `presets/experiments`, for example "cpm".
        model: name of a file in `presets/models`, for example "sd2-1".
        overrides: changes `a.b=c`.

    Raises:
        ConfigError: there is no such file, or an override does not fit.

    >>> load_experiment("cpm", model="sd2-1") == load_preset("sd2-1-cpm")
    True
    """
    fields = {"model": model, "experiment": experiment}
    return make_config(fields, origin=f"experiment {experiment} on {model}", overrides=overrides)
