"""Checks of arguments against annotations: what each annotation allows, and what the message says."""

# ruff: noqa: F401 - texts of annotations name what is imported

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from sd4match.arguments import _type_checking_imports, check_arguments, check_fields, check_value
from sd4match.errors import InputError
from sd4match.testing import FakeBackbone

if TYPE_CHECKING:
    import fractions
    from decimal import Decimal

    from nowhere import Missing

T = TypeVar("T")
Several = tuple[Tensor, ...]


class Named(Protocol):
    name: str


def takes(annotation):
    """A function of one argument with that annotation."""

    def function(value):
        return value

    function.__annotations__ = {"value": annotation}
    return check_arguments(function)


NOTHING = object()
ALLOWED = [
    ("int", [1, np.int64(3)], [True, 1.0, "1", None, torch.tensor(1)], "a whole number"),
    ("float", [1, 1.5, np.float32(2.0), float("nan")], [True, "1", None, 1j, torch.tensor(1.0)], "a number"),
    ("bool", [True, False], [0, 1, None, np.bool_(True)], "True or False"),
    ("str", ["", "x"], [b"x", Path("x"), None], "a text"),
    ("str | Path", ["x", Path("x")], [b"x", None], "a text or a path"),
    ("str | Path | None", ["x", None], [5], "a text, a path or None"),
    ("Literal['a', 'b']", ["a"], ["c", None, np.array(["a"])], "'a' or 'b'"),
    ("Callable[[int], str]", [len, FakeBackbone().prepare], ["x", None, int], "a function"),
    ("type[int]", [int], [5], "a class"),
    ("Sequence[str]", [["a"], ("a",), []], ["ab", {"a": 1}, ["a", 5], iter("a"), np.array(["a"])], "sequence"),
    ("Iterable[str]", [["a"], iter("a")], ["ab", {"a": 1}, 5, torch.tensor(1.0)], "iterable"),
    ("list[float]", [[1.0, 2]], [(1.0,), ["x"]], "a list of items that are a number"),
    ("list", [[1, "a"]], [()], "a list"),
    ("Sequence", [[1, "a"]], ["ab"], "a sequence"),
    ("tuple[int, ...]", [(), (1, 2)], [[1], (1.0,), (True,)], "a tuple of items"),
    ("tuple[int, Any]", [(1, "x")], [(1,), ("x", 1), [1, 2]], "a tuple (a whole number, anything)"),
    ("Several", [(torch.zeros(1),)], [(np.zeros(1),)], "Tensor"),
    ("Mapping[str, int]", [{"a": 1}, {}], [{"a": "b"}, {1: 1}, [("a", 1)]], "a mapping from a text to a whole number"),
    ("Mapping[str, Any]", [{"a": NOTHING}], [{1: 1}], "to any"),
    ("dict", [{1: 1}], [[]], "a dict"),
    ("npt.NDArray[np.float64]", [np.zeros(1), np.zeros(1, int)], [[1.0], np.array(["a"]), torch.zeros(1)], "numbers"),
    ("npt.NDArray[np.bool_]", [np.zeros(1, bool)], [np.zeros(1)], "an array of booleans"),
    ("np.ndarray", [np.zeros(1)], [[0]], "an array"),
    ("Float[Tensor, 'batch 2']", [torch.zeros(5), torch.zeros(1, dtype=torch.long)], [np.zeros(5), None], "a Tensor"),
    ("Float[Tensor, '2'] | None", [None], ["x"], "a Tensor or None"),
    ("Annotated[int, 'seed']", [5], ["x"], "a whole number"),
    ("Decimal", [], [5], "a Decimal"),
    ("fractions.Fraction", [], [5], "a Fraction"),
    ("set[int]", [{1}], [{"a"}, [1]], "a set"),
    ("None", [None], [5], "None"),
    *[(name, [5, None, NOTHING], [], "") for name in ("Any", "object", "T", "Named", "Missing", "gone", "int | Any")],
    (int, [5], ["x"], "a whole number"),
]  # fmt: skip


