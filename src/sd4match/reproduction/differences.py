"""Differences of a reproduction from the paper, found by comparing its experiments with the paper's field by field.

Importing this module loads no torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sd4match.config.composition import packaged_names
from sd4match.config.experiment import ExperimentConfig
from sd4match.config.presets import load_experiment
from sd4match.errors import shown
from sd4match.reproduction.settings import PAPERS_MODEL, ReproductionSettings

if TYPE_CHECKING:
    from sd4match.reproduction.run import PlannedRow
    from sd4match.reproduction.targets import Place, Target

Topic = Literal["training", "extent", "evaluation", "model", "data"]
_TOPICS: Sequence[Topic] = ("training", "extent", "evaluation", "model", "data")
_NO_DIFFERENCE = (
    "cache", "data", "training.per_device", "training.checkpoint_every", "training.keep_checkpoints",
    "training.trackers", "evaluation.batch_size", "evaluation.memory", "evaluation.matchers",
    "evaluation.bootstrap_samples", "backbone.passes_at_once", "backbone.channels_last",
    "backbone.gradient_checkpointing",
)  # fmt: skip
"""Fields that change no result, or that are compared in another way."""
_OF_TRAINING, _OF_EVALUATION = ("training", "loss", "prompt", "backbone"), ("evaluation", "matcher", "pair_transform")
_WORDS = {
    "training.steps": "training steps", "training.batch_size": "pairs a step", "evaluation.limit": "test pairs",
    "training.validate_every": "steps between validations", "training.validation_pairs": "validation pairs",
}  # fmt: skip
"""Counts that are named in words; None of them means all."""
_OF_PRESETS = ("training.steps", "training.batch_size")
"""Fields that are named even if the presets of the model decide them."""
_MODELS = {"sd2-1": "Stable Diffusion 2.1", "sd1-5": "Stable Diffusion 1.5"}


@dataclass(frozen=True)
class Difference:
    """Difference from the paper, in a phrase."""

    topic: Topic
    text: str


def differences_from_paper(
    target: Target, settings: ReproductionSettings, planned: Sequence[PlannedRow]
) -> tuple[str, ...]:
    """Return the differences of a target from the paper in training, measurement and drawing, a phrase each.

    Args:
        target: target of the paper.
        settings: model, data, extent and overrides.
        planned: rows of the target.
    """
    first_rows: dict[Place, PlannedRow] = {}
    for row in planned:
        first_rows.setdefault(row.position, row)
    found = dict.fromkeys(
        difference for row in first_rows.values() for difference in row_differences(target, settings, row)
    )
    texts = [difference.text for topic in _TOPICS for difference in found if difference.topic == topic]
    full = len(ReproductionSettings(reduced=False).timesteps)
    if target.figure == "lines" and len(settings.timesteps) < full:
        texts.append(f"{len(settings.timesteps)} timesteps instead of {full}")
    return tuple(texts)


def row_differences(target: Target, settings: ReproductionSettings, row: PlannedRow) -> list[Difference]:
    """Return the differences of one cell of the grid from the paper.

    Args:
        target: target of the paper.
        settings: model, data, extent and overrides.
        row: one seed of the cell.
    """
    prompted, condition = target.rows[row.position[0]], target.columns.get(row.position[1])
    found: list[Difference] = []
    if row.job.training is not None:
        theirs = prompted.trained_on or "spair"
        data = (theirs, "trained")
        found += _compared(row.job.training, settings, row, prompted.changes, data=data, fields=_OF_TRAINING)
    if target.figure != "images":
        theirs = (condition and condition.data) or "spair"
        changes = (*prompted.changes, *prompted.measured, *(condition.changes if condition else ()))
        fields = ("prompt", "backbone", *_OF_EVALUATION)
        found += _compared(row.job.config, settings, row, changes, data=(theirs, "measured"), fields=fields)
    if not target.measures:
        found = [difference for difference in found if difference.topic != "extent"]
    return list(dict.fromkeys(found))


def _compared(
    config: ExperimentConfig,
    settings: ReproductionSettings,
    row: PlannedRow,
    changes: Sequence[str],
    *,
    data: tuple[str, str],
    fields: Sequence[str],
) -> Iterator[Difference]:
    """Compare an experiment with the paper's: the model, the data, then single fields."""
    kind, verb = data
    sizes = [change for change in changes if change.startswith("backbone.image_size=")]  # these depend on the model
    changes = [change for change in changes if change not in sizes]
    overrides = (f"seed={row.seed}", f"data={json.dumps({'kind': kind, 'root': '.'})}", *changes)
    papers = _load(row.experiment, PAPERS_MODEL, overrides)
    bare = replace(settings, reduced=False, steps=None, pairs=None, overrides=())
    presets = bare.experiment(row.experiment, seed=row.seed, data=bare.main_data(), changes=changes)
    ours, theirs, usual = (_leaves(experiment.model_dump(mode="json")) for experiment in (config, papers, presets))
    own = ours["backbone.weights"]
    if own != theirs["backbone.weights"]:
        as_in_presets = [name for name in usual if usual[name] != theirs.get(name) and ours.get(name) == usual[name]]
        others = any(not name.startswith(("backbone", "data")) for name in as_in_presets)
        settled = " with the settings of its presets" if others else ""
        if own in packaged_names("models"):
            text = f"{_MODELS.get(str(own), own)}{settled} instead of {_MODELS[PAPERS_MODEL]}"
        else:
            text = f"the model in {Path(str(own)).name}{settled}, which may be another than {_MODELS[PAPERS_MODEL]}"
        yield Difference("model", text)
    yield from _of_data(config.require_data().model_dump(mode="json"), papers, verb)
    own_fields = ("backbone.weights", *(["backbone.image_size"] if sizes else []))
    other_kinds = tuple(
        name.removesuffix("kind") for name in theirs if name.endswith(".kind") and ours.get(name) != theirs[name]
    )
    for name in {**theirs, **ours}:
        value, published = ours.get(name), theirs.get(name)
        is_usual = name in usual and value == usual[name] and name not in _OF_PRESETS
        if value == published or is_usual or name in own_fields or not _is_under(name, fields):
            continue
        if _is_under(name, _NO_DIFFERENCE) or (name.startswith(other_kinds) and not name.endswith(".kind")):
            continue
        group = name.partition(".")[0]
        topic: Topic = "training" if group in ("training", "loss") else "evaluation"
        yield Difference("extent" if name == "evaluation.limit" else topic, _phrase(name, value, published))


