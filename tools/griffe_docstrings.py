"""Extension of griffe for the reference: doctests as code, fields by their description, configs by their signature."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

import griffe


class Docstrings(griffe.Extension):
    """Prepare docstrings for Markdown, and take those of fields from `Field(description=...)`."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Fence the doctests of an object's docstring."""
        if obj.docstring is not None:
            obj.docstring.value = fence_doctests(obj.docstring.value)

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Give each config class the signature that its fields make, and the fields that it inherits."""
        classes = list(_classes(pkg))
        for cls in classes:
            bases = [cls, *(base for base in _bases(cls) if base.path != _CONFIG)]
            if len(bases) == 1 + len(_bases(cls)) or "__init__" in cls.members:
                continue
            fields = {
                name: member
                for base in reversed(bases)
                for name, member in base.members.items()
                if isinstance(member, griffe.Attribute) and _is_field(name, member)
            }
            keyword = griffe.ParameterKind.keyword_only
            parameters = [
                griffe.Parameter(name, annotation=field.annotation, default=field.value, kind=keyword)
                for name, field in fields.items()
            ]
            self_parameter = griffe.Parameter("self", kind=griffe.ParameterKind.positional_only)
            for name in fields.keys() - cls.members.keys():
                cls.set_member(name, griffe.Alias(name, fields[name], parent=cls))
            cls.set_member(
                "__init__", griffe.Function("__init__", parameters=griffe.Parameters(self_parameter, *parameters))
            )

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """Read the call of `Field` that an attribute is assigned, or that stands in its `Annotated` type."""
        calls = [attr.value]
        if isinstance(attr.annotation, griffe.Expr):
            calls += [part for part in attr.annotation.iterate(flat=False) if isinstance(part, griffe.ExprCall)]
        for call in calls:
            if not isinstance(call, griffe.ExprCall) or str(call.function).rsplit(".", 1)[-1] != "Field":
                continue
            given = {part.name: part.value for part in call.arguments if isinstance(part, griffe.ExprKeyword)}
            if "description" in given and attr.docstring is None:
                try:
                    text = ast.literal_eval(str(given["description"]))
                except (SyntaxError, ValueError):
                    continue
                attr.docstring = griffe.Docstring(text[:1].upper() + text[1:] + ".", parent=attr)
            if call is attr.value and "default_factory" not in given:
                attr.value = given.get("default")


_CONFIG = "sd4match.registry.Config"
"""Base class of all configs, whose own signature takes any fields."""


def _classes(module: griffe.Module) -> Iterator[griffe.Class]:
    """Yield the classes of a package."""
    for member in module.members.values():
        if isinstance(member, griffe.Class):
            yield member
        elif isinstance(member, griffe.Module):
            yield from _classes(member)


def _bases(cls: griffe.Class) -> list[griffe.Class]:
    try:
        return list(cls.mro())
    except ValueError:
        return []


def _is_field(name: str, attribute: griffe.Attribute) -> bool:
    """Return whether an attribute is a field: annotated, and not as a ClassVar, which griffe labels otherwise."""
    return not name.startswith("_") and attribute.annotation is not None and "instance-attribute" in attribute.labels


def fence_doctests(text: str) -> str:
    r"""Put fences around the doctests of a docstring, so that Markdown does not read them.

    >>> fence_doctests("Return 1.\n\n>>> one()\n1").splitlines()
    ['Return 1.', '', '```pycon', '>>> one()', '1', '```']
    """
    lines: list[str] = []
    indent: str | None = None
    is_fenced = False
    for line in text.splitlines():
        content = line.lstrip()
        is_fenced ^= content.startswith("```")
        if indent is None and not is_fenced and content.startswith(">>> "):
            indent = line[: len(line) - len(content)]
            lines.append(f"{indent}```pycon")
        elif indent is not None and not content:
            lines.append(f"{indent}```")
            indent = None
        lines.append(line)
    if indent is not None:
        lines.append(f"{indent}```")
    return "\n".join(lines)
