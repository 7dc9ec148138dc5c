"""What a config must not take: every value here is refused by one clear line."""

from __future__ import annotations

import pytest
import torch

from sd4match import registry
from sd4match.config import (
    CacheConfig,
    EvaluationConfig,
    EvaluationProtocol,
    ExperimentConfig,
    SamplingConfig,
    TrainingConfig,
    build_components,
    build_dataset,
    get_protocol,
    load_config,
    load_preset,
    parse_config,
)
from sd4match.config.presets import load_experiment
from sd4match.errors import ConfigError, InputError
from sd4match.matching.losses import GaussianCrossEntropyConfig
from sd4match.matching.matchers import KernelSoftArgmax, NearestNeighbor
from sd4match.matching.pair_transforms import CoPCA
from sd4match.prompting.config import ClassPromptConfig, ConditionalPromptConfig, SinglePromptConfig, TextPromptConfig

DIGITS = "9" * 400
BOMB = "[&a [x,x,x,x,x,x,x,x,x,x], &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a], &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b], "
BOMB += "&d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c], &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]]"
DEEP = "[" * 200 + "]" * 200

OVERRIDES = {
    # numbers of YAML 1.1, and types
    "seed=true": "seed: must be a valid integer, not True",
    "seed=yes": "seed: must be a valid integer, not 'yes'",
    "seed=1.0": "seed: must be a valid integer, not 1.0",
    "seed=-1": "seed: must be greater than or equal to 0, not -1",
    "seed=18446744073709551616": "seed: must be less than 9223372036854775808, not 18446744073709551616",
    "seed=9223372036854775808": "seed: must be less than",
    "seed=2024-13-45": "seed: must be a valid integer, not '2024-13-45'",
    "seed=1_000": "seed: must be a valid integer, not '1_000'",
    "seed=0x_": "seed: must be",
    "seed=!!int x": "is not valid YAML: the tag",
    "seed=!!bool x": "is not valid YAML: the tag",
    "seed=!!timestamp x": "is not valid YAML: the tag",
    f"seed={DIGITS}": "a number of 400 digits",
    f"seed={DEEP}": "nests more than 64 deep",
    "seed={a: 1}": "seed: must be a valid integer, not {'a': 1}",
    "training.seed=18446744073709551616": "training.seed: must be less than",
    "prompt.seed=18446744073709551616": "prompt: seed: must be less than",
    "prompt.seed=-1": "prompt: seed: must be greater",
    "training.patience=on": "training.patience: must be a valid integer, not 'on'",
    "training.steps=yes": "training.steps: must be a valid integer, not 'yes'",
    "training.steps=[5]": r"training.steps: must be a valid integer, not \[5\]",
    "training.steps=1e3": "training.steps: must be a valid integer, not 1000.0",
    "training.steps=1:30:00": "training.steps: must be a valid integer, not '1:30:00'",
    "training.steps=0": "training.steps: must be greater",
    "training.steps=10000000000": "training.steps: must be less than or equal to 100000000, not",
    "training.batch_size=1000000000000": "training.batch_size: must be less than or equal to 65536",
    "training.per_device=100000": "training.per_device: must be less",
    "training.learning_rate=true": "training.learning_rate: must be a valid number, not True",
    "training.learning_rate=1e38": "training.learning_rate: must be less than or equal to 1000000000000, not 1e.38",
    "training.learning_rate=.inf": "training.learning_rate: must be",
    "training.learning_rate=.nan": "training.learning_rate: must be a finite number, not nan",
    "training.learning_rate=1e999": "training.learning_rate: must be",
    "training.trackers=tensorboard": "training.trackers: must be a list, not 'tensorboard'",
    "training.trackers=['']": "training.trackers.0: is empty",
    "training.sampling=5": "training.sampling: must be a group of fields, not 5",
    "training.sampling.timestep=1000": "timestep: must be less than 1000",
    "training.sampling.timestep=true": "timestep: must be a valid integer",
    "training.both_directions=1": "training.both_directions: must be a valid boolean, not 1",
    "training.both_directions=yes": "training.both_directions: must be a valid boolean, not 'yes'",
    "evaluation.sampling.ensemble_size=0": "ensemble_size: must be greater",
    "evaluation.sampling.ensemble_size=1000000": "ensemble_size: must be less than or equal to 1024",
    "evaluation.sampling.posterior=median": "posterior: must be 'image', 'member' or 'mode', not 'median'",
    "evaluation.bootstrap_samples=10000000000": "bootstrap_samples: must be less than or equal to 100000",
    "evaluation.batch_size=10000000": "evaluation.batch_size: must be less",
    "evaluation.limit=0": "evaluation.limit: must be greater",
    f"evaluation.limit={DIGITS}": "a number of 400 digits",
    "evaluation.memory=true": "evaluation.memory: a size is written as",
    "evaluation.memory=-1": "evaluation.memory: a size is written as",
    "evaluation.memory=1000000000 TB": "evaluation.memory: a size is at most 1000000 TB",
    f"evaluation.memory={BOMB}": "it stands for more than 100,000 values",
    "evaluation.categories=cat": "evaluation.categories: must be a list, not 'cat'",
    "evaluation.categories=[' ']": "evaluation.categories.0: is empty",
    "evaluation.matchers=nearest_neighbor": "evaluation.matchers: must be a list",
    "evaluation.matchers=[nearest]": "unknown matcher kind 'nearest'; did you mean 'nearest_neighbor'",
    "cache.limit=12 parsecs": "cache.limit: a size is written as",
    "cache.limit=1.5": "cache.limit: a size is written as",
    f"cache.limit='{DIGITS}'": "cache.limit: a size is at most",
    "cache.limit=999999999999999999999999999999": "cache.limit: a size is written as",
    "cache.limit=[1, 2]": "cache.limit: a size is written as",
    "cache.folder=''": "cache.folder: is empty",
    "cache.folder=~nobody-of-that-name/x": "cache.folder: folder: ~nobody-of-that-name/x names a user that does not",
    'cache.folder="a\\0b"': "cache.folder: holds a null character",
    "cache.folder=5": "cache.folder: must be a valid string, not 5",
    # components
    "backbone.layers=1.0": "layers: must be a valid integer or a valid string or a list, not 1.0",
    "backbone.layers=true": "layers: must be a valid integer or a valid string or a list, not True",
    "backbone.layers=[1, true]": "layers.1: must be a valid integer or a valid string, not True",
    "backbone.weights=''": "weights: is empty",
    "backbone.weights=5": "weights: must be a valid string, not 5",
    "backbone.image_size=96000": "image_size: must be less than or equal to 4096",
    "backbone.cells=100000": "cells: must be less than or equal to 1024",
    "backbone.variant=''": "variant: ",
    "backbone=5": "a backbone needs a kind, not 5",
    "backbone=[mini]": "a backbone needs a kind",
    "backbone={kind: 5}": "a backbone needs a kind",
    "backbone={kind: [a]}": "a backbone needs a kind",
    "backbone={}": "a backbone needs a kind",
    "backbone={kind: fusion, backbones: [stable_diffusion]}": "backbones: .*at least 2 items",
    "backbone={kind: fusion, backbones: stable_diffusion}": "backbones: must be a list",
    "backbone={kind: fusion, backbones: [stable_diffusion, vision_transformer], weights: [1, 1e30]}":
        "weights.1: must be less",
    "matcher.temperature=1e-300": "temperature: must be greater than or equal to 0.000000000001, not 1e-300",
    "matcher.temperature=true": "temperature: must be a valid number",
    "matcher.temperature='0.04'": "temperature: must be a valid number, not '0.04'",
    "matcher.sigma=.inf": "sigma: must be",
    "matcher.sigma=1e-200": "sigma: must be greater",
    "matcher={kind: window_soft_argmax, window: 100001}": "window: must be less than or equal to",
    "matcher={kind: window_soft_argmax, window: 15.0}": "window: must be a valid integer, not 15.0",
    "loss.kernel_size=100001": "kernel_size: must be less than or equal to",
    "loss.temperature=true": "temperature: must be a valid number or 'learned', not True",
    "loss.temperature=learnt": "temperature: must be a valid number or 'learned', not 'learnt'",
    "loss.temperature=[1]": r"temperature: must be a valid number or 'learned', not \[1\]",
    "loss.initial_temperature=0.1": "initial_temperature goes with temperature = learned",
    "pair_transform={kind: co_pca, components: true}": "components: must be a valid integer or a list, not True",
    "pair_transform={kind: co_pca, components: [1, true]}": "components.1: must be a valid integer, not True",
    "pair_transform={kind: co_pca, components: -1}": "components",
    "pair_transform={kind: co_pca, weights: x}": "weights: must be a list, not 'x'",
    "pair_transform={kind: co_pca, weights: [.nan]}": "weights.0: must be",
    "pair_transform={kind: co_pca, weights: [1e300]}": "weights.0: must be less",
    "data.pairs=1000000000": "pairs: must be less than or equal to",
    "data.pairs=true": "pairs: must be a valid integer",
    "data.pairs=0": "pairs: must be greater",
    "data.size=60000": "size: must be less than or equal to",
    "data.seed=18446744073709551616": "data: seed: must be less",
    "data.photos_per_category=100000000": "photos_per_category: must be less",
    "data.split=exam": "split: must be 'train', 'validation' or 'test', not 'exam'",
    "data={kind: spair}": "data: root: Field required",
    "data={kind: spair, root: ''}": "root: is empty",
    "data={kind: spair, root: 5}": "root: must be .*a path, not 5",
    "data={kind: spair, root: x, layout: huge}": "layout: must be 'large' or 'small'",
    "data={kind: ap10k, root: x, annotation_split: 4}": "annotation_split: must be 1, 2 or 3",
    "data={kind: ap10k, root: x, annotation_split: true}": "annotation_split: must be a whole number, not True",
    "data={kind: ap10k, root: x, pairs_per_group: 100000000000}": "pairs_per_group: must be less",
    # prompts
    "prompt.num_tokens=true": "num_tokens: must be a valid integer",
    "prompt.num_tokens=1000000": "num_tokens: must be less than or equal to 10000",
    "prompt.init='a {category}'": "this prompt is the same for all categories",
    "prompt.init=''": "init: is empty",
    "prompt.start_from=''": "start_from: is empty",
    "prompt={kind: text, template: ''}": "template: is empty",
    "prompt={kind: text, template: 'a {thing}'}": "only {category} can be filled in",
    "prompt={kind: text, template: '{category.__class__.__mro__}'}": "only {category}",
    "prompt={kind: text, template: '{category[0]}'}": "only {category}",
    "prompt={kind: text, template: '{category!s}'}": "only {category}",
    "prompt={kind: text, template: '{category:>3000000000}'}": "only {category}",
    "prompt={kind: text, template: '{category:>9}'}": "only {category}",
    "prompt={kind: text, template: '{'}": "only {category}",
    "prompt={kind: text, template: 'a } {category}'}": "only {category}",
    "prompt={kind: text, template: '{0}'}": "only {category}",
    "prompt={kind: text, template: '{}'}": "only {category}",
    "prompt={kind: text, template: '{{category}}'}": "only {category}",
    f"prompt={{kind: text, template: '{'a' * 5000}'}}": "template: has 5,000 characters; at most 4,096",
    "prompt={kind: text, by_category: {cat: '{x}'}}": "only {category}",
    "prompt={kind: text, by_category: {' ': a}}": "by_category. : is empty|by_category.*is empty",
    "prompt={kind: text, by_category: {cat: ''}}": "by_category.cat: is empty",
    "prompt={kind: text, by_category: {1: a}}": "by_category.*must be a valid string, not 1",
    "prompt={kind: text, by_category: [a]}": "by_category: must be a group of fields",
    "prompt={kind: class, categories: [cat, cat]}": "categories: 'cat' appears twice",
    "prompt={kind: class, categories: ['']}": "categories.0: is empty",
    "prompt={kind: class, init: '{category!r}'}": "only {category}",
    "prompt={kind: cpm, num_global_tokens: -1}": "num_global_tokens: must be greater",
    "prompt={kind: cpm, image_encoder: {kind: backbone, side: 100000}}": "side: must be less",
    "prompt={kind: cpm, image_encoder: {kind: dinov2, weights: ''}}": "weights: is empty",
    "prompt.kind=lora": "unknown prompt kind 'lora'",
    "prompt.kind=5": "a prompt needs a kind",
    # unknown fields, and names that Python would take for its own
    **{f"{group}{name}=1": f"unknown field '{full}{name}'" for group, full in (
        ("", ""), ("training.", "training."), ("training.sampling.", "training.sampling."),
        ("evaluation.", "evaluation."),
        ("evaluation.protocol.", ""), ("cache.", "cache."), ("matcher.", ""), ("prompt.", ""), ("backbone.", ""),
        ("loss.", ""), ("data.", ""),
    ) for name in ("cls", "self", "1", "yes", "model_config", "__init__", "fields", "obj")},
    "training={1: 2}": "must be text, not 1|unknown field",
    "matcher={kind: nearest_neighbor, 1: 2}": "the fields of a matcher must be names",
    "matcher={kind: nearest_neighbor, null: 2}": "the fields of a matcher must be names",
    "prompt.image_encoder={kind: clip}": "unknown field 'image_encoder'",
    # the form of an override
    "": "an override is FIELD=VALUE",
    "=": "an override is FIELD=VALUE",
    "training.steps": "an override is FIELD=VALUE",
    "training..steps=5": "an override is FIELD=VALUE",
    ".=5": "an override is FIELD=VALUE",
    "training.steps=[": "is not valid YAML",
    "training.steps={a: 1, a: 2}": "the key 'a' appears twice",
    "training.steps=<<": "training.steps: must be",
    "training.steps.deep=5": "'steps' is not a group of fields",
    "model=sd9": "unknown model 'sd9'; known: mini, sd1-5, sd2-1",
    "model=5": "unknown model 5; known: mini",
    "model=[mini]": "unknown model",
    "experiment={a: 1}": "unknown experiment",
    "preset=[single]": "the name of a preset must be text",
    "preset=''": "unknown preset ''",
    # protocols
    "evaluation.protocol=5": "a protocol is a name or its fields, not 5",
    "evaluation.protocol=dif": "unknown protocol 'dif'; did you mean 'dift'",
    "evaluation.protocol={name: 5}": "the name of a protocol must be text, not 5",
    "evaluation.protocol={name: [a]}": "the name of a protocol must be text",
    "evaluation.protocol={name: {a: 1}}": "the name of a protocol must be text",
    "evaluation.protocol={name: ''}": "unknown protocol ''",
    "evaluation.protocol={1: 2}": "a protocol is a name or its fields",
    "evaluation.protocol={alphass: [0.1]}": "unknown field 'alphass'; did you mean 'alphas'",
    "evaluation.protocol.alphas=[true]": "alphas.0: must be a valid number, not True",
    "evaluation.protocol.alphas=[.nan]": "alphas.0: must be a finite number",
    "evaluation.protocol.alphas=[0]": "alphas must be positive",
    "evaluation.protocol.alphas=[-0.1]": "alphas must be positive",
    "evaluation.protocol.alphas=[0.1, 0.1]": "alphas must be positive, below 10 and different",
    "evaluation.protocol.alphas=[0.1, 0.1000000001]": "alphas must be positive, below 10 and different",
    "evaluation.protocol.alphas=[10]": "alphas must be positive, below 10 and different",
    "evaluation.protocol.alphas=[]": "alphas: .*at least 1 item",
    "evaluation.protocol.alphas=0.1": "alphas: must be a list, not 0.1",
    "evaluation.protocol.side=0": "side: must be greater",
    "evaluation.protocol.side=100000": "side: must be less",
    "evaluation.protocol.side=null": "side = None does not go with error_frame",
    "evaluation.protocol.cell_shift=.inf": "cell_shift: must be",
    "evaluation.protocol.cell_shift=1e300": "cell_shift: must be less",
    "evaluation.protocol.query_mode=nearest": "query_mode: must be 'bilinear', 'floor' or 'pixel', not 'nearest'",
    f"evaluation.protocol={BOMB}": "it stands for more than 100,000 values",
    f"evaluation.protocol={{name: {BOMB}}}": "it stands for more than 100,000 values",
}  # fmt: skip


