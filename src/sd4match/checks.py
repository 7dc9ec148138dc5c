"""Checks of arguments and of computed values, with messages that say what is wrong and what would be right."""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal, overload

from sd4match.errors import (
    InputError,
    NonFiniteError,
    ShapeError,
    a,
    choose_from,
    control_character,
    is_unicode,
    is_visible,
    shown,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = [
    "check_choice",
    "check_count",
    "check_each_finite",
    "check_finite",
    "check_flag",
    "check_instance",
    "check_number",
    "check_odd",
    "check_positive",
    "check_rows",
    "check_same_device",
    "check_shape",
    "check_text",
    "dtype_name",
    "range_hint",
]

SMALLEST_POSITIVE, LARGEST_POSITIVE = 1e-12, 1e12
"""Bounds of divisors in float32, such as temperatures."""
LARGEST_WINDOW = 255
"""Largest side in cells of a square around a cell."""
LARGEST_SEED = 2**63 - 1
"""Largest seed of a generator of torch."""
_FLOATS = ("torch.float16", "torch.bfloat16", "torch.float32", "torch.float64")


def check_shape(
    name: str, value: Any, shape: str, *, of: Literal["floats", "numbers", "flags"] | None = None, **sizes: int
) -> dict[str, int]:
    """Check the shape of a tensor, and return the sizes of its named dimensions.

    Args:
        name: name of the argument in the message.
        value: the argument.
        shape: names and numbers of the dimensions, for example "B N 2". `_` is any size, and a leading "..." any number
            of dimensions. Only B, N and `_` may be 0.
        of: "floats" (16 to 64 bits), "numbers" (floats or integers) or "flags" (booleans); None for any dtype.
        sizes: required sizes of dimensions by name.

    Returns:
        The sizes of all named dimensions.

    Raises:
        ShapeError: the tensor has another number of dimensions, or a dimension of another size.
        InputError: the value is no dense tensor, or of another dtype.

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
    if of is not None:
        _check_dtype(name, value, of)
    actual = tuple(value.shape)
    if names[:1] == ["..."]:
        names = [*("_" * (len(actual) - len(names) + 1)), *names[1:]]
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


def _check_dtype(name: str, value: Tensor, of: Literal["floats", "numbers", "flags"]) -> None:
    dtype = str(value.dtype)
    is_flag, is_float = dtype == "torch.bool", dtype in _FLOATS
    is_integer = not (is_flag or value.is_floating_point() or value.is_complex() or value.is_quantized)
    fits = {"flags": is_flag, "floats": is_float, "numbers": is_float or is_integer}[of]
    if not fits:
        wanted = {"flags": "booleans", "floats": "floating-point numbers of 16 to 64 bits", "numbers": "real numbers"}
        raise InputError(f"{name} must be a tensor of {wanted[of]}, not {dtype}")
    if value.layout != _strided():
        raise InputError(f"{name} must be a dense tensor, not {value.layout}")


@functools.cache
def _strided() -> Any:
    import torch

    return torch.strided


def check_same_device(**tensors: Tensor) -> None:
    """Check that tensors are on one device.

    Args:
        tensors: tensors by their names in the message, one or more.

    Raises:
        InputError: a tensor is on another device than the first one, or they are on the device "meta".

    >>> import torch
    >>> check_same_device(points=torch.zeros(1), frames=torch.zeros(1))
    """
    (first, reference), *others = tensors.items()
    for name, tensor in others:
        if tensor.device != reference.device:
            raise InputError(
                f"{name} is on {tensor.device}, and {first} on {reference.device}: move them to one device"
            )
    if reference.is_meta:
        raise InputError(f"{first} is on the device meta, which holds no values: give a tensor on another device")


def check_finite(name: str, value: Tensor, hint: str = "") -> None:
    """Check that computed values are finite.

    Args:
        name: name of the values in the message, for example "the features of cat.jpg at layer 1 in float16".
        value: any floating-point tensor.
        hint: remedy that the message suggests, for example "dtype=bfloat16 or float32 has the range".

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


def check_each_finite(what: str, names: Sequence[str], where: str, values: Tensor, dtype: torch.dtype | str) -> None:
    """Check that the computed values of each photo are finite.

    Args:
        what: name of the values, for example "the features".
        names: names of the photos, or their keys.
        where: location in the network, for example "at layer 1"; may be "".
        values: values whose first dimension is that of the photos.
        dtype: dtype of the computation or its name; several names are joined by "+".

    Raises:
        NonFiniteError: a value is NaN or infinite; the message names photo, location and dtype, and a remedy.
    """
    import torch

    values = values.detach()
    if values.is_floating_point() and not bool(values.sum(dtype=torch.float32).isfinite()):  # faster than each value
        for row, name in enumerate(names):
            label = " ".join(filter(None, (what, "of", name, where, "in", dtype_name(dtype))))
            check_finite(label, values[row], range_hint(dtype))


def range_hint(dtype: torch.dtype | str) -> str:
    """Return a remedy for values that are not finite, for messages.

    Args:
        dtype: dtype of the computation or its name.
    """
    if "float16" in dtype_name(dtype).split("+"):
        return "its range may be too small; bfloat16 or float32 has the range, as with dtype=bfloat16"
    return "the weights, the prompt or the photo are damaged or too large; `sd4match models check` looks at the weights"


def dtype_name(dtype: torch.dtype | str) -> str:
    """Return the name of a dtype as configs write it.

    Args:
        dtype: a dtype or its name.

    >>> import torch
    >>> dtype_name(torch.bfloat16)
    'bfloat16'
    """
    return str(dtype).removeprefix("torch.")


def check_count(name: str, value: object, low: int = 1, high: int | None = None) -> int:
    """Return a whole number after a check of its bounds.

    Args:
        name: name of the argument in the message.
        value: the argument.
        low: smallest allowed number.
        high: largest allowed number; None: no bound.

    Raises:
        InputError: the value is no whole number (a bool is none), or out of bounds.

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
    """Return a finite number as a float after a check of its bounds.

    Args:
        name: name of the argument in the message.
        value: the argument.
        low: smallest allowed number.
        high: largest allowed number.

    Raises:
        InputError: the value is no number (a bool is none), not finite, or out of bounds.

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


@overload
def check_positive(name: str, value: Tensor) -> Tensor: ...
@overload
def check_positive(name: str, value: float) -> float: ...
def check_positive(name: str, value: object) -> float | Tensor:
    """Return a divisor after a check: a positive number as a float, or a tensor of them unchanged.

    Args:
        name: name of the argument in the message.
        value: the argument.

    Raises:
        InputError: a number is not finite, or not in [1e-12, 1e12], where float32 can divide by it.

    >>> check_positive("temperature", 0.04)
    0.04
    """
    from torch import Tensor

    if not isinstance(value, Tensor):
        return check_number(f"{name} (positive)", value, SMALLEST_POSITIVE, LARGEST_POSITIVE)
    _check_dtype(name, value, "floats")
    check_same_device(**{name: value})
    if value.numel() == 0:
        raise InputError(f"{name} must be a positive number or a tensor of them, not one without values")
    values = value.detach()
    if not bool(((values >= SMALLEST_POSITIVE) & (values <= LARGEST_POSITIVE)).all()):
        raise InputError(
            f"{name} must be positive and finite ({SMALLEST_POSITIVE:g} to {LARGEST_POSITIVE:g}), "
            f"not {shown(values.flatten()[:4].tolist())}"
        )
    return value


def check_choice(name: str, value: object, choices: Collection[str]) -> str:
    """Return a name after a check that it is one of the choices.

    Args:
        name: name of the argument in the message.
        value: the argument.
        choices: allowed names.

    Raises:
        InputError: the value is none of them; the message lists them.

    >>> check_choice("scope", "image", ("dataset", "category", "image", "pair"))
    'image'
    """
    if not isinstance(value, str) or value not in choices:
        raise InputError(f"unknown {name} {shown(value)}; {choose_from(str(value)[:80], choices)}")
    return value


def check_rows(rows: slice | Sequence[int], count: int) -> None:
    """Check a selection of items.

    Args:
        rows: indices in [-count, count), or a slice with a positive step.
        count: number of items.

    Raises:
        InputError: an index is out of range, or the step of the slice is not positive.

    >>> check_rows([0, 2, -1], 3)
    """
    if not isinstance(rows, slice):
        for row in rows:
            check_count("rows", row, -count, count - 1)
        return
    try:
        _, _, step = rows.indices(count)
    except (TypeError, ValueError):  # bounds that are no whole numbers, or a step of 0
        step = 0
    if step < 1:
        raise InputError(f"rows must be a slice of whole numbers that goes forward, not {shown(rows)}")


def check_odd(name: str, value: object, low: int = 1) -> int:
    """Return an odd number of cells after a check.

    Args:
        name: name of the argument in the message.
        value: the argument, in [low, 255].
        low: smallest allowed number.

    Raises:
        InputError: the value is no odd whole number in this range.

    >>> check_odd("window", 15)
    15
    """
    number = check_count(name, value, low, LARGEST_WINDOW)
    if number % 2 == 0:
        raise InputError(f"{name} must be odd, not {number}")
    return number


def check_flag(name: str, value: object) -> bool:
    """Return a bool after a check of its type.

    Args:
        name: name of the argument in the message.
        value: the argument.

    Raises:
        InputError: the value is no bool; 0, 1 and texts are refused.

    >>> check_flag("mutual", True)
    True
    """
    if not isinstance(value, bool):
        raise InputError(f"{name} must be True or False, not {shown(value)}")
    return value


def check_text(name: str, value: object) -> str:
    """Return a text after a check that it is one line with at least one visible character.

    Args:
        name: name of the argument in the message.
        value: the argument.

    Raises:
        InputError: the value is no string, empty or invisible, contains a control character, or is not Unicode text.

    >>> check_text("category", "cat")
    'cat'
    """
    if not isinstance(value, str):
        raise InputError(f"{name} must be a text, not {shown(value)}")
    if not is_unicode(value):
        raise InputError(f"{name} is not Unicode text: {shown(value)}")
    if not is_visible(value):
        raise InputError(f"{name} is empty: {shown(value)}")
    if control := control_character(value):
        raise InputError(f"{name} must be one line of text: {shown(value)} holds the control character {control!r}")
    return value


def check_instance(name: str, value: object, kind: type) -> None:
    """Check the class of an argument.

    Args:
        name: name of the argument in the message.
        value: the argument.
        kind: required class.

    Raises:
        InputError: the value is of another class.

    >>> check_instance("sampling", 50, str)
    Traceback (most recent call last):
        ...
    sd4match.errors.InputError: sampling must be a str, not 50
    """
    if not isinstance(value, kind):
        raise InputError(f"{name} must be {a(kind.__name__)}, not {shown(value)}")
