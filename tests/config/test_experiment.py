from __future__ import annotations

import sys
from typing import Literal

import pytest
import yaml

from sd4match import registry
from sd4match.config.experiment import ExperimentConfig, load_config, load_preset, parse_config, preset_names
from sd4match.errors import CheckpointError, ConfigError, UnknownComponentError
from sd4match.registry import ComponentConfig, Registry


class Red(ComponentConfig):
    kind: Literal["red"] = "red"
    shade: float = 1.0
    implementation = dict


def test_a_taken_kind_and_half_made_configs_are_refused():
    colours = Registry("colour", "example.colours")
    colours.register(Red)
    colours.register(Red)  # the same class again is no conflict

    class AlsoRed(ComponentConfig):
        kind: Literal["red"] = "red"
        implementation = dict

    class Kindless(ComponentConfig):
        implementation = dict

    class Nothing(ComponentConfig):
        kind: Literal["nothing"] = "nothing"

    with pytest.raises(ConfigError, match="taken by Red"):
        colours.register(AlsoRed)
    with pytest.raises(ConfigError, match="fixed kind"):
        colours.register(Kindless)
    with pytest.raises(ConfigError, match="what it builds"):
        colours.register(Nothing)
    with pytest.raises(ConfigError, match="only ComponentConfig"):
        colours.register(dict)
    with pytest.raises(UnknownComponentError, match="did you mean 'red'"):
        colours.parse("rde")
    with pytest.raises(ConfigError, match="needs a kind"):
        colours.parse(3)
    assert colours.build(colours.parse({"kind": "red", "shade": 2})) == {"shade": 2.0}


def test_entry_points_are_found(monkeypatch):
    class Point:
        def load(self):
            return Red

    monkeypatch.setattr(registry, "entry_points", lambda group: [Point()] if group == "example.colours" else [])
    assert Registry("colour", "example.colours").kinds() == ("red",)


@pytest.mark.parametrize("name", [n for n in preset_names() if n.startswith("mini")])
def test_presets_load_and_survive_the_way_through_yaml_and_json(name):
    config = load_preset(name)
    assert parse_config(config.to_yaml(), origin="again") == config
    assert ExperimentConfig.model_validate_json(config.model_dump_json()) == config


def test_presets_of_real_weights_fit_a_folder_of_that_layout(other_model):
    for name in preset_names():
        if name.startswith("sd2-1-"):
            config = load_preset(name, [f"backbone.weights={other_model}"])
            assert config.backbone.layers == 1


def test_defaults_are_the_papers():
    config = ExperimentConfig()
    assert config.loss.temperature == config.matcher.temperature == 0.04
    assert (config.matcher.sigma, config.training.learning_rate, config.training.batch_size) == (7.0, 1e-2, 9)
    assert (config.training.sampling.timestep, config.evaluation.sampling.timestep) == (261, 50)
    assert config.evaluation.sampling.ensemble_size == 8
    assert load_preset("mini-single").loss.temperature == 0.15


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("prompt.slots=76", r"prompt.slots = 76 .* 77 text slots .* at most 75"),
        ("prompt.slot=3", "unknown field 'slot'; did you mean 'slots'"),
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
        ("prompt.slots=[1", "not YAML"),
    ],
)
def test_what_cannot_work_is_refused_with_names(override, message):
    with pytest.raises(ConfigError, match=message):
        load_preset("mini-single", [override])


def test_layer_and_folder_are_checked_before_weights_load(tmp_path):
    with pytest.raises(CheckpointError, match="its up-blocks are 0 to 2"):
        load_preset("mini-single", ["backbone.layer=3"])
    with pytest.raises(CheckpointError, match="no model "):
        load_preset("mini-single", [f"backbone.weights={tmp_path / 'none'}"])
    with pytest.raises(CheckpointError, match=r"unet/config.json.* missing"):
        load_preset("mini-single", [f"backbone.weights={tmp_path}"])


def test_files_that_are_no_config(tmp_path):
    with pytest.raises(ConfigError, match="unknown preset 'mini-sinlge'; did you mean 'mini-single'"):
        load_preset("mini-sinlge")
    with pytest.raises(ConfigError, match="cannot read"):
        load_config(tmp_path / "none.yaml")
    bad = tmp_path / "bad.yaml"
    bad.write_text("a: [")
    with pytest.raises(ConfigError, match="is not YAML"):
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
    import subprocess

    code = "import sys, sd4match; sd4match.load_preset('mini-single'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
