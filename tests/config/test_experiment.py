from __future__ import annotations

import subprocess
import sys
from typing import ClassVar, Literal

import pytest
import yaml

from sd4match import registry
from sd4match.config import (
    ExperimentConfig,
    build_components,
    build_dataset,
    load_config,
    load_preset,
    parse_config,
    preset_names,
)
from sd4match.config.composition import packaged_names
from sd4match.config.presets import load_experiment
from sd4match.config.sections import EvaluationConfig
from sd4match.errors import CheckpointError, ConfigError, UnknownComponentError
from sd4match.registry import Component, Registry

MODELS = ("mini", "sd1-5", "sd2-1")
EXPERIMENTS = (
    "empty", "text", "implicit-captioner", "single", "class", "cpm", "cpm-global-features", "cpm-single-image",
    "cpm-single-image-global-features", "cpm-no-global-prompt", "cpm-no-patch-mixing",
)  # fmt: skip
FAST = tuple(f"{model}-{name}-fast" for model in ("sd1-5", "sd2-1") for name in ("single", "class", "cpm"))
BASELINES = ("cleandift", "dift", "dift-empty", "dift-fast", "dino", "dinov2", "hog", "sd-dino", "sd-dino-star")


def new_registry() -> Registry:
    return Registry("color", "example.colors", builtins="sd4match.errors", base="example:Color")


colors = new_registry()


class Color(Component):
    registry: ClassVar[Registry] = colors


class Red(Color):
    kind: Literal["red"] = "red"
    shade: float = 1.0

    def build(self):
        return {"shade": self.shade}


def test_a_taken_kind_and_incomplete_configs_are_refused():
    class AlsoRed(Color):
        kind: Literal["red"] = "red"

    class Kindless(Color):
        pass

    class Nothing(Color):
        kind: Literal["nothing"] = "nothing"

    class Foreign(Component):
        kind: Literal["foreign"] = "foreign"

    with colors.temporarily():
        colors.register(Red)
        colors.register(Red)  # the same class again is no conflict
        with pytest.raises(ConfigError, match="taken by Red"):
            colors.register(AlsoRed)
        with pytest.raises(ConfigError, match="fixed kind"):
            colors.register(Kindless)
        with pytest.raises(ConfigError, match=r"derive it from example\.Color"):
            colors.register(Foreign)
        with pytest.raises(ConfigError, match="only Component"):
            colors.register(dict)
        with pytest.raises(UnknownComponentError, match="did you mean 'red'"):
            colors.parse("rde")
        with pytest.raises(ConfigError, match="needs a kind"):
            colors.parse(3)
        assert colors.parse({"kind": "red", "shade": 2}).build() == {"shade": 2.0}
        with pytest.raises(NotImplementedError, match="does not define build"):
            colors.register(Nothing)().build()
    assert colors.kinds() == ()


def test_entry_points_are_found(monkeypatch):
    class Point:
        def load(self):
            return Red

    monkeypatch.setattr(registry, "entry_points", lambda group: [Point()] if group == "example.colors" else [])
    found = new_registry()
    monkeypatch.setattr(Color, "registry", found)
    assert found.kinds() == ("red",)


# presets


def test_every_experiment_of_the_paper_exists_on_every_model():
    assert packaged_names("models") == MODELS
    assert packaged_names("experiments") == tuple(sorted(EXPERIMENTS))
    assert set(preset_names()) == {
        *EXPERIMENTS, *BASELINES, *FAST, *(f"{model}-{name}" for model in MODELS for name in EXPERIMENTS),
    }  # fmt: skip
    for name in EXPERIMENTS:
        assert load_preset(name) == load_preset(f"mini-{name}")
        for model in MODELS:
            config = load_experiment(name, model=model)
            assert config == load_preset(f"{model}-{name}")
            assert config.backbone.model_name == model
        assert {load_preset(f"{model}-{name}").prompt.kind for model in MODELS} == {load_preset(name).prompt.kind}
    assert load_preset("sd1-5-cpm").prompt == load_preset("sd2-1-cpm").prompt
    assert load_preset("sd1-5-cpm").training == load_preset("sd2-1-cpm").training


