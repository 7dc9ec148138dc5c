"""Strict readers of JSON and YAML, with bounds of depth and size. Importing this module loads no torch.

Python's readers accept duplicate keys (the last one wins), NaN and Infinity in JSON, and YAML 1.1's `yes`, `0123` (83)
and `1:30` (90). Deep input exceeds their recursion limit, and the aliases in a YAML file of ten lines can expand to
billions of values.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from sd4match.errors import InputError, SD4MatchError, shown
from sd4match.paths import LARGEST_DOCUMENT, read_text

__all__ = ["check_extent", "parse_json", "parse_yaml", "read_json", "to_yaml"]

DEEPEST = 64
"""Largest depth of nested lists and mappings."""
MOST_VALUES = 100_000
"""Largest number of values of a YAML document, aliases expanded."""
LARGEST_YAML = 1 << 20
"""Largest YAML document, in characters."""
MOST_DIGITS = 40
"""Largest number of characters of a number."""


def read_json(
    path: Path, *, what: str, error: type[SD4MatchError] = InputError, largest: int = LARGEST_DOCUMENT
) -> Any:
    """Return the content of a JSON file.

    Args:
        path: JSON file.
        what: name of the file in messages, for example "report".
        error: class of the error.
        largest: largest size in bytes.

    Raises:
        SD4MatchError: the file cannot be read, or is not JSON; of class `error`. See also `parse_json`.
    """
    return parse_json(read_text(path, what=what, error=error, largest=largest), what=f"the {what} {path}", error=error)


def parse_json(text: str, *, what: str, error: type[SD4MatchError] = InputError) -> Any:
    """Return the value of a JSON document.

    Args:
        text: the document.
        what: name of the document in messages.
        error: class of the error.

    Raises:
        SD4MatchError: the text is not JSON, contains a key twice, or a number that is not finite or has more than 40
            digits, or nests more than 64 deep; of class `error`.

    >>> parse_json('{"alpha": 0.1}', what="the report")
    {'alpha': 0.1}
    >>> parse_json('{"alpha": NaN}', what="the report")
    Traceback (most recent call last):
        ...
    sd4match.errors.InputError: the report is not valid JSON: NaN is not a finite number
    """
    try:
        value = json.loads(
            text, object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant, parse_int=_parse_int,
            parse_float=_parse_float,
        )  # fmt: skip
        _check_depth(value)
    except RecursionError:
        raise error(f"{what} is not valid JSON: it nests too deep") from None
    except ValueError as reason:
        raise error(f"{what} is not valid JSON: {reason}") from None
    return value


def _without_duplicates(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {shown(next(key for key in keys if keys.count(key) > 1))} appears twice")
    return content


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is not a finite number")


def _parse_int(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _parse_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{shown(text)} is not a finite number")
    return value


def _check_depth(value: object) -> None:
    level = [value]
    for _ in range(DEEPEST):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return
    raise ValueError(f"it nests more than {DEEPEST} deep")


def parse_yaml(text: str, *, what: str, error: type[SD4MatchError] = InputError) -> Any:
    """Return the value of a YAML document by YAML 1.2's core schema.

    Numbers are decimal, 0o17 or 0xff; `true` and `false` are the only booleans; `yes`, `1:30` and dates are strings.

    Args:
        text: the document.
        what: name of the document in messages.
        error: class of the error.

    Raises:
        SD4MatchError: the text is not YAML, contains a key twice, a tag or a merge key, nests more than 64 deep, or is
            too large; of class `error`.

    >>> parse_yaml("{seed: 0123, resume: yes, rate: 1e-3}", what="the file")
    {'seed': 123, 'resume': 'yes', 'rate': 0.001}
    """
    if len(text) > LARGEST_YAML:
        raise error(f"{what} is too large: at most {LARGEST_YAML:,} characters are read")
    try:
        return _Loader(text).get_single_data()
    except (yaml.YAMLError, ValueError, RecursionError) as reason:
        problem = getattr(reason, "problem", None) or getattr(reason, "reason", None) or str(reason)
        mark = getattr(reason, "problem_mark", None)
        location = "" if mark is None else f" (line {mark.line + 1}, column {mark.column + 1})"
        raise error(f"{what} is not valid YAML: {' '.join(problem.split())}{location}") from None


def to_yaml(value: object) -> str:
    """Return a value as YAML text, from which `parse_yaml` returns an equal value.

    Args:
        value: nested lists and mappings of numbers, booleans, strings and None.

    >>> print(to_yaml({"name": "1e3", "steps": 5}), end="")
    name: '1e3'
    steps: 5
    """
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def check_extent(value: object, *, what: str, error: type[SD4MatchError] = InputError) -> None:
    """Check that nested lists and mappings do not contain themselves, and are not too deep or too large.

    Args:
        value: any; only lists, tuples and mappings are checked.
        what: name of the value in messages.
        error: class of the error.

    Raises:
        SD4MatchError: a value contains itself, values nest more than 64 deep, or there are more than 100,000; of class
            `error`.

    >>> fields = {"kind": "fusion"}
    >>> fields["backbones"] = [fields, fields]
    >>> check_extent(fields, what="the config")
    Traceback (most recent call last):
        ...
    sd4match.errors.InputError: the config holds itself, or nests more than 64 deep
    """
    counts: dict[int, int] = {}

    def count(outer: object, depth: int) -> int:
        if not isinstance(outer, (Mapping, list, tuple)):
            return 1
        if depth > DEEPEST:
            raise error(f"{what} holds itself, or nests more than {DEEPEST} deep")
        if id(outer) not in counts:
            inner = outer.values() if isinstance(outer, Mapping) else outer
            counts[id(outer)] = 1 + sum(count(each, depth + 1) for each in inner)
        if counts[id(outer)] > MOST_VALUES:
            raise error(f"{what} stands for more than {MOST_VALUES:,} values")
        return counts[id(outer)]

    count(value, 1)


_CORE_SCHEMA = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
}
_RESOLVERS: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
for _name, (_pattern, _first) in _CORE_SCHEMA.items():
    for _character in _first:
        _RESOLVERS.setdefault(_character, []).append((f"tag:yaml.org,2002:{_name}", re.compile(f"(?:{_pattern})\\Z")))


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers = _RESOLVERS

    def ignore_aliases(self, data: object) -> bool:
        """Write equal objects out in full instead of as aliases."""
        return True


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = _RESOLVERS

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node after a check that it has no tag and is not deeper than `DEEPEST`."""
        event = self.peek_event()
        if getattr(event, "tag", None) not in (None, "!"):
            raise yaml.constructor.ConstructorError(None, None, f"the tag {shown(event.tag)}", event.start_mark)
        self._depth += 1
        if self._depth > DEEPEST:
            raise yaml.composer.ComposerError(None, None, f"it nests more than {DEEPEST} deep", event.start_mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_document(self, node: yaml.Node) -> Any:
        """Return the value of a document after a check that it has at most `MOST_VALUES` values."""
        _count_values(node, {}, set())
        return self._value(node)

    def _value(self, node: yaml.Node) -> Any:
        if isinstance(node, yaml.SequenceNode):
            return [self._value(child) for child in node.value]
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node)
        return _scalar(node)

    def _mapping(self, node: yaml.MappingNode) -> dict[Any, Any]:
        content: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a name", key_node.start_mark)
            key = _scalar(key_node)
            if key in content:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {shown(key)} appears twice", key_node.start_mark
                )
            content[key] = self._value(value_node)
        return content


