"""Strategies of tensors as pure functions take them."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from sd4match.testing import values


@st.composite
def correlation_values(draw, *, max_batch=3, max_points=4, max_side=9, min_side=2):
    """Draw correlation values (B, N, h, w) in [-1, 1], h and w independently."""
    batch, points = draw(st.integers(1, max_batch)), draw(st.integers(1, max_points))
    sides = draw(st.tuples(st.integers(min_side, max_side), st.integers(min_side, max_side)))
    return draw(values((batch, points, *sides)))


@st.composite
def distinct_values(draw, shape):
    """Draw values in [-1, 1] without ties or zeros, for what rounding would decide between equal cells."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    return 2 * torch.rand(tuple(shape), generator=generator) - 1
