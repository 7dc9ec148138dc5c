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
from sd4match.pipeline import build_for_matching
from sd4match.training import sweep_fields
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
        assert 480 <= shown.picture.height <= 510  # and a margin for marks at the border
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


@pytest.fixture
def built(monkeypatch):
    """Configs, prompt files and changes of what is built for pictures, in order."""
    seen = []

    def build(config, *, prompt, prompt_changes, device):
        seen.append((config, prompt, dict(prompt_changes)))
        return build_for_matching(config, prompt=prompt, prompt_changes=prompt_changes, device=device)

    monkeypatch.setattr("sd4match.evaluation.pairs.build_for_matching", build)
    return seen


def test_rows_of_a_sweep_are_drawn_as_they_were_measured(tmp_path, built):
    fields = ["evaluation.sampling.timestep=0,300", "matcher.temperature=0.01,0.5"]
    report = sweep_fields(tmp_path, fields, preset="mini-empty", overrides=FAKE)
    for row in report.results:
        (shown, *_) = pair_pictures(report, row=row.prompt, count=1, device="cpu")
        assert shown.drawn_correct == shown.correct
    assert [(config.evaluation.sampling.timestep, config.matcher.temperature) for config, *_ in built] == [
        (0, 0.01), (0, 0.5), (300, 0.01), (300, 0.5),
    ]  # fmt: skip
    values = report.to_json()
    values["results"][1]["backbone"]["fingerprint"] = "other"
    with pytest.raises(InputError, match=r"the weights are not those of the report: .*, not 'other'"):
        pair_pictures(Report.from_json(values), row=report.results[1].prompt, count=1)
    values["results"][1]["config"] = {"matcher": {"kind": "nothing"}}
    with pytest.raises(InputError, match=r"the config of a row cannot be used: .*nothing"):
        pair_pictures(Report.from_json(values), row=report.results[1].prompt, count=1)
    del values["results"][1]["config"]
    with pytest.raises(InputError, match=r"does not say what was measured in the row 'timestep=0, temperature=0\.5'"):
        pair_pictures(Report.from_json(values), row=report.results[1].prompt, count=1)


def test_the_prompt_of_a_row_of_a_sweep_is_in_the_folder_that_the_row_names(tmp_path, report):
    (row, *_) = report.results
    for given, wanted in (("training/prompt.safetensors", tmp_path / "training"), ("/else/p.safetensors", "/else/p")):
        swept = replace(
            report, extra={"seconds": {}}, results=(replace(row, extra={"config": {}, "prompt_file": given}),)
        )
        with pytest.raises(SD4MatchError, match=f"no such prompt file: {wanted}"):
            pair_pictures(swept, count=1, folder=tmp_path)
    swept = replace(report, extra={"seconds": {}}, results=(replace(row, extra={"config": {}, "prompt_file": "a"}),))
    with pytest.raises(InputError, match="lies in the folder of the report: give the folder"):
        pair_pictures(swept, count=1)


def test_rows_of_an_evaluation_are_drawn_with_their_own_matcher_and_prompt(tmp_path, built):
    matchers = 'evaluation.matchers=[{"kind": "kernel_soft_argmax", "temperature": 0.5}, {"kind": "nearest_neighbor"}]'
    config = load_preset("mini-text", [*FAKE, matchers])
    report = evaluate(config, against="empty")
    names = ["text", "text + kernel_soft_argmax 2", "text + nearest_neighbor", "empty"]
    for name in names:
        (shown, *_) = pair_pictures(report, row=name, count=1, device="cpu")
        assert shown.drawn_correct == shown.correct
    found = [(each.prompt.kind, each.matcher) for each, *_ in built]
    own, (other, nearest) = config.matcher, config.evaluation.matchers
    assert found == [("text", own), ("text", other), ("text", nearest), ("empty", own)]
    assert report.extra["against"] == "empty"
    of_file = replace(report, extra={**report.extra, "against": str(tmp_path / "empty.safetensors")})
    with pytest.raises(SD4MatchError, match=r"no such prompt file: .*empty\.safetensors"):
        pair_pictures(of_file, row="empty", count=1)
    changed = {"prompt_file": "gone.safetensors", "prompt_changes": {"fallback": "mean"}}
    with pytest.raises(SD4MatchError, match=r"gone\.safetensors"):
        pair_pictures(replace(report, extra={**report.extra, **changed}), row="text", count=1)
    assert built[-1][2] == {"fallback": "mean"}
