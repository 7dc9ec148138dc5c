"""Sweep over prompts: training and measurement of each prompt of the ablation tables, in one report."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from sd4match.arguments import check_arguments
from sd4match.config.experiment import ExperimentConfig, make_config
from sd4match.config.presets import load_experiment
from sd4match.data.config import Split
from sd4match.distributed import Processes
from sd4match.errors import ConfigError, a, choose_from, shown
from sd4match.evaluation.report import Report, backbone_entry, make_report, make_row
from sd4match.evaluation.run import compare_prompts
from sd4match.paths import as_path
from sd4match.registry import Registry, backbones, datasets, losses, matchers, pair_transforms, prompts
from sd4match.training.measuring import Bench, Job, SweepCallbacks, check_jobs, row_record

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
"""Compared rows (a, b): every prompt with text, and the differences in the paper's tables."""
_SHARED_FIELDS = ("backbone", "data", "evaluation")
"""Fields of the config in which the experiments of a table must agree."""


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

    A prompt of the same config whose scores are in `output` is not trained or measured again, and a stopped training is
    resumed, so a stopped sweep can be continued.

    Args:
        output: folder; each prompt has a subfolder of its name, with its file, curve and scores.
        model: name of a packaged model, for example "mini" or "sd2-1".
        names: experiments of the table.
        variants: further rows by name, as fields that differ from the experiment `single`; see `variant_config`.
        seed: seed of the initial prompts, the order of the pairs and the noise.
        overrides: changes `a.b=c` to all experiments.
        split: split that is measured; prompts are always selected on the validation split.
        device: device of all computations, for example "cpu" or "cuda".
        callbacks: functions to call during the sweep.

    Returns:
        The report of all prompts, with the paired differences that the paper's tables show.

    Raises:
        ConfigError: there is no such experiment or model, no data set is given, or the rows differ in backbone, data or
            evaluation.
        InputError: the folder of a prompt holds other files than those of an earlier sweep.

    Warns:
        DamagedScoresWarning: scores of an earlier sweep are damaged.
    """
    started, callbacks = time.perf_counter(), callbacks or SweepCallbacks()
    overrides = list(overrides)
    configs = sweep_configs(names, variants or {}, model=model, seed=seed, overrides=overrides)
    shared = _shared_config(configs)
    folder = as_path(output, what="output")
    jobs = prompt_jobs(folder, configs)
    Processes().on_main(lambda: check_jobs(folder, jobs))
    bench = Bench(split, device, callbacks)
    measured = {name: bench.measure(name, job) for name, job in jobs.items()}
    scores = {name: measurement.scores for name, measurement in measured.items()}
    return make_report(
        config=shared,
        data=bench.pairs(shared),
        results=[
            make_row(name, scores[name], job.config, extra=row_record(job, shared, folder))
            for name, job in jobs.items()
        ],
        comparisons=[compare_prompts(shared, scores, a, b) for a, b in _comparisons(variants or {}, scores)],
        backbone=backbone_entry(shared, bench.backbone(shared)),
        wall_seconds=time.perf_counter() - started,
        extra={"split": split, "seconds": {name: measurement.seconds for name, measurement in measured.items()}},
    )


def _comparisons(variants: Iterable[str], rows: Collection[str]) -> list[tuple[str, str]]:
    """Return the pairs of rows to compare: those of the paper's tables, and each variant with text and single."""
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
    """Return the experiments of a sweep by name of the row; arguments and errors are those of `sweep_prompts`."""
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
        name: name of the row, for messages.
        fields: as in a config file, for example `{"prompt": {"kind": "lora"}, "training": {"steps": 50}}`; or a single
            component, `{"kind": "lora", "rank": 4}`, whose field is found by its kind.
        model: name of a packaged model.
        seed: seed of the sweep.
        overrides: changes `a.b=c`, applied last.

    Raises:
        ConfigError: a kind is unknown or ambiguous, or the fields make no experiment.

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


def prompt_jobs(output: Path, configs: Mapping[str, ExperimentConfig]) -> dict[str, Job]:
    """Return the jobs of a sweep over prompts by name of the row, each in a folder of that name."""
    return {name: Job(config, output / name) for name, config in configs.items()}


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
