"""The harness of hostile inputs finds what it is there to find, and one whole group of inputs is fine."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from robustness import features, runner
from robustness.cases import FINE, Case, Outcome, input_is_ready, run_case
from robustness.runner import run_all
from sd4match.errors import InputError


def refuse(folder: Path) -> None:
    raise InputError("a.json is damaged")


def refuse_without_name(folder: Path) -> None:
    raise InputError("something is wrong")


def fail(folder: Path) -> None:
    raise KeyError("counts")


def overwrite(folder: Path) -> str:
    (folder / "mine.txt").write_text("of the user")
    input_is_ready()
    (folder / "mine.txt").write_text("lost")
    return "result"


def leave_half(folder: Path) -> None:
    input_is_ready()
    (folder / "out.json").write_text("{")
    refuse(folder)


def leave_temporary(folder: Path) -> str:
    (folder / "mine.txt").write_text("of the user")
    input_is_ready()
    (folder / ".out.json.part").touch()
    return "result"


def execute(folder: Path) -> None:
    (folder / "executed").touch()
    refuse(folder)


@pytest.mark.parametrize(
    ("act", "outcome"),
    [
        (refuse, Outcome.CLEAR), (lambda folder: "result", Outcome.RIGHT), (lambda folder: "other", Outcome.ACCEPTED),
        (refuse_without_name, Outcome.UNCLEAR), (fail, Outcome.FOREIGN), (overwrite, Outcome.LOST),
        (leave_temporary, Outcome.HALF), (execute, Outcome.EXECUTED),
    ],
)  # fmt: skip
def test_every_outcome_is_told_apart(act, outcome, tmp_path):
    assert run_case(Case("planted", "case", act, ("a.json",), right="result"), tmp_path).outcome == outcome


def test_a_half_beside_an_error_is_found(tmp_path):
    assert run_case(Case("planted", "case", leave_half, ("a.json",)), tmp_path).outcome == Outcome.HALF


def test_what_hangs_or_dies_costs_no_other_case(monkeypatch):
    monkeypatch.setattr(runner, "SECONDS", 1)
    acts = [refuse, lambda folder: time.sleep(60), lambda folder: os._exit(3), refuse]
    results = run_all([Case("planted", str(n), act, ("a.json",)) for n, act in enumerate(acts)], workers=1)
    assert [result.outcome for result in results] == [Outcome.CLEAR, Outcome.HANG, Outcome.CRASH, Outcome.CLEAR]


def test_every_damaged_feature_file_is_refused_or_read_right(tmp_path):
    cases = list(features.cases(tmp_path))
    bad = []
    for number, case in enumerate(cases):
        (tmp_path / str(number)).mkdir()
        result = run_case(case, tmp_path / str(number))
        bad += [result] * (result.outcome not in FINE)
    assert len(cases) > 150
    assert bad == []
