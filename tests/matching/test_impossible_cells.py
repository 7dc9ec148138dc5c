"""Cells at -inf are impossible: never a match, without part in a mean, a loss or a gradient."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from helpers.strategies import correlation_values
from sd4match.matching import functional

FORMS = {
    "arg-max": functional.nearest_neighbor,
    "soft": lambda values: functional.soft_argmax(values, temperature=0.04),
    "kernel": lambda values: functional.kernel_soft_argmax(values, temperature=0.04, sigma=0.5),
    "window": lambda values: functional.window_soft_argmax(values, temperature=0.04, window=3),
}


@st.composite
def masked(draw):
    """Values and a mask of impossible cells that leaves each point one cell at least."""
    values = draw(correlation_values(max_side=6))
    seed = draw(st.integers(0, 2**20))
    mask = torch.rand(values.shape, generator=torch.Generator().manual_seed(seed)) < draw(st.sampled_from([0.2, 0.8]))
    mask.flatten(2)[..., 0] &= ~mask.flatten(2).all(dim=-1)
    return values, mask


@pytest.mark.parametrize("form", FORMS)
@given(masked())
def test_impossible_cells_have_no_part(form, inputs):
    values, mask = inputs
    found = FORMS[form](values.masked_fill(mask, -math.inf))
    assert found.isfinite().all()
    if form != "window":  # whose other cells count as 0
        deep = FORMS[form](values.masked_fill(mask, -1e4)) if form != "kernel" else found
        torch.testing.assert_close(found, deep, atol=1e-3, rtol=0)
    best = functional.nearest_neighbor(values.masked_fill(mask, -math.inf)).long()
    index = (best[..., 1] * values.shape[-1] + best[..., 0])[..., None]
    assert not mask.flatten(2).gather(2, index).any()


@given(masked(), st.booleans())
def test_loss_and_gradients_are_finite(inputs, learned):
    values, mask = inputs
    values = values.requires_grad_()
    temperature = torch.tensor(0.04, requires_grad=True) if learned else 0.04
    batch, points, height, width = values.shape
    truth = torch.tensor([(width - 1) / 2, (height - 1) / 2]).expand(batch, points, 2)
    seen = torch.ones(batch, points, dtype=torch.bool)
    loss, bound = functional.gaussian_cross_entropy_with_bound(
        values.masked_fill(mask, -math.inf), truth, seen, temperature=temperature
    )
    loss.backward()
    assert loss.isfinite()
    assert loss >= bound - 1e-5
    assert values.grad.isfinite().all()
    assert not learned or temperature.grad.isfinite()


@given(masked())
def test_gradients_of_soft_forms_are_finite(inputs):
    values, mask = inputs
    for form in ("soft", "kernel", "window"):
        own = values.clone().requires_grad_()
        FORMS[form](own.masked_fill(mask, -math.inf)).sum().backward()
        assert own.grad.isfinite().all()
        assert (own.grad[mask] == 0).all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("garbage", ["all impossible", "NaN"])
def test_a_point_without_a_match_answers_nan_and_spoils_no_other(form, garbage):
    values = torch.rand(1, 2, 4, 5)
    alone = FORMS[form](values)
    if garbage == "NaN":
        values[0, 0, 1, 3] = math.nan
    else:
        values[0, 0] = -math.inf
    found = FORMS[form](values)
    assert found[0, 0].isnan().all()
    assert torch.equal(found[0, 1], alone[0, 1])


def test_a_point_without_a_possible_cell_is_left_out_of_the_loss():
    values = torch.rand(1, 2, 6, 6)
    values[0, 1] = -math.inf
    values.requires_grad_()
    seen = torch.ones(1, 2, dtype=torch.bool)
    loss = functional.gaussian_cross_entropy(values, torch.full((1, 2, 2), 2.5), seen, temperature=0.1)
    one = functional.gaussian_cross_entropy(values[:, :1], torch.full((1, 1, 2), 2.5), seen[:, :1], temperature=0.1)
    assert loss.item() == pytest.approx(one.item() / 2)
    loss.backward()
    assert values.grad.isfinite().all()


@given(correlation_values(max_side=5), st.integers(1, 25))
def test_several_cells_end_when_the_map_is_used_up(values, count):
    cells = values.shape[-1] * values.shape[-2]
    assume(count <= cells)
    found, scores = functional.best_cells(values, count=count)
    assert found.shape == (*values.shape[:2], count, 2)
    assert torch.equal(found.isnan().any(dim=-1), scores == -math.inf)
    assert (scores[..., 0] > -math.inf).all()
