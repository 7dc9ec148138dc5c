"""Sweep over prompts: trains and measures each prompt of the ablation tables, and reports all of them together."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sd4match.arguments import check_arguments
from sd4match.backbones.cached import cached
from sd4match.checks import check_number
from sd4match.config.experiment import ExperimentConfig, build_components, build_dataset, make_config
from sd4match.config.presets import load_experiment
from sd4match.data.config import Split
from sd4match.documents import read_json
from sd4match.errors import ConfigError, InputError, a, choose_from, shown
from sd4match.evaluation.report import Report, backbone_entry, make_report, make_row
from sd4match.evaluation.run import chosen_pairs, compare_prompts, evaluate_prompts
from sd4match.evaluation.run_folders import SCORES_FILE, check_run_folder, check_sweep_folder
from sd4match.evaluation.scores import PairScores
from sd4match.interfaces import Backbone, PairDataset, learns
from sd4match.io.files import write_atomically
from sd4match.paths import as_path, exists
from sd4match.registry import Registry, backbones, datasets, losses, matchers, pair_transforms, prompts
from sd4match.training.history import TrainerCallbacks
from sd4match.training.run import can_resume, train_in_folder
from sd4match.version import __version__

_CPM_VARIANTS = (
    "cpm-global-features", "cpm-single-image", "cpm-single-image-global-features", "cpm-no-global-prompt",
    "cpm-no-patch-mixing",
)  # fmt: skip
PROMPTS = ("empty", "text", "implicit-captioner", "single", "class", "cpm", *_CPM_VARIANTS)
"""Experiments of the table, in the order of the paper's Tabs. 1 to 3 and Fig. 3."""
_COMPARISONS = (
    *((name, "text") for name in PROMPTS if name != "text"),
    ("class", "single"), ("cpm", "single"), ("cpm", "class"),
    *(("cpm", name) for name in _CPM_VARIANTS),
)  # fmt: skip
"""(a, b): every prompt against text, and the differences that the paper's tables show."""
_SHARED_FIELDS = ("backbone", "data", "evaluation")
"""Fields of the config in which the experiments of a table must agree."""


class DamagedScoresWarning(UserWarning):
    """Scores of an earlier sweep cannot be read; the prompt is measured again."""


@dataclass
class SweepCallbacks:
    """Functions that a sweep calls with the name of the prompt; each does nothing by default."""

    on_start: Callable[[str], None] = lambda name: None
    """Called before a prompt is trained or measured, or its scores are read."""
    on_step: Callable[[str, int], None] = lambda name, step: None
    """Called after every training step with its number."""
    on_evaluation_progress: Callable[[str, int, int], None] = lambda name, done, total: None
    """Called during an evaluation with the number of photos or pairs that are done, and of all."""


@dataclass(frozen=True)
class _Measurement:
    """Scores of a prompt, and how long it took to train and measure it."""

    scores: PairScores
    seconds: float


@check_arguments
def sweep_prompts(
    output: str | Path,
    *,
    model: str = "mini",
    names: Sequence[str] = PROMPTS,
    variants: Mapping[str, Any] | None = None,
    seed: int = 0,
    overrides: Iterable[str] = (),
    split: Split = "test",
    device: str | torch.device = "cpu",
    callbacks: SweepCallbacks | None = None,
) -> Report:
    """Train and measure each prompt on one model, with one seed and one number of steps.

    A prompt whose scores `output` already contains, of the same config, is not trained or measured again, and one whose
    training was stopped is resumed, so a stopped sweep loses nothing.

    Args:
        output: folder; each prompt has a folder of its name in it, with its file, curve and scores.
        model: name of a packaged model, for example "mini" or "sd2-1".
        names: experiments of the table.
        variants: further rows by name, each the fields in which it differs from the experiment `single`; see
            `variant_config`.
        seed: of the initial prompts, the order of the pairs and the noise.
        overrides: changes `a.b=c` to all experiments.
        split: split that is measured; prompts are always selected on the validation split.
        device: device of all computations, for example "cpu" or "cuda".
        callbacks: functions to call during the sweep.

    Returns:
        The report of all prompts, with the paired differences that the paper's tables show.

    Raises:
        ConfigError: there is no such experiment or model, no data set is named, or the rows differ in backbone, data or
            evaluation.
        InputError: the folder of a prompt holds something else than an earlier sweep.

    Warns:
        DamagedScoresWarning: scores of an earlier sweep are damaged.
    """
    started, callbacks = time.perf_counter(), callbacks or SweepCallbacks()
    overrides = list(overrides)
    configs = sweep_configs(names, variants or {}, model=model, seed=seed, overrides=overrides)
    shared = _shared_config(configs)
    folder = as_path(output, what="output")
    check_sweep_output(folder, configs)
    data = chosen_pairs(shared, build_dataset(shared, split))
    backbone = cached(shared.backbone.build(device=device), shared.cache.open())
    measured: dict[str, _Measurement] = {}
    for name, config in configs.items():
        callbacks.on_start(name)
        origin = _origin(config, backbone, split)
        measured[name] = _read_scores(folder / name, origin) or _measure(
            name, config, backbone, data, folder / name, origin, callbacks
        )
    scores = {name: measurement.scores for name, measurement in measured.items()}
    return make_report(
        config=shared,
        data=data,
        results=[
            make_row(name, scores[name], config, extra={"prompt_config": config.prompt.model_dump(mode="json")})
            for name, config in configs.items()
        ],
        comparisons=[compare_prompts(shared, scores, a, b) for a, b in _comparisons(variants or {}, scores)],
        backbone=backbone_entry(shared, backbone),
        wall_seconds=time.perf_counter() - started,
        extra={"split": split, "seconds": {name: measurement.seconds for name, measurement in measured.items()}},
    )


