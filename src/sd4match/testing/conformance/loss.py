"""Conformance of losses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sd4match.arguments import check_arguments
from sd4match.checks import check_number
from sd4match.interfaces import evaluation_mode
from sd4match.interfaces.calls import describe_component
from sd4match.matching.checked import checked_loss
from sd4match.matching.correlation import correlate_maps
from sd4match.matching.matchers import SoftArgmax
from sd4match.registry import losses
from sd4match.structures.tensors import Correlation, FeatureMap, Keypoints, LossValue, Matches
from sd4match.testing.conformance.common import (
    SIZES,
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

_CHANNELS = 12
_VISIBLE = torch.tensor([[True, True, False, True], [True, False, True, False], [False] * 4])
"""Visible points of three pairs with four points; the last pair has none."""


@check_arguments
def check_loss(loss: Any, *, tolerance: float = 1e-4) -> None:
    """Check that a loss keeps the promises of `MatchingLoss`.

    - It is a finite scalar: the mean over the pairs that have a visible point, and 0 without such a pair.
    - Points that are not visible influence neither value nor gradient, whatever their coordinates are. Neither do the
      order of pairs and points or earlier calls.
    - Gradients reach the features and all learned parameters, which are in the state dict.
    - There is a lower bound if `has_lower_bound` is true, and the value is never below it.
    - The value is on the device of the correlation.

    Args:
        loss: a loss, a function with its signature, or its config, registered class or kind.
        tolerance: largest difference between batches, relative to the largest number, >= 0.

    Raises:
        AssertionError: a promise is broken; the message says which.

    >>> check_loss("gaussian_cross_entropy")
    """
    check_number("tolerance", tolerance, low=0.0)
    loss = built(losses, loss)
    name = describe_component("loss", loss)
    check_own_config(loss)
    with evaluation_mode(loss):
        _check_values(name, loss, _Found.of(name, loss, _Pairs()), tolerance)
        if getattr(loss, "takes_matches", False):
            _check_matches(name, loss)
    check_learned(name, loss, lambda: _Pairs().value(name, loss).value)
    check_state(name, loss, lambda single: _Pairs().value(name, single).value)


def _points(seed: int, scale: float = 1.0) -> Tensor:
    """Return (3, 4, 2) random points in photos of the source (even seeds) or of the target."""
    sizes = SIZES if seed % 2 else SIZES[::-1]
    shares = torch.rand(len(SIZES), _VISIBLE.shape[1], 2, generator=torch.Generator().manual_seed(seed))
    return scale * shares * torch.tensor([[width - 1.0, height - 1.0] for height, width in sizes])[:, None]


def matches_for(loss: Any, correlation: Correlation) -> Matches | None:
    """Return matches for a loss; None if it takes none.

    Args:
        loss: any loss.
        correlation: correlation to match.
    """
    return SoftArgmax(temperature=0.1)(correlation) if getattr(loss, "takes_matches", False) else None


class _Pairs:
    """Inputs of a loss: points of some pairs, and maps that require a gradient.

    Args:
        rows: indices of the pairs.
        order: order of the points.
        queries: (3, 4, 2) points in the source photos; None: random ones.
        truth: (3, 4, 2) points in the target photos; None: random ones.
        padding: number of invisible points to add.
    """

    def __init__(
        self,
        rows: Sequence[int] = (0, 1, 2),
        order: Sequence[int] = (0, 1, 2, 3),
        *,
        queries: Tensor | None = None,
        truth: Tensor | None = None,
        padding: int = 0,
    ) -> None:
        given = (_points(4) if queries is None else queries, _points(5) if truth is None else truth)
        points = [F.pad(each[list(rows)][:, list(order)], (0, 0, 0, padding)) for each in given]
        self.source, self.target = self._leaves(rows)
        self.queries = points[0]
        self.targets = Keypoints(points[1], F.pad(_VISIBLE[list(rows)][:, list(order)], (0, padding)))

    @staticmethod
    def _leaves(rows: Sequence[int]) -> list[FeatureMap]:
        sides = [some_maps(_CHANNELS, size=size, seed=seed)[list(rows)] for seed, size in enumerate(((5, 7), (6, 8)))]
        return [replace(side, values=side.values.clone().requires_grad_()) for side in sides]

    def correlation(self) -> Correlation:
        """Return the correlation of the points."""
        return correlate_maps(self.source, self.target, self.queries)

    def value(self, name: str, loss: Any) -> LossValue:
        """Return the loss, and check its form."""
        correlation, targets = self.correlation(), self.targets
        with (
            untouched(name, correlation.values, targets.points, targets.visible),
            promising(f"{name} must return a scalar or a LossValue"),
        ):
            found = checked_loss(loss, correlation, targets, matches_for(loss, correlation))
        hold(found.value.dtype == torch.float32, f"{name} must be in float32, not {found.value.dtype}")
        hold(found.value.isfinite(), f"{name} must be finite, not {found.value.item()}")
        return found


@dataclass(frozen=True)
class _Found:
    """Value of a loss, and its gradients (B, C, h, w) with respect to the source and target maps."""

    loss: LossValue
    gradients: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, name: str, loss: Any, pairs: _Pairs) -> _Found:
        """Return the loss of pairs, after a check that gradients are finite."""
        found, leaves = pairs.value(name, loss), (pairs.source.values, pairs.target.values)
        made: Sequence[Tensor | None] = (None, None)
        if found.value.requires_grad:
            made = torch.autograd.grad(found.value, leaves, allow_unused=True)
        source, target = (
            torch.zeros_like(leaf) if gradient is None else gradient
            for leaf, gradient in zip(leaves, made, strict=True)
        )
        hold(source.isfinite().all() and target.isfinite().all(), f"the gradient of {name} must be finite")
        return cls(found, (source, target))

    def same(self, other: _Found, tolerance: float) -> bool:
        """Return whether value and gradients are equal."""
        pairs = zip((self.loss.value[None], *self.gradients), (other.loss.value[None], *other.gradients), strict=True)
        return all(close(own, its, tolerance) for own, its in pairs)


def _check_values(name: str, loss: Any, whole: _Found, tolerance: float) -> None:
    def found(*args: Any, **options: Any) -> _Found:
        return _Found.of(name, loss, _Pairs(*args, **options))

    hold(equal(found().loss.value, whole.loss.value), f"{name} must be the same for the same pairs each time")
    reached = any(bool(gradient.any()) for gradient in whole.gradients)
    hold(reached, f"the gradient of {name} must reach the features")
    _check_invisible(name, found, whole, tolerance)
    nothing = found([2])
    hold(nothing.loss.value.item() == 0, f"{name} must be 0 for pairs without a visible point")
    alone = [found([row]) for row in (0, 1)]
    mean = torch.stack([single.loss.value for single in alone]).mean()
    hold(close(whole.loss.value, mean, tolerance), f"{name} must be the mean over the pairs that have a visible point")
    rows, order = [2, 0, 1], [3, 1, 0, 2]
    turned = found(rows)
    gradients = zip(turned.gradients, whole.gradients, strict=True)
    same_gradients = all(close(its, reference[rows], tolerance) for its, reference in gradients)
    same_value = close(turned.loss.value, whole.loss.value, tolerance)
    hold(same_gradients and same_value, f"the order of a batch changes {name}")
    hold(found((0, 1, 2), order).same(whole, tolerance), f"the order of the points changes {name}")
    hold(equal(found().loss.value, whole.loss.value), f"earlier calls change {name}")
    _check_bound(name, loss, whole.loss)

    def there(moved: Any, device: torch.device) -> dict[str, Tensor]:
        pairs = _Pairs()
        source, target = (replace(side, values=side.values.to(device)) for side in (pairs.source, pairs.target))
        truth = Keypoints(pairs.targets.points.to(device), pairs.targets.visible.to(device))
        correlation = correlate_maps(source, target, pairs.queries.to(device))
        return {"value": checked_loss(moved, correlation, truth, matches_for(moved, correlation)).value}

    check_device(name, loss, there, {"value": whole.loss.value}, tolerance=tolerance)


def _check_invisible(name: str, found: Any, whole: _Found, tolerance: float) -> None:
    """Check that points that are not visible have no influence."""
    seen = _VISIBLE[..., None]
    for what, where in (("other places", _points(7)), ("far away", _points(7) + 1e4), ("NaN", _points(7) * math.nan)):
        moved = found(truth=torch.where(seen, _points(5), where))
        hold(
            moved.same(whole, tolerance),
            f"points that are not visible must not influence {name} or its gradient, and their targets do at {what}",
        )
    moved = found(queries=torch.where(seen, _points(4), _points(6)))
    hold(
        moved.same(whole, tolerance),
        f"points that are not visible must not influence {name} or its gradient, and their correlation does",
    )
    hold(found(padding=2).same(whole, tolerance), f"{name} must not depend on how many invisible points fill a batch")


def _check_matches(name: str, loss: Any) -> None:
    """Check that a loss that takes matches has a gradient in them, for visible points only."""
    pairs = _Pairs()
    found = _points(9).requires_grad_()
    matches = Matches(found, torch.ones(found.shape[:2]))
    with promising(f"{name} says takes_matches = True, and must take them as a third argument"):
        value = checked_loss(loss, pairs.correlation(), pairs.targets, matches).value
    (gradient,) = torch.autograd.grad(value, found, allow_unused=True) if value.requires_grad else (None,)
    reached = gradient is not None and bool(gradient[_VISIBLE].any())
    hold(reached, f"the gradient of {name} must reach the matches that it takes")
    is_clean = gradient is None or (bool(gradient.isfinite().all()) and not bool(gradient[~_VISIBLE].any()))
    hold(is_clean, f"matches of points that are not visible must not influence {name}")


def _check_bound(name: str, loss: Any, value: LossValue) -> None:
    """Check that there is a lower bound if the loss declares it, and that even perfect matches do not fall below it."""
    has_bound = getattr(loss, "has_lower_bound", False)
    hold(
        has_bound == (value.lower_bound is not None),
        f"{name} says has_lower_bound = {has_bound}, and its answers {'lack' if has_bound else 'have'} one",
    )
    pairs = _Pairs()
    correlation = pairs.correlation()
    cells = correlation.target.grid.to_cells(pairs.targets.points).round().long()
    height, width = correlation.target.size
    index = cells[..., 1].clamp(0, height - 1) * width + cells[..., 0].clamp(0, width - 1)
    perfect = F.one_hot(index, height * width).float().unflatten(2, (height, width))
    for sharpness in (0.1, 1.0):
        with promising(f"{name} must return a scalar or a LossValue"):
            sharp = replace(correlation, values=sharpness * perfect)
            found = checked_loss(loss, sharp, pairs.targets, matches_for(loss, sharp))
        if found.lower_bound is not None:
            slack = 1e-4 * max(1.0, abs(found.lower_bound.item()))
            hold(found.value.item() >= found.lower_bound.item() - slack, f"{name} must not fall below its lower bound")
