"""Fakes are components like others: named by kind, built by an experiment, moved, trained, saved and loaded."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from sd4match import registry
from sd4match.config import ExperimentConfig, build_components, build_dataset, parse_config
from sd4match.errors import ConfigError, InputError
from sd4match.prompting import load_prompt
from sd4match.structures.images import Views
from sd4match.structures.tensors import PromptEmbedding, Sampling
from sd4match.testing import (
    FakeBackbone,
    FakeImageEncoder,
    FakePairs,
    FakeTextEncoder,
    pretend_accelerator,
    random_photo,
)
from sd4match.training import train

SORTS = ("backbones", "image_encoders", "datasets")
PROMPTS = {
    "none": None, "empty": {}, "text": {}, "single": {}, "class": {"categories": ["potted_plant"]},
    "cpm": {"image_encoder": "fake"}, "implicit_captioner": {"image_encoder": "fake"},
}  # fmt: skip


def test_they_are_kinds_once_the_package_is_imported_and_not_before():
    code = (
        "import sys; from sd4match import registry, cli\n"
        "kinds = lambda: ['fake' in getattr(registry, sort).kinds() for sort in sys.argv[1:]]\n"
        "before = kinds(); import sd4match.testing; assert not any(before) and all(kinds())\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, *SORTS], check=False).returncode == 0


@pytest.mark.parametrize("kind", [kind for kind in PROMPTS if kind != "none"])
def test_the_defaults_of_every_prompt_fit_on_a_fake_backbone(kind):
    assert set(PROMPTS) <= set(registry.prompts.kinds())
    config = ExperimentConfig(backbone="fake", prompt={"kind": kind, **PROMPTS[kind]}, data="fake")
    components = build_components(config)
    assert components.backbone.text_encoder.max_length == config.backbone.spec().max_length == 77
    assert components.backbone.spec == config.backbone.spec()


@pytest.mark.parametrize("prompt", ["single", "class", {"kind": "cpm", "image_encoder": "fake"}], ids=str)
def test_an_experiment_of_fakes_is_composed_trained_saved_and_loaded(prompt, tmp_path):
    config = ExperimentConfig(
        backbone={"kind": "fake", "side": 16}, prompt=prompt, data={"kind": "fake", "pairs": 4},
        training={"steps": 2, "batch_size": 2, "validate_every": 2, "sampling": {"timestep": 0}},
        evaluation={"sampling": {"timestep": 0}, "bootstrap_samples": 20},
    )  # fmt: skip
    assert parse_config(config.to_yaml(), origin="again") == config
    components = build_components(config)
    run = train(config, components, tmp_path)
    assert len(run.losses) == 2
    again = load_prompt(tmp_path / "prompt.safetensors", backbone=components.backbone)
    expected = components.prompt.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in again.state_dict().items())


def test_splits_are_of_the_same_photos_in_other_pairs():
    splits = {split: build_dataset(ExperimentConfig(data="fake"), split) for split in ("train", "validation", "test")}
    points = {split: tuple(data[0].source_points.flatten()) for split, data in splits.items()}
    assert len(set(points.values())) == 3
    assert points["test"] == tuple(FakePairs()[0].source_points.flatten())
    with pytest.raises(InputError, match="split must be 'train'"):
        FakePairs(split="val")


@pytest.mark.parametrize("side", [0, 30, 1 << 20, "wide"])
def test_a_side_that_is_no_multiple_of_4_is_refused(side):
    with pytest.raises(ConfigError):
        registry.backbones.parse({"kind": "fake", "side": side})
    with pytest.raises(InputError):
        FakeBackbone(side=side)


def test_texts_have_room_for_75_letters():
    text_encoder = FakeTextEncoder()
    assert text_encoder.tokenize(["a" * 75, ""]).shape == (2, 77)
    with pytest.raises(InputError, match="76 tokens; there is room for 75"):
        text_encoder.tokenize(["a" * 76])


def test_they_compute_where_they_are_moved_to():
    backbone, encoder = FakeBackbone(text_encoder=FakeTextEncoder()), FakeImageEncoder()
    views = Views.of([backbone.prepare(random_photo())])

    def compute(device):
        text_encoder = backbone.to(device).text_encoder
        prompt = PromptEmbedding(text_encoder.encode(text_encoder.embed(text_encoder.tokenize(["a cat"]))))
        local = encoder.to(device).encode(Views.of([encoder.prepare(random_photo())])).local
        return backbone.extract(backbone.encode(views), prompt, Sampling(0)).values, local

    expected = compute("cpu")
    with pretend_accelerator() as device:
        for found, values in zip(compute(device), expected, strict=True):
            assert found.device == device
            assert torch.equal(found.cpu(), values)
