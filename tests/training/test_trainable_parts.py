"""Matchers, pair transforms and losses that learn: trained, validated, resumed, saved, loaded and matched with."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from helpers.learned_parts import Tempered, Weighted, learned_parts
from helpers.training import Vector, gaussian_cross_entropy, trainer
from sd4match import SemanticMatcher, registry
from sd4match.backbones import Sampling
from sd4match.config import EvaluationProtocol, build_components, parse_config
from sd4match.errors import ComponentError, ConfigError, InputError, PromptFileError, PromptMismatchError
from sd4match.evaluation import Evaluator, evaluate
from sd4match.interfaces import Learned, learns
from sd4match.matching import (
    EndPointError,
    KernelSoftArgmax,
    Keypoints,
    Mutual,
    SoftArgmax,
    functional,
    matches_from_cells,
)
from sd4match.prompting import load_components, read_prompt, save_prompt
from sd4match.registry import register_matcher
from sd4match.testing import FakeBackbone, FakePairs, check_matcher, random_correlation, random_photo
from sd4match.training import Checkpoints, train

STEPS = 4
YAML = """
prompt: {kind: PROMPT}
matcher: MATCHER
pair_transform: TRANSFORM
loss: LOSS
data: {kind: synthetic, pairs: 4, photos_per_category: 3}
training: {steps: 4, batch_size: 2, validate_every: 2, checkpoint_every: 1, validation_pairs: 2, learning_rate: 0.05}
evaluation: {sampling: {timestep: 40, ensemble_size: 1}, limit: 2, bootstrap_samples: 100}
"""


@pytest.fixture(autouse=True)
def parts():
    with learned_parts():
        yield


def config_of(*, prompt="empty", matcher="{kind: tempered}", transform="null", loss="{kind: end_point_error}"):
    text = YAML.replace("PROMPT", prompt).replace("MATCHER", matcher).replace("TRANSFORM", transform)
    return parse_config(text.replace("LOSS", loss), origin="these lines")


CASES = {
    "matcher": {},
    "matcher and prompt": {"prompt": "single"},
    "transform": {
        "matcher": "kernel_soft_argmax", "transform": "{kind: weighted, channels: CHANNELS}",
        "loss": "gaussian_cross_entropy",
    },
    "all": {
        "prompt": "single", "transform": "{kind: weighted, channels: CHANNELS}",
        "matcher": "{kind: mutual, inner: {kind: tempered, start: 0.1}}",
    },
}  # fmt: skip


@pytest.mark.parametrize(
    "case", [pytest.param(name, marks=[] if name == "all" else pytest.mark.slow) for name in CASES]
)
def test_goes_the_whole_way(case, mini, tmp_path):
    fields = {name: text.replace("CHANNELS", str(mini.spec.channels)) for name, text in CASES[case].items()}
    config = config_of(**fields)
    components = build_components(config, backbone=mini)
    before = {name: Learned(name, part).state_dict() for name, part in components.beside_prompt().items()}
    before = {name: {key: value.clone() for key, value in state.items()} for name, state in before.items()}
    assert set(before) == {"matcher": {"matcher"}, "transform": {"pair_transform"}}.get(
        case, {"matcher"} if case == "matcher and prompt" else {"matcher", "pair_transform"}
    )
    run = train(config, components, tmp_path / "run")
    assert (run.step, len(run.validation)) == (STEPS, 3)
    assert set(Checkpoints(tmp_path / "run" / "checkpoints").latest().origin["learned"]) == set(before)
    file = tmp_path / "run" / "prompt.safetensors"
    info, tensors = read_prompt(file)
    assert set(info.components) == set(before)
    if run.best_step:
        for name, state in before.items():
            assert any(not torch.equal(value, tensors[f"{name}/{key}"]) for key, value in state.items())

    photos = [random_photo((60, 80)), random_photo((70, 50), seed=1)]
    trained = SemanticMatcher.from_components(components, config)
    expected = trained.match(*photos, [(10.0, 20.0), (40.0, 30.0)])
    plain = parse_config("{matcher: nearest_neighbor, prompt: empty}", origin="a preset without it")
    plain = plain.model_copy(update={"evaluation": config.evaluation})
    loaded = SemanticMatcher.from_config(plain, prompt=file)
    assert (loaded.config.matcher.kind == "nearest_neighbor") == ("matcher" not in before)
    if "matcher" in before:
        found = loaded.match(*photos, [(10.0, 20.0), (40.0, 30.0)])
        assert found.target_points == pytest.approx(expected.target_points, abs=1e-3)
    again = SemanticMatcher.from_pretrained(trained.save_pretrained(tmp_path / "saved"))
    found = again.match(*photos, [(10.0, 20.0), (40.0, 30.0)])
    assert found.target_points == pytest.approx(expected.target_points, abs=1e-3)
    report = evaluate(plain.model_copy(update={"data": config.data}), prompt=file)
    assert report.rows[0].matcher == loaded.config.matcher.kind


@pytest.mark.slow
def test_resumes_with_the_same_values(mini, tmp_path):
    config = config_of(prompt="single", transform=f"{{kind: weighted, channels: {mini.spec.channels}}}")
    through = build_components(config, backbone=mini)
    expected = train(config, through, tmp_path / "through")
    steps = iter(range(100))
    train(config, build_components(config, backbone=mini), tmp_path / "cut", stop=lambda: next(steps) > 4)
    resumed = build_components(config, backbone=mini)
    run = train(config, resumed, tmp_path / "cut", resume=True)
    assert run.rows == expected.rows
    assert run.validation == expected.validation
    assert "matcher_temperature" in run.columns
    for name, part in through.beside_prompt().items():
        for key, value in Learned(name, part).state_dict().items():
            assert torch.equal(value, Learned(name, resumed.beside_prompt()[name]).state_dict()[key])
    changed = config_of(
        prompt="single", matcher="{kind: tempered, start: 0.5}",
        transform=f"{{kind: weighted, channels: {mini.spec.channels}}}",
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"matcher\.start = 0\.5"):
        train(changed, build_components(changed, backbone=mini), tmp_path / "cut", resume=True)


def test_a_matcher_learns_what_lowers_its_error():
    run = trainer(
        Vector(), EndPointError(), matcher=Tempered(start=2.0), steps=40, learning_rate=0.1, validate_every=40,
    ).fit()  # fmt: skip
    losses = run.column("loss")
    assert sum(losses[-5:]) < sum(losses[:5])
    assert run.last()["matcher_temperature"] != 2.0


def test_the_trained_matcher_is_the_one_that_is_validated():
    matcher = Tempered()
    made = trainer(Vector(), EndPointError(), matcher=matcher)
    assert made.validation_matcher is matcher
    assert trainer(Vector(), gaussian_cross_entropy(), matcher=KernelSoftArgmax()).matcher is None


def test_what_learns_in_vain_is_refused():
    with pytest.raises(ConfigError, match=r"the matcher Tempered learns, and the loss .* does not take"):
        trainer(Vector(), gaussian_cross_entropy(), matcher=Tempered())
    with pytest.raises(ConfigError, match="this transform learns nothing"):
        trainer(Vector(), pair_transform=lambda source, target: (source, target))
    prompt = Vector().requires_grad_(False)
    prompt.parameter_groups = list
    with pytest.raises(InputError, match="nothing to learn"):
        trainer(prompt, gaussian_cross_entropy(temperature="learned"))
    frozen = Weighted(channels=48)
    frozen.weights.requires_grad_(False)
    with pytest.raises(ConfigError, match="learns nothing"):
        trainer(Vector(), pair_transform=frozen)
    detached = trainer(prompt, EndPointError(), matcher=Tempered())
    detached.matcher.forward = lambda correlation: KernelSoftArgmax()(correlation)
    with pytest.raises(ComponentError, match="has no gradient"):
        detached.fit()


def test_what_must_be_learned_first_is_refused_without_its_file(mini, tmp_path):
    with pytest.raises(ConfigError, match=r"matcher\.kind = 'tempered' is learned: give the file of a prompt"):
        SemanticMatcher.from_config(config_of())
    config = parse_config("{prompt: {kind: single, num_tokens: 2}}", origin="these lines")
    file = save_prompt(build_components(config, backbone=mini).prompt, tmp_path / "p.safetensors", backbone=mini)
    with pytest.raises(ConfigError, match=r"'tempered' is learned, and .*p\.safetensors does not hold it"):
        SemanticMatcher.from_config(config_of(), prompt=file)


def test_damaged_files_are_named(mini, tmp_path):
    from sd4match.prompting.serialization import PromptInfo, write_prompt

    prompt = build_components(config_of(), backbone=mini).prompt
    file = save_prompt(prompt, tmp_path / "a.safetensors", backbone=mini, components={"matcher": Tempered()})
    info, tensors = read_prompt(file)
    assert list(tensors) == ["matcher/log_temperature"]
    assert load_components(file)["matcher"].log_temperature == Tempered().log_temperature

    def written(info=info, tensors=tensors):
        write_prompt(info, tensors, tmp_path / "b.safetensors")
        return tmp_path / "b.safetensors"

    with pytest.raises(PromptFileError, match="surplus tensors: 'loss/scale'"):
        read_prompt(written(tensors={**tensors, "loss/scale": torch.ones(1)}))
    with pytest.raises(PromptMismatchError, match=r"has the tensors \['other'\]"):
        load_components(written(tensors={"matcher/other": torch.ones(1)}))
    with pytest.raises(PromptMismatchError, match=r"the matcher that it describes has \(\)"):
        load_components(written(tensors={"matcher/log_temperature": torch.ones(2)}))
    with pytest.raises(PromptFileError, match="not finite"):
        read_prompt(written(tensors={"matcher/log_temperature": torch.tensor(float("nan"))}))
    with pytest.raises(PromptFileError, match="learned 'backbone', none of"):
        read_prompt(written(info=PromptInfo(**{**vars(info), "components": {"backbone": info.components["matcher"]}})))
    with pytest.raises(InputError, match="components are matcher, pair_transform, loss, not 'lens'"):
        save_prompt(prompt, file, backbone=mini, components={"lens": Tempered()})
    with pytest.raises(InputError, match="the matcher Linear has no config"):
        save_prompt(prompt, file, backbone=mini, components={"matcher": nn.Linear(1, 1)})
    with pytest.raises(InputError, match="nothing learned"):
        save_prompt(prompt, file, backbone=mini, components={"matcher": KernelSoftArgmax()})


def test_a_matcher_around_one_that_learns_is_built_with_it():
    built = Mutual(inner={"kind": "tempered", "start": 0.1}).build()
    assert isinstance(built.module, Tempered)
    assert learns(built)
    assert [group.name for group in Learned("matcher", built).parameter_groups()] == ["matcher"]
    correlation = random_correlation()
    assert torch.equal(built(correlation).points, built.module(correlation).points)
    nested = Mutual(inner=Mutual(inner={"kind": "tempered"})).build()
    assert isinstance(nested.module, Tempered)
    plain = Mutual()
    assert plain.build() is plain
    assert not learns(plain)


def test_end_point_error_is_the_mean_distance_in_cells():
    correlation = random_correlation()
    matches = KernelSoftArgmax()(correlation)
    visible = torch.tensor([[True, True, False], [True, False, False]])
    truth = matches.points + torch.tensor([5.0, -3.0])
    truth[~visible] = float("nan")
    loss = EndPointError()(correlation, Keypoints(truth, visible), matches)
    grid = correlation.target.grid
    away = (grid.to_cells(matches.points) - grid.to_cells(truth)).norm(dim=-1)
    assert float(loss) == pytest.approx(float((away[0, :2].mean() + away[1, 0]) / 2), abs=1e-5)
    none = EndPointError()(correlation, Keypoints(truth, torch.zeros(2, 3, dtype=torch.bool)), matches)
    assert float(none) == 0.0
    with pytest.raises(InputError, match="needs matches"):
        EndPointError()(correlation, Keypoints(truth, visible))


def test_a_prompt_is_learned_by_the_matches_of_a_matcher_that_learns_nothing():
    made = trainer(Vector(), EndPointError(), matcher=SoftArgmax(temperature=0.2), steps=2)
    assert made.validation_matcher != made.matcher
    assert made.fit().step == 2
    with pytest.raises(ConfigError, match="takes matches: give the matcher"):
        trainer(Vector(), EndPointError())


class Dropping(nn.Module):
    """Matcher that differs in training and evaluation."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, correlation):
        values = nn.functional.dropout(correlation.values * self.gain, training=self.training)
        return matches_from_cells(functional.soft_argmax(values, temperature=0.1), correlation, temperature=0.1)


