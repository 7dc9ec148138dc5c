"""Calls of components that others wrote, with errors that name the component. Importing this module loads no torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from sd4match.errors import ComponentError, SD4MatchError, shown

Answer = TypeVar("Answer")

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "CUDNN_STATUS_NOT_SUPPORTED")
"""Fragments of torch's messages when memory runs out; training then splits its batches."""


def describe_component(role: str, component: object) -> str:
    """Return the name of a component for messages.

    Args:
        role: what the component is, for example "matcher".
        component: an object, or a function.

    >>> describe_component("matcher", len)
    'the matcher len'
    """
    inner = {"backbone": "backbone", "loss": "function"}.get(role)  # attribute of our wrappers that holds the user's
    component = getattr(component, inner, component) if inner else component
    name = getattr(component, "__name__", None) or type(component).__name__
    return f"the {role} {name}"


def call_component(role: str, component: object, function: Callable[..., Any], *arguments: object) -> Any:
    """Call a component or one of its methods, and turn foreign errors into a `ComponentError`.

    Errors of sd4match and errors of exhausted memory are raised unchanged.

    Args:
        role: what the component is, for example "matcher".
        component: the component that the error message names.
        function: the function to call; often the component itself.
        arguments: positional arguments of the call.

    Returns:
        The result of the call.

    Raises:
        ComponentError: the call raises an error that is neither of sd4match nor about memory.

    >>> call_component("matcher", len, len, "ab")
    2
    """
    try:
        return function(*arguments)
    except (SD4MatchError, MemoryError):
        raise
    except Exception as reason:
        text = " ".join(str(reason).split())
        if isinstance(reason, RuntimeError) and any(fragment in text for fragment in _OUT_OF_MEMORY):
            raise
        raise ComponentError(
            f"{describe_component(role, component)} failed: {type(reason).__name__}: {text[:200]}"
        ) from reason


def check_answer(role: str, component: object, answer: object, kind: type[Answer]) -> Answer:
    """Return the result of a component after a check of its type.

    Args:
        role: what the component is, for example "matcher".
        component: the component that the error message names.
        answer: its result.
        kind: type that the interface promises.

    Raises:
        ComponentError: the result is of another type.
    """
    if not isinstance(answer, kind):
        raise ComponentError(f"{describe_component(role, component)} must return {kind.__name__}, not {shown(answer)}")
    return answer
