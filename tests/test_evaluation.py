from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sd4match.config import load_preset
from sd4match.errors import ConfigError, DatasetError, InputError, SD4MatchError
from sd4match.evaluation.baselines import BASELINES, identity
from sd4match.evaluation.evaluator import Evaluator, score
from sd4match.evaluation.report import make_report, result, to_markdown, write_report
from sd4match.evaluation.scores import PairScores, compare, resampling
from sd4match.matching.matchers import NearestNeighbor
from sd4match.measurement import Measurement, measurement
from sd4match.testing import FakeBackbone, FakePairs
from sd4match.types import PromptEmbedding, Sampling


class FakePrompt:
    """Counts what it is asked for."""

    def __init__(self, scope="dataset"):
        self.scope = scope
        self.asked = 0

    def __call__(self, images, partners=None):
        self.asked += len(images)
        return PromptEmbedding(torch.zeros(len(images), 16, 8))

    def parameter_groups(self):
        return []


def evaluator(backbone=None, **options):
    return Evaluator(
        backbone=backbone or FakeBackbone(),
        matcher=NearestNeighbor(),
        measurement=Measurement(),
        sampling=Sampling(0),
        **options,
    )


@pytest.mark.parametrize("scope", ["dataset", "category", "image", "pair"])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_scope_and_batching_do_not_change_the_counts(scope, batch_size):
    data = FakePairs(pairs=9)
    expected = evaluator(batch_size=2).evaluate(data, FakePrompt())
    scores = evaluator(batch_size=batch_size).evaluate(data, FakePrompt(scope))
    assert scores.pair_ids == expected.pair_ids
    assert (scores.correct == expected.correct).all()


def test_a_photo_is_extracted_once_unless_the_prompt_is_of_pairs():
    backbone = FakeBackbone()
    data = FakePairs(pairs=12, photos=4)
    photos = {(r.source_id, r.category) for r in data} | {(r.target_id, r.category) for r in data}
    evaluator(backbone).evaluate(data, FakePrompt("image"))
    assert backbone.encoded == len(photos)
    backbone.encoded = 0
    evaluator(backbone).evaluate(data, FakePrompt("pair"))
    assert backbone.encoded == 24


def test_little_memory_only_costs_time():
    data = FakePairs(pairs=12, photos=4)
    plenty, scarce = evaluator(), evaluator(max_bytes=1)
    assert (plenty.evaluate(data, FakePrompt()).correct == scarce.evaluate(data, FakePrompt()).correct).all()


def test_pairs_without_points_are_counted_and_left_out():
    whole, holed = FakePairs(pairs=5), FakePairs(pairs=5, invisible_pair=2)
    scores = evaluator().evaluate(holed, FakePrompt())
    assert scores.left_out == 1
    assert "pair-2" not in scores.pair_ids
    assert len(scores) == 4
    assert len(evaluator().evaluate(whole, FakePrompt(), limit=3)) == 3


def test_nothing_visible_at_all_has_no_pck():
    scores = evaluator().evaluate(FakePairs(pairs=1, invisible_pair=0), FakePrompt())
    with pytest.raises(InputError, match="no pair has a visible point"):
        scores.pck("image")


def test_truth_scores_one_and_nonsense_zero():
    data = FakePairs(pairs=6)

    def truth(records):
        from sd4match.data.collate import pad_points

        return pad_points([record.target_points for record in records]).float()

    perfect = score(data, truth, Measurement())
    assert (
        perfect.pck("image")
        == perfect.pck("point")
        == perfect.pck("category")
        == {"0.05": 1.0, "0.1": 1.0, "0.15": 1.0}
    )
    wrong = score(data, lambda records: truth(records) + 1000.0, Measurement())
    assert set(wrong.pck("image").values()) == {0.0}


def test_baselines_know_no_model():
    data = FakePairs(pairs=40)
    floors = {name: score(data, make(data), Measurement()) for name, make in BASELINES.items()}
    assert 0 < floors["random"].pck("point")["0.15"] < 0.3
    assert (floors["random"].correct == score(data, BASELINES["random"](data), Measurement()).correct).all()

    class Still(FakePairs):
        def __getitem__(self, index):
            record = super().__getitem__(index)
            object.__setattr__(record, "target_points", record.source_points)
            return record

    assert score(Still(), identity(Still()), Measurement()).pck("image")["0.05"] == 1.0


