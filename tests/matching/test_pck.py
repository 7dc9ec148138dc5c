from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers import references
from sd4match.matching.pck import pck
from sd4match.testing import values, visibility

ALPHAS = (0.05, 0.1, 0.15)


@st.composite
def predictions(draw):
    batch, points = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    truth = draw(values((batch, points, 2), low=0.0, high=100.0))
    guess = truth + draw(values((batch, points, 2), low=-15.0, high=15.0))
    return guess, truth, draw(visibility(batch, points)), draw(values((batch,), low=20.0, high=150.0))


@given(predictions(), st.booleans())
def test_equals_reference(inputs, inclusive):
    result = pck(*inputs, alphas=ALPHAS, inclusive=inclusive)
    expected = torch.tensor(references.pck(*inputs, ALPHAS, inclusive))
    torch.testing.assert_close(result, expected, equal_nan=True)


@given(predictions())
def test_share_that_grows_with_alpha(inputs):
    result = pck(*inputs, alphas=ALPHAS)
    known = ~result.isnan()
    assert ((result[known] >= 0) & (result[known] <= 1)).all()
    assert (result.diff(dim=1)[known[:, 1:]] >= 0).all()
    assert (known.all(dim=1) == inputs[2].any(dim=1)).all()


@given(predictions())
def test_equality_is_one_and_order_does_not_matter(inputs):
    guess, truth, seen, length = inputs
    perfect = pck(truth, truth, seen, length, alphas=ALPHAS)
    assert (perfect[seen.any(1)] == 1).all()
    backwards = pck(guess.flip(1), truth.flip(1), seen.flip(1), length, alphas=ALPHAS)
    torch.testing.assert_close(backwards, pck(*inputs, alphas=ALPHAS), equal_nan=True)


def test_border_belongs_to_inclusive_only():
    truth, guess, seen = torch.zeros(1, 1, 2), torch.tensor([[[3.0, 4.0]]]), torch.ones(1, 1, dtype=torch.bool)
    assert pck(guess, truth, seen, torch.tensor([50.0]), alphas=(0.1,)).item() == 1.0
    assert pck(guess, truth, seen, torch.tensor([50.0]), alphas=(0.1,), inclusive=False).item() == 0.0


@pytest.mark.parametrize("garbage", [math.nan, math.inf])
def test_garbage_is_wrong_where_visible_and_inert_where_not(garbage):
    truth = torch.zeros(1, 2, 2)
    guess = torch.tensor([[[garbage, 0.0], [0.0, 0.0]]])
    length = torch.tensor([10.0])
    assert pck(guess, truth, torch.tensor([[True, True]]), length, alphas=(0.1,)).item() == 0.5
    assert pck(guess, truth, torch.tensor([[False, True]]), length, alphas=(0.1,)).item() == 1.0


def test_true_points_that_are_not_visible_may_be_anything():
    truth, seen = torch.tensor([[[1.0, 2.0], [math.nan, math.inf]]]), torch.tensor([[True, False]])
    assert pck(truth.nan_to_num(), truth, seen, torch.tensor([10.0]), alphas=(0.1,)).item() == 1.0
