"""Matchers, prompts, backbones and data sets of others that raise or answer nonsense: an error names the part."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.training import Vector
from helpers.unchecked import unchecked  # noqa: F401 - a fixture
from sd4match.config.presets import load_preset
from sd4match.config.protocols import EvaluationProtocol
from sd4match.errors import ComponentError, ConfigError, DatasetError, InputError, ShapeError
from sd4match.evaluation.baselines import BASELINES, check_baselines
from sd4match.evaluation.counting import count_pairs
from sd4match.evaluation.evaluator import Evaluator
from sd4match.evaluation.run import evaluate
from sd4match.matching.matchers import NearestNeighbor
from sd4match.structures.tensors import Matches, PromptEmbedding, Sampling
from sd4match.testing import FakeBackbone, FakePairs


def evaluator(**changes):
    options = {
        "backbone": FakeBackbone(), "protocol": EvaluationProtocol(), "matchers": {"mine": NearestNeighbor()},
        "sampling": Sampling(0), "memory": 10**8,
    }  # fmt: skip
    return Evaluator(**(options | changes))


def raising(*_):
    raise KeyError("broken")


def points(value):
    return lambda correlation: Matches(value, torch.ones(1, 1))


@pytest.mark.parametrize(
    ("matcher", "error", "part"),
    [
        (raising, ComponentError, "the matcher raising failed: KeyError: 'broken'"),
        (lambda correlation: None, ComponentError, "must return Matches, not None"),
        (lambda correlation: torch.zeros(1, 5, 2), ComponentError, "must return Matches, not tensor"),
        (points(torch.zeros(5, 2)), ShapeError, r"must be \(B, N, 2\), not \(5, 2\)"),
        (points(torch.zeros(1, 1, 2)), ComponentError, r"must return points of shape \(1, 5, 2\)"),
        (points(torch.zeros(1, 5, 3)), ShapeError, r"must be \(B, N, 2\), not \(1, 5, 3\)"),
        (points(np.zeros((1, 5, 2))), InputError, "points must be a Tensor"),
        (lambda c: Matches(c.query_points * float("nan"), torch.ones(1, 5)), ComponentError, "points that are NaN"),
    ],
)
def test_a_matcher_is_named(matcher, error, part):
    with pytest.raises(error, match=rf"matcher 'mine', pair 'pair-0': .*{part}"):
        evaluator(matchers={"mine": matcher}).evaluate(FakePairs(pairs=2), Vector())


def test_a_point_that_is_not_visible_may_be_predicted_anywhere():
    def predict(records):
        found = []
        for record in records:
            predicted = torch.from_numpy(record.target_points).clone()
            predicted[~record.visible] = float("nan")
            found.append({"it": predicted})
        return found

    scores = count_pairs(FakePairs(pairs=6), predict, EvaluationProtocol(), ["it"], batches=[range(6)])["it"]
    assert set(scores.pck("point").values()) == {1.0}


class Answering(Vector):
    """Prompt that answers as it is told."""

    def __init__(self, answer, scope="dataset"):
        super().__init__()
        self.answer, self.scope = answer, scope

    def forward(self, images, partners=None):
        return self.answer(images) if callable(self.answer) else self.answer


@pytest.mark.parametrize(
    ("prompt", "error", "part"),
    [
        (Answering(raising), ComponentError, "the prompt Answering failed: KeyError"),
        (Answering(raising, "pair"), ComponentError, "the prompt Answering failed: KeyError"),
        (Answering(None), ComponentError, "the prompt Answering must return PromptEmbedding"),
        (
            Answering(lambda images: PromptEmbedding(torch.zeros(16, 8))),
            ShapeError,
            r"values of a prompt must be \(B, _, D\)",
        ),
        (
            Answering(lambda images: PromptEmbedding(torch.zeros(3, 16, 8))),
            ComponentError,
            "(must be|must return) ",
        ),
        (Answering(None, "world"), InputError, "unknown scope of Answering 'world'"),
        (None, InputError, "prompt must be a Prompt"),
        (Vector, InputError, "prompt must be a Prompt"),
    ],
)
def test_a_prompt_is_named(prompt, error, part):
    with pytest.raises(error, match=part):
        evaluator().evaluate(FakePairs(pairs=4, photos=2), prompt)


class Strange(FakeBackbone):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def extract(self, encoded, prompt, sampling):
        return self.answer(super().extract(encoded, prompt, sampling))


@pytest.mark.parametrize("scope", ["dataset", "pair"])
@pytest.mark.parametrize(
    ("answer", "part"),
    [
        (raising, "failed: KeyError"),
        (lambda maps: None, ""),
        (lambda maps: maps[:1], "must return one map for each of"),
    ],
)
def test_a_backbone_is_named(answer, part, scope):
    prompt = Answering(lambda images: PromptEmbedding(torch.zeros(len(images), 16, 8)), scope)
    with pytest.raises(ComponentError, match=rf"the backbone Strange {part}"):
        evaluator(backbone=Strange(answer)).evaluate(FakePairs(pairs=4), prompt)


@pytest.mark.parametrize("transform", [raising, lambda a, b: None, lambda a, b: (a,), lambda a, b: (a, None)])
def test_a_pair_transform_is_named(transform):
    with pytest.raises(ComponentError, match=r"the pair transform (raising|<lambda>)"):
        evaluator(pair_transform=transform).evaluate(FakePairs(pairs=2), Vector())


class Wrong(FakePairs):
    """Data set of which something is not as the interface says."""

    def __init__(self, changes=(), answer=None, **options):
        self._changes, self._answer = {}, None
        super().__init__(**{"pairs": 3} | options)
        self._changes, self._answer = dict(changes), answer

    def __getitem__(self, index):
        record = super().__getitem__(index)
        record = replace(record, **self._changes)
        return record if self._answer is None else self._answer(record)


class Longer(FakePairs):
    def __len__(self):
        return 100


class Photoless(FakePairs):
    def photo(self, image_id):
        return None


class Photobreaking(FakePairs):
    def photo(self, image_id):
        raise ZeroDivisionError(image_id)


def with_keys(*keys):
    data = FakePairs(pairs=1)
    data.keys = keys
    return data


INFINITE = (0.0, 0.0, float("inf"), 9.0)


@pytest.mark.parametrize(
    ("data", "error", "part"),
    [
        (FakePairs(pairs=0), DatasetError, "the data set fake, test split has no pairs"),
        (None, InputError, "dataset must be a PairDataset"),
        ([1], InputError, "dataset must be a PairDataset"),
        (
            Longer(pairs=3),
            ComponentError,
            "the data set fake, test split says that it has 100 pairs, but its keys are 3",
        ),
        (with_keys(3), ComponentError, "keys must be of PairKey"),
        (with_keys(*FakePairs(pairs=1).keys * 2), DatasetError, "lists the pair 'pair-0' twice"),
        (Wrong(answer=raising), ComponentError, "pair 'pair-0': the data set Wrong failed: KeyError"),
        (Wrong(answer=lambda record: 3), ComponentError, "pair 'pair-0': must be a PairRecord, not 3"),
        (Wrong({"pair_id": "x"}), ComponentError, "is another pair than its key says: 'x'"),
        (Wrong({"visible": np.ones(5, dtype=np.int64)}), DatasetError, "visible must be an array"),
        (Wrong({"source_points": np.zeros((4, 2))}), DatasetError, "source_points must be an array"),
        (Wrong({"target_points": np.full((5, 2), np.nan)}), DatasetError, "a visible point is not finite"),
        (Wrong({"target_size": (0, 3)}), DatasetError, "its size must be"),
        (Wrong({"target_box": INFINITE}), DatasetError, "its box must be four finite"),
        (Wrong({"target_box": (9.0, 9.0, 1.0, 1.0)}), DatasetError, "nothing inside"),
        (Wrong({"target_box": (1.0, 1.0)}), DatasetError, "its box must be four"),
        (Photoless(), ComponentError, "must return a Photo"),
        (Photobreaking(), ComponentError, "failed for .*ZeroDivisionError"),
    ],
)
def test_a_data_set_is_named(data, error, part):
    with pytest.raises(error, match=part):
        evaluator().evaluate(data, Vector())


def test_a_reference_that_is_none_is_named():
    data = FakePairs(pairs=2)
    data.reference = "side"
    with pytest.raises(InputError, match="unknown reference of the data set fake, test split 'side'"):
        evaluator().evaluate(data, Vector())


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"batch_size": 0}, "batch_size"), ({"batch_size": -1}, "batch_size"), ({"batch_size": 2.5}, "batch_size"),
        ({"batch_size": True}, "batch_size"), ({"memory": -1}, "memory"), ({"memory": "8 GB"}, "memory"),
        ({"matchers": {}}, "matchers must hold one"), ({"matchers": None}, "matchers must be a mapping"),
        ({"matchers": {"x": None}}, "matchers must be"), ({"matchers": {"x": NearestNeighbor}}, "matchers must be"),
        ({"matchers": {3: NearestNeighbor()}}, "matchers must be"), ({"sampling": None}, "sampling must be a Sampling"),
        ({"protocol": "dift"}, "protocol must be an EvaluationProtocol"), ({"backbone": None}, "must be a Backbone"),
        ({"map_dtype": torch.int8}, "map_dtype must be one of"), ({"pair_transform": 3}, "pair_transform must be"),
    ],
)  # fmt: skip
def test_arguments_of_an_evaluator_are_checked(changes, part):
    with pytest.raises(InputError, match=part):
        evaluator(**changes)


@pytest.mark.parametrize("name", ["", "identiy", "x" * 5000, "\udcff", 3, None, "__class__"])
def test_a_baseline_of_a_strange_name_is_refused_in_a_short_line(name):
    with pytest.raises(ConfigError, match="unknown baseline") as caught:
        check_baselines([name])
    assert len(str(caught.value)) < 400


def test_a_prompt_named_as_a_baseline_is_not_taken_for_it(monkeypatch):
    from sd4match.evaluation import run

    config = load_preset("mini-text", ["evaluation.bootstrap_samples=20", "data.pairs=4", "data.photos_per_category=2"])
    data = run.build_dataset(config, "test")
    found = run.PromptScores(
        "identity", config.matcher.kind, run.evaluate_baselines(config, data, ["random"])["random"]
    )
    monkeypatch.setattr(run, "build_for_matching", lambda *a, **k: type("Built", (), {"backbone": FakeBackbone()}))
    monkeypatch.setattr(run, "_named_prompts", lambda *a: {})
    monkeypatch.setattr(run, "evaluate_prompts", lambda *a, **k: [found])
    report = evaluate(config, baselines=["identity"])
    assert [row.prompt for row in report.results] == ["identity", "identity (baseline)"]
    assert report.comparisons[0].b == "identity (baseline)"
    assert set(BASELINES) == {"identity", "random"}