@pytest.mark.parametrize(("annotation", "right", "wrong", "wanted"), ALLOWED, ids=[str(row[0]) for row in ALLOWED])
def test_what_annotations_allow(annotation, right, wrong, wanted):
    function = takes(annotation)
    for value in right:
        assert function(value) is value
        assert function(value=value) is value
    for value in wrong:
        for call in (lambda value=value: function(value), lambda value=value: function(value=value)):
            with pytest.raises(InputError, match=r"^value must be ") as caught:
                call()
            assert wanted in str(caught.value)


def test_a_class_in_place_of_an_instance_is_named():
    with pytest.raises(InputError, match="not the class FakeBackbone: did you mean an instance"):
        takes(FakeBackbone)(FakeBackbone)


def test_only_the_first_items_are_looked_at():
    assert takes("list[int]")([1] * 100 + ["x"])
    with pytest.raises(InputError):
        takes("list[int]")([1] * 99 + ["x"])


def test_signatures_stay_and_calls_of_another_form_are_python_s_own():
    @check_arguments
    def function(a: int, /, b: str = "b", *rest: int, c: float = 1.0, **more: Any) -> None:
        """Say something."""

    assert function.__doc__ == "Say something."
    assert function.__wrapped__.__name__ == "function"
    function(1, "x", 2, 3, c=2, d=NOTHING)
    with pytest.raises(TypeError):
        function()
    with pytest.raises(InputError, match="c must be a number"):
        function(1, c="x")


def test_fields_of_a_dataclass_and_of_its_bases():
    @dataclass
    class Base:
        a: int
        seen: dict[str, int] = field(default_factory=dict, init=False)

        def __post_init__(self) -> None:
            check_fields(self)

    @dataclass
    class Derived(Base):
        b: str | None = None

    assert Derived(1).b is None
    for arguments, name in ((("x",), "a"), ((1, 5), "b")):
        with pytest.raises(InputError, match=f"^{name} must be"):
            Derived(*arguments)


def test_attributes():
    class Thing:
        size: int

    check_value(Thing, "size", 5)
    check_value(Thing, "another", NOTHING)
    with pytest.raises(InputError, match="size must be a whole number, not 'x'"):
        check_value(Thing, "size", "x")


def test_a_module_without_source_is_checked_as_far_as_it_goes():
    scope = {"__name__": "math", "__file__": "gone.py", "check_arguments": check_arguments}
    exec(
        "from __future__ import annotations\n"
        "@check_arguments\n"
        "def function(a: Unknown, b: int) -> None: ...", scope
    )  # fmt: skip
    scope["function"](5, 5)
    with pytest.raises(InputError):
        scope["function"](5, "x")


def imports_of(tree):
    """Return what `if TYPE_CHECKING:` imports, read from the syntax tree."""
    blocks = [
        node for node in tree.body if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
    ]
    lines = [line for block in blocks for line in block.body]
    return {
        alias.asname or alias.name: (line.module, alias.name)
        if isinstance(line, ast.ImportFrom)
        else (alias.name, None)
        for line in lines
        if isinstance(line, ast.Import | ast.ImportFrom)
        for alias in line.names
    }


@pytest.mark.parametrize("file", [*Path("src").rglob("*.py"), Path(__file__)], ids=str)
def test_imports_for_type_checkers_are_read_from_the_text(file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    assert _type_checking_imports(str(file)) == imports_of(tree)


def test_imports_of_every_form_are_read(tmp_path):
    file = tmp_path / "module.py"
    file.write_text(
        "if TYPE_CHECKING:\n    import a, b.c as d  # a comment\n\n    from e.f import (\n        G,  # one\n"
        "        H as I,\n    )\n    from j import K, \\\n        L\n\nfrom m import N\nif TYPE_CHECKING:\n    import o"
    )
    assert _type_checking_imports(str(file)) == imports_of(ast.parse(file.read_text()))


def test_no_syntax_tree_is_built(monkeypatch):
    """`ast.parse` in two threads at once fails on Python 3.11, and threads that load photos call checked functions."""
    _type_checking_imports.cache_clear()
    monkeypatch.setattr(ast, "parse", None)
    with pytest.raises(InputError, match="value must be a Decimal"):
        takes("Decimal")(1)
