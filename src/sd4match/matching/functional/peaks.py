"""Several best places of a correlation, not only the best."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sd4match.matching.functional import nearest_neighbor
from sd4match.matching.functional.sampling import full_precision


def best_cells(
    correlation: Float[Tensor, "batch points h w"], *, count: int, radius: float = 1.5
) -> tuple[Float[Tensor, "batch points count 2"], Float[Tensor, "batch points count"]]:
    """Several best cells of each point, none within `radius` of a better one in x and in y.

    Args:
        correlation: (B, N, h, w).
        count: K.
        radius: of what a cell keeps for itself, in cells.

    Returns:
        (B, N, K, 2), (x, y), best first, and their values (B, N, K); -inf where there are no more cells.

    >>> best_cells(torch.tensor([[[[0.0, 3.0, 2.9, 0.0, 1.0]]]]), count=2)[0].tolist()
    [[[[1.0, 0.0], [4.0, 0.0]]]]
    """
    left = full_precision(correlation).clone()
    y, x = (torch.arange(n, dtype=left.dtype, device=left.device) for n in left.shape[-2:])
    cells, values = [], []
    for _ in range(count):
        best = nearest_neighbor(left)
        values.append(left.flatten(2).amax(dim=-1))
        cells.append(best)
        near = (x - best[..., 0, None, None]).abs() <= radius
        near = near & ((y[:, None] - best[..., 1, None, None]).abs() <= radius)
        left = left.masked_fill(near, -torch.inf)
    return torch.stack(cells, dim=2), torch.stack(values, dim=2)
