"""The worst and best pairs of a report: which they are, and that their pictures show what was measured."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from helpers.direct import no_type_checker  # noqa: F401 - a fixture of all tests here
from sd4match.config.presets import load_preset
from sd4match.errors import ConfigError, InputError, SD4MatchError
from sd4match.evaluation import PairScores, choose_pairs, evaluate, pair_pictures
from sd4match.evaluation.drawings import check_drawings, draw_report
from sd4match.evaluation.pairs import own_row
from sd4match.evaluation.report import Report, make_row
from sd4match.viz import figure_to_image

FAKE = ['data={"kind": "fake"}', 'backbone={"kind": "fake"}', "evaluation.bootstrap_samples=20"]


def scores_of(correct, visible):
    names = tuple("abcdefgh"[: len(correct)])
    return PairScores(names, ("cat",) * len(names), np.array(visible), np.array(correct)[:, None], (0.1,))


@pytest.fixture(scope="module")
def report():
    config = load_preset("mini-empty", FAKE)
    return evaluate(config, baselines=["identity"])


def test_pairs_are_chosen_by_pck_then_points_then_order():
    scores = scores_of([0, 0, 0, 2, 4, 1], [2, 4, 4, 2, 4, 2])
    assert choose_pairs(scores, 2) == {"b": "worst", "c": "worst", "e": "best", "d": "best"}
    assert choose_pairs(scores, 0) == {}


def test_no_pair_is_both_worst_and_best():
    scores = scores_of([0, 1, 2], [2, 2, 2])
    assert choose_pairs(scores, 2) == {"a": "worst", "b": "worst", "c": "best"}
    assert choose_pairs(scores, 9) == {"a": "worst", "b": "worst", "c": "worst"}
    with pytest.raises(InputError, match=r"alpha 0\.2 was not measured; known: 0\.1"):
        choose_pairs(scores, 1, alpha=0.2)
    with pytest.raises(InputError, match="number of pairs"):
        choose_pairs(scores, -1)


def test_pictures_show_what_was_measured(report):
    steps = []
    pictures = pair_pictures(report, count=2, device="cpu", progress=lambda *step: steps.append(step))
    scores = report.results[0].scores
    assert [(shown.pair_id, shown.rank) for shown in pictures] == list(choose_pairs(scores, 2).items())
    for shown in pictures:
        index = scores.pair_ids.index(shown.pair_id)
        counts = (int(scores.correct[index, scores.alphas.index(0.1)]), int(scores.visible[index]))
        assert (shown.correct, shown.visible) == counts
        assert shown.drawn_correct == shown.correct
        assert shown.caption == f"{shown.pair_id} ({shown.category}): {counts[0]} of {counts[1]} points correct"
        assert shown.picture.height == 480
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert "; 7 in this picture" in replace(pictures[0], drawn_correct=7).caption


def test_baselines_are_drawn_without_a_model_and_other_rows_by_their_names(report):
    (shown, _) = pair_pictures(report, count=1, row="identity")
    assert (shown.row, shown.drawn_correct) == ("identity", shown.correct)
    config = load_preset("mini-text")
    further = [make_row(name, report.results[0].scores, config, matcher=matcher) for name, matcher in
               (("empty", "nearest_neighbor"), ("mine", "kernel_soft_argmax"), ("odd", "none"))]  # fmt: skip
    mixed = replace(report, results=(*report.results, *further))
    for row, message in (
        ("mine", "does not say what the prompt of the row 'mine' was"),
        ("odd", "the row 'odd' is no known baseline"),
        ("none such", "no row 'none such'"),
    ):
        with pytest.raises(InputError, match=message):
            pair_pictures(mixed, count=1, row=row)
    alone = replace(mixed, results=(further[0],))
    with pytest.raises(InputError, match="does not say what the matcher 'nearest_neighbor' was"):
        pair_pictures(alone, count=1)


def test_the_row_of_the_experiment_is_found(report):
    assert own_row(report) is report.results[0]
    rows = (make_row("other", report.results[0].scores, load_preset("mini-text")), report.results[0])
    assert own_row(replace(report, results=rows, extra={"seconds": {}})) is rows[1]
    assert own_row(replace(report, results=rows, extra={"best_step": 1})) is rows[1]
    assert own_row(replace(report, results=rows[:1], extra={"seconds": {}})) is rows[0]


def test_what_is_not_there_any_more_is_said(report):
    values = report.to_json()
    cases = {
        ("config", "backbone", "kind"): ("nothing", "config cannot be used: .*nothing"),
        ("config", "data", "pairs"): (1, "has no pair"),
        ("backbone", "fingerprint"): ("f", "the weights are not those of the report"),
        ("prompt_file",): ("gone.safetensors", "gone.safetensors"),
    }
    for path, (value, message) in cases.items():
        changed = json.loads(json.dumps(values))
        place = changed
        for name in path[:-1]:
            place = place[name]
        place[path[-1]] = value
        with pytest.raises(SD4MatchError, match=message):
            pair_pictures(Report.from_json(changed), count=1)
    assert pair_pictures(report, count=0) == []


def test_drawings_are_png_files_by_name(report, monkeypatch):
    monkeypatch.setattr("sd4match.evaluation.drawings.pair_pictures", partial(pair_pictures, count=1))
    monkeypatch.setattr("sd4match.evaluation.drawings.figure_to_image", partial(figure_to_image, scale=0.25))
    drawn = draw_report(report, check_drawings(["pairs", "alpha", "pairs"]))
    assert list(drawn) == ["report-alpha.png", "report-pairs.png"]
    assert all(content[:4] == b"\x89PNG" for content in drawn.values())
    with pytest.raises(ConfigError, match="--draw: unknown picture 'pears'; did you mean 'pairs'"):
        check_drawings(["pears"])
