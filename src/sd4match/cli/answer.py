"""Output of commands: text, or one JSON document with `--json`.

A command prints text and returns the document. With `--json`, the text on stdout is dropped and the document is printed
instead. A command whose return type is None has no `--json`. Importing this module loads no torch.
"""

from __future__ import annotations

import functools
import io
import json
import math
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from inspect import Parameter, signature
from typing import Annotated, Any, get_type_hints

import typer

Document = dict[str, Any] | list[Any]
"""JSON object or list. Paths in it are printed as text, and numbers that are not finite as null."""

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]

_NAME = "print_json"


class Leave(typer.Exit):
    """Exception that ends a command with a document or with an exit code other than 0."""

    def __init__(self, document: Document, code: int = 0) -> None:
        super().__init__(code)
        self.document = document


def answering(command: Callable[..., Document | None]) -> Callable[..., None]:
    """Add the option `--json` to a command that returns a document."""
    hints = get_type_hints(command, include_extras=True)
    has_answer = hints.pop("return", None) is not type(None)
    parameters = [
        parameter.replace(annotation=hints[name], kind=Parameter.KEYWORD_ONLY)
        for name, parameter in signature(command).parameters.items()
    ]
    if has_answer:
        parameters.append(Parameter(_NAME, Parameter.KEYWORD_ONLY, default=False, annotation=JsonFlag))

    @functools.wraps(command)
    def call(**values: Any) -> None:
        if not values.pop(_NAME, False):
            command(**values)
            return
        code = 0
        with redirect_stdout(io.StringIO()):
            try:
                document = command(**values)
            except Leave as leave:
                document, code = leave.document, leave.exit_code
        if document is not None:  # as on processes that are not the main one
            typer.echo(to_json(document))
        if code:
            raise typer.Exit(code)

    call.__signature__ = signature(command).replace(parameters=parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call


def to_json(document: Document) -> str:
    """Return a document as strict JSON.

    >>> print(to_json({"pck": float("nan"), "grid": (8, 8)}))
    {
      "pck": null,
      "grid": [
        8,
        8
      ]
    }
    """
    return json.dumps(_finite(document), indent=2, default=str, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return value
