"""Match probabilities (Eq. 4), and the probability mass around a match.

Letters: B pairs, N points, C channels, (h, w) cells. Cells are (x, y) in [0, w - 1] x [0, h - 1], cell centers at whole
numbers. Half-precision input is computed and returned in float32. Equations are those of arXiv 2310.17569.

A cell whose correlation is -inf is impossible: its probability is 0. A point all of whose cells are impossible, or one
of whose correlations is NaN, has no match: its probabilities and its cell are NaN.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Real
from torch import Tensor

from sd4match.checks import check_number, check_positive, check_same_device, check_shape
from sd4match.errors import NonFiniteError, ShapeError
from sd4match.matching.functional.sampling import as_floats, full_precision


def match_probability(
    correlation: Float[Tensor, "batch points h w"], *, temperature: float | Tensor
) -> Float[Tensor, "batch points h w"]:
    """Compute softmax(correlation / temperature) over all cells (Eq. 4).

    Args:
        correlation: (B, N, h, w); -inf where a cell is impossible.
        temperature: divisor of the correlation, > 0; a number, or a tensor of one number, which gradients reach.

    Returns:
        (B, N, h, w), sums to 1 over the cells of each point.

    Raises:
        ShapeError: the correlation has another number of dimensions, or the temperature is a tensor of several numbers.
        InputError: a correlation of integers or booleans, or a temperature that is not positive.

    >>> match_probability(torch.tensor([[[[0.5, 0.5, -torch.inf]]]]), temperature=0.04).tolist()
    [[[[0.5, 0.5, 0.0]]]]
    """
    scores = _scores(correlation, temperature)
    return scores.flatten(2).softmax(dim=-1).view_as(scores)


def log_match_probability(
    correlation: Float[Tensor, "batch points h w"], *, temperature: float | Tensor
) -> Float[Tensor, "batch points h w"]:
    """Compute the logarithm of the match probability (Eq. 4) without underflow.

    Args:
        correlation: (B, N, h, w); -inf where a cell is impossible.
        temperature: divisor of the correlation, > 0; a number, or a tensor of one number, which gradients reach.

    Returns:
        (B, N, h, w), at most 0; -inf where a cell is impossible.

    Raises:
        ShapeError: the correlation has another number of dimensions, or the temperature is a tensor of several numbers.
        InputError: a correlation of integers or booleans, or a temperature that is not positive.
        NonFiniteError: differences of the correlations, divided by the temperature, are beyond the range of floats.

    >>> log_match_probability(torch.tensor([[[[0.5, 0.5, -torch.inf]]]]), temperature=0.04)
    tensor([[[[-0.6931, -0.6931,    -inf]]]])
    """
    scores = _scores(correlation, temperature)
    if bool(((scores == -torch.inf) & (correlation > -torch.inf)).any()):
        raise NonFiniteError(
            "the logarithms of the match probabilities are not finite: the correlations divided by the temperature are "
            "out of range; give a larger temperature, or normalize the features"
        )
    return scores.flatten(2).log_softmax(dim=-1).view_as(scores)


def _scores(correlation: Tensor, temperature: float | Tensor) -> Tensor:
    check_shape("correlation", correlation, "B N h w", of="floats")
    check_same_device(correlation=correlation)
    correlation, temperature = full_precision(correlation), check_positive("temperature", temperature)
    best = correlation.detach().flatten(2).amax(dim=-1)[..., None, None]
    impossible: Tensor | None = None
    if isinstance(temperature, Tensor):
        if temperature.numel() != 1 or temperature.dim() > 1:
            raise ShapeError(
                f"temperature must be a number or a tensor of one, not of shape {tuple(temperature.shape)}"
            )
        if temperature.requires_grad:  # its gradient would be 0 * -inf = NaN at impossible cells
            impossible = correlation == -torch.inf
            correlation = torch.where(impossible, torch.where(best.isfinite(), best, 0.0), correlation)
    scores = correlation / temperature
    overflows = best.isfinite() & ~(best / temperature).isfinite()
    if bool(overflows.any()):  # only differences to the largest value matter
        scores = torch.where(overflows, correlation - best, correlation) / temperature
    return scores if impossible is None else scores.masked_fill(impossible, -torch.inf)


def probability_mass(
    correlation: Float[Tensor, "batch points h w"],
    cells: Real[Tensor, "batch points 2"],
    *,
    temperature: float | Tensor,
    radius: float = 1.5,
) -> Float[Tensor, "batch points"]:
    """Compute the score of a match: the mass of softmax(correlation / temperature) around it.

    Convention: a score depends on the temperature and on the size of the map: where the map is flat, it is about
    (2 radius)^2 / (h w). Scores of maps of different sizes cannot be compared, and no threshold suits all of them.

    Args:
        correlation: (B, N, h, w).
        cells: (B, N, 2), (x, y), the matches.
        temperature: divisor of the correlation, as in Eq. 4; > 0.
        radius: largest distance in x and in y, in cells; >= 0.

    Returns:
        (B, N), in [0, 1]; 1 if all of the probability lies within the radius.

    Raises:
        ShapeError: there are not as many cells as points.
        InputError: a temperature that is not positive, or a radius that is negative or not finite.

    >>> probability_mass(torch.zeros(1, 1, 3, 3), torch.tensor([[[1.0, 1.0]]]), temperature=1.0).round(decimals=3)
    tensor([[1.]])
    """
    return mass_around(cells, match_probability(correlation, temperature=temperature), radius=radius)


def mass_around(
    cells: Real[Tensor, "batch points 2"], probability: Float[Tensor, "batch points h w"], *, radius: float = 1.5
) -> Float[Tensor, "batch points"]:
    """Sum a probability map around cells; `probability_mass` does so from a correlation.

    Args:
        cells: (B, N, 2), (x, y).
        probability: (B, N, h, w).
        radius: largest distance in x and in y, in cells; >= 0.

    Returns:
        (B, N), clamped to at most 1.

    Raises:
        ShapeError: there are not as many cells as points.
        InputError: a radius that is negative or not finite, or tensors on several devices.

    >>> mass_around(torch.tensor([[[0.0, 1.0]]]), torch.full((1, 1, 4, 4), 1 / 16))
    tensor([[0.3750]])
    """
    sizes = check_shape("probability", probability, "B N h w", of="floats")
    check_shape("cells", cells, "B N 2", of="numbers", B=sizes["B"], N=sizes["N"])
    radius = check_number("radius", radius, low=0.0)
    check_same_device(probability=probability, cells=cells)
    probability, cells = full_precision(probability), as_floats(cells)
    y, x = (torch.arange(n, device=cells.device) for n in probability.shape[-2:])
    across = ((x - cells[..., :1]).abs() <= radius).to(probability.dtype)
    down = ((y - cells[..., 1:]).abs() <= radius).to(probability.dtype)
    mass: Tensor = torch.einsum("bnhw,bnw,bnh->bn", probability, across, down)
    return mass.clamp(max=1.0)
