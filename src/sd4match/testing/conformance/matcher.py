"""Conformance of matchers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sd4match.arguments import check_arguments
from sd4match.checks import check_number
from sd4match.interfaces import evaluation_mode
from sd4match.interfaces.calls import describe_component
from sd4match.matching.correlation import correlate_maps
from sd4match.registry import matchers
from sd4match.structures.tensors import Correlation, FeatureMap, Matches
from sd4match.testing.conformance.common import (
    SIZES,
    ask,
    built,
    check_device,
    check_learned,
    check_own_config,
    check_state,
    close,
    equal,
    hold,
    promising,
    some_maps,
    untouched,
)

_POINTS, _CHANNELS = 5, 12
_CORNER = 2
"""Side in cells of the unmasked corner of a map."""


@check_arguments
def check_matcher(matcher: Any, *, tolerance: float = 1e-4) -> None:
    """Check that a matcher keeps the promises of `Matcher`.

    - Matches are points in original pixels inside the target photos, with scores in [0, 1].
    - A match depends on its own pair and query alone, and not on the order or size of a batch, on other points or on
      earlier calls. Nothing is changed in place.
    - Cells with a correlation of -inf are never matched. A batch without points works.
    - Matches are on the device of the correlation, and gradients are finite.
    - The config is the same after it was written and read. Learned parameters get a gradient and are in the state dict.

    Args:
        matcher: a matcher, a function with its signature, or its config, registered class or kind.
        tolerance: largest difference between batches of different size, relative to the largest coordinate, >= 0.

    Raises:
        AssertionError: a promise is broken; the message says which.

    >>> check_matcher("kernel_soft_argmax")
    """
    check_number("tolerance", tolerance, low=0.0)
    matcher = built(matchers, matcher)
    name = describe_component("matcher", matcher)
    check_own_config(matcher)
    with evaluation_mode(matcher):
        _check_answers(name, matcher, tolerance)
    _check_gradients(name, matcher)
    check_learned(name, matcher, lambda: _total(matcher(_correlation())))
    check_state(name, matcher, lambda other: _total(other(_correlation())))


def _maps(scale: int = 1) -> tuple[FeatureMap, FeatureMap]:
    """Return maps of three pairs, whose photos and maps differ in size between source and target."""
    return some_maps(_CHANNELS, size=(5, 7), seed=0, scale=scale), some_maps(
        _CHANNELS, size=(6, 8), seed=1, scale=scale
    )


def _queries() -> Tensor:
    """Return (3, N, 2) points in the source photos."""
    shares = torch.rand(len(SIZES), _POINTS, 2, generator=torch.Generator().manual_seed(2))
    return shares * torch.tensor([[width - 1.0, height - 1.0] for height, width in SIZES[::-1]])[:, None]


def _correlation(
    rows: Sequence[int] = (0, 1, 2), points: Sequence[int] = tuple(range(_POINTS)), *, scale: int = 1
) -> Correlation:
    """Return the correlation of some points of some pairs, whose photos are `scale` times as large."""
    source, target = _maps(scale)
    queries = (_queries() * scale)[list(rows)][:, list(points)]
    if scale != 1:  # points at the same cells as in the smaller photos
        cells = _maps()[0][list(rows)].grid.to_cells(_queries()[list(rows)][:, list(points)])
        queries = source[list(rows)].grid.to_pixels(cells)
    return correlate_maps(source[list(rows)], target[list(rows)], queries)


def _answer(name: str, matcher: Any, correlation: Correlation) -> Matches:
    """Return the matches of a correlation after a check of their shapes, dtypes and ranges."""
    maps = (correlation.source.values, correlation.target.values)
    with untouched(name, correlation.values, correlation.query_points, *maps):
        matches = ask(f"{name} must return Matches", matcher, correlation, kind=Matches)
        with promising(f"the scores of {name} must be (B, N), in [0, 1]"):
            scores = matches.scores
    wanted = tuple(correlation.query_points.shape)
    found = tuple(matches.points.shape)
    hold(found == wanted, f"{name} must answer points of shape {wanted}, not {found}")
    for what, values in (("points", matches.points), ("scores", scores)):
        hold(values.dtype == torch.float32, f"the {what} of {name} must be in float32, not {values.dtype}")
        hold(values.isfinite().all(), f"the {what} of {name} must be finite")
    hold(equal(scores, matches.scores), f"the scores of {name} must be the same when they are read again")
    hold(((scores >= 0) & (scores <= 1)).all(), f"the scores of {name} must be in [0, 1]")
    return matches


def _check_answers(name: str, matcher: Any, tolerance: float) -> None:
    with torch.no_grad():
        correlation = _correlation()
        whole = _answer(name, matcher, correlation)
        again = _answer(name, matcher, _correlation())
        hold(_same(whole, again, 0.0), f"{name} must answer the same bits to the same correlation each time")
        for row, frame in enumerate(correlation.target.grid.frames):
            height, width = frame.original_size
            limit = torch.tensor([width - 0.5, height - 0.5])
            inside = (whole.points[row] >= -0.5) & (whole.points[row] <= limit)
            hold(inside.all(), f"{name} must answer points inside the target photos, in their original pixels")
        larger = _correlation(scale=4)
        cells = [each.target.grid.to_cells(its.points) for each, its in
                 ((correlation, whole), (larger, _answer(name, matcher, larger)))]  # fmt: skip
        hold(
            close(cells[1], cells[0], max(tolerance, 1e-3)),
            f"{name} must answer in original pixels of the target photos: in larger photos at the same places",
        )
        order, points = [2, 0, 1], [3, 1, 4, 0, 2]
        hold(
            _same(_answer(name, matcher, _correlation(order)), _rows(whole, order), tolerance),
            f"the order of a batch changes answers of {name}",
        )
        hold(
            _same(_answer(name, matcher, _correlation([1])), _rows(whole, [1]), tolerance),
            f"the batch size changes answers of {name}",
        )
        again = _answer(name, matcher, _correlation())
        hold(_same(whole, again, 0.0), f"earlier calls change answers of {name}")
        hold(
            _same(_answer(name, matcher, _correlation(points=points)), _points(whole, points), tolerance),
            f"the order of the query points changes answers of {name}",
        )
        hold(
            _same(_answer(name, matcher, _correlation(points=[1, 2])), _points(whole, [1, 2]), tolerance),
            f"other query points change answers of {name}: points of a batch are padded, so each must be its own",
        )
        _answer(name, matcher, _correlation(points=()))
        _check_impossible(name, matcher)
    check_device(
        name, matcher, _there,
        {"points": whole.points, "scores": whole.scores}, tolerance=max(tolerance, 1e-5),
    )  # fmt: skip


def _check_impossible(name: str, matcher: Any) -> None:
    """Check that cells outside of a photo's mask are not matched."""
    source, target = _maps()
    for corner in (slice(None, _CORNER), slice(-_CORNER, None)):
        mask = torch.zeros(len(target), *target.size, dtype=torch.bool)
        mask[:, corner, corner] = True
        masked = replace(target, mask=mask)
        matches = _answer(name, matcher, correlate_maps(source, masked, _queries()))
        cells = target.grid.to_cells(matches.points)
        possible = mask[0].nonzero().flip(-1).to(cells)
        near = ((cells >= possible.amin(dim=0) - 1) & (cells <= possible.amax(dim=0) + 1)).all(dim=-1)
        hold(
            (near | ~matches.valid).all(),
            f"{name} must not answer cells that cannot be matched, where the correlation is -inf",
        )


