"""Bilinear sampling of maps between their cells."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, Real
from torch import Tensor

from sd4match.checks import check_same_device, check_shape
from sd4match.errors import InputError


def sample_bilinear(
    maps: Float[Tensor, "batch channels h w"], cells: Real[Tensor, "batch points 2"]
) -> Float[Tensor, "batch points channels"]:
    """Sample maps bilinearly between their cells, clamped at the border.

    Args:
        maps: (B, C, h, w).
        cells: (B, N, 2), (x, y) in cells, cell centers at whole numbers. Locations outside the map are clamped into it;
            one of which a coordinate is not finite means cell (0, 0).

    Returns:
        (B, N, C), in float32 or float64.

    Raises:
        ShapeError: maps and cells differ in B, or have another number of dimensions.
        InputError: maps of integers or booleans, or tensors on several devices.

    >>> sample_bilinear(torch.arange(4.0).reshape(1, 1, 2, 2), torch.tensor([[[0.5, 0.5]]]))
    tensor([[[1.5000]]])
    """
    sizes = check_shape("maps", maps, "B C h w", of="floats")
    check_shape("cells", cells, "B N 2", of="numbers", B=sizes["B"])
    check_same_device(maps=maps, cells=cells)
    maps = full_precision(maps)
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
    return maps.flatten(2).transpose(1, 2)[rows, index]  # same values; faster, but with a slower gradient


def bilinear_corners(
    cells: Float[Tensor, "... 2"], height: int, width: int
) -> tuple[Int[Tensor, "... 4"], Float[Tensor, "... 4"]]:
    """Return flat index and weight of the four cells around each location, (..., 4) both; weights sum to 1.

    Locations outside the map are clamped into it; a location of which a coordinate is not finite means cell (0, 0).
    """
    edge = cells.new_tensor([width - 1, height - 1])
    finite = cells.isfinite().all(dim=-1, keepdim=True)
    cells = torch.where(finite, cells, 0.0).clamp(min=0).minimum(edge)
    before = cells.detach().floor()
    share = cells - before
    columns, rows = torch.stack([before, (before + 1).minimum(edge)], dim=-1).unbind(dim=-2)
    across, down = torch.stack([1 - share, share], dim=-1).unbind(dim=-2)
    index = (rows[..., :, None] * width + columns[..., None, :]).flatten(-2).long()
    return index, (down[..., :, None] * across[..., None, :]).flatten(-2)


def as_floats(points: Tensor) -> Tensor:
    """Convert integers and half-precision floats to float32; leave other dtypes as they are."""
    return points if points.dtype in (torch.float32, torch.float64) else points.float()


def full_precision(values: Tensor) -> Tensor:
    """Convert half-precision floats to float32; leave other dtypes as they are.

    Args:
        values: tensor of any data type.

    Raises:
        InputError: it is no tensor.

    >>> full_precision(torch.zeros(1, dtype=torch.bfloat16)).dtype
    torch.float32
    """
    if not isinstance(values, Tensor):
        raise InputError(f"values must be a torch tensor, not {type(values).__name__}")
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
