"""Checks of arguments and of fields against their annotations. Importing this module loads no torch.

Only types are checked here. See `checks` for shapes, bounds and names.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from importlib import import_module
from itertools import islice
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar

from sd4match.errors import InputError, a, shown

__all__ = ["check_arguments", "check_fields", "check_value"]

Function = TypeVar("Function", bound=Callable[..., Any])

_CHECKED_ITEMS = 100
"""Number of items of a collection whose types are checked."""
_TYPE_CHECKING_BLOCK = re.compile(r"^if TYPE_CHECKING:[ \t]*\n((?:[ \t]+\S.*(?:\n|\Z)|[ \t]*\n)+)", re.MULTILINE)
_IMPORT = re.compile(
    r"^[ \t]+(?:from[ \t]+(\w[\w.]*)[ \t]+import[ \t]+(\([^)]*\)|[^\n(]+)|import[ \t]+([^\n]+))", re.MULTILINE
)
"""`from MODULE import NAMES` or `import NAMES`; NAMES may be in parentheses on several lines."""
_NAME_AND_ALIAS = re.compile(r"(\w[\w.]*)(?:[ \t]+as[ \t]+(\w+))?")


@dataclass(frozen=True, slots=True)
class _Kind:
    """Values that an annotation allows."""

    wanted: str
    fits: Callable[[Any], bool]

    def check(self, name: str, value: object) -> None:
        if self.fits(value):
            return
        if isinstance(value, type):
            raise InputError(f"{name} must be {self.wanted}, not the class {value.__name__}: did you mean an instance?")
        found = (
            f"an array {value.shape} of {value.dtype}"
            if hasattr(value, "dtype") and hasattr(value, "shape")
            else shown(value)
        )
        raise InputError(f"{name} must be {self.wanted}, not {found}")


def check_arguments(function: Function) -> Function:
    """Check each argument of a call against its annotation, before the function runs.

    A bool is no number, an int is a float, a string or a mapping is no sequence, and a class is no function. The first
    items of a collection are checked too. Shapes and dtypes of tensors are not checked.

    Args:
        function: function or method with annotations.

    Returns:
        The function with checks. A call raises an `InputError` that names the argument of another type.

    >>> @check_arguments
    ... def scaled(values: list[float], factor: float = 2.0) -> list[float]:
    ...     return [value * factor for value in values]
    >>> scaled([1.5, 2.5])
    [3.0, 5.0]
    >>> scaled([1], factor="x")
    Traceback (most recent call last):
        ...
    sd4match.errors.InputError: factor must be a number, not 'x'
    """
    by_name: dict[str, _Kind] = {}
    by_position: tuple[tuple[str, _Kind | None], ...] | None = None

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        nonlocal by_position
        if by_position is None:  # at the first call, when the modules that annotations name are loaded
            original = inspect.unwrap(function)
            by_name.update(_kinds_of(original.__annotations__, original.__globals__))
            by_position = tuple((name, by_name.get(name)) for name in _positional(original))
        for (name, kind), value in zip(by_position, args, strict=False):
            if kind is not None and not kind.fits(value):
                kind.check(name, value)
        for name, value in kwargs.items():
            kind = by_name.get(name)
            if kind is not None and not kind.fits(value):
                kind.check(name, value)
        return function(*args, **kwargs)

    return typing.cast(Function, checked)


def check_fields(instance: Any) -> None:
    """Check the fields of a dataclass against their annotations, in `__post_init__`.

    Args:
        instance: the dataclass object.

    Raises:
        InputError: a field is of another type; the message names it.

    >>> @dataclass
    ... class Named:
    ...     name: str
    ...     def __post_init__(self) -> None:
    ...         check_fields(self)
    >>> Named(5)
    Traceback (most recent call last):
        ...
    sd4match.errors.InputError: name must be a text, not 5
    """
    for name, kind in _kinds_of_fields(type(instance)):  # type: ignore[arg-type]
        kind.check(name, getattr(instance, name))


def check_value(owner: type, name: str, value: object) -> None:
    """Check a value that is assigned to an attribute against the annotation of the class, in `__setattr__`.

    Args:
        owner: the class.
        name: name of the attribute.
        value: assigned value.

    Raises:
        InputError: the value is of another type; the message names the attribute.

    >>> class Named:
    ...     name: str
    >>> check_value(Named, "name", 5)
    Traceback (most recent call last):
        ...
    sd4match.errors.InputError: name must be a text, not 5
    """
    kind = _kinds_of_class(owner).get(name)
    if kind is not None:
        kind.check(name, value)


def _positional(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of the parameters that may be given by position."""
    parameters = inspect.signature(function).parameters.values()
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(parameter.name for parameter in parameters if parameter.kind in by_position)