@pytest.mark.parametrize("name", [n for n in preset_names() if n.startswith("mini")])
def test_presets_load_and_survive_the_way_through_yaml_and_json(name):
    config = load_preset(name)
    assert parse_config(config.to_yaml(), origin="again") == config
    assert ExperimentConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize("model", ["sd1-5", "sd2-1"])
def test_presets_of_real_weights_fit_a_folder_of_that_layout(other_model, model):
    for name in EXPERIMENTS:
        config = load_preset(f"{model}-{name}", [f"backbone.weights={other_model}"])
        assert config.backbone.layers == 1


def test_only_presets_on_mini_name_a_data_set():
    for name in preset_names():
        config = load_preset(name)
        assert (config.data is not None) == (config.backbone.model_name == "mini"), name
        if config.data is None:
            with pytest.raises(ConfigError, match="--dataset KIND --root FOLDER"):
                build_dataset(config, "test")
            assert parse_config(config.to_yaml(), origin="again") == config
    assert load_preset("sd2-1-cpm", ["data={kind: spair, root: x}"]).require_data().kind == "spair"
    assert load_preset("sd2-1-cpm", ["data.kind=synthetic", "data.pairs=3"]).require_data().pairs == 3


def test_the_data_of_mini_does_not_follow_other_weights(other_model):
    other = f"backbone.weights={other_model}"
    assert load_preset("single", [other]).data is None
    assert load_preset("single", ["backbone.weights=mini"]).data.kind == "synthetic"
    assert load_preset("single", [other, "data=synthetic"]).data.kind == "synthetic"
    assert load_preset("single", [other, "data.pairs=3"]).data.pairs == 3


def test_a_class_prompt_without_data_is_refused_before_weights_load(tmp_path, monkeypatch):
    config = load_preset("sd2-1-class")
    monkeypatch.setattr(type(config.backbone), "build", lambda *_, **__: pytest.fail("weights were loaded"))
    with pytest.raises(ConfigError, match=r"learned for the categories of a data set: give the file .*--dataset KIND"):
        build_components(config)


# files


def test_a_file_is_composed_of_a_model_and_an_experiment(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("model: sd2-1\nexperiment: cpm\n")
    assert load_config(file) == load_preset("sd2-1-cpm")
    assert load_config(file, ["model=mini"]) == load_preset("cpm")
    assert load_config(file, ["experiment=single"]) == load_preset("sd2-1-single")
    file.write_text(
        "model: sd2-1\nexperiment: cpm\nprompt: {num_tokens: 10}\ntraining: {steps: 7, sampling: {ensemble_size: 2}}\n"
        "data: {kind: spair, root: here}\nmatcher: nearest_neighbor\n"
    )
    config, base = load_config(file, ["training.batch_size=3"]), load_preset("sd2-1-cpm")
    assert config.prompt == base.prompt.model_copy(update={"num_tokens": 10})
    assert (config.training.steps, config.training.batch_size) == (7, 3)
    assert (config.training.sampling.timestep, config.training.sampling.ensemble_size) == (261, 2)
    assert (config.data.kind, config.matcher.kind, config.loss) == ("spair", "nearest_neighbor", base.loss)
    file.write_text("model: mini\nprompt: {kind: single}\n")
    assert load_config(file).prompt == load_preset("mini-single").prompt
    file.write_text("model: mini\nexperiment: single\nprompt: {kind: cpm, num_tokens: 10}\n")
    config = load_config(file, ["prompt.image_encoder.side=4"])
    assert (config.prompt.num_tokens, config.prompt.image_encoder.kind) == (10, "backbone")
    assert config.prompt.image_encoder.side == 4
    assert load_preset("mini-cpm").prompt.image_encoder.side == 8  # no packaged field was changed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("experiment: cpm", "experiment = 'cpm' needs a model: mini, sd1-5, sd2-1"),
        ("{model: sd2-2, experiment: cpm}", "unknown model 'sd2-2'; did you mean 'sd2-1'"),
        ("{model: mini, experiment: cmp}", "unknown experiment 'cmp'; did you mean 'cpm'"),
        ("{model: mini, data: {kind: spair}}", "root"),
    ],
)
def test_names_that_cannot_be_composed_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(text, origin="text")


