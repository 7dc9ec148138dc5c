"""Many experiments of one kind, one report: the ablation table of prompts."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sd4match import registry
from sd4match.backbones.cached import cached
from sd4match.config.experiment import ExperimentConfig, build, build_dataset, load_preset
from sd4match.data.config import Split
from sd4match.errors import ConfigError, InputError, choose_from
from sd4match.evaluation.report import backbone_entry, make_report, result
from sd4match.evaluation.run import chosen_pairs, compare_prompts, evaluate_prompts
from sd4match.evaluation.scores import PairScores
from sd4match.interfaces import Backbone
from sd4match.io.files import write_atomically
from sd4match.training.history import Watch
from sd4match.training.run import can_go_on, learn
from sd4match.version import __version__

PROMPTS = (
    "empty", "text", "implicit-captioner", "single", "class", "cpm", "cpm-global-features", "cpm-single-image",
    "cpm-single-image-global-features", "cpm-no-global-prompt", "cpm-no-patch-mixing",
)  # fmt: skip
"""The presets of the table, in the order of the paper's Tabs. 1 to 3 and Fig. 3."""


@dataclass
class Progress:
    """What a sweep tells of its way; each is a function that does nothing unless given."""

    on_start: Callable[[str], None] = lambda name: None
    on_step: Callable[[str, int], None] = lambda name, step: None
    on_measured: Callable[[str, int, int], None] = lambda name, done, total: None


def sweep_prompts(
    output: Path,
    *,
    model: str = "mini",
    names: Sequence[str] = PROMPTS,
    seed: int = 0,
    overrides: Iterable[str] = (),
    split: Split = "test",
    device: str = "cpu",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Learn and measure each prompt on one model, with one seed and one number of steps.

    A prompt that `output` already holds with the same config is not learned again, and one that was being learned goes
    on from its last checkpoint, so a stopped sweep loses nothing.

    Args:
        output: a folder; each prompt leaves its file, curve and scores in a folder of its name.
        model: "mini", or another model that presets exist for.
        names: presets, without the model.
        seed: of the initial prompts, the order of pairs and the noise.
        overrides: `a.b=c` changes to all of them.
        split: what is measured; prompts are always chosen on the validation split.
        device: where it runs.
        progress: what it tells of its way.

    Returns:
        The report; see `evaluation.report`.

    Raises:
        ConfigError: no such preset, or presets that do not share a backbone, a matcher, data and evaluation.
    """
    started, progress = time.perf_counter(), progress or Progress()
    configs = {name: sweep_config(f"{model}-{name}", seed, list(overrides)) for name in names}
    if not configs:
        raise ConfigError(f"a sweep needs at least one preset; {choose_from('', PROMPTS)}")
    first = next(iter(configs.values()))
    for name, config in configs.items():
        for field in ("backbone", "matcher", "data", "evaluation"):
            if getattr(config, field) != getattr(first, field):
                raise ConfigError(f"{model}-{name} and {model}-{names[0]} differ in {field}: no table can hold both")
    backbone = cached(registry.backbones.build(first.backbone, device=device), first.cache.open())
    scores: dict[str, PairScores] = {}
    seconds: dict[str, float] = {}
    for name, config in configs.items():
        progress.on_start(name)
        folder = output / name
        scores[name], seconds[name] = _kept(folder, _origin(config, backbone, split)) or _measure(
            folder, config, backbone, split=split, name=name, progress=progress
        )
    return make_report(
        config=first,
        data=chosen_pairs(first, build_dataset(first, split)),
        results=[
            result(name, scores[name], config) | {"prompt_config": config.prompt.model_dump(mode="json")}
            for name, config in configs.items()
        ],
        comparisons=[compare_prompts(first, scores, a, b) for a, b in _comparisons(configs)],
        backbone=backbone_entry(first, backbone),
        wall_seconds=time.perf_counter() - started,
        extra={"split": split, "seconds": seconds},
    )


def sweep_config(preset: str, seed: int, overrides: list[str]) -> ExperimentConfig:
    """A preset with a sweep's seed and changes.

    Raises:
        ConfigError: no such preset, or a change that makes another prompt of it.
    """
    config = load_preset(preset, [*overrides, f"seed={seed}"])
    own = load_preset(preset).prompt.kind
    if config.prompt.kind != own:
        raise ConfigError(f"prompt.kind cannot be changed in a sweep: {preset} is of a {own} prompt")
    return config


def _origin(config: ExperimentConfig, backbone: Backbone, split: Split) -> dict[str, Any]:
    """What scores follow from; others with the same need not be measured again."""
    return {
        "config": config.model_dump(mode="json"),
        "split": split,
        "fingerprint": backbone.fingerprint,
        "library_version": __version__,
    }


def _kept(folder: Path, wanted: Mapping[str, Any]) -> tuple[PairScores, float] | None:
    """What an earlier sweep left there, if it was of the same experiment."""
    try:
        content = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or any(content.get(field) != value for field, value in wanted.items()):
        return None
    try:
        return PairScores.from_plain(content["scores"]), float(content["seconds"])
    except (KeyError, TypeError, ValueError, InputError):  # of another version, or damaged: measured again
        return None


def _comparisons(names: Mapping[str, object]) -> list[tuple[str, str]]:
    """Each learned prompt against text, and the steps that the paper's tables take."""
    wanted = [(name, "text") for name in PROMPTS if name != "text"]
    wanted += [("class", "single"), ("cpm", "single"), ("cpm", "class")]
    wanted += [("cpm", name) for name in PROMPTS if name.startswith("cpm-")]
    return [(a, b) for a, b in wanted if a in names and b in names]


def _measure(
    folder: Path, config: ExperimentConfig, backbone: Backbone, *, split: Split, name: str, progress: Progress
) -> tuple[PairScores, float]:
    started = time.perf_counter()
    parts = build(config, backbone=backbone)
    if parts.prompt.parameter_groups():
        watch = Watch(on_step=lambda run: progress.on_step(name, run.step))
        learn(config, parts, folder, resume=can_go_on(config, folder), watch=watch)
    data = build_dataset(config, split)
    measured = evaluate_prompts(
        config,
        parts,
        chosen_pairs(config, data),
        {name: parts.prompt},
        scratch=folder if folder.is_dir() else None,
        progress=lambda name, what, done, total: progress.on_measured(name, done, total),
    )
    scores = measured[0].scores
    seconds = round(time.perf_counter() - started, 1)
    content = {
        **_origin(config, backbone, split),
        "seconds": seconds,
        "scores": scores.to_plain(),
    }
    write_atomically(folder / "scores.json", (json.dumps(content) + "\n").encode())
    return scores, seconds