def _comparisons(variants: Iterable[str], rows: Collection[str]) -> list[tuple[str, str]]:
    """Return which rows are compared: those of the paper's tables, and each variant with text and single."""
    wanted = [*_COMPARISONS, *((name, other) for name in variants for other in ("text", "single"))]
    return [(a, b) for a, b in wanted if a in rows and b in rows]


def sweep_configs(
    names: Sequence[str],
    variants: Mapping[str, Any],
    *,
    model: str,
    seed: int,
    overrides: Iterable[str] = (),
) -> dict[str, ExperimentConfig]:
    """Return the experiments of a sweep by the names of their rows; arguments and errors as for `sweep_prompts`."""
    overrides = list(overrides)
    configs = {name: sweep_config(name, model=model, seed=seed, overrides=overrides) for name in names}
    for name, fields in variants.items():
        if name in PROMPTS:
            raise ConfigError(f"the name {name!r} is that of an experiment: give the variant another one")
        if not name or not all(character.isalnum() or character in "-_." for character in name) or name[0] == ".":
            raise ConfigError(f"the name of a variant is that of a folder, of letters, digits, - and _: {shown(name)}")
        configs[name] = variant_config(name, fields, model=model, seed=seed, overrides=overrides)
    return configs


def variant_config(
    name: str, fields: object, *, model: str, seed: int, overrides: Iterable[str] = ()
) -> ExperimentConfig:
    """Return the experiment `single` with other fields.

    Args:
        name: of the row, for messages.
        fields: as in a config file, for example `{"prompt": {"kind": "lora"}, "training": {"steps": 50}}`; or a single
            component, `{"kind": "lora", "rank": 4}`, whose sort is found by its kind.
        model: name of a packaged model.
        seed: of the sweep.
        overrides: changes `a.b=c`, applied last.

    Raises:
        ConfigError: a kind is unknown or of several sorts, or the fields make no experiment.

    >>> variant_config("mine", {"kind": "text", "template": "a {category}"}, model="mini", seed=0).prompt.template
    'a {category}'
    """
    if not isinstance(fields, Mapping) or not fields:
        raise ConfigError(f"the variant {name} must be fields of an experiment or a component, not {shown(fields)}")
    if "kind" in fields:
        fields = {_sort_of(fields["kind"], name): fields}
    own = {"model": model, "experiment": "single", **fields}
    return make_config(own, origin=f"the variant {name}", overrides=[*overrides, f"seed={seed}"])


def _sort_of(kind: object, name: str) -> str:
    """Return the field of an experiment that holds components of a kind."""
    sorts: dict[str, Registry[Any, Any]] = {
        "prompt": prompts, "matcher": matchers, "loss": losses, "pair_transform": pair_transforms,
        "backbone": backbones, "data": datasets,
    }  # fmt: skip
    found = [field for field, registry in sorts.items() if kind in registry.kinds()]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(f"the variant {name}: {shown(kind)} is a {' and a '.join(found)}: write {found[0]}: {{...}}")
    known = [kind for registry in sorts.values() for kind in registry.kinds()]
    raise ConfigError(f"the variant {name}: unknown kind {shown(kind)}; {choose_from(str(kind)[:80], known)}")