def test_measurement_squashes_and_takes_the_longer_side():
    """A 100 x 400 photo: one pixel down is four across in the square."""
    rule = Measurement(frame_side=400, alphas=(0.1,))
    box = (0.0, 0.0, 200.0, 25.0)  # 200 x 100 in the square: 20 allowed
    truth = torch.tensor([[[100.0, 20.0], [100.0, 20.0]]])
    guess = torch.tensor([[[119.9, 20.0], [100.0, 25.1]]])
    correct = rule.correct(guess, truth, torch.ones(1, 2, dtype=torch.bool), photo_sizes=[(100, 400)], boxes=[box])
    assert correct[0, :, 0].tolist() == [True, False]
    outside = torch.tensor([[[450.0, 20.0]]])
    edge = torch.tensor([[[399.0, 20.0]]])
    seen = torch.ones(1, 1, dtype=torch.bool)
    assert rule.correct(edge, outside, seen, photo_sizes=[(100, 400)], boxes=[box]).all()
    with pytest.raises(DatasetError, match="box"):
        rule.correct(guess, truth, torch.ones(1, 2, dtype=torch.bool), photo_sizes=[(100, 400)], boxes=[None])
    with pytest.raises(ConfigError, match="unknown measurement 'sd4mach'; did you mean 'sd4match'"):
        measurement("sd4mach")


@st.composite
def pair_counts(draw):
    count = draw(st.integers(2, 12))
    visible = np.array(draw(st.lists(st.integers(1, 9), min_size=count, max_size=count)))
    share = np.array(draw(st.lists(st.floats(0, 1), min_size=count, max_size=count)))
    correct = np.floor(visible * share).astype(np.int64)[:, None]
    names = tuple(draw(st.sampled_from(["cat", "dog"])) for _ in range(count))
    return tuple(map(str, range(count))), names, visible, correct, (0.1,)


@given(pair_counts())
def test_averages_equal_their_definitions(counts):
    scores = PairScores(*counts)
    share = scores.correct[:, 0] / scores.visible
    assert scores.pck("image")["0.1"] == pytest.approx(share.mean())
    assert scores.pck("point")["0.1"] == pytest.approx(scores.correct.sum() / scores.visible.sum())
    by_name = [share[[n == name for n in scores.categories]].mean() for name in sorted(set(scores.categories))]
    assert scores.pck("category")["0.1"] == pytest.approx(np.mean(by_name))
    low, high = scores.interval("image", samples=200, seed=0)["0.1"]
    assert share.min() - 1e-9 <= low <= high <= share.max() + 1e-9


@given(pair_counts())
def test_nothing_differs_from_itself(counts):
    scores = PairScores(*counts)
    same = compare(scores, scores, average="image", alpha=0.1, samples=100, seed=0)
    assert same.difference == 0
    assert same.ci95 == (0.0, 0.0)


def test_bootstrap_covers_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        correct = rng.binomial(6, 0.3, size=(80, 1))
        scores = PairScores(tuple(map(str, range(80))), ("x",) * 80, np.full(80, 6), correct, (0.1,))
        low, high = scores.interval("image", samples=300, seed=trial)["0.1"]
        covered += low <= 0.3 <= high
    assert 180 <= covered <= 198


def test_comparison_refuses_other_pairs_and_unknown_alphas():
    one = PairScores(("a", "b"), ("x", "x"), np.array([1, 1]), np.array([[1], [0]]), (0.1,))
    other = PairScores(("a", "c"), ("x", "x"), np.array([1, 1]), np.array([[1], [0]]), (0.1,))
    with pytest.raises(InputError, match="same pairs"):
        compare(one, other, average="image", alpha=0.1, samples=10, seed=0)
    with pytest.raises(InputError, match=r"alpha 0\.2 was not measured"):
        compare(one, one, average="image", alpha=0.2, samples=10, seed=0)
    assert resampling(5, 7, 0).sum(axis=1).tolist() == [5.0] * 7


def test_report_holds_what_repeats_the_run(tmp_path):
    config = load_preset("mini-text", ["evaluation.bootstrap_samples=50"])
    scores = evaluator().evaluate(FakePairs(pairs=5, invisible_pair=1), FakePrompt())
    report = make_report(
        config=config,
        results=[result("text", scores, config)],
        backbone={"name": "mini", "architecture": "tiny", "fingerprint": "unknown"},
        wall_seconds=1.5,
    )
    write_report(report, tmp_path / "out", title="Title")
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    row = content["results"][0]
    assert (row["prompt"], row["pairs"], row["pairs_without_visible_points"]) == ("text", 4, 1)
    assert set(row["pck"]) == {"image", "point", "category"}
    assert set(row["pck"]["image"]) == {"0.05", "0.1", "0.15"}
    assert {"config", "seed", "versions", "wall_seconds", "measurement", "schema_version"} <= set(content)
    page = to_markdown(report, title="Title")
    assert "not numbers of Stable" in page
    (tmp_path / "file").write_text("")
    with pytest.raises(SD4MatchError, match="cannot write the report"):
        write_report(report, tmp_path / "file", title="Title")
