"""Calls of matchers, pair transforms and losses, with checks of what they return."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from sd4match.errors import ComponentError, InputError, NonFiniteError
from sd4match.interfaces.calls import call_component, check_answer, describe_component
from sd4match.structures.tensors import (
    Correlation,
    FeatureMap,
    Keypoints,
    LossFunction,
    LossValue,
    Matches,
    MatchFunction,
    PairFunction,
)


def checked_matches(matcher: MatchFunction, correlation: Correlation) -> Matches:
    """Return the matches of a correlation, with finite points, and scores that are checked when they are read.

    Args:
        matcher: any matcher.
        correlation: values that are finite, or -inf in some cells of a query point, but not in all of them.

    Raises:
        NonFiniteError: a query point has no possible cell, or a value is NaN or inf.
        ComponentError: the matcher raises an error of its own, or does not return `Matches` of all query points.

    >>> from sd4match.matching import NearestNeighbor
    >>> from sd4match.testing import random_correlation
    >>> checked_matches(NearestNeighbor(), random_correlation()).points.shape
    torch.Size([2, 3, 2])
    """
    check_correlation(correlation)
    matches = check_answer("matcher", matcher, call_component("matcher", matcher, matcher, correlation), Matches)
    points, wanted = matches.points, correlation.query_points
    _check_tensor("matcher", matcher, "points", points, tuple(wanted.shape), like=correlation.values)
    if not bool(points.isfinite().all()):
        raise ComponentError(f"{describe_component('matcher', matcher)} returned points that are NaN or infinite")

    def scores() -> Tensor:
        name = describe_component("matcher", matcher)
        try:
            values: Tensor = call_component("matcher", matcher, lambda: matches.scores)
        except InputError as reason:
            raise ComponentError(f"{name}: {reason}") from reason
        if not bool(values.isfinite().all()):
            raise ComponentError(f"{name} returned scores that are NaN or infinite")
        return values

    if matches.valid.shape != points.shape[:2] or matches.valid.dtype != torch.bool:
        raise ComponentError(f"{describe_component('matcher', matcher)} must return one flag for each point")
    return Matches(points, scores, matches.valid)


def check_correlation(correlation: Correlation) -> None:
    """Check that every query point has a cell that it can match.

    Raises:
        NonFiniteError: a value is NaN or inf, or all values of a point are -inf; the message names the first point.
    """
    best = correlation.values.flatten(2).amax(dim=-1)
    wrong = ~best.isfinite()
    if bool(wrong.any()):
        x, y = correlation.query_points[wrong][0].tolist()
        raise NonFiniteError(
            f"the correlation of {int(wrong.sum())} of {wrong.numel()} query points, the first at {x:g},{y:g}, is NaN "
            "or infinite, or -inf in all cells, so that they have no match; the features overflow, or a pair transform "
            "is not finite: dtype=bfloat16 or float32 has the range"
        )


def checked_pair(transform: PairFunction, source: FeatureMap, target: FeatureMap) -> tuple[FeatureMap, FeatureMap]:
    """Return both maps of a pair as a pair transform changes them.

    Raises:
        ComponentError: it raises an error of its own, or does not return two maps of the same photos.

    >>> from sd4match.testing import random_correlation
    >>> maps = random_correlation()
    >>> checked_pair(lambda source, target: (source, target), maps.source, maps.target)[0] is maps.source
    True
    """
    answer = call_component("pair transform", transform, transform, source, target)
    name = describe_component("pair transform", transform)
    if not isinstance(answer, (tuple, list)) or len(answer) != 2:
        raise ComponentError(f"{name} must return two maps, not {type(answer).__name__}")
    sides = []
    for before, after in zip((source, target), answer, strict=True):
        after = check_answer("pair transform", transform, after, FeatureMap)
        if after.grid.frames != before.grid.frames:
            raise ComponentError(f"{name} must return maps of the same photos, on grids with the same frames")
        if before.mask is not None and after.mask is None and after.size == before.size:
            after = replace(after, mask=before.mask)
        sides.append(after)
    if sides[0].values.shape[1] != sides[1].values.shape[1]:
        channels = [side.values.shape[1] for side in sides]
        raise ComponentError(f"{name} must return maps of equally many channels, not {channels[0]} and {channels[1]}")
    return sides[0], sides[1]


def checked_loss(
    loss: LossFunction, correlation: Correlation, targets: Keypoints, matches: Matches | None = None
) -> LossValue:
    """Return the loss of a batch of pairs. Its value may be NaN or infinite, which the trainer handles.

    Args:
        loss: any loss.
        correlation: correlation of the source points with every target cell.
        targets: true points.
        matches: matches for a loss that takes them; None: the loss is called without.

    Raises:
        ComponentError: the loss raises an error of its own, or does not return a scalar or a `LossValue`.

    >>> from sd4match.testing import random_correlation
    >>> correlation = random_correlation()
    >>> truth = Keypoints(correlation.query_points, (correlation.query_points > -1).all(dim=-1))
    >>> checked_loss(lambda correlation, targets: correlation.values.mean(), correlation, truth).lower_bound is None
    True
    """
    arguments = (correlation, targets) if matches is None else (correlation, targets, matches)
    answer = call_component("loss", loss, loss, *arguments)
    value, lower_bound = (answer.value, answer.lower_bound) if isinstance(answer, LossValue) else (answer, None)
    _check_tensor("loss", loss, "value", value, (), like=correlation.values)
    if lower_bound is not None:
        _check_tensor("loss", loss, "lower bound", lower_bound, (), like=correlation.values)
    return answer if isinstance(answer, LossValue) else LossValue(value)


def _check_tensor(
    role: str, component: object, what: str, value: object, shape: tuple[int, ...], *, like: Tensor
) -> None:
    """Check the type, the data type, the shape and the device of a tensor that a component returned."""
    name = describe_component(role, component)
    if not isinstance(value, Tensor) or not value.is_floating_point():
        found = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise ComponentError(f"{name} must return floating-point {what}, not {found}")
    if tuple(value.shape) != shape:
        raise ComponentError(f"{name} must return {what} of shape {shape}, not {tuple(value.shape)}")
    if value.device != like.device:
        raise ComponentError(f"{name} must return {what} on {like.device}, not on {value.device}")