@pytest.mark.parametrize("override", OVERRIDES, ids=lambda text: text[:70])
def test_an_override_that_cannot_work_is_one_clear_line(override):
    with pytest.raises(ConfigError, match=OVERRIDES[override]) as caught:
        load_preset("mini-single", [override])
    message = str(caught.value)
    assert len(message) < 1200  # the names of all presets
    assert "\n" not in message
    assert "constrained" not in message
    assert "[type=" not in message


@pytest.mark.parametrize(
    "overrides", ["training.steps=5", b"a=b", 5, None, [5], [None], ["seed=1", 3], {"seed": 1}, [["seed=1"]], True]
)
@pytest.mark.parametrize(
    "load", [load_preset, lambda name, overrides: parse_config("", origin="x", overrides=overrides)]
)
def test_overrides_of_other_types(load, overrides):
    with pytest.raises(ConfigError, match="overrides are a list of FIELD=VALUE, for example"):
        load("single", overrides)


@pytest.mark.parametrize("name", [5, None, ["single"], {"a": 1}, b"single", True, "", " ", "sinlge", "x" * 10_000])
def test_presets_by_other_names(name):
    with pytest.raises(ConfigError, match=r"the name of a preset must be text|unknown preset") as caught:
        load_preset(name)
    assert len(str(caught.value)) < 1500
    with pytest.raises(ConfigError, match=r"unknown model|needs a model"):
        load_experiment("single", model=name)
    with pytest.raises(ConfigError, match="unknown experiment"):
        load_experiment(name or "", model="mini")
    with pytest.raises(ConfigError, match="protocol"):
        get_protocol(name)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ExperimentConfig(prompt=5), "prompt: a prompt needs a kind, not 5"),
        (lambda: ExperimentConfig(prompt=KernelSoftArgmax()), "prompt: KernelSoftArgmax is no prompt"),
        (lambda: ExperimentConfig(cls=5), "unknown field 'cls'"),
        (lambda: ExperimentConfig(training=None), "training: must be a group of fields, not None"),
        (lambda: ExperimentConfig(training=EvaluationConfig()), "training: must be a group of fields"),
        (lambda: ExperimentConfig(seed="3"), "seed: must be a valid integer, not '3'"),
        (lambda: ExperimentConfig.model_validate({1: 2}), "the names of fields must be text, not 1"),
        (lambda: ExperimentConfig.model_validate(5), "must be a group of fields, not 5"),
        (lambda: ExperimentConfig.model_validate_json("{"), "Invalid JSON"),
        (lambda: ExperimentConfig.model_validate_json('{"seed": true}'), "seed: must be a valid integer"),
        (lambda: TrainingConfig(steps=True), "steps: must be a valid integer, not True"),
        (lambda: TrainingConfig(**{f"x{i}": 1 for i in range(50)}), "and 47 more problems"),
        (lambda: TrainingConfig(**{"x" * 10_000: 1}), "unknown field 'x{80}...'"),
        (lambda: TrainingConfig(steps="9" * 10_000), "steps: must be a valid integer"),
        (lambda: TrainingConfig(steps=10**5000), "steps: must be"),
        (lambda: TrainingConfig().model_copy(update={"steps": 0}), "steps: must be greater"),
        (lambda: TrainingConfig().model_copy(update={"stepss": 1}), "unknown field 'stepss'; did you mean 'steps'"),
        (lambda: setattr(TrainingConfig(), "steps", 3), "is frozen: make another one with steps=3"),
        (lambda: setattr(TrainingConfig(), "stepss", 3), "is frozen"),
        (lambda: delattr(TrainingConfig(), "steps"), "is frozen: 'steps' cannot be deleted"),
        (lambda: SamplingConfig(timestep=float("nan")), "timestep: must be"),
        (lambda: EvaluationConfig(memory=True), "memory: a size"),
        (lambda: EvaluationConfig(memory=10**5000), "memory: a size"),
        (lambda: EvaluationConfig(matchers=[NearestNeighbor()] * 101), "matchers: .*at most 100"),
        (lambda: CacheConfig(folder=torch), "folder: must be a valid string"),
        (lambda: EvaluationProtocol(alphas=(0.1, 0.1)), "alphas must be positive"),
        (lambda: EvaluationProtocol(name=5), "name: must be a valid string"),
        (lambda: EvaluationProtocol(name=" "), "name: is empty"),
        (lambda: EvaluationProtocol(error_frame="photo"), "does not go with error_frame"),
        (lambda: EvaluationProtocol(matcher=None), "matcher: a matcher needs a kind, not None"),
        (lambda: get_protocol("dift").derive(side="big"), "side: must be a valid integer"),
        (lambda: get_protocol("dift").derive(self=1), "unknown field 'self'"),
        (lambda: get_protocol("dift").derive(name=5), "name: must be a valid string"),
        (lambda: GaussianCrossEntropyConfig(kernel_size=4), "kernel_size: must be odd"),
        (lambda: CoPCA(components=None), "components: must be"),
        (lambda: TextPromptConfig(template=None), "template: must be a valid string"),
        (lambda: TextPromptConfig(by_category=None), "by_category: must be a group of fields"),
        (lambda: SinglePromptConfig(num_tokens=[1]), "num_tokens: must be a valid integer"),
        (lambda: SinglePromptConfig(start_from="\ud800"), "start_from: "),
        (lambda: ClassPromptConfig(categories="cat"), "categories: must be a list, not 'cat'"),
        (lambda: ConditionalPromptConfig(features="global", mix_patches=True), "mix_patches = true needs"),
        (lambda: parse_config(None, origin="the text"), "the text must be YAML text, not None"),
        (lambda: parse_config("5", origin="the text"), "the text must hold fields .*not int"),
        (lambda: parse_config("false", origin="the text"), "the text must hold fields .*not bool"),
        (lambda: parse_config("[]", origin="the text"), "the text must hold fields .*not list"),
        (lambda: parse_config("0", origin="the text"), "the text must hold fields .*not int"),
        (lambda: parse_config("''", origin="the text"), "the text must hold fields .*not str"),
        (lambda: parse_config("{1: 2}", origin="x"), "x: the names of fields must be text, not 1"),
        (lambda: parse_config("{training: {1: 2}}", origin="x"), "must be text, not 1"),
        (lambda: load_config(None), "the config file must be a path, not None"),
        (lambda: load_config(""), "the config file is empty"),
        (lambda: load_config("~nobody-of-that-name/x.yaml"), "a user that does not exist"),
        (lambda: load_config("x" * 300), "cannot read the config file x"),
        (lambda: load_config("a\0b"), "null character"),
        (lambda: load_config("/dev/zero"), "not a regular file"),
        (lambda: load_config("/"), "is a folder"),
        (lambda: build_dataset(load_preset("single"), "exam"), "split must be 'train', 'validation' or 'test'"),
        (lambda: build_dataset(load_preset("single"), None), "split must be"),
        (lambda: build_components(None), "config must be an ExperimentConfig"),
    ],
)
def test_configs_by_hand_raise_nothing_else(make, message):
    with pytest.raises((ConfigError, InputError), match=message) as caught:
        make()
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("value", [None, 5, [], {}, {"kind": None}, {"kind": []}, b"x", (), object(), type])
@pytest.mark.parametrize(
    "name", ["backbones", "image_encoders", "prompts", "matchers", "pair_transforms", "losses", "datasets"]
)
def test_registries_are_asked_for_nonsense(name, value):
    known = getattr(registry, name)
    with pytest.raises(ConfigError, match="needs a kind"):
        known.parse(value)
    for ask in (known.config_class, known.unregister):
        with pytest.raises(ConfigError, match="must be a name"):
            ask(value)
    assert not known.has_field(value, "kind")