def _scalar(node: yaml.Node) -> Any:
    """Return the value of a scalar. Quoted and block scalars are text."""
    text = str(node.value)
    tag = node.tag.rpartition(":")[2]
    if tag == "null":
        return None
    if tag == "bool":
        return text.lower() == "true"
    if tag not in ("int", "float"):
        return text
    if len(text) > MOST_DIGITS:
        raise yaml.constructor.ConstructorError(None, None, f"a number of {len(text)} digits", node.start_mark)
    if tag == "float":
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return int(text[2:], {"0o": 8, "0x": 16}[text[:2]]) if text[:2] in ("0o", "0x") else int(text)


def _count_values(node: yaml.Node, counts: dict[int, int], above: set[int]) -> int:
    """Return the number of values below a node, with aliases expanded.

    Raises:
        ConstructorError: a node contains itself, or there are too many values.
    """
    if id(node) in above:
        raise yaml.constructor.ConstructorError(None, None, "a value holds itself", node.start_mark)
    if id(node) not in counts:
        children = []
        if isinstance(node, yaml.SequenceNode):
            children = node.value
        elif isinstance(node, yaml.MappingNode):
            children = [child for pair in node.value for child in pair]
        inside = above | {id(node)}
        counts[id(node)] = 1 + sum(_count_values(child, counts, inside) for child in children)
    if counts[id(node)] > MOST_VALUES:
        raise yaml.constructor.ConstructorError(
            None, None, f"it stands for more than {MOST_VALUES:,} values", node.start_mark
        )
    return counts[id(node)]
