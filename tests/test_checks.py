"""Checks name the argument, what it is, and what would be right."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sd4match.checks import (
    check_choice,
    check_count,
    check_finite,
    check_instance,
    check_number,
    check_positive,
    check_shape,
    check_text,
)
from sd4match.errors import InputError, NonFiniteError, ShapeError, decimal_of, shown


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 3), (0, 3, 2, 1)])
def test_shapes(shape):
    assert check_shape("points", torch.zeros(2, 0, 2), "B N 2") == {"B": 2, "N": 0}
    with pytest.raises(ShapeError, match=r"points must be \(B, N, 2\), not"):
        check_shape("points", torch.zeros(shape), "B N 2")
    with pytest.raises(ShapeError, match=r"with B = 1, not \(2, 4\)"):
        check_shape("visible", torch.zeros(2, 4), "B N", B=1)
    with pytest.raises(ShapeError, match="not"):
        check_shape("map", torch.zeros(1, 3, 0, 2), "B C h w")
    with pytest.raises(InputError, match=r"must be a torch tensor .*, not ndarray"):
        check_shape("points", np.zeros((2, 3, 2)), "B N 2")


def test_finite():
    check_finite("the features", torch.zeros(3))
    with pytest.raises(NonFiniteError, match="the features are not finite: 2 of 3 values are NaN or infinite; try it"):
        check_finite("the features", torch.tensor([1.0, float("nan"), float("inf")]), "try it")


@pytest.mark.parametrize("value", [0, -1, 11, 2.0, True, "3", None, 10**400])
def test_counts(value):
    assert check_count("count", np.int64(3)) == 3
    with pytest.raises(InputError, match="count must be a whole number from 1 to 10, not"):
        check_count("count", value, 1, 10)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1, 10**400, True, "1", None])
def test_numbers(value):
    assert check_number("radius", np.float32(1.5)) == 1.5
    with pytest.raises(InputError, match="radius must be"):
        check_number("radius", value, low=0.0)


@pytest.mark.parametrize(
    "value", [0, -1.0, 1e-300, float("inf"), torch.tensor(-1.0), torch.tensor([1.0, float("nan")]), torch.tensor(1)]
)
def test_positive_numbers(value):
    check_positive("sigma", torch.tensor([0.5, 2.0]))
    with pytest.raises(InputError, match="sigma"):
        check_positive("sigma", value)


def test_choices():
    with pytest.raises(InputError, match="unknown scope 'imag'; did you mean 'image'"):
        check_choice("scope", "imag", ("image", "pair"))


def test_shown_is_short():
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError

    assert len(shown("x" * 10**6)) < 100
    assert "Broken" in shown(Broken())


@pytest.mark.parametrize(
    "text", ["", " ", "\u200b", "\ufeff\u2060", "\0", "\u3164", "\n", "\ud800", "a\nb", "a\x1b[2J", 5]
)
def test_texts_are_visible_and_of_one_line(text):
    with pytest.raises(InputError, match=r"category (is empty|must be one line of text|is not Unicode|must be a text)"):
        check_text("category", text)


@pytest.mark.parametrize("text", ["cat", " cat ", "\u732b", "\U0001f408", "\u0915\u094d\u200d\u0937"])
def test_texts_of_any_script_are_taken(text):
    assert check_text("category", text) == text


@pytest.mark.parametrize(("kind", "part"), [(ShapeError, "a ShapeError"), (InputError, "an InputError")])
def test_messages_have_the_article_of_the_class(kind, part):
    with pytest.raises(InputError, match=f"value must be {part}, not 5"):
        check_instance("value", 5, kind)


@pytest.mark.parametrize("text", ["1", "-1.5", "+.5e-3", " 7"])
def test_decimal_numbers(text):
    assert decimal_of(text) == float(text)


@pytest.mark.parametrize("text", ["", "1_0", "\uff15", "\u0665", "inf", "nan", "0x10", "1,5", "1e", "\u20031"])
def test_other_texts_are_no_number(text):
    assert np.isnan(decimal_of(text))
