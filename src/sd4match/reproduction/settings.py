"""Settings of a reproduction: model, data, numbers of steps and pairs, seeds. Importing this module loads no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sd4match.arguments import check_fields
from sd4match.checks import LARGEST_SEED, check_count
from sd4match.config.composition import packaged_names
from sd4match.config.experiment import ExperimentConfig
from sd4match.config.presets import load_experiment
from sd4match.data.config import RootedConfig, dataset_kind
from sd4match.errors import ConfigError, InputError, choose_from, shown
from sd4match.paths import as_path, is_folder
from sd4match.registry import datasets

PAPERS_MODEL = "sd2-1"
REDUCED_STEPS, REDUCED_PAIRS = 40, 96
"""Numbers of the reduced form on `mini`: all targets take 20 minutes on two cores."""
_REDUCED_PHOTOS, _REDUCED_VALIDATION = 24, 32
_OWN_SETS: Mapping[str, Mapping[str, Any]] = {
    "scenes": {},
    "plain": {"distractors": 0.0, "seed": 1},
    "small": {"distractors": 0.0, "size": 64, "seed": 2},
}
"""Synthetic substitutes of three real data sets: the usual scenes, scenes without other objects, small photos."""
_STANDS_FOR = {"scenes": "spair", "plain": "pf_pascal", "small": "pf_willow"}


@dataclass(frozen=True)
class ReproductionSettings:
    """Model, data and extent of a reproduction.

    Args:
        on: "mini", another packaged model ("sd2-1", "sd1-5"), or a folder with a Stable Diffusion.
        roots: folders of data sets by kind, for example `{"spair": "SPair-71k"}`; {}: `mini` uses its synthetic data.
        reduced: train and measure less than the paper; None: on `mini` only.
        steps: steps of each training; None: those of the reduced form, or the model's.
        pairs: number of measured pairs, from the first; None: that of the reduced form, or all.
        seeds: seeds of the trainings.
        overrides: changes `a.b=c` to all experiments, applied last.

    Raises:
        ConfigError: there is no such model or data set.
        InputError: a number is out of bounds, or a seed is given twice.

    >>> settings = ReproductionSettings(steps=10, seeds=(0,))
    >>> settings.is_reduced, settings.is_synthetic
    (True, True)
    """

    on: str = "mini"
    roots: Mapping[str, str] = field(default_factory=dict)
    reduced: bool | None = None
    steps: int | None = None
    pairs: int | None = None
    seeds: tuple[int, ...] = (0, 1, 2)
    overrides: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self)
        known = packaged_names("models")
        if self.on not in known and not is_folder(as_path(self.on, what="on", error=ConfigError)):
            raise ConfigError(f"no model and no folder {shown(self.on)}; {choose_from(self.on[:80], known)}")
        roots = {dataset_kind(kind): root for kind, root in self.roots.items()}
        for kind in roots:
            if not issubclass(datasets.config_class(kind), RootedConfig):
                raise ConfigError(f"{kind} has no folder: give spair, pf_pascal or pf_willow with theirs")
        object.__setattr__(self, "roots", roots)
        for name in ("steps", "pairs"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise InputError(f"seeds must be one or more different numbers, not {shown(list(self.seeds))}")
        for seed in self.seeds:
            check_count("a seed", seed, 0, LARGEST_SEED)

    @property
    def is_reduced(self) -> bool:
        """True if the reduced form is used."""
        return self.on == "mini" if self.reduced is None else self.reduced

    @property
    def is_synthetic(self) -> bool:
        """True if the data are the synthetic ones of `mini`."""
        return self.on == "mini" and not self.roots

    @property
    def timesteps(self) -> tuple[int, ...]:
        """Timesteps of the curves of Fig. 3b."""
        return (0, 50, 100, 200, 350, 500) if self.is_reduced else tuple(range(0, 501, 50))

    def dataset_name(self, kind: str) -> str:
        """Return the name of the data set that represents one of the paper's.

        Args:
            kind: "spair", "pf_pascal" or "pf_willow".

        Returns:
            The kind itself, or the name of a synthetic data set.
        """
        return next(name for name, real in _STANDS_FOR.items() if real == kind) if self.is_synthetic else kind

    def main_data(self) -> str:
        """Return the kind of the data set of all targets but Tab. 3: SPair-71k, or the first with training pairs.

        Raises:
            ConfigError: there is none.
        """
        trained = [kind for kind in self.roots if "train" in datasets.config_class(kind).splits]
        if self.is_synthetic or "spair" in trained:
            return "spair"
        if not trained:
            raise ConfigError(
                f"a reproduction on {self.on} needs a data set to train on: give --dataset spair --root FOLDER"
            )
        return trained[0]

    def require(self, kinds: Sequence[str], *, target: str) -> None:
        """Check that data sets are available.

        Args:
            kinds: kinds of data sets.
            target: name of the target, for the message.

        Raises:
            ConfigError: a data set is missing; the message has the options that give it.
        """
        missing = [kind for kind in kinds if kind not in self.roots and not self.is_synthetic]
        if missing:
            options = " ".join(f"--dataset {kind} --root FOLDER" for kind in missing)
            raise ConfigError(f"{target} needs {' and '.join(missing)} too: give {options}")

    def experiment(
        self, name: str, *, seed: int = 0, data: str, changes: Sequence[str] = (), for_training: bool = False
    ) -> ExperimentConfig:
        """Return an experiment of the paper with the model, the data and the extent of the reproduction.

        Args:
            name: name of the packaged experiment.
            seed: seed of the training.
            data: kind of one of the paper's data sets; see `dataset_name`.
            changes: changes `a.b=c` to this experiment.
            for_training: leave out the number of measured pairs, on which no training depends.

        Raises:
            ConfigError: the fields make no experiment.
        """
        packaged = self.on in packaged_names("models")
        model, weights = (self.on, []) if packaged else (PAPERS_MODEL, [f"backbone.weights={json.dumps(self.on)}"])
        extent = self._training_extent() if for_training else [*self._training_extent(), *self._evaluation_extent()]
        own = [*weights, f"seed={seed}", f"data={self._data(data)}", *extent, *changes, *self.overrides]
        return load_experiment(name, model=model, overrides=own)

    def _data(self, kind: str) -> str:
        if not self.is_synthetic:
            return json.dumps({"kind": kind, "root": str(self.roots[kind])})
        fields = {"kind": "synthetic", **_OWN_SETS[self.dataset_name(kind)]}
        return json.dumps({**fields, "photos_per_category": _REDUCED_PHOTOS} if self.is_reduced else fields)

    def _training_extent(self) -> list[str]:
        steps = self.steps or (REDUCED_STEPS if self.is_reduced else None)
        changes = [] if steps is None else [f"training.steps={steps}"]
        if self.is_reduced and steps is not None:
            every = max(1, steps // 2)
            changes += [f"training.validate_every={every}", f"training.validation_pairs={_REDUCED_VALIDATION}"]
        return changes

    def _evaluation_extent(self) -> list[str]:
        pairs = self.pairs or (REDUCED_PAIRS if self.is_reduced else None)
        return [] if pairs is None else [f"evaluation.limit={pairs}"]

    @property
    def model_name(self) -> str:
        """Name of the model, for titles."""
        return self.on if self.on in packaged_names("models") else Path(self.on).name

    def image_size(self) -> int:
        """Return the side of the image that the model was trained on, in pixels.

        Raises:
            ConfigError: the model cannot be found.
        """
        spec = self.experiment("text", data=self.main_data()).backbone.spec()
        if spec is None:
            raise ConfigError(f"image-size needs the model: {self.on} cannot be found")
        return spec.native_size[0]
