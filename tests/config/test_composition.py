"""What a config takes from which packaged file: settings of one model never run on another."""

from __future__ import annotations

import json
import shutil
from typing import ClassVar, Literal

import pytest

from sd4match.backbones.pretrained import MINI_FOLDER
from sd4match.config import ExperimentConfig, TrainingConfig, load_config, load_preset, parse_config
from sd4match.config.composition import compose, preset_names, read_fields, read_packaged
from sd4match.data.config import DatasetConfig
from sd4match.errors import CheckpointError, ConfigError
from sd4match.prompting.config import PromptConfig, SinglePromptConfig
from sd4match.registry import Component, datasets, matchers, prompts
from sd4match.testing import FakeBackbone

GROUPS = ("matcher", "loss", "training", "evaluation")


def settings(config):
    """The groups that a model's file decides."""
    return [getattr(config, group) for group in GROUPS]


def read(text, *overrides):
    return parse_config(text, origin="text", overrides=overrides)


MINI, SD = load_preset("mini-single"), load_preset("sd2-1-single")
PAPER = ExperimentConfig()


def test_the_settings_of_any_other_model_are_the_defaults():
    fields = read_fields("other-model.yaml")
    assert settings(ExperimentConfig(**fields)) == settings(PAPER)
    assert settings(SD) == settings(PAPER) != settings(MINI)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", MINI),
        ("{}", MINI),
        ("prompt: {kind: single}", MINI),
        ("prompt: single", MINI),
        ("backbone: {weights: mini}", MINI),
        ("backbone: stable_diffusion", MINI),
        ("backbone: {kind: stable_diffusion, layers: [1, 2]}", MINI),
        (f"backbone: {{weights: {MINI_FOLDER}}}", MINI),
        ("backbone: {weights: sd2-1}", SD),
        ("backbone: {kind: stable_diffusion, weights: sd1-5}", SD),
        ("backbone: {weights: cleandift-sd2-1}", SD),
        ("{backbone: {kind: vision_transformer}, prompt: none}", SD),
        ("{model: mini, backbone: {weights: sd2-1}}", SD),
        ("{model: sd2-1, backbone: {weights: mini}}", MINI),
        ("{preset: mini-single, backbone: {weights: sd2-1}}", SD),
        ("{preset: sd2-1-single, backbone: {weights: mini}}", MINI),
        ("{preset: cpm, backbone: {kind: vision_transformer}, prompt: none}", SD),
        ("{backbone: {kind: fusion, backbones: [vision_transformer, stable_diffusion]}, prompt: single}", MINI),
        ("{backbone: {kind: fusion, backbones: [{kind: stable_diffusion, weights: sd2-1}, vision_transformer]}}", SD),
    ],
)  # fmt: skip
def test_a_file_has_the_settings_of_the_model_it_names(text, expected):
    config = read(text)
    assert settings(config) == settings(expected)
    assert read(config.to_yaml()) == config


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("prompt: single", "synthetic"),
        ("backbone: {layers: 2}", "synthetic"),
        ("data: null", None),
        ("backbone: {weights: sd2-1}", None),
        (f"backbone: {{weights: {MINI_FOLDER}}}", None),
        ("{backbone: {kind: vision_transformer}, prompt: none}", None),
        ("{backbone: {kind: fusion, backbones: [stable_diffusion, vision_transformer]}}", None),
        ("{model: mini, backbone: {weights: sd2-1}}", None),
        ("{backbone: {weights: sd2-1}, data: {kind: spair, root: x}}", "spair"),
    ],
)
def test_the_data_of_a_model_s_file_is_for_its_own_weights(text, kind):
    config = read(text)
    assert (config.data and config.data.kind) == kind


@pytest.mark.parametrize(
    ("preset", "overrides", "expected"),
    [
        ("single", ["backbone.weights=sd2-1"], SD),
        ("single", ["backbone.weights=sd1-5"], SD),
        ("sd2-1-single", ["backbone.weights=mini"], MINI),
        ("sd2-1-single", ["model=mini"], MINI),
        ("single", ["preset=sd2-1-single"], SD),
        ("single", ["backbone={kind: stable_diffusion, weights: sd2-1}"], SD),
        ("single", ["prompt.kind=none", "backbone.kind=vision_transformer"], SD),
    ],
)
def test_an_override_of_the_weights_takes_their_settings(preset, overrides, expected):
    assert settings(load_preset(preset, overrides)) == settings(expected)


