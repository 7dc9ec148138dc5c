"""Reports whose fields are missing, of other types or impossible: one error that names file and field."""

from __future__ import annotations

import copy
import json
import os

import numpy as np
import pytest

from helpers.unchecked import unchecked  # noqa: F401 - a fixture
from sd4match.config.presets import load_preset
from sd4match.errors import InputError, ShapeError
from sd4match.evaluation.report import make_report, make_row, read_report, write_report
from sd4match.evaluation.run import compare_reports
from sd4match.evaluation.scores import PairCount, PairScores, Skipped, compare, resampling
from sd4match.testing import FakePairs

ALPHAS = (0.05, 0.1, 0.15)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Return the folder of a whole report, and its values."""
    config = load_preset("mini-text", ["evaluation.bootstrap_samples=20"])
    counts = [PairCount(f"pair-{i}", "cat", 5, (i % 3, i % 3 + 1, 4), {"occlusion": i % 2}) for i in range(4)]
    scores = PairScores.of([*counts, Skipped("pair-4", "gone")], alphas=ALPHAS)
    rows = [make_row(name, scores, config) for name in ("text", "other")]
    backbone = {"name": "mini", "architecture": "tiny", "fingerprint": "1"}
    made = make_report(
        config=config, data=FakePairs(pairs=5), results=rows[:1], baselines=rows[1:], backbone=backbone, wall_seconds=1
    )
    folder = tmp_path_factory.mktemp("report")
    write_report(made, folder, title="t")
    return folder, json.loads((folder / "report.json").read_text())


REQUIRED = [
    "schema_version", "results", "comparisons", "baselines", "protocol", "data", "not_comparable_because", "published",
    "config", "seed", "versions", "platform", "wall_seconds", "data.name", "data.split", "data.pairs", "data.complete",
    "data.pair_list_digest", "data.categories", "data.reference", "config.evaluation", "config.evaluation.protocol",
    "backbone.name", "versions.torch", "results.0.prompt", "results.0.matcher", "results.0.protocol",
    "results.0.pck", "results.0.pck.image", "results.0.pck.image.0.1", "results.0.ci95", "results.0.ci95.point",
    "results.0.ci95.point.0.1", "results.0.counts", "baselines.0.counts",
    *(f"results.0.counts.{name}" for name in
      ("pair_ids", "categories", "visible", "correct", "alphas", "left_out", "difficulty", "skipped")),
]  # fmt: skip
"""Fields without which there is no report."""


def steps(path):
    """Split a path; `0.1` at its end is the name of an alpha."""
    end = ["0.1"] if path.endswith(".0.1") else []
    return [int(step) if step.isdigit() else step for step in path.removesuffix(".0.1").split(".")] + end


def damaged(values, path, change):
    """Return a copy in which one field is changed; `change` is a value, or "drop"."""
    tree = copy.deepcopy(values)
    *parents, last = steps(path)
    node = tree
    for step in parents:
        node = node[step]
    if change == "drop":
        del node[last]
    else:
        node[last] = change
    return tree


def refuse(folder, content, *parts):
    """Write a report, and check that reading it names the file and some parts."""
    folder.mkdir(exist_ok=True)
    file = folder / "report.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(InputError) as caught:
        read_report(folder)
    message = str(caught.value)
    assert str(file) in message
    for part in parts:
        assert part in message
    assert len(message) < 600
    assert "\n" not in message


@pytest.mark.parametrize("path", REQUIRED)
def test_a_field_that_is_missing_or_of_another_type_is_named(report, tmp_path, path):
    *_, last = steps(path)
    node = values = report[1]
    for step in steps(path):
        node = node[step]
    may_be_empty = last in (
        "comparisons", "results", "baselines", "published", "not_comparable_because", "categories", "difficulty"
    )  # fmt: skip
    by_number = isinstance(last, int) or last in ("results", "skipped", "counts", "pair_ids", "alphas", "protocol")
    for change in ("drop", [], {}, "text", True, -1, 1e300, None, [[[]]]):
        is_whole = change == node or (isinstance(node, str) and change == "text") or (node is False and change is True)
        if not is_whole and not (may_be_empty and change == []):
            refuse(tmp_path / "r", damaged(values, path, change), *([] if by_number else [last]))


@pytest.mark.parametrize(
    ("path", "change", "part"),
    [
        ("results.0.counts.visible", [0, 5, 5, 5], "visible >= 1"),
        ("results.0.counts.visible", [-1, 5, 5, 5], "visible must be a whole number"),
        ("results.0.counts.visible", [5.0, 5, 5, 5], "visible must be a whole number"),
        ("results.0.counts.visible", [True, 5, 5, 5], "visible must be a whole number"),
        ("results.0.counts.visible", [5, 5, 5], "visible"),
        ("results.0.counts.correct", [[9, 9, 9]] * 4, "0 <= correct <= kept <= visible"),
        ("results.0.counts.correct", [[3, 2, 1]] * 4, "not falling with alpha"),
        ("results.0.counts.correct", [[1, 1]] * 4, "3 numbers for each pair"),
        ("results.0.counts.correct", [[1, 1, "1"]] * 4, "correct must be a whole number"),
        ("results.0.counts.alphas", [0.1, 0.1, 0.2], "different"),
        ("results.0.counts.alphas", [0.1, 0.1000000001, 0.2], "different"),
        ("results.0.counts.alphas", ["0.05", 0.1, 0.15], "alpha must be a number"),
        ("results.0.counts.alphas", [0.0, 0.1, 0.15], "positive"),
        ("results.0.counts.alphas", [0.05, 0.1, 0.2], "pck.image"),
        ("results.0.counts.pair_ids", ["a", "a", "b", "c"], "'a' is listed twice"),
        ("results.0.counts.pair_ids", [1, 2, 3, 4], "pair_ids must be texts"),
        ("results.0.counts.categories", ["cat"], "columns of different lengths"),
        ("results.0.counts.difficulty", [{"x": "hard"}] * 4, "difficulty"),
        ("results.0.counts.difficulty", [3] * 4, "difficulty"),
        ("results.0.counts.skipped", [["pair-4"]], "skipped"),
        ("results.0.counts.skipped", [], "5 pairs"),
        ("results.0.pck.image.0.1", 0.9, "the counts give"),
        ("results.0.ci95.image.0.1", [0.9, 0.1], "the smaller one first"),
        ("results.0.ci95.image.0.1", [0.1], "two numbers"),
        ("results.0.protocol", "dift", "protocol"),
        ("versions", {"torch": "2", "sd4match": 3}, "versions"),
        ("comparisons", [{"a": "a", "b": "b", "metric": "m", "difference": 7, "ci95": [0, 0]}], "difference"),
        ("published", [{"method": "x"}], "must have the fields"),
    ],
)
def test_what_cannot_be_is_refused(report, tmp_path, path, change, part):
    refuse(tmp_path / "r", damaged(report[1], path, change), part)


def test_a_published_row_of_other_types_is_refused(report, tmp_path):
    row = {"method": 3, "trained_on": None, "protocol": None, "pck_percent": {"0.1": 50.0}, "by_category_percent": {},
           "source": "s", "comparable": True, "why_not": None, "average": "image"}  # fmt: skip
    for changes in ({}, {"method": "m", "pck_percent": {"0.1": 700}}, {"method": "m", "comparable": 1}):
        refuse(tmp_path / "r", {**report[1], "published": [row | changes]}, "published[0]: ")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "not valid JSON"), ("[" * 100_000, "nests too deep"), ('{"a": NaN}', "NaN"), ('{"a": 1e999}', "finite"),
        ("9" * 5000, "5000 digits"), ('{"a": 1, "a": 2}', "appears twice"), ("[]", "schema version 3"),
        ('{"schema_version": 2}', "schema version 3"), ('{"schema_version": true}', "schema version 3"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_report_is_named(tmp_path, text, part):
    refuse(tmp_path / "r", text, part)


def test_what_is_no_regular_file_is_not_waited_for(report, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path, part in (
        (tmp_path / "fifo", "not a regular file"), ("/dev/zero", "not a regular file"), (tmp_path, "no such report"),
        (tmp_path / ("x" * 300), "cannot read the report"), ("~nobody-here/r", "user that does not exist"),
        ("", "empty"),
        (None, "path must be"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=part):
            read_report(path)


@pytest.mark.parametrize("samples", [0, -1, 10**10, 2.5, True, "many", None])
def test_the_samples_of_a_comparison_are_bounded(report, samples):
    folder, _ = report
    with pytest.raises(InputError, match="samples must be a whole number"):
        compare_reports(folder, folder, samples=samples)


@pytest.mark.parametrize("seed", [-1, 2**63, 0.5])
def test_the_seed_of_a_comparison_is_bounded(report, seed):
    folder, _ = report
    with pytest.raises(InputError, match="seed must be a whole number"):
        compare_reports(folder, folder, samples=5, seed=seed)


def test_protocols_that_differ_in_a_field_that_only_one_has_are_refused(report, tmp_path):
    folder, values = report
    (tmp_path / "report.json").write_text(json.dumps(damaged(values, "config.evaluation.protocol.extra", 1)))
    with pytest.raises(InputError, match="differ in extra"):
        compare_reports(folder, tmp_path, samples=5)


def test_scores_check_what_they_are_made_of():
    one, rows = np.array([1]), np.array([[1]])
    for arguments, error, part in (
        ((("a",), ("x",), np.array([1.0]), rows, (0.1,)), ShapeError, "visible must be whole numbers"),
        ((("a",), ("x",), [1], rows, (0.1,)), InputError, "visible must be an array of numbers"),
        ((("a",), ("x",), one, np.array([[1, 1]]), (0.1,)), ShapeError, "correct must be whole numbers"),
        ((("a",), ("x", "y"), one, rows, (0.1,)), ShapeError, "different lengths"),
        ((("a",), ("x",), one, np.array([[2]]), (0.1,)), InputError, "0 <= correct <= kept <= visible"),
        ((("a",), ("x",), one, np.zeros((1, 0), dtype=int), ()), InputError, "alphas must be positive"),
        ((("a",), ("x",), one, rows, (float("nan"),)), InputError, "alpha must be finite"),
        ((("a",), ("x",), one, rows, (0.1,), -1), InputError, "left_out"),
        (((3,), ("x",), one, rows, (0.1,)), InputError, "pair_ids must be a tuple of items that are a text"),
    ):
        with pytest.raises(error, match=part):
            PairScores(*arguments)
    for arguments in (("a", "x", -1, ()), ("a", "x", 1, (2,)), ("a", "x", 1.5, ()), ("a", "x", True, ())):
        with pytest.raises(InputError, match=r"visible must be|pair 'a': "):
            PairCount(*arguments)
    with pytest.raises(ShapeError, match="2 counts of correct points, but there are 1 alphas"):
        PairScores.of([PairCount("a", "x", 2, (1, 1))], alphas=(0.1,))
    scores = PairScores(("a",), ("x",), one, rows, (0.1,))
    with pytest.raises(InputError, match="unknown average 'median'"):
        scores.pck("median")
    with pytest.raises(InputError, match="bootstrap samples"):
        scores.intervals(samples=10**12, seed=0)
    with pytest.raises(InputError, match="number of pairs"):
        next(resampling(0, 5, 0))
    with pytest.raises(InputError, match="seed of the bootstrap"):
        compare(scores, scores, average="image", alpha=0.1, samples=3, seed=-1)
    empty = PairScores.of([Skipped("a", "no such photo: a.jpg")], alphas=(0.1,))
    with pytest.raises(InputError, match=r"no PCK \(0 pairs have none, 1 were skipped, .* no such photo: a\.jpg"):
        empty.intervals(samples=3, seed=0)


def test_a_report_is_written_whole_and_replaces_its_like_only(report, tmp_path):
    folder, values = report
    made = read_report(folder)
    (tmp_path / "report.md").write_text("my notes")
    with pytest.raises(InputError, match=r"report\.md in it was not made by such a run"):
        write_report(made, tmp_path, title="t")
    assert [file.name for file in tmp_path.iterdir()] == ["report.md"]
    other = tmp_path / "other"
    other.mkdir()
    for content, part in (
        ({**values, "prompt_file": None}, "holds an evaluation"),
        ([], "a report.json that is of no run"),
    ):
        (other / "report.json").write_text(json.dumps(content))
        with pytest.raises(InputError, match=part):
            write_report(made, other, title="t")
    object.__setattr__(made, "extra", {"found": float("nan")})
    with pytest.raises(InputError, match="a value that JSON does not have"):
        write_report(made, tmp_path / "new", title="t")
    assert not (tmp_path / "new").exists()
    object.__setattr__(made, "extra", {})
    write_report(made, tmp_path / "new", title="t\udcff", figures={"pair.png": b"picture"})
    assert (tmp_path / "new" / "pair.png").read_bytes() == b"picture"