@functools.cache
def _kinds_of_class(owner: type) -> dict[str, _Kind]:
    kinds: dict[str, _Kind] = {}
    for base in reversed(owner.__mro__):
        kinds.update(_kinds_of(inspect.get_annotations(base), vars(sys.modules[base.__module__])))
    return kinds


@functools.cache
def _kinds_of_fields(owner: type) -> tuple[tuple[str, _Kind], ...]:
    kinds = _kinds_of_class(owner)
    return tuple((field.name, kinds[field.name]) for field in fields(owner) if field.init and field.name in kinds)


def _kinds_of(annotations: Mapping[str, Any], outer: dict[str, Any]) -> dict[str, _Kind]:
    """Return the kinds of annotations by name, without those that allow anything or cannot be evaluated.

    Args:
        annotations: annotations by name, as strings or evaluated.
        outer: globals of their module.
    """
    deferred = _Deferred(outer.get("__file__"))
    kinds = {}
    for name, annotation in annotations.items():
        if name == "return":
            continue
        try:
            kind = _kind(eval(annotation, outer, deferred) if isinstance(annotation, str) else annotation)
        except (NameError, ImportError, AttributeError):  # a local name, or a library that is not installed
            continue
        if kind is not None:
            kinds[name] = kind
    return kinds


class _Deferred(dict[str, Any]):
    """Names that a module imports for type checkers alone; each is imported when an annotation needs it."""

    def __init__(self, source: str | None) -> None:
        super().__init__()
        self._imports = {} if source is None else _type_checking_imports(source)

    def __missing__(self, name: str) -> Any:
        module, attribute = self._imports[name]
        loaded = import_module(module)
        self[name] = value = getattr(loaded, attribute) if attribute else loaded
        return value


@functools.cache
def _type_checking_imports(source: str) -> dict[str, tuple[str, str | None]]:
    """Return the imports under `if TYPE_CHECKING:` in a source file, as name: (module, name there).

    They are found by their text, because `ast.parse` in two threads at once fails on Python 3.11 (gh-106905), and
    threads that load photos call checked functions.
    """
    try:
        text = Path(source).read_text(encoding="utf-8")
    except (OSError, ValueError):  # the source is not available
        return {}
    found: dict[str, tuple[str, str | None]] = {}
    for block in _TYPE_CHECKING_BLOCK.findall(re.sub(r"\\\n", " ", re.sub(r"#.*", "", text))):
        for module, names, plain in _IMPORT.findall(block):
            for name, alias in _NAME_AND_ALIAS.findall(names or plain):
                found[alias or name] = (module, name) if module else (name, None)
    return found


