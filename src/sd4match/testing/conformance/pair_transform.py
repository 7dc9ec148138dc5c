"""Conformance of pair transforms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sd4match.arguments import check_arguments
from sd4match.checks import check_number
from sd4match.interfaces import PairTransform, evaluation_mode
from sd4match.interfaces.calls import describe_component
from sd4match.registry import pair_transforms
from sd4match.structures.specs import FeatureSpec
from sd4match.structures.tensors import FeatureMap
from sd4match.testing.config import fake_spec
from sd4match.testing.conformance.common import (
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

Pair = tuple[FeatureMap, FeatureMap]


@check_arguments
def check_pair_transform(transform: Any, *, spec: FeatureSpec | None = None, tolerance: float = 1e-3) -> None:
    """Check that a pair transform keeps the promises of `PairTransform`.

    - It returns two maps with the same number of channels, finite, float32, with the grids and masks of its inputs.
    - A pair does not depend on other pairs of the batch or on earlier calls. Nothing is changed in place.
    - `check_spec` accepts the spec of maps that the call accepts.
    - It computes on the device of the maps, and gradients are finite.
    - The config is the same after it was written and read. Learned parameters get a gradient and are in the state dict.

    Maps are compared by the products of their cells, since the directions of a decomposition may have any sign and
    order.

    Args:
        transform: a transform, a function with its signature, or its config, registered class or kind.
        spec: shapes of the backbone whose maps it transforms; 48 channels in one group by default.
        tolerance: largest difference between batches of different size, relative to the largest product, >= 0.

    Raises:
        AssertionError: a promise is broken; the message says which.

    >>> from sd4match.matching import CoPCA
    >>> check_pair_transform(CoPCA(components=4))
    """
    check_number("tolerance", tolerance, low=0.0)
    transform, spec = built(pair_transforms, transform), spec or fake_spec(32)
    name = describe_component("pair transform", transform)
    check_own_config(transform)
    if isinstance(transform, PairTransform):
        with promising(f"check_spec of {name} must take the shapes of the maps, so give the right spec"):
            transform.check_spec(spec)
    with evaluation_mode(transform):
        _check_maps(name, transform, spec, tolerance)
    check_learned(name, transform, lambda: _total(transform(*_maps(spec))))
    check_state(name, transform, lambda single: _total(single(*_maps(spec))))


def _maps(spec: FeatureSpec, rows: Sequence[int] = (0, 1, 2), *, masks: bool = False) -> Pair:
    """Return maps of some of three pairs, photos of other shapes, with masks if that is asked for."""
    made = []
    for seed, size in enumerate(((6, 7), (5, 8))):
        maps = some_maps(spec.channels, spec.groups, size=size, seed=seed)
        if masks:
            mask = torch.ones(len(maps), *size, dtype=torch.bool)
            mask[:, 0], mask[1, :, :2] = False, False
            maps = replace(maps, mask=mask)
        made.append(maps[list(rows)])
    return made[0], made[1]


def _products(pair: Pair) -> Tensor:
    """Return (B, n, n), the products of all cells of both maps of each pair."""
    cells = torch.cat([side.values.flatten(2) for side in pair], dim=2)
    return cells.transpose(1, 2) @ cells


def _total(pair: Pair) -> Tensor:
    """Return a number that depends on both maps."""
    products = _products(pair)
    return (products * torch.linspace(0.5, 1.5, products[0].numel()).reshape(products[0].shape)).mean()


def _answer(name: str, transform: Any, pair: Pair) -> Pair:
    """Return both maps of a transform, and check their form."""
    with untouched(name, *(side.values for side in pair), *(side.mask for side in pair)):
        answer = ask(f"{name} must return two maps", transform, *pair, kind=tuple)
    hold(
        len(answer) == 2 and all(isinstance(side, FeatureMap) for side in answer),
        f"{name} must return two maps, source and target",
    )
    for before, after in zip(pair, answer, strict=True):
        hold(after.grid == before.grid, f"{name} must return maps on the same grids as before")
        hold(after.values.dtype == torch.float32, f"the maps of {name} must be in float32, not {after.values.dtype}")
        hold(after.values.isfinite().all(), f"the maps of {name} must be finite")
        if before.mask is None or after.mask is None:
            same_mask = before.mask is after.mask
        else:
            same_mask = equal(after.mask, before.mask)
        hold(same_mask, f"{name} must keep the masks of the maps: use dataclasses.replace(map, values=...)")
    source, target = answer
    channels = source.values.shape[1], target.values.shape[1]
    hold(channels[0] == channels[1], f"{name} must return maps of equally many channels, not {channels}")
    hold(source.groups == target.groups, f"{name} must return maps of the same channel groups")
    return source, target


def _check_maps(name: str, transform: Any, spec: FeatureSpec, tolerance: float) -> None:
    with torch.no_grad():
        whole = _answer(name, transform, _maps(spec))
        products, order = _products(whole), [2, 0, 1]
        again, turned, single, later = (
            _answer(name, transform, _maps(spec, rows)) for rows in ((0, 1, 2), order, (1,), (0, 1, 2))
        )
        for what, found in (
            ("the same maps must give the same bits each time of", again),
            ("earlier calls change", later),
        ):
            same = all(equal(side.values, its.values) for side, its in zip(found, whole, strict=True))
            hold(same, f"{what} {name}")
        hold(close(_products(turned), products[order], tolerance), f"the order of a batch changes the maps of {name}")
        hold(close(_products(single), products[1:2], tolerance), f"{name} must transform each pair by itself")
        _answer(name, transform, _maps(spec, masks=True))
    leaves = [side.values.clone().requires_grad_() for side in _maps(spec)]
    maps = [replace(side, values=values) for side, values in zip(_maps(spec), leaves, strict=True)]
    with promising(f"{name} must transform maps with gradients"):
        total = _total(transform(*maps))
    if total.requires_grad:
        for gradient in torch.autograd.grad(total, leaves, allow_unused=True):
            hold(gradient is None or gradient.isfinite().all(), f"gradients of the maps of {name} must be finite")

    def there(moved: Any, device: torch.device) -> dict[str, Tensor]:
        source, target = (replace(side, values=side.values.to(device)) for side in _maps(spec))
        found = moved(source, target)
        # each map shows its own device; the products are the same for any choice of directions
        return {"products": _products(found), **{key: side.values.square().sum(dim=1) for key, side in
                                                 zip(("source", "target"), found, strict=True)}}  # fmt: skip

    expected = {"products": products, **{key: side.values.square().sum(dim=1) for key, side in
                                         zip(("source", "target"), whole, strict=True)}}  # fmt: skip
    check_device(name, transform, there, expected, tolerance=tolerance)