@cache
def _load(name: str, model: str, overrides: tuple[str, ...]) -> ExperimentConfig:
    return load_experiment(name, model=model, overrides=overrides)


def _of_data(ours: Mapping[str, Any], papers: ExperimentConfig, verb: str) -> Iterator[Difference]:
    """Compare the data with the paper's."""
    theirs = papers.require_data().model_dump(mode="json")
    if ours["kind"] == "synthetic":
        number = ours["photos_per_category"]
        each = "" if number is None else f" ({number} of each category)"
        yield Difference("data", f"synthetic photos{each} instead of real ones")
    elif ours["kind"] != theirs["kind"]:
        yield Difference("data", f"{verb} on {ours['kind']} instead of {theirs['kind']}")
    else:
        for name, value in ours.items():
            if name not in ("root", "split") and value != theirs.get(name):
                yield Difference("data", _phrase(f"data.{name}", value, theirs.get(name)))


def _phrase(name: str, ours: object, theirs: object) -> str:
    """Return a difference in words.

    >>> _phrase("training.steps", 1, 30_000), _phrase("evaluation.limit", 4, None)
    ('1 training step instead of 30,000', '4 test pairs instead of all')
    >>> _phrase("training.learning_rate", 0.5, 0.01)
    'training.learning_rate = 0.5 instead of 0.01'
    """
    words = _WORDS.get(name)
    if words is None:
        return f"{name} = {shown(ours)} instead of {shown(theirs)}"
    counts = ["all" if count is None else f"{count:,}" for count in (ours, theirs)]
    return f"{counts[0]} {one_or_many(ours, words)} instead of {counts[1]}"


def one_or_many(count: object, words: str) -> str:
    """Return a plural, or its singular for 1.

    >>> one_or_many(1, "training steps"), one_or_many(2, "pairs a step"), one_or_many(1, "pairs a step")
    ('training step', 'pairs a step', 'pair a step')
    """
    if count != 1:
        return words
    first, _, rest = words.partition(" ")
    several = (first[:-1], rest) if first.endswith("s") else (first, rest.removesuffix("s"))
    return " ".join(word for word in several if word)


def _is_under(name: str, groups: Sequence[str]) -> bool:
    return any(name == group or name.startswith(f"{group}.") for group in groups)


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested mappings by their dotted path."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        found |= _leaves(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return found
