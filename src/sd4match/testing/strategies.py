"""Hypothesis strategies with stated bounds; they shrink towards small sizes and zeros. Needs the extra `testing`."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from jaxtyping import Bool, Float
from torch import Tensor


@st.composite
def tensors(draw: st.DrawFn, shape: tuple[int, ...], *, low: float = -1.0, high: float = 1.0) -> Float[Tensor, ...]:
    """Draw a float32 tensor of a shape, uniform in [low, high], from a drawn seed (0 first)."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    return torch.rand(shape, generator=generator) * (high - low) + low


@st.composite
def correlations(
    draw: st.DrawFn, *, max_batch: int = 3, max_points: int = 4, max_side: int = 9, min_side: int = 2
) -> Float[Tensor, "batch points h w"]:
    """Draw correlation values (B, N, h, w) in [-1, 1], h and w independently."""
    batch, points = draw(st.integers(1, max_batch)), draw(st.integers(1, max_points))
    sides = draw(st.tuples(st.integers(min_side, max_side), st.integers(min_side, max_side)))
    return draw(tensors((batch, points, *sides)))


@st.composite
def cells(
    draw: st.DrawFn, batch: int, points: int, map_size: tuple[int, int], *, margin: float = 0.0
) -> Float[Tensor, "batch points 2"]:
    """Draw points (B, N, 2), (x, y), inside a map of (h, w) cells, or up to `margin` cells outside it."""
    unit = draw(tensors((batch, points, 2), low=0.0, high=1.0))
    extent = torch.tensor([map_size[1] - 1, map_size[0] - 1], dtype=torch.float32)
    return unit * (extent + 2 * margin) - margin


@st.composite
def visibility(draw: st.DrawFn, batch: int, points: int) -> Bool[Tensor, "batch points"]:
    """Draw any pattern of visible points, none and all included."""
    flags = draw(st.lists(st.booleans(), min_size=batch * points, max_size=batch * points))
    return torch.tensor(flags, dtype=torch.bool).reshape(batch, points)