def test_a_config_that_holds_itself():
    fusion = {"kind": "fusion"}
    fusion["backbones"] = [fusion, fusion]
    for make in (
        lambda: ExperimentConfig(backbone=fusion),
        lambda: ExperimentConfig.model_validate({"backbone": fusion}),
        lambda: registry.backbones.parse(fusion),
    ):
        with pytest.raises(ConfigError, match="holds itself"):
            make()
    wide = ["x"] * 1000
    with pytest.raises(ConfigError, match="more than 100,000 values"):
        TrainingConfig(trackers=[wide] * 1000)
    with pytest.raises(ConfigError, match=r"holds itself|valid YAML"):
        parse_config("backbone: &a {kind: fusion, backbones: [*a, *a]}", origin="x")


@pytest.mark.parametrize(
    "device", ["meta", "cuda:7", 5, None, "", "gpu", "cpu:3", "xpu", torch.device("meta"), "mps:9", "cpu\0"]
)
def test_devices_that_are_not_here(device):
    with pytest.raises((ConfigError, InputError), match="device"):
        build_components(load_preset("mini-empty"), device=device)
    with pytest.raises(ConfigError, match="device"):
        load_preset("mini-empty").backbone.build(device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_the_devices_that_are_here_are_named():
    with pytest.raises(ConfigError, match="device = 'cuda' is not here: torch sees cpu"):
        build_components(load_preset("mini-empty"), device="cuda")
