"""Checks of arguments and of computed values, whose messages name what is wrong and what would be right."""

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
"""Bounds of numbers that are divided by in float32, such as temperatures."""
LARGEST_WINDOW = 255
"""Largest side, in cells, of a square around a cell."""
LARGEST_SEED = 2**63 - 1
"""Largest seed that torch takes for a generator."""
_FLOATS = ("torch.float16", "torch.bfloat16", "torch.float32", "torch.float64")


def check_shape(
    name: str, value: Any, shape: str, *, of: Literal["floats", "numbers", "flags"] | None = None, **sizes: int
) -> dict[str, int]:
    """Check the shape of a tensor, and return the sizes of its named dimensions.

    Args:
        name: of the argument, for the message.
        value: the argument.
        shape: names and numbers of the dimensions, for example "B N 2"; `_` is any size. No dimension but B, N, `_` and
            those named in `sizes` may be 0. A leading "..." stands for any dimensions.
        of: "floats" (16 to 64 bits), "numbers" (floats or integers) or "flags" (booleans); None for any data type.
        sizes: sizes that dimensions must have.

    Raises:
        ShapeError: the tensor has another number of dimensions, or one of another size.
        InputError: it is no dense tensor, or its data type is another one.

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
    """Check that tensors, named by keyword, are on one device.

    Raises:
        InputError: one is on another device than the first; the message names both. Or they have no values (meta).

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


def check_each_finite(what: str, names: Sequence[str], where: str, values: Tensor, dtype: torch.dtype | str) -> None:
    """Check that what was computed for each photo is finite.

    Args:
        what: was computed, for example "the features".
        names: of the photos, or their keys.
        where: "at layer 1" and the like; "" if there is only one place.
        values: the first dimension is that of the photos.
        dtype: in which it was computed, or its name; several are joined by "+".

    Raises:
        NonFiniteError: a value is NaN or infinite; the message names photo, place and dtype, and what helps.
    """
    import torch

    values = values.detach()
    if values.is_floating_point() and not bool(values.sum(dtype=torch.float32).isfinite()):  # faster than each value
        for row, name in enumerate(names):
            label = " ".join(filter(None, (what, "of", name, where, "in", dtype_name(dtype))))
            check_finite(label, values[row], range_hint(dtype))


def range_hint(dtype: torch.dtype | str) -> str:
    """Return what helps against values that are not finite in a dtype."""
    if "float16" in dtype_name(dtype).split("+"):
        return "its range may be too small; bfloat16 or float32 has the range, as with dtype=bfloat16"
    return "the weights, the prompt or the photo are damaged or too large; `sd4match models check` looks at the weights"


def dtype_name(dtype: torch.dtype | str) -> str:
    """Return the name of a dtype as configs write it.

    >>> import torch
    >>> dtype_name(torch.bfloat16)
    'bfloat16'
    """
    return str(dtype).removeprefix("torch.")


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


@overload
def check_positive(name: str, value: Tensor) -> Tensor: ...
@overload
def check_positive(name: str, value: float) -> float: ...
def check_positive(name: str, value: object) -> float | Tensor:
    """Return a number that values are divided by: a positive number as a float, or a tensor of them as it is.

    Raises:
        InputError: it is not finite, not positive, or beyond what float32 divides by (1e-12 to 1e12).

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
    """Return one of some names.

    Raises:
        InputError: it is none of them; the message names them.

    >>> check_choice("scope", "image", ("dataset", "category", "image", "pair"))
    'image'
    """
    if not isinstance(value, str) or value not in choices:
        raise InputError(f"unknown {name} {shown(value)}; {choose_from(str(value)[:80], choices)}")
    return value


def check_rows(rows: slice | Sequence[int], count: int) -> None:
    """Check which of `count` items are chosen: a slice that goes forward, or indices.

    Raises:
        InputError: an index is beyond the items, or the slice is none that goes forward.

    >>> check_rows([0, 2, -1], 3)
    """
    if not isinstance(rows, slice):
        for row in rows:
            check_count("rows", row, -count, count - 1)
        return
    try:
        _, _, step = rows.indices(count)
    except (TypeError, ValueError):  # of bounds that are no whole numbers, or of a step of 0
        step = 0
    if step < 1:
        raise InputError(f"rows must be a slice of whole numbers that goes forward, not {shown(rows)}")


def check_odd(name: str, value: object, low: int = 1) -> int:
    """Return an odd whole number of cells, from `low` to 255.

    Raises:
        InputError: it is none.

    >>> check_odd("window", 15)
    15
    """
    number = check_count(name, value, low, LARGEST_WINDOW)
    if number % 2 == 0:
        raise InputError(f"{name} must be odd, not {number}")
    return number


def check_flag(name: str, value: object) -> bool:
    """Return a bool.

    Raises:
        InputError: it is none; 0, 1 and texts are refused.

    >>> check_flag("mutual", True)
    True
    """
    if not isinstance(value, bool):
        raise InputError(f"{name} must be True or False, not {shown(value)}")
    return value


def check_text(name: str, value: object) -> str:
    """Return a text of one line with at least one visible character.

    Raises:
        InputError: it is no string, empty or invisible, holds a control character, or is not Unicode text.

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

    Raises:
        InputError: it is of another class.

    >>> check_instance("sampling", 50, str)
    Traceback (most recent call last):
        ...
    sd4match.errors.InputError: sampling must be a str, not 50
    """
    if not isinstance(value, kind):
        raise InputError(f"{name} must be {a(kind.__name__)}, not {shown(value)}")