def test_what_matches_and_measures_is_in_evaluation_mode(mini, tmp_path):
    with registry.matchers.temporarily():
        register_matcher("dropping")(Dropping)
        config = config_of(matcher="dropping")
        components = build_components(config, backbone=mini)
        assert components.matcher.training
        train(config, components, tmp_path / "run")
        file = tmp_path / "run" / "prompt.safetensors"
        assert not load_components(file)["matcher"].training
        photos = [random_photo((60, 80)), random_photo((70, 50), seed=1)]
        matcher = SemanticMatcher.from_config(config, prompt=file)
        first, second = (matcher.match(*photos, [(10.0, 20.0)]).target_points for _ in range(2))
        assert first.tolist() == second.tolist()
        matcher.matcher = Dropping().train()
        assert not matcher.matcher.training
    counted = []

    def judged(correlation):
        counted.append(dropping.training)
        return dropping(correlation)

    judged.module = dropping = Dropping().train()
    evaluator = Evaluator(
        backbone=FakeBackbone(), protocol=EvaluationProtocol(), matchers={"own": judged}, sampling=Sampling(0)
    )
    evaluator.evaluate(FakePairs(pairs=2), Vector())
    assert (set(counted), dropping.training) == ({False}, True)
    check_matcher(Dropping())


NUMBERS = itertools.count()


