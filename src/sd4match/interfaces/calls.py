"""Calls of components that others wrote, with errors that name the component. Importing this module loads no torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from sd4match.errors import ComponentError, SD4MatchError, shown

Answer = TypeVar("Answer")

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "CUDNN_STATUS_NOT_SUPPORTED")
"""Parts of messages of torch when memory runs out; training then splits its batches."""


def describe_component(role: str, component: object) -> str:
    """Return the name of a component for messages.

    >>> describe_component("matcher", len)
    'the matcher len'
    """
    inner = {"backbone": "backbone", "loss": "function"}.get(role)  # what a cache or a plain function is wrapped in
    component = getattr(component, inner, component) if inner else component
    name = getattr(component, "__name__", None) or type(component).__name__
    return f"the {role} {name}"


def call_component(role: str, component: object, function: Callable[..., Any], *arguments: object) -> Any:
    """Call a component, or a method of one; errors of its own become a `ComponentError`.

    Errors of sd4match pass through, and so does running out of memory.

    Args:
        role: of the component, for example "matcher".
        component: whose name the message gives.
        function: what is called; often the component itself.
        arguments: of the call.

    Raises:
        ComponentError: it raises an error that is not of sd4match.

    >>> call_component("matcher", len, len, "ab")
    2
    """
    try:
        return function(*arguments)
    except (SD4MatchError, MemoryError):
        raise
    except Exception as reason:
        text = " ".join(str(reason).split())
        if isinstance(reason, RuntimeError) and any(part in text for part in _OUT_OF_MEMORY):
            raise
        raise ComponentError(
            f"{describe_component(role, component)} failed: {type(reason).__name__}: {text[:200]}"
        ) from reason


def check_answer(role: str, component: object, answer: object, kind: type[Answer]) -> Answer:
    """Return what a component answered, if it is of the type that its interface promises.

    Raises:
        ComponentError: it is of another type.
    """
    if not isinstance(answer, kind):
        raise ComponentError(f"{describe_component(role, component)} must return {kind.__name__}, not {shown(answer)}")
    return answer
