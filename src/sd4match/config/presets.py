"""Presets: experiments that come with the package.

`presets/index.yaml` maps each name to a model and an experiment. Published baselines are files of their own. Importing
this module loads no torch.
"""

from __future__ import annotations

from collections.abc import Iterable

from sd4match.config.composition import preset_names as preset_names
from sd4match.config.experiment import ExperimentConfig, make_config
from sd4match.errors import shown


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
    return make_config({"preset": name}, origin=f"preset {shown(name)}", overrides=overrides)


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
    return make_config(fields, origin=f"experiment {shown(experiment)} on {shown(model)}", overrides=overrides)