def _kind(annotation: Any) -> _Kind | None:
    """Return the kind of an annotation; None if it allows anything."""
    if annotation is Any or annotation is object or isinstance(annotation, TypeVar):
        return None
    if annotation is None or annotation is types.NoneType:
        return _Kind("None", lambda value: value is None)
    simple = _SIMPLE.get(annotation) if isinstance(annotation, type) else None
    if simple is not None:
        return simple
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _kind(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return _union(arguments)
    if origin is typing.Literal:
        return _literal(arguments)
    if hasattr(annotation, "array_type"):  # of jaxtyping
        return _kind(annotation.array_type)
    if isinstance(origin, type):
        return _generic(origin, arguments)
    if getattr(annotation, "__name__", "") == "ndarray":
        return _array(annotation, ())
    if not isinstance(annotation, type) or getattr(annotation, "_is_protocol", False):
        return None
    if annotation.__module__ == "collections.abc":
        return _generic(annotation, ())
    return _Kind(a(annotation.__name__), lambda value: isinstance(value, annotation))


def _union(members: tuple[Any, ...]) -> _Kind | None:
    kinds = [_kind(member) for member in members]
    known = [kind for kind in kinds if kind is not None]
    if len(known) < len(kinds):
        return None
    wanted = _either([kind.wanted for kind in known])
    if len(known) == 2:  # faster in the most frequent case
        first, second = (kind.fits for kind in known)
        return _Kind(wanted, lambda value: first(value) or second(value))
    return _Kind(wanted, lambda value: any(kind.fits(value) for kind in known))


def _literal(values: tuple[Any, ...]) -> _Kind:
    def fits(value: Any) -> bool:
        return any(isinstance(value, type(allowed)) and value == allowed for allowed in values)

    return _Kind(_either([repr(value) for value in values]), fits)


def _generic(origin: type, arguments: tuple[Any, ...]) -> _Kind | None:
    """Return the kind of a class with parameters, such as `tuple[int, ...]` or `Mapping[str, float]`."""
    if origin.__name__ == "ndarray":
        return _array(origin, arguments)
    if origin is type:
        return _Kind("a class", lambda value: isinstance(value, type))
    if origin.__name__ == "Callable":
        return _Kind("a function", lambda value: callable(value) and not isinstance(value, type))
    name = a(origin.__name__.lower())
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        return _fixed_tuple(arguments)
    if issubclass(origin, Mapping):
        keys, values = map(_kind, arguments) if len(arguments) == 2 else (None, None)
        wanted = f"{name} from {keys.wanted if keys else 'any'} to {values.wanted if values else 'any'}"

        def fits_mapping(value: Any) -> bool:
            return (
                isinstance(value, origin)
                and (keys is None or all(map(keys.fits, islice(value, _CHECKED_ITEMS))))
                and (values is None or all(map(values.fits, islice(value.values(), _CHECKED_ITEMS))))
            )

        return _Kind(wanted, fits_mapping)
    if issubclass(origin, Iterable):
        item = _kind(arguments[0]) if arguments else None

        def fits_items(value: Any) -> bool:
            if not isinstance(value, origin) or isinstance(value, (str, bytes, Mapping)) or hasattr(value, "dtype"):
                return False
            is_checked = item is not None and isinstance(value, Collection)
            return not is_checked or all(map(item.fits, islice(value, _CHECKED_ITEMS)))  # type: ignore[union-attr]

        return _Kind(f"{name} of items that are {item.wanted}" if item else name, fits_items)
    return _Kind(name, lambda value: isinstance(value, origin))


def _fixed_tuple(arguments: tuple[Any, ...]) -> _Kind:
    items = tuple(_kind(argument) for argument in arguments)
    tests = tuple(kind.fits if kind else (lambda value: True) for kind in items)

    def fits(value: Any) -> bool:
        return (
            isinstance(value, tuple)
            and len(value) == len(tests)
            and all(test(item) for test, item in zip(tests, value, strict=True))
        )

    return _Kind(f"a tuple ({', '.join(kind.wanted if kind else 'anything' for kind in items)})", fits)


def _array(origin: type, arguments: tuple[Any, ...]) -> _Kind:
    """Return the kind of an array of numbers or booleans."""
    import numpy as np

    scalar = typing.get_args(arguments[1])[0] if len(arguments) == 2 and typing.get_args(arguments[1]) else None
    letters, wanted = "biuf", "an array of numbers"
    if scalar is np.bool_:
        letters, wanted = "b", "an array of booleans"
    return _Kind(wanted, lambda value: isinstance(value, origin) and value.dtype.kind in letters)  # type: ignore[attr-defined]


def _either(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


_SIMPLE: dict[type, _Kind] = {
    bool: _Kind("True or False", lambda value: isinstance(value, bool)),
    int: _Kind("a whole number", lambda value: isinstance(value, Integral) and not isinstance(value, bool)),
    float: _Kind("a number", lambda value: isinstance(value, Real) and not isinstance(value, bool)),
    str: _Kind("a text", lambda value: isinstance(value, str)),
    Path: _Kind("a path", lambda value: isinstance(value, Path)),
}
"""Kinds whose names or tests are not those of their class."""