def test_what_the_user_set_stays():
    config = load_preset("single", ["backbone.weights=sd2-1", "loss.temperature=0.1", "training.steps=7"])
    assert (config.loss.temperature, config.training.steps, config.training.sampling.timestep) == (0.1, 7, 261)
    config = read("{preset: single, evaluation: {sampling: {timestep: 33}}}", "backbone.weights=sd2-1")
    assert (config.evaluation.sampling.timestep, config.evaluation.sampling.ensemble_size) == (33, 8)


def test_a_folder_has_the_settings_of_its_architecture(tmp_path):
    for name in ("copy", "other"):
        shutil.copytree(MINI_FOLDER, tmp_path / name, ignore=shutil.ignore_patterns("*.safetensors"))
    declared = tmp_path / "other" / "unet" / "config.json"
    declared.write_text(json.dumps({**json.loads(declared.read_text()), "attention_head_dim": 2}))
    copy, other = (f"backbone.weights={tmp_path / name}" for name in ("copy", "other"))
    assert settings(load_preset("single", [copy])) == settings(MINI)
    assert load_preset("cpm", [copy]).prompt == load_preset("cpm").prompt
    assert settings(load_preset("sd2-1-single", [copy])) == settings(MINI)
    assert settings(load_preset("single", [other])) == settings(PAPER)
    assert settings(read("", other)) == settings(PAPER)
    assert read("", other, "matcher.sigma=3").matcher.sigma == 3
    with pytest.raises(CheckpointError, match="no model"):
        load_preset("single", ["backbone.weights=no-such-folder"])


def test_a_preset_is_a_key_of_a_file(tmp_path):
    file = tmp_path / "mine.yaml"
    for name in preset_names():
        file.write_text(f"preset: {name}\n")
        assert load_config(file) == load_preset(name)
    file.write_text("preset: mini-single\ntraining: {steps: 7}\nprompt: {num_tokens: 5}\n")
    config = load_config(file, ["training.batch_size=2"])
    assert (config.training.steps, config.training.batch_size, config.prompt.num_tokens) == (7, 2, 5)
    assert config.loss == MINI.loss
    assert load_config(file, ["model=sd2-1"]).backbone.weights == "sd2-1"
    file.write_text("preset: mini-single\ntraining: {steps: 7}\n")
    assert load_config(file, ["preset=dift"]).matcher.kind == "pixel_nearest_neighbor"
    file.write_text("preset: dift\nprompt: {kind: empty}\n")
    assert load_config(file).prompt.kind == "empty"
    assert load_config(file).evaluation == load_preset("dift").evaluation


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("{preset: single, model: mini}", [], "preset stands for a model and an experiment: leave model out"),
        ("{preset: single, experiment: cpm}", [], "leave experiment out"),
        ("{preset: dift, model: mini, experiment: cpm}", [], "leave model and experiment out"),
        ("{}", ["preset=single", "model=sd2-1"], "leave model out"),
        ("preset: dift", ["model=sd1-5"], "preset = dift is for a model of its own: model cannot be changed"),
        ("preset: dift", ["experiment=cpm"], "experiment cannot be changed"),
        ("preset: sinlge", [], "unknown preset 'sinlge'; did you mean 'single'"),
        ("preset: null", [], "the name of a preset must be text, not None"),
        ("preset: [single]", [], "the name of a preset must be text"),
        ("experiment: cpm", [], "experiment = 'cpm' needs a model"),
        ("experiment: cpm", ["model=null"], "needs a model"),
    ],
)
def test_names_that_do_not_go_together(text, overrides, message):
    with pytest.raises(ConfigError, match=message):
        read(text, *overrides)


