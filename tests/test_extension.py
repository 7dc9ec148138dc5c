"""Components from outside the package: configured, built, trained, saved, loaded, evaluated."""

from __future__ import annotations

import runpy
from contextlib import ExitStack
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

from sd4match import SemanticMatcher, load_prompt, registry, save_prompt, testing
from sd4match.config import build_components, build_dataset, load_config, parse_config
from sd4match.errors import ConfigError, InputError, UnknownComponentError
from sd4match.evaluation import Evaluator
from sd4match.matching import NearestNeighbor
from sd4match.testing import FakeBackbone, FakePairs, FakeTextEncoder, random_photo
from sd4match.training import train

KINDS = {
    "backbones": "pixels",
    "image_encoders": "brightness",
    "prompts": "suffix",
    "matchers": "center",
    "pair_transforms": "centered",
    "losses": "scaled",
    "datasets": "two-photos",
}


@pytest.fixture(autouse=True)
def plugin():
    """Load the plugin, and forget its kinds afterwards."""
    with ExitStack() as stack:
        for name in KINDS:
            stack.enter_context(getattr(registry, name).temporarily())
        yield runpy.run_path(str(Path(__file__).parent / "helpers" / "plugin.py"))
    for name, kind in KINDS.items():
        assert kind not in getattr(registry, name).kinds()


YAML = """
prompt: {kind: suffix, num_tokens: 3, note: x}
matcher: {kind: center, pull: 0.5}
loss: {kind: scaled, scale: 4}
data: {kind: synthetic, pairs: 4, photos_per_category: 3}
training: {steps: 2, batch_size: 2, validate_every: 2}
evaluation: {sampling: {timestep: 40, ensemble_size: 1}}
"""


