"""Checks of arguments and of computed values, whose messages name what is wrong and what would be right."""

from __future__ import annotations

import math
from collections.abc import Collection
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from sd4match.errors import InputError, NonFiniteError, ShapeError, choose_from, shown

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["check_choice", "check_count", "check_finite", "check_number", "check_positive", "check_shape"]

SMALLEST_POSITIVE, LARGEST_POSITIVE = 1e-12, 1e12
"""Bounds of numbers that are divided by in float32, such as temperatures."""


def check_shape(name: str, value: Any, shape: str, **sizes: int) -> dict[str, int]:
    """Check the shape of a floating-point or boolean tensor, and return the sizes of its named dimensions.

    Args:
        name: of the argument, for the message.
        value: the argument.
        shape: names and numbers of the dimensions, for example "B N 2"; `_` is any size. No dimension but B, N, `_` and
            those named in `sizes` may be 0.
        sizes: sizes that dimensions must have.

    Raises:
        ShapeError: the tensor has another number of dimensions, or one of another size.
        InputError: it is no tensor.

    >>> import torch
    >>> sizes = check_shape("predicted", torch.zeros(2, 3, 2), "B N 2")
    >>> check_shape("visible", torch.ones(2, 1), "B N", **sizes)
    Traceback (most recent call last):
        ...
    sd4match.errors.ShapeError: visible must be (B, N) with B = 2, N = 3, not (2, 1)
    """
    from torch import Tensor

    names = shape.split()
    if not isinstance(value, Tensor):
        raise InputError(f"{name} must be a torch tensor ({', '.join(names)}), not {type(value).__name__}")
    actual = tuple(value.shape)
    found = dict(sizes)
    fits = len(actual) == len(names)
    for dimension, size in zip(names, actual, strict=False):
        if dimension.isdigit():
            fits = fits and size == int(dimension)
        elif dimension != "_":
            fits = fits and found.setdefault(dimension, size) == size
            fits = fits and (size > 0 or dimension in ("B", "N"))
    if not fits:
        known = ", ".join(f"{dimension} = {sizes[dimension]}" for dimension in names if dimension in sizes)
        wanted = f"({', '.join(names)})" + (f" with {known}" if known else "")
        raise ShapeError(f"{name} must be {wanted}, not {actual}")
    return found


def check_finite(name: str, value: Tensor, hint: str = "") -> None:
    """Check that computed values are finite.

    Args:
        name: what was computed, and from what, for example "the features of cat.jpg at layer 1 in float16".
        value: any floating-point tensor.
        hint: what would help, for example "dtype=bfloat16 or float32 has the range".

    Raises:
        NonFiniteError: a value is NaN or infinite.

    >>> import torch
    >>> check_finite("the features of cat.jpg", torch.tensor([1.0, float("nan")]))
    Traceback (most recent call last):
        ...
    sd4match.errors.NonFiniteError: the features of cat.jpg are not finite: 1 of 2 values are NaN or infinite
    """
    finite = value.isfinite()
    if not bool(finite.all()):
        count = int(finite.numel() - finite.sum())
        end = f"; {hint}" if hint else ""
        raise NonFiniteError(f"{name} are not finite: {count} of {finite.numel()} values are NaN or infinite{end}")


def check_count(name: str, value: object, low: int = 1, high: int | None = None) -> int:
    """Return a whole number within bounds.

    Raises:
        InputError: it is no whole number (a bool is none), or beyond a bound.

    >>> check_count("count", 5)
    5
    """
    wanted = f"from {low} to {high}" if high is not None else f"of at least {low}"
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InputError(f"{name} must be a whole number {wanted}, not {shown(value)}")
    number = int(value)
    if number < low or (high is not None and number > high):
        raise InputError(f"{name} must be a whole number {wanted}, not {shown(number)}")
    return number


def check_number(name: str, value: object, low: float = -math.inf, high: float = math.inf) -> float:
    """Return a finite number within bounds, both included.

    Raises:
        InputError: it is no number (a bool is none), not finite, or beyond a bound.

    >>> check_number("radius", 2, low=0.0)
    2.0
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InputError(f"{name} must be a number, not {shown(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not (math.isfinite(number) and low <= number <= high):
        bounds = [f"at least {low:g}"] * math.isfinite(low) + [f"at most {high:g}"] * math.isfinite(high)
        raise InputError(f"{name} must be finite{', ' if bounds else ''}{' and '.join(bounds)}, not {shown(value)}")
    return number


def check_positive(name: str, value: object) -> None:
    """Check a number that values are divided by: a positive number, or a tensor of them.

    Raises:
        InputError: it is not finite, not positive, or beyond what float32 divides by (1e-12 to 1e12).

    >>> check_positive("temperature", 0.04)
    """
    from torch import Tensor

    if not isinstance(value, Tensor):
        check_number(f"{name} (positive)", value, SMALLEST_POSITIVE, LARGEST_POSITIVE)
        return
    if not value.is_floating_point() or value.numel() == 0:
        raise InputError(f"{name} must be a positive number or a floating-point tensor, not {value.dtype} of "
                         f"{value.numel()} values")  # fmt: skip
    values = value.detach()
    if not bool(((values >= SMALLEST_POSITIVE) & (values <= LARGEST_POSITIVE)).all()):
        raise InputError(
            f"{name} must be positive and finite ({SMALLEST_POSITIVE:g} to {LARGEST_POSITIVE:g}), "
            f"not {shown(values.flatten()[:4].tolist())}"
        )


def check_choice(name: str, value: object, choices: Collection[str]) -> str:
    """Return one of some names.

    Raises:
        InputError: it is none of them; the message names them.

    >>> check_choice("scope", "image", ("dataset", "category", "image", "pair"))
    'image'
    """
    if not isinstance(value, str) or value not in choices:
        raise InputError(f"unknown {name} {shown(value)}; {choose_from(str(value)[:80], choices)}")
    return value
