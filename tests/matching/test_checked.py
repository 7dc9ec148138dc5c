"""What matchers, pair transforms and losses of others may return, and how a wrong answer is named."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from helpers.direct import no_type_checker  # noqa: F401 - a fixture of all tests here
from sd4match.errors import ComponentError, InputError, NonFiniteError
from sd4match.matching import NearestNeighbor
from sd4match.matching.checked import check_correlation, checked_loss, checked_matches, checked_pair
from sd4match.structures.tensors import Keypoints, LossValue, Matches
from sd4match.testing import random_correlation

CORRELATION = random_correlation()
TRUTH = Keypoints(CORRELATION.query_points, torch.ones(2, 3, dtype=torch.bool))
POINTS, SCORES = torch.rand(2, 3, 2), torch.rand(2, 3)


def failing(*arguments):
    raise KeyError("of mine")


def refusing(*arguments):
    raise InputError("mine needs square maps")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "must return Matches, not None"),
        ((POINTS, SCORES), "must return Matches"),
        (Matches(POINTS[:1], SCORES[:1]), r"points of shape \(2, 3, 2\), not \(1, 3, 2\)"),
        (Matches(POINTS[:, :2], SCORES[:, :2]), "points of shape"),
        (Matches(POINTS * math.nan, SCORES), "points that are NaN or infinite"),
        (Matches(torch.where(SCORES[..., None] == SCORES[1, 2], math.inf, POINTS), SCORES), "NaN or infinite"),
        (Matches(POINTS, torch.where(SCORES[1, 2] == SCORES, math.nan, SCORES)), "scores that are NaN"),
        (Matches(POINTS.to("meta"), SCORES), "on cpu, not on meta"),
        (Matches(POINTS, 7 * SCORES + 1), r"must be in \[0, 1\]"),
        (Matches(POINTS, SCORES * math.nan), "scores that are NaN"),
        (Matches(POINTS, lambda: SCORES[:, :2]), "the scores of matches must be"),
        (Matches(POINTS, failing), "failed: KeyError: 'of mine'"),
    ],
)
def test_a_matcher_that_answers_something_else_is_named(answer, message):
    class Mine:
        def __call__(self, correlation):
            return answer

    with pytest.raises(ComponentError, match=message) as caught:
        _ = checked_matches(Mine(), CORRELATION).scores
    assert "the matcher Mine" in str(caught.value)


@pytest.mark.parametrize("call", ["matcher", "pair transform", "loss"])
def test_errors_of_others_are_named_and_ours_pass_through(call):
    calls = {
        "matcher": lambda part: checked_matches(part, CORRELATION),
        "pair transform": lambda part: checked_pair(part, CORRELATION.source, CORRELATION.target),
        "loss": lambda part: checked_loss(part, CORRELATION, TRUTH),
    }
    with pytest.raises(ComponentError, match=f"the {call} failing failed: KeyError: 'of mine'") as caught:
        calls[call](failing)
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(InputError, match="mine needs square maps"):
        calls[call](refusing)

    def full(*arguments):
        raise RuntimeError("CUDA out of memory. Tried to allocate 20 MiB")

    with pytest.raises(RuntimeError, match="out of memory"):
        calls[call](full)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "two maps, not NoneType"),
        ((CORRELATION.source,), "two maps, not tuple"),
        ((CORRELATION.source, POINTS), "must return FeatureMap"),
        ((CORRELATION.source[:1], CORRELATION.target), "maps of the same photos"),
        ((replace(CORRELATION.source, values=CORRELATION.source.values[:, :2]), CORRELATION.target), "2 and 6"),
    ],
)
def test_a_pair_transform_that_answers_something_else_is_named(answer, message):
    with pytest.raises(ComponentError, match=f"the pair transform <lambda> .*{message}"):
        checked_pair(lambda source, target: answer, CORRELATION.source, CORRELATION.target)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "not NoneType"),
        (1.0, "not float"),
        (torch.tensor(1), "not torch.int64"),
        (torch.ones(2), r"of shape \(\), not \(2,\)"),
        (torch.ones((), device="meta"), "not on meta"),
    ],
)
def test_a_loss_that_answers_something_else_is_named(answer, message):
    with pytest.raises(ComponentError, match=f"the loss <lambda> must return .*{message}"):
        checked_loss(lambda correlation, targets: answer, CORRELATION, TRUTH)


def test_a_loss_may_answer_a_scalar_or_a_value():
    value = LossValue(torch.tensor(1.0), torch.tensor(0.5))
    assert checked_loss(lambda *_: value, CORRELATION, TRUTH) is value
    assert checked_loss(lambda *_: value.value, CORRELATION, TRUTH).lower_bound is None


@pytest.mark.parametrize("garbage", [math.nan, math.inf])
def test_a_correlation_that_is_not_finite_is_refused(garbage):
    values = CORRELATION.values.clone()
    values[1, 2, 3, 4] = garbage
    with pytest.raises(NonFiniteError, match="the correlation of 1 of 6 query points, the first at "):
        checked_matches(NearestNeighbor(), replace(CORRELATION, values=values))
    values[1, 2] = -math.inf
    with pytest.raises(NonFiniteError, match="-inf in all cells"):
        check_correlation(replace(CORRELATION, values=values))
    values[1, 2, 0, 0] = 0.5
    found = checked_matches(NearestNeighbor(), replace(CORRELATION, values=values)).points
    assert torch.equal(found[1, 2], CORRELATION.target.grid.to_pixels(torch.zeros(2, 1, 2))[1, 0])


def test_flags_of_another_shape_or_type_are_refused():
    for flags in (torch.ones(2, 2, dtype=torch.bool), torch.ones(2, 3)):
        matches = Matches(POINTS, SCORES)
        matches.valid = flags
        with pytest.raises(ComponentError, match="one flag for each point"):
            checked_matches(lambda correlation, matches=matches: matches, CORRELATION)


def test_answers_pass_through_as_they_are():
    valid = torch.tensor([[True, False, True], [False, True, True]])
    found = checked_matches(lambda correlation: Matches(POINTS, SCORES, valid), CORRELATION)
    assert torch.equal(found.points, POINTS)
    assert torch.equal(found.scores, SCORES)
    assert torch.equal(found.valid, valid)
    value = torch.tensor(2.0)
    assert checked_loss(lambda *_: value, CORRELATION, TRUTH).value is value


def test_a_pair_transform_that_forgets_a_mask_keeps_it_if_the_cells_are_the_same():
    mask = torch.rand(2, *CORRELATION.source.size) > 0.5
    masked = replace(CORRELATION.source, mask=mask)
    plain = CORRELATION.source
    coarse = replace(plain, values=plain.values[..., ::2, ::2], grid=replace(plain.grid, size=(4, 4)))
    other = replace(plain, mask=~mask)

    def after(answer, source=masked):
        return checked_pair(lambda one, two: (answer, two), source, CORRELATION.target)[0].mask

    assert torch.equal(after(plain), mask)
    assert after(coarse) is None
    assert torch.equal(after(other), ~mask)
    assert after(plain, plain) is None
    assert torch.equal(after(other, plain), ~mask)
    both = checked_pair(lambda one, two: [two, one], masked, replace(CORRELATION.target, mask=~mask))
    assert [torch.equal(side.mask, expected) for side, expected in zip(both, (~mask, mask), strict=True)] == [True] * 2
    for answer in ((plain, plain, plain), {1: plain, 2: plain}):
        with pytest.raises(ComponentError, match="must return two maps"):
            checked_pair(lambda *_, answer=answer: answer, plain, plain)


def test_the_first_point_without_a_match_is_named():
    values = CORRELATION.values.clone()
    values[0, 2, 0, 0] = values[1, 0, 0, 0] = math.nan
    x, y = CORRELATION.query_points[0, 2].tolist()
    with pytest.raises(NonFiniteError, match=f"of 2 of 6 query points, the first at {x:g},{y:g}, is NaN"):
        check_correlation(replace(CORRELATION, values=values))


def test_the_lower_bound_of_a_loss_is_on_its_device():
    with pytest.raises((ComponentError, InputError), match="on meta"):
        checked_loss(lambda *_: LossValue(torch.ones(()), torch.ones((), device="meta")), CORRELATION, TRUTH)