def test_prompt_matcher_and_trainable_loss_go_the_whole_way(plugin, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(YAML)
    config = load_config(file)
    assert parse_config(config.to_yaml(), origin="again") == config
    assert config.prompt.needs_category
    components = build_components(config)
    assert type(components.matcher).__name__ == "CenterMatcher"
    run = train(config, components, tmp_path / "out")
    assert len(run.losses) == 2
    assert run.column("scale")[-1] != 4
    path = tmp_path / "out" / "prompt.safetensors"
    again = load_prompt(path, backbone=components.backbone)
    assert torch.equal(again.vectors, components.prompt.vectors)
    assert (again.note, again.config.num_tokens) == ("x", 3)
    assert set(again.state_dict()) == {"vectors"}
    matcher = SemanticMatcher.from_config(config, prompt=path)
    photo = build_dataset(config, "test").photo("fish-0")
    result = matcher.match(photo, photo, points=[(1, 1)], category="fish")
    assert abs(result.target_points - 24).max() < 1


def test_backbone_transform_and_data_set_are_evaluated(plugin):
    data = "data: {kind: two-photos, side: 40}"
    text = f"{{backbone: {{kind: pixels, side: 16}}, prompt: none, pair_transform: centered, {data}}}"
    config = parse_config(text, origin="these lines")
    components = build_components(config)
    assert components.backbone.spec.architecture == "pixels 16"
    data = build_dataset(config, "test")
    assert (data.side, data.split, len(data)) == (40, "test", 1)
    scores = Evaluator(
        backbone=components.backbone, protocol=config.evaluation.protocol, matchers={"nn": NearestNeighbor()},
        sampling=config.evaluation.sampling.sampling(), pair_transform=components.pair_transform,
    ).evaluate(data, components.prompt)  # fmt: skip
    assert len(scores["nn"]) == 1


def test_the_plugin_keeps_the_promises_of_its_interfaces(plugin):
    for sort, name in KINDS.items():
        component = {"prompts": {"kind": "suffix", "note": "mine"}, "backbones": plugin["Pixels"]()}.get(sort, name)
        check = {"losses": "loss"}.get(sort, sort.removesuffix("s"))
        getattr(testing, f"check_{check}")(component)


def test_image_encoder_serves_a_conditional_prompt(plugin, mini):
    config = registry.prompts.parse(
        {"kind": "cpm", "image_encoder": {"kind": "brightness", "gain": 2}, "num_tokens": 3}
    )
    prompt = config.build(backbone=mini)
    matcher = SemanticMatcher(backbone=mini, prompt=prompt, matcher=NearestNeighbor())
    assert len(matcher.match(random_photo(), random_photo(seed=1), grid=2)) == 4
    assert len(matcher.match(random_photo(), random_photo(seed=2), grid=2)) == 4
    assert prompt.image_encoder.encoder.encoded == 3  # each photo once
    assert not any("encoder" in name for name in prompt.state_dict())


def test_plain_functions_fit(mini):
    """A matcher, a transform and a loss need not be classes."""
    plain = SemanticMatcher.from_preset("mini-empty")
    expected = plain.match(random_photo(), random_photo(seed=1), grid=2).target_points
    inner = plain.matcher
    plain.matcher = lambda correlation: inner(correlation)
    plain.pair_transform = lambda source, target: (source, target)
    assert (plain.match(random_photo(), random_photo(seed=1), grid=2).target_points == expected).all()


def test_wrong_fields_are_named():
    with pytest.raises(ConfigError, match="note: Field required"):
        registry.prompts.parse("suffix")
    with pytest.raises(ConfigError, match="unknown field 'num_token'; did you mean 'num_tokens'"):
        registry.prompts.parse({"kind": "suffix", "note": "", "num_token": 3})
    with pytest.raises(ConfigError, match="num_tokens"):
        registry.prompts.parse({"kind": "suffix", "note": "", "num_tokens": "many"})


def test_a_taken_kind_and_a_class_of_another_sort_are_refused(plugin):
    with pytest.raises(ConfigError, match="the matcher kind 'center' is taken by CenterMatcher"):
        registry.register(type("Other", (plugin["CenterMatcher"],), {"__annotations__": {}}))
    with pytest.raises(ConfigError, match="is no component"):
        registry.register(int)
    with pytest.raises(ConfigError, match="CenterMatcher is no loss"):
        registry.losses.register(plugin["CenterMatcher"])
    for wrong in (lambda **anything: None, lambda untyped: None):
        with pytest.raises(ConfigError, match="parameter"):
            registry.register_matcher("wrong")(wrong)


CELL = """
from __future__ import annotations
from typing import TYPE_CHECKING, Literal
import torch
from torch import nn
from sd4match.prompting import Prompt, PromptEmbedding, encode_token_vectors
from sd4match.registry import register_prompt
if TYPE_CHECKING:
    from sd4match.backbones import Backbone

@register_prompt("of-a-cell")
class OfACell(Prompt):
    scope = "dataset"

    def __init__(self, backbone: Backbone, *, start: float = {start}, words: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.text_encoder = backbone.text_encoder
        self.vectors = nn.Parameter(torch.full((2, backbone.text_encoder.width), start))

    def forward(self, images, partners=None):
        return PromptEmbedding(encode_token_vectors(self.text_encoder, self.vectors[None]))
"""


def run_cell(start):
    """Define a prompt as a cell of a notebook does."""
    namespace = {"__name__": "__main__"}
    exec(CELL.format(start=start), namespace)
    return namespace["OfACell"]


def test_a_cell_that_is_run_again_replaces_its_component():
    run_cell(0.5)
    second = run_cell(0.25)
    backbone = FakeBackbone(text_encoder=FakeTextEncoder())
    built = registry.prompts.parse("of-a-cell").build(backbone=backbone)
    assert type(built) is second
    assert built.vectors[0, 0].item() == 0.25
    with pytest.raises(ConfigError, match="the prompt kind 'of-a-cell' is taken by OfACell of __main__"):
        registry.register_prompt("of-a-cell")(type("Other", (second,), {}))


def test_what_is_built_directly_is_saved_and_loaded_as_if_from_its_config(tmp_path):
    made = run_cell(0.5)
    backbone = FakeBackbone(text_encoder=FakeTextEncoder())
    backbone.fingerprint = "1.0"
    prompt = made(backbone, start=2.0, words=("a", "b"))
    assert prompt.config == registry.prompts.parse({"kind": "of-a-cell", "start": 2.0, "words": ["a", "b"]})
    save_prompt(prompt, tmp_path / "prompt.safetensors", backbone=backbone)
    again = load_prompt(tmp_path / "prompt.safetensors", backbone=backbone)
    assert torch.equal(again.vectors, prompt.vectors)
    assert again.config == prompt.config
    unsayable = made(backbone, words=(object(),))
    with pytest.raises(InputError, match=r"OfACell has no config, .* build it with arguments that YAML can hold"):
        save_prompt(unsayable, tmp_path / "other.safetensors", backbone=backbone)
    assert type("Other", (made,), {})(backbone).config is None  # of no kind


@pytest.mark.parametrize("name", ["kind", "build", "target", "model_dump"])
def test_a_parameter_with_the_name_of_a_config_s_own_is_refused(name):
    namespace = {}
    exec(f"class Wrong:\n    def __init__(self, *, {name}: str): ...", namespace)
    with pytest.raises(ConfigError, match=f"Wrong: a parameter of a component cannot be named '{name}'"):
        registry.register_matcher("wrong")(namespace["Wrong"])


def test_what_a_class_lacks_is_named_when_it_is_registered():
    class Splitless:
        def __init__(self, *, side: int = 1): ...

    class Unreadable:
        def __init__(self, *, encoder: torch.nn.Module): ...

    with pytest.raises(ConfigError, match="Splitless: a data set needs a parameter 'split'"):
        registry.register_dataset("wrong")(Splitless)
    with pytest.raises(ConfigError, match="UnreadableConfig: a parameter cannot be read from YAML"):
        registry.register_matcher("wrong")(Unreadable)
    with pytest.raises(ConfigError, match="the fields of a matcher must be names"):
        registry.matchers.parse({"kind": "nearest_neighbor", 1: 2})
    assert not registry.matchers.has_field(["nearest_neighbor"], "kind")


def test_kinds_can_be_unregistered(plugin):
    registry.matchers.unregister("center")
    with pytest.raises(UnknownComponentError, match="unknown matcher kind 'center'"):
        registry.matchers.parse("center")


class Point(EntryPoint):
    """An entry point that does not need to be installed."""

    dist = type("Distribution", (), {"name": "broken-package", "version": "1"})


@pytest.mark.parametrize("value", ["no_such_module:Thing", "json:nothing", "helpers.exits:Thing"])
def test_a_broken_plugin_is_a_warning_and_breaks_nothing_else(value, monkeypatch):
    group = registry.matchers.group
    points = [Point("broken", value, group)]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    monkeypatch.setattr(registry.matchers, "_is_loaded", False)
    with pytest.warns(registry.PluginWarning, match=r"plugin 'broken' .* of package broken-package is left out"):
        assert "nearest_neighbor" in registry.matchers.kinds()


BROKEN = {
    "import": ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
    "attribute": ("", "AttributeError: module .* has no attribute 'Thing'"),
    "exits": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "base": ("class Odd(BaseException): ...\nraise Odd('own')", "Odd: own"),
    "recursion": ("def f(): f()\nf()", "RecursionError"),
    "syntax": ("def", "SyntaxError"),
    "long": ("raise ValueError('x' * 10_000)", "ValueError: x{200}$"),
    "silent": (
        "class Odd(Exception):\n    def __str__(self): raise ValueError\nraise Odd",
        "left out of the matcher kinds: Odd$",
    ),
    "number": ("Thing = 5", "5 is no matcher: it is not registered"),
    "function": ("def Thing(): ...", "is no matcher: it is not registered"),
    "class": ("class Thing: ...", "is no matcher: it is not registered"),
    "foreign": (
        "from sd4match.matching.losses import GaussianCrossEntropyConfig as Thing",
        "GaussianCrossEntropyConfig is no matcher: derive it from sd4match.interfaces.Matcher",
    ),
    "kindless": ("from sd4match.matching import Matcher\nclass Thing(Matcher): ...", "Thing needs a fixed kind"),
    "taken": (
        "from sd4match.registry import register_matcher\n@register_matcher('nearest_neighbor')\nclass Thing: ...",
        "the matcher kind 'nearest_neighbor' is taken by NearestNeighbor",
    ),
}  # fmt: skip


def load_with(monkeypatch, *points):
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    monkeypatch.setattr(registry.matchers, "_is_loaded", False)
    monkeypatch.setattr(registry.matchers, "_left_out", [])


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_wrong_with_a_plugin_is_said_once_and_when_its_kind_is_asked_for(name, monkeypatch, tmp_path):
    code, reason = BROKEN[name]
    (tmp_path / f"broken_{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    load_with(monkeypatch, Point("mine", f"broken_{name}:Thing", registry.matchers.group))
    with pytest.warns(registry.PluginWarning, match=reason) as caught:
        assert "nearest_neighbor" in registry.matchers.kinds()
    assert len(caught) == 1
    assert registry.matchers.parse("nearest_neighbor") == NearestNeighbor()
    with pytest.raises(UnknownComponentError, match=f"unknown matcher kind 'mine'.*plugin 'mine' .*{reason}") as error:
        registry.matchers.parse("mine")
    assert len(str(error.value)) < 800


def test_plugins_that_register_themselves_are_right(monkeypatch, tmp_path, recwarn):
    (tmp_path / "good_matcher.py").write_text(
        "from sd4match.registry import register_matcher\n@register_matcher('good')\nclass Thing: ...\nother = 1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    group = registry.matchers.group
    load_with(monkeypatch, Point("good", "good_matcher:Thing", group), Point("good", "good_matcher", group))
    assert "good" in registry.matchers.kinds()
    assert not recwarn.list


def test_an_interrupt_during_the_import_of_a_plugin_goes_through(monkeypatch, tmp_path):
    (tmp_path / "interrupted.py").write_text("raise KeyboardInterrupt")
    monkeypatch.syspath_prepend(tmp_path)
    load_with(monkeypatch, Point("mine", "interrupted:Thing", registry.matchers.group))
    with pytest.raises(KeyboardInterrupt):
        registry.matchers.kinds()


@pytest.mark.parametrize("scope", ["categroy", None, 5, "", ("image",)])
def test_a_prompt_of_an_unknown_scope_is_refused_when_it_is_registered(scope):
    from sd4match.prompting import Prompt

    wrong = type("Wrong", (Prompt,), {"scope": scope, "__init__": lambda self, *, backbone: None})
    with pytest.raises(ConfigError, match="Wrong: scope must be one of dataset, category, image, pair, not"):
        registry.register_prompt("wrong")(wrong)


@pytest.mark.parametrize("target", [5, None, "text", [], lambda x, /: x])
def test_what_has_no_signature_is_refused(target):
    with pytest.raises(ConfigError, match=r"signature that can be read|a config cannot be made of parameter"):
        registry.register_matcher("wrong")(target)


def test_annotations_that_mean_nothing_are_refused():
    def unknown(x: NoSuchName): ...

    def private(_x: int = 1): ...

    for target in (unknown, private):
        with pytest.raises(ConfigError, match=r"'NoSuchName' of parameter 'x' cannot be read|cannot be named '_x'"):
            registry.register_matcher("wrong")(target)


@pytest.mark.parametrize("order", [("nn", "soft", "mine"), ("mine", "nn", "soft"), ("nn", "mine", "soft")])
def test_a_composed_matcher_counts_as_it_does_alone(order):
    """Matchers that change the correlation or a map share nothing with those that do not."""
    from dataclasses import replace

    from sd4match.backbones import Sampling
    from sd4match.config import get_protocol
    from sd4match.matching import SoftArgmax, correlate_maps
    from sd4match.prompting import NoPrompt

    def mine(correlation):
        NearestNeighbor()(replace(correlation, values=correlation.values.flip(-1)))
        target = replace(correlation.target, values=correlation.target.values.roll(1, dims=-1))
        return NearestNeighbor()(correlate_maps(correlation.source, target, correlation.query_points))

    matchers = {"nn": NearestNeighbor(), "soft": SoftArgmax(), "mine": mine}

    def counts(names):
        chosen = {name: matchers[name] for name in names}
        protocol = get_protocol("sd4match")
        evaluator = Evaluator(backbone=FakeBackbone(), protocol=protocol, matchers=chosen, sampling=Sampling(0))
        return {name: one.correct.tolist() for name, one in evaluator.evaluate(FakePairs(pairs=8), NoPrompt()).items()}

    together = counts(order)
    for name in order:
        assert together[name] == counts([name])[name]


def test_build_says_what_a_sort_needs():
    backbone = FakeBackbone(text_encoder=FakeTextEncoder())
    assert registry.prompts.build({"kind": "single", "num_tokens": 2}, backbone=backbone).config.num_tokens == 2
    assert registry.matchers.build("mutual").kind == "mutual"
    with pytest.raises(
        ConfigError, match=r"temperature is no argument of build: fields go with the kind, \{'kind': 'soft_arg"
    ):
        registry.matchers.build("soft_argmax", temperature=0.1)
    with pytest.raises(ConfigError, match=r"a prompt is built for a backbone: give backbone="):
        registry.prompts.build("single")
