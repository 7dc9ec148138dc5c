"""Every preset trains, evaluates and matches on an accelerator with the CPU's numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from helpers.small_presets import small_preset
from sd4match import SemanticMatcher
from sd4match.config import build_components, preset_names
from sd4match.config.experiment import build_dataset
from sd4match.evaluation.run import evaluate_prompts
from sd4match.training import train

QUICK = {"dino"}
"""The others are slow tests."""
PRESETS = [
    pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow])
    for name in preset_names()
    if not name.startswith("mini-")  # other names of the presets without it
]


@dataclass
class Outcome:
    """What a preset gives on a device."""

    losses: list[float]
    validation: list[float]
    correct: np.ndarray
    points: np.ndarray
    scores: np.ndarray


def outcome(config, device, folder) -> Outcome:
    """Train a preset, if it learns, evaluate it, and match a pair with it."""
    components = build_components(config, device=device)
    losses, validation = [], []
    if any(parameter.requires_grad for parameter in components.prompt.parameters()):
        run = train(config, components, folder)
        losses, validation = run.losses, [pck for _, pck in run.validation]
    data = build_dataset(config, "test")
    (measured,) = evaluate_prompts(config, components, data, {"preset": components.prompt})
    record = data[0]
    matcher = SemanticMatcher.from_components(components, config)
    photos = data.photo(record.source_id), data.photo(record.target_id)
    result = matcher.match(*photos, record.source_points[record.visible], category=record.category)
    return Outcome(losses, validation, measured.scores.correct, result.target_points, result.scores)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_the_numbers_of_the_cpu(name, accelerator, close, small_models, tmp_path):
    config = small_preset(name, small_models)
    expected = outcome(config, "cpu", tmp_path / "cpu")
    with accelerator() as device:
        found = outcome(config, str(device), tmp_path / "accelerator")
    for what, value in vars(expected).items():
        close(getattr(found, what), value, of=what)