class Logging(Tempered):
    def __init__(self, values):
        super().__init__()
        self.values = values

    def log_values(self):
        return self.values() if callable(self.values) else self.values


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"x": "s"}, "log_values of the matcher Logging must be numbers by name"),
        ({"x": torch.ones(2)}, "must be numbers by name"),
        ({3: 1.0}, "must be numbers by name"),
        ([1.0], "must be numbers by name"),
        ({"loss": 1.0}, "the matcher Logging logs 'loss', which is a column"),
        (lambda: {f"x{next(NUMBERS)}": 1.0}, "the same names after every step"),
        (lambda: 1 / 0, "the matcher Logging failed: ZeroDivisionError"),
    ],
)
def test_what_is_logged_must_be_numbers_by_name(values, message):
    with pytest.raises(ComponentError, match=message):
        trainer(Vector(), EndPointError(), matcher=Logging(values), steps=2).fit()


def test_a_matcher_around_one_that_learns_logs_what_it_logs():
    built = Mutual(inner={"kind": "tempered", "start": 0.1}).build()
    assert Learned("matcher", built).log_values() == pytest.approx({"matcher_temperature": 0.1})


def test_a_class_that_has_changed_is_told_from_a_damaged_file(mini, tmp_path):
    prompt = build_components(config_of(), backbone=mini).prompt
    file = save_prompt(prompt, tmp_path / "a.safetensors", backbone=mini, components={"matcher": Tempered()})
    registry.matchers.unregister("tempered")

    @register_matcher("tempered")
    class Changed(Tempered):
        def __init__(self, *, start: float = 0.05) -> None:
            super().__init__(start=start)
            self.more = nn.Parameter(torch.ones(1))

    with pytest.raises(
        PromptMismatchError, match=r"has the tensors \['log_temperature'\]; the matcher that it describes"
    ):
        load_components(file)


def test_a_loss_that_is_a_module_learns_all_its_parameters_unless_it_says_otherwise():
    from sd4match.matching import MatchingLoss

    class Scaled(nn.Module, MatchingLoss):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

    (group,) = Scaled().parameter_groups()
    assert (group.name, group.scale) == ("loss", 1.0)