def test_another_kind_drops_the_fields_of_the_old_one():
    assert load_preset("single", ["prompt.kind=text"]).prompt == read("{model: mini, prompt: text}").prompt
    config = load_preset("single", ["prompt.num_tokens=5", "prompt.kind=text", "prompt.template=the {category}"])
    assert config.prompt.template == "the {category}"
    assert load_preset("single", ["prompt.kind=single", "prompt.num_tokens=5"]).prompt.num_tokens == 5
    assert load_preset("single", ["prompt.num_tokens=5", "prompt.kind=single"]).prompt.num_tokens == 5
    assert (
        load_preset("single", ["matcher.sigma=3", "matcher.kind=nearest_neighbor"]).matcher.kind == "nearest_neighbor"
    )
    assert load_preset("cpm", ["prompt.image_encoder.kind=dinov2"]).prompt.image_encoder.weights
    assert load_preset("sd-dino", ["pair_transform=null", "backbone.kind=stable_diffusion", "backbone.frame=pad"])
    fields = {"prompt": {"kind": "single", "num_tokens": 5}}
    overrides = ["prompt={kind: single}", "prompt.num_tokens=5", "prompt.kind=text", "backbone.weights=sd2-1"]
    assert compose(fields, overrides)["prompt"] == {"kind": "text"}
    assert fields == {"prompt": {"kind": "single", "num_tokens": 5}}
    with pytest.raises(ConfigError, match="unknown prompt kind 'lora'"):
        load_preset("single", ["prompt.kind=lora"])
    assert read_packaged("experiments", "single") == {"prompt": {"kind": "single"}}


class PartConfig(PromptConfig):
    kind: Literal["test_part"] = "test_part"
    seed: int = 0


class JoinedConfig(PromptConfig):
    kind: Literal["test_joined"] = "test_joined"
    parts: tuple[object, ...] = ()
    named: Component | None = None

    def __init__(self, /, **fields):
        parts = tuple(prompts.parse(part) for part in fields.get("parts", ()))
        super().__init__(**{**fields, "parts": parts})


@pytest.fixture
def joined():
    with prompts.temporarily():
        prompts.register(PartConfig)
        prompts.register(JoinedConfig)
        yield


def test_the_seed_reaches_every_part_of_a_prompt(joined):
    text = "{seed: 3, prompt: {kind: test_joined, parts: [single, {kind: test_part, seed: 5}, text, "
    text += "{kind: test_joined, parts: [test_part]}]}}"
    config = read(text)
    single, own, _, inner = config.prompt.parts
    assert (single.seed, own.seed, inner.parts[0].seed) == (3, 5, 3)
    assert config.training.seed == 3
    config = ExperimentConfig(seed=3, prompt=SinglePromptConfig(), training=TrainingConfig(steps=5))
    assert (config.prompt.seed, config.training.seed, config.training.steps) == (3, 3, 5)
    config = ExperimentConfig(seed=3, prompt=SinglePromptConfig(seed=0), training={"seed": 0})
    assert (config.prompt.seed, config.training.seed) == (0, 0)
    assert read("{seed: 3, prompt: empty}").prompt.kind == "empty"
    with pytest.raises(ConfigError, match="prompt: unknown prompt kind 'sinlge'"):
        ExperimentConfig(seed=3, prompt="sinlge")


def test_a_prompt_that_needs_categories_is_refused_for_data_without(joined):
    class Bare(DatasetConfig):
        kind: Literal["test_bare"] = "test_bare"
        has_categories: ClassVar[bool] = False

    with datasets.temporarily():
        datasets.register(Bare)
        with pytest.raises(
            ConfigError, match=r"prompt.kind = 'text' needs categories, and data.kind = 'test_bare' has"
        ):
            ExperimentConfig(prompt="text", data="test_bare")
        with pytest.raises(NotImplementedError, match="Bare does not define build"):
            Bare().build()
    for config in (PartConfig(), PromptConfig(kind="x")):
        with pytest.raises(NotImplementedError, match="does not define build"):
            config.build(backbone=FakeBackbone())
    with pytest.raises(ConfigError, match=r"set backbone\.frame=pad"):
        read("{evaluation: {protocol: geoaware}}")


def test_a_training_whose_best_prompt_cannot_be_selected_is_refused_before_it_starts():
    from sd4match.training.run import check_trainable

    check_trainable(MINI)
    config = load_preset("single", ["evaluation.protocol.alphas=[0.01, 0.05]"])  # an evaluation may have these
    with pytest.raises(ConfigError, match=r"alphas = \[0.01, 0.05\] must contain 0.1"):
        check_trainable(config)
    with pytest.raises(ConfigError, match="pair_transform is for matching"):
        check_trainable(load_preset("single", ["pair_transform=co_pca"]))


def test_a_registry_refuses_a_component_without_a_name():
    class Odd(Component):
        registry: ClassVar = matchers
        kind: Literal[""] = ""

    for kind in ("", " ", None, 5, ["a"]):
        with pytest.raises(ConfigError, match="the kind of a matcher must be a name"):
            matchers.register_class(kind)
    with pytest.raises(ConfigError, match="fixed kind"):
        matchers.register(Odd)