def test_defaults_are_the_papers():
    config = ExperimentConfig()
    assert config.loss.temperature == config.matcher.temperature == 0.04
    assert (config.matcher.sigma, config.training.learning_rate, config.training.batch_size) == (7.0, 1e-2, 9)
    assert (config.training.sampling.timestep, config.evaluation.sampling.timestep) == (261, 50)
    assert config.evaluation.sampling.ensemble_size == 8
    assert load_preset("mini-single").loss.temperature == 0.15
    assert config.backbone.model_name == "mini"
    assert config.data is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("prompt.num_tokens=76", r"prompt.num_tokens = 76 .* 77 text tokens .* at most 75"),
        ("prompt.num_token=3", "unknown field 'num_token'; did you mean 'num_tokens'"),
        ("trainning.steps=3", "unknown field 'trainning'; did you mean 'training'"),
        ("training.stepss=3", "unknown field 'training.stepss'; did you mean 'steps'"),
        ("training.steps=many", "training.steps: .*integer"),
        ("training.sampling.timestep=1000", "training.sampling.timestep"),
        ("matcher=nearest", "unknown matcher kind 'nearest'; did you mean 'nearest_neighbor'"),
        ("matcher={kind: window_soft_argmax, window: 4}", "must be odd"),
        ("loss.kernel_size=4", "must be odd"),
        ("backbone.image_size=90", "backbone.image_size = 90 .* multiple of 16"),
        ("prompt={kind: text, template: 'a {thing}'}", "only {category}"),
        ("training.steps", "an override is FIELD=VALUE"),
        ("training.steps.deep=1", "not a group of fields"),
        ("prompt.num_tokens=[1", "not valid YAML"),
        ("evaluation.memory=much", "evaluation.memory: a size is written as"),
        ("evaluation.map_dtype=int8", "evaluation.map_dtype"),
        ("backbone.layer=1", "unknown field .*layer'; did you mean 'layers'"),
    ],
)
def test_what_cannot_work_is_refused_with_names(override, message):
    with pytest.raises(ConfigError, match=message):
        load_preset("mini-single", [override])


def test_constructing_a_config_wrongly_is_a_config_error():
    for fields in (
        {"prompt": "sinlge"},
        {"training": {"steps": 0}},
        {"backbone": {"kind": "stable_diffusion", "a": 1}},
    ):
        with pytest.raises(ConfigError):
            ExperimentConfig(**fields)
    with pytest.raises(ConfigError, match="memory: a size"):
        EvaluationConfig(memory="much")
    assert EvaluationConfig(memory="8 GB").memory == "8 GB"
    assert EvaluationConfig(memory=0).memory == "0"
    assert (EvaluationConfig().memory, EvaluationConfig().map_dtype) == (None, "float32")


def test_layer_and_folder_are_checked_before_weights_load(tmp_path):
    with pytest.raises(CheckpointError, match="its up-blocks are 0 to 2"):
        load_preset("mini-single", ["backbone.layers=3"])
    with pytest.raises(CheckpointError, match="no model "):
        load_preset("mini-single", [f"backbone.weights={tmp_path / 'none'}"])
    with pytest.raises(CheckpointError, match=r"unet/config.json.* missing"):
        load_preset("mini-single", [f"backbone.weights={tmp_path}"])


def test_files_that_are_no_config(tmp_path):
    with pytest.raises(ConfigError, match="unknown preset 'mini-sinlge'; did you mean 'mini-single'"):
        load_preset("mini-sinlge")
    with pytest.raises(ConfigError, match="no such config file"):
        load_config(tmp_path / "none.yaml")
    bad = tmp_path / "bad.yaml"
    bad.write_text("a: [")
    with pytest.raises(ConfigError, match="is not valid YAML"):
        load_config(bad)
    bad.write_text("- 1")
    with pytest.raises(ConfigError, match="must hold fields"):
        load_config(bad)


def test_a_config_file_may_hold_only_what_differs(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"prompt": "text", "evaluation": {"batch_size": 2}}))
    config = load_config(file, ["prompt.template=the {category}"])
    assert config.prompt.template == "the {category}"
    assert config.evaluation.batch_size == 2


def test_configs_need_no_torch():
    uses = (
        "import sd4match.config.experiment", "from sd4match.config import *",
        "import sd4match; sd4match.load_preset('mini-single')",
    )  # fmt: skip
    code = "\n".join(["import sys", *(f"{use}\nassert 'torch' not in sys.modules, {use!r}" for use in uses)])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
