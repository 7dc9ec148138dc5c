"""A matcher, a loss and a prompt provider that live here and nowhere in src."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
import yaml
from torch import nn

from sd4match.config.experiment import build, build_dataset, load_config
from sd4match.matching.correlation import photo_to_cells
from sd4match.matching.functional import log_match_probability
from sd4match.matching.matchers import matches_at
from sd4match.prompting.config import PromptConfig
from sd4match.prompting.tokens import encode_slots
from sd4match.registry import ComponentConfig, losses, matchers, prompts
from sd4match.structures.tensors import ParameterGroup, PromptEmbedding


class CentreMatcher:
    def __init__(self, *, pull: float) -> None:
        self.pull = pull

    def __call__(self, correlation):
        height, width = correlation.values.shape[-2:]
        centre = torch.tensor([width - 1, height - 1]) / 2 * self.pull
        return matches_at(centre.expand(*correlation.values.shape[:2], 2), correlation, temperature=1.0)


class CentreMatcherConfig(ComponentConfig):
    kind: Literal["centre"] = "centre"
    pull: float = 1.0
    implementation = CentreMatcher


class RoundedLoss:
    """Cross-entropy at the rounded true cell."""

    def __call__(self, correlation, targets):
        cells = photo_to_cells(targets.points, correlation.target).round().long()
        width = correlation.values.shape[-1]
        log_probability = log_match_probability(correlation.values, temperature=0.2).flatten(2)
        index = (cells[..., 1] * width + cells[..., 0]).clamp(0, log_probability.shape[-1] - 1)
        picked = log_probability.gather(2, index[..., None])[..., 0]
        return -(picked * targets.visible).sum() / targets.visible.sum().clamp(min=1)


class RoundedLossConfig(ComponentConfig):
    kind: Literal["rounded"] = "rounded"
    implementation = RoundedLoss


class SuffixPrompt(nn.Module):
    """A few vectors after BOS for each photo's own size class: scope image."""

    scope = "image"

    def __init__(self, *, backbone, slots):
        super().__init__()
        self.config = SuffixPromptConfig(slots=slots)
        self.vectors = nn.Parameter(torch.zeros(slots, backbone.text.width))
        self._text = [backbone.text]

    def forward(self, images, partners=None):
        return PromptEmbedding(encode_slots(self._text[0], self.vectors[None].expand(len(images), -1, -1)))

    def parameter_groups(self):
        return [ParameterGroup("vectors", (self.vectors,))]


class SuffixPromptConfig(PromptConfig):
    kind: Literal["suffix"] = "suffix"
    slots: int = 2
    implementation = SuffixPrompt


@pytest.fixture
def registered():
    for registry, config in (
        (matchers, CentreMatcherConfig),
        (losses, RoundedLossConfig),
        (prompts, SuffixPromptConfig),
    ):
        registry.register(config)
    yield
    for registry, kind in ((matchers, "centre"), (losses, "rounded"), (prompts, "suffix")):
        del registry._configs[kind]


YAML = """
prompt: {kind: suffix, slots: 3}
matcher: {kind: centre, pull: 0.5}
loss: rounded
data: {kind: synthetic, pairs: 4, photos_per_category: 3}
training: {steps: 2, batch_size: 2, validate_every: 2}
evaluation: {sampling: {timestep: 40, ensemble_size: 1}}
"""


def test_foreign_components_are_trained_saved_and_matched_from_yaml(registered, tmp_path):
    from sd4match import SemanticMatcher, registry
    from sd4match.cli.train import learn
    from sd4match.config.experiment import parse_config

    file = tmp_path / "mine.yaml"
    file.write_text(YAML)
    config = load_config(file)
    assert parse_config(config.to_yaml(), origin="again") == config
    parts = build(config)
    assert isinstance(parts.matcher, CentreMatcher)
    assert isinstance(parts.loss, RoundedLoss)
    run = learn(config, parts, tmp_path / "out", prompt_file=tmp_path / "out" / "suffix.safetensors")
    assert len(run.losses) == 2
    matcher = SemanticMatcher.from_config(config, prompt=tmp_path / "out" / "suffix.safetensors")
    photo = build_dataset(config, "test").photo("fish-0")
    result = matcher.match(photo, photo, points=[(1, 1)])
    assert result.target_points.tolist() == [[23.75, 23.75]] or abs(result.target_points - 24).max() < 1
    assert "centre" in registry.matchers.kinds()


def test_one_class_and_one_line(tmp_path):
    """A provider that is registered by its signature goes the whole way."""
    from sd4match.cli.train import learn
    from sd4match.config.experiment import parse_config
    from sd4match.errors import ConfigError
    from sd4match.prompting.register import register_prompt
    from sd4match.prompting.serialization import load_prompt

    @register_prompt("by-signature")
    class BySignature(SuffixPrompt):
        scope = "category"

        def __init__(self, *, backbone, slots: int = 2, note: str):
            super().__init__(backbone=backbone, slots=slots)
            self.note = note

    try:
        with pytest.raises(ConfigError, match="note: Field required"):
            prompts.parse("by-signature")
        with pytest.raises(ConfigError, match="unknown field 'slosts'; did you mean 'slots'"):
            prompts.parse({"kind": "by-signature", "note": "", "slosts": 3})
        tree = yaml.safe_load(YAML) | {"matcher": "nearest_neighbor", "loss": "gaussian_cross_entropy"}
        tree["prompt"] = {"kind": "by-signature", "note": "x"}
        config = parse_config(yaml.safe_dump(tree), origin="test")
        assert config.prompt.needs_category
        parts = build(config)
        learn(config, parts, tmp_path)
        again = load_prompt(tmp_path / "prompt.safetensors", backbone=parts.backbone)
        assert torch.equal(again.vectors, parts.prompt.vectors)
        assert (again.note, again.config.slots) == ("x", 2)
    finally:
        del prompts._configs["by-signature"]