def sweep_config(name: str, *, model: str, seed: int, overrides: Iterable[str] = ()) -> ExperimentConfig:
    """Load an experiment with the seed and the changes of a sweep.

    Raises:
        ConfigError: there is no such experiment or model, or a change replaces the prompt by one of another kind.
    """
    config = load_experiment(name, model=model, overrides=[*overrides, f"seed={seed}"])
    kind = load_experiment(name, model=model).prompt.kind
    if config.prompt.kind != kind:
        raise ConfigError(f"prompt.kind cannot be changed in a sweep: {name} is of {a(kind)} prompt")
    return config


def check_sweep_output(output: Path, configs: Mapping[str, ExperimentConfig]) -> None:
    """Check, before any work is done, that a sweep loses nothing of the user's or of another run.

    Args:
        output: folder of the sweep.
        configs: of its experiments, by name.

    Raises:
        InputError: the folder, or that of an experiment in it, holds something else than an earlier sweep.
    """
    check_run_folder(output, "sweep")
    for name, config in configs.items():
        check_sweep_folder(output / name, can_resume=partial(can_resume, config, output / name))


def _shared_config(configs: Mapping[str, ExperimentConfig]) -> ExperimentConfig:
    """Return the first config, if all agree in the fields that the rows of a table must share.

    Raises:
        ConfigError: there is no config, or two of them differ; names the field.
    """
    if not configs:
        raise ConfigError(f"a sweep needs at least one experiment; {choose_from('', PROMPTS)}")
    (first_name, first), *others = configs.items()
    for name, config in others:
        for field in _SHARED_FIELDS:
            if getattr(config, field) != getattr(first, field):
                raise ConfigError(f"{name} and {first_name} differ in {field}: no table can hold both")
    return first


def _origin(config: ExperimentConfig, backbone: Backbone, split: Split) -> dict[str, Any]:
    """Return what scores depend on; scores of the same origin need not be measured again."""
    return {
        "config": config.model_dump(mode="json"),
        "split": split,
        "fingerprint": backbone.fingerprint,
        "library_version": __version__,
    }


def _read_scores(folder: Path, origin: Mapping[str, Any]) -> _Measurement | None:
    """Read the scores that an earlier sweep wrote; None if there are none, or they are of another origin or damaged."""
    file = folder / SCORES_FILE
    if not exists(file):
        return None
    try:
        content = read_json(file, what="scores")
        if not isinstance(content, dict):
            raise InputError(f"must hold fields, not {shown(content)}")
        if "scores" not in content or any(content.get(field) != value for field, value in origin.items()):
            return None
        if not isinstance(content["scores"], dict):
            raise InputError(f"scores must be fields, not {shown(content['scores'])}")
        return _Measurement(
            PairScores.from_json(content["scores"]), check_number("seconds", content.get("seconds"), 0.0)
        )
    except InputError as error:
        warnings.warn(f"{file} is damaged: {error}; the prompt is measured again", DamagedScoresWarning, stacklevel=3)
        return None


def _measure(
    name: str,
    config: ExperimentConfig,
    backbone: Backbone,
    data: PairDataset,
    folder: Path,
    origin: Mapping[str, Any],
    callbacks: SweepCallbacks,
) -> _Measurement:
    """Train a prompt if it has parameters, measure it, and write its scores."""
    started = time.perf_counter()
    resume = can_resume(config, folder)
    _write_scores(folder, origin)  # from now on, what is in the folder is of this sweep
    components = build_components(config, backbone=backbone)
    if any(map(learns, (components.prompt, components.matcher, components.pair_transform))):
        train_in_folder(
            config, components, folder, resume=resume,
            callbacks=TrainerCallbacks(on_step=lambda run: callbacks.on_step(name, run.step)),
        )  # fmt: skip
    measured = evaluate_prompts(
        config,
        components,
        data,
        {name: components.prompt},
        scratch=folder,
        progress=lambda name, what, done, total: callbacks.on_evaluation_progress(name, done, total),
    )
    measurement = _Measurement(measured[0].scores, round(time.perf_counter() - started, 1))
    _write_scores(folder, {**origin, "seconds": measurement.seconds, "scores": measurement.scores.to_json()})
    return measurement


def _write_scores(folder: Path, content: Mapping[str, Any]) -> None:
    write_atomically(folder / SCORES_FILE, (json.dumps(content, allow_nan=False) + "\n").encode())
