"""Bilinear sampling of maps between their cells."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def sample_bilinear(
    maps: Float[Tensor, "batch channels h w"], cells: Float[Tensor, "batch points 2"]
) -> Float[Tensor, "batch points channels"]:
    """Sample maps bilinearly between their cells, clamped at the border.

    Args:
        maps: (B, C, h, w).
        cells: (B, N, 2), (x, y) in cells, cell centers at whole numbers.

    Returns:
        (B, N, C).


    >>> sample_bilinear(torch.arange(4.0).reshape(1, 1, 2, 2), torch.tensor([[[0.5, 0.5]]]))
    tensor([[[1.5000]]])
    """
    index, weight = bilinear_corners(cells.to(maps.dtype), maps.shape[-2], maps.shape[-1])
    values = gather_cells(maps, index.flatten(1)).unflatten(1, index.shape[1:])
    blended: Tensor = (values * weight[..., None]).sum(dim=2)
    return blended


def gather_cells(
    maps: Float[Tensor, "batch channels h w"], index: Int[Tensor, "batch cells"]
) -> Float[Tensor, "batch cells channels"]:
    """Return the values (B, M, C) of maps (B, C, h, w) at flat cell indices (B, M)."""
    if maps.requires_grad:
        return maps.flatten(2).gather(2, index[:, None].expand(-1, maps.shape[1], -1)).transpose(1, 2)
    rows = torch.arange(len(maps), device=maps.device)[:, None]
    return maps.flatten(2).transpose(1, 2)[rows, index]  # the same values; faster, but its gradient is slower


def bilinear_corners(
    cells: Float[Tensor, "... 2"], height: int, width: int
) -> tuple[Int[Tensor, "... 4"], Float[Tensor, "... 4"]]:
    """Return flat index and weight of the four cells around each location, (..., 4) both; weights sum to 1."""
    edge = cells.new_tensor([width - 1, height - 1])
    cells = torch.where(cells.isfinite(), cells, 0.0).clamp(min=0).minimum(edge)
    before = cells.detach().floor()
    share = cells - before
    columns, rows = torch.stack([before, (before + 1).minimum(edge)], dim=-1).unbind(dim=-2)
    across, down = torch.stack([1 - share, share], dim=-1).unbind(dim=-2)
    index = (rows[..., :, None] * width + columns[..., None, :]).flatten(-2).long()
    return index, (down[..., :, None] * across[..., None, :]).flatten(-2)


def full_precision(values: Tensor) -> Tensor:
    """Convert half-precision floats to float32; leave other dtypes as they are."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