def _check_gradients(name: str, matcher: Any) -> None:
    """Check that matches are the same with and without gradients, and that gradients are finite."""
    source, target = _maps()
    leaves = [each.values.clone().requires_grad_() for each in (source, target)]
    own = [replace(each, values=values) for each, values in zip((source, target), leaves, strict=True)]
    correlation = correlate_maps(own[0], own[1], _queries())
    with evaluation_mode(matcher):
        matches = ask(f"{name} must answer with gradients as without", matcher, correlation, kind=Matches)
        with torch.no_grad():
            plain = _answer(name, matcher, _correlation())
        hold(close(matches.points, plain.points, 1e-5), f"{name} must answer with gradients as without")
    total = _total(matches)
    if total.requires_grad:
        for gradient in torch.autograd.grad(total, leaves, allow_unused=True):
            hold(gradient is None or gradient.isfinite().all(), f"gradients of answers of {name} must be finite")


def _total(matches: Matches) -> Tensor:
    """Return a number that depends on all points and scores."""
    weights = torch.linspace(0.5, 1.5, matches.points.numel()).reshape(matches.points.shape)
    return (matches.points * weights).mean() + (matches.scores * weights[..., 0]).sum()


def _rows(matches: Matches, rows: Sequence[int]) -> Matches:
    return Matches(matches.points[list(rows)], matches.scores[list(rows)], matches.valid[list(rows)])


def _points(matches: Matches, points: Sequence[int]) -> Matches:
    some = list(points)
    return Matches(matches.points[:, some], matches.scores[:, some], matches.valid[:, some])


def _same(found: Matches, expected: Matches, tolerance: float) -> bool:
    return (
        close(found.points, expected.points, tolerance)
        and close(found.scores, expected.scores, tolerance)
        and equal(found.valid, expected.valid)
    )


def _there(moved: Any, device: torch.device) -> dict[str, Tensor]:
    """Return points and scores on another device."""
    source, target = (replace(each, values=each.values.to(device)) for each in _maps())
    matches = moved(correlate_maps(source, target, _queries().to(device)))
    return {"points": matches.points, "scores": matches.scores}
