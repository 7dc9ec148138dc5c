"""Matchers that reject: coverage and PCK of the kept in counts and reports; calibration of scores."""

from __future__ import annotations

import json

import numpy as np
import pytest

from helpers.direct import no_type_checker  # noqa: F401 - a fixture of all tests here
from helpers.loaded_once import loaded_once  # noqa: F401 - a fixture
from sd4match import SemanticMatcher
from sd4match.config import build_dataset, load_preset
from sd4match.errors import InputError, ShapeError
from sd4match.evaluation import Calibration, PairScores, calibrate, evaluate, read_report, write_report
from sd4match.evaluation.scores import PairCount
from sd4match.evaluation.tables import to_markdown
from sd4match.testing import FakePairs

pytestmark = pytest.mark.usefixtures("loaded_once")

SMALL = ["data.photos_per_category=2", "data.pairs=4", "evaluation.bootstrap_samples=10"]


def test_reports_have_coverage_and_pck_of_the_kept(tmp_path):
    rejecting = "matcher={kind: threshold, min_score: 0.35, inner: nearest_neighbor}"
    plain = evaluate(load_preset("mini-empty", [*SMALL, "matcher=nearest_neighbor"])).results[0]
    report = evaluate(load_preset("mini-empty", [*SMALL, rejecting]))
    write_report(report, tmp_path, title="t")
    row = report.results[0]
    scores = row.scores
    assert 0 < scores.coverage < 1
    assert scores.coverage == scores.kept.sum() / scores.visible.sum()
    assert (scores.correct <= scores.kept[:, None]).all()
    assert (scores.correct <= plain.scores.correct).all()  # a match that is rejected is not correct
    assert scores.pck_of_kept()["0.1"] == scores.correct[:, 1].sum() / scores.kept.sum()
    assert plain.scores.kept is None
    assert plain.scores.coverage == 1
    assert "% of the visible points have a match" in to_markdown(report, title="t")
    stored = json.loads((tmp_path / "report.json").read_text())["results"][0]
    assert stored["coverage"] == scores.coverage
    assert read_report(tmp_path).results[0].scores.kept.tolist() == scores.kept.tolist()


@pytest.mark.parametrize("kept", [np.array([3]), np.array([0]), np.array([1.5]), np.array([1, 1])])
def test_impossible_counts_of_kept_points_are_refused(kept):
    with pytest.raises((InputError, ShapeError), match="kept"):
        PairScores(("a",), ("cat",), np.array([2]), np.array([[1]]), (0.1,), kept=kept)
    with pytest.raises(InputError, match="kept"):
        PairCount("a", "cat", 2, (1,), kept=3)


def test_a_calibration_is_that_of_the_matches():
    config = load_preset("mini-empty", SMALL)
    data = build_dataset(config, "test")
    matcher = SemanticMatcher.from_preset("mini-empty")
    steps = []
    found = calibrate(matcher, data, progress=lambda *at: steps.append(at))
    assert steps[-1] == (4, 4)
    assert len(found.scores) == sum(record.visible.sum() for record in data)
    report = evaluate(config)
    assert found.correct.mean() == pytest.approx(report.results[0].pck["point"]["0.1"])
    assert sum(count for _, _, count, _ in found.table()) == len(found.scores)
    assert len(found.plot(title="t").axes) == 2


def test_a_threshold_reaches_a_precision():
    scores, correct = np.array([0.9, 0.8, 0.8, 0.5, 0.2]), np.array([True, True, False, True, False])
    calibration = Calibration(scores, correct)
    for precision in (1.0, 0.7, 0.6):
        least = calibration.threshold_for(precision)
        assert correct[scores >= least].mean() >= precision
        lower = scores[scores < least]
        assert all(correct[scores >= other].mean() < precision for other in lower)
    with pytest.raises(InputError, match="no threshold"):
        Calibration(np.array([0.5]), np.array([False])).threshold_for(0.5)


def test_malformed_calibrations_are_refused():
    with pytest.raises(ShapeError, match="expected scores"):
        Calibration(np.ones(2), np.ones(1, dtype=bool))
    for scores in (np.ones(0), np.array([2.0])):
        with pytest.raises(InputError, match="one match or more"):
            Calibration(scores, np.ones(len(scores), dtype=bool))
    with pytest.raises(InputError, match="no pair"):
        calibrate(SemanticMatcher.from_preset("mini-empty"), FakePairs(pairs=1, invisible_pair=0))
