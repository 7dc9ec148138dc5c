"""Rules by which inputs are damaged: drop, rename, truncate, retype, swap, repeat, and numbers that are none."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robustness.cases import EXECUTED

DEEP = "@@deep@@"
_DEEP_TEXT = "[" * 50_000 + "]" * 50_000
TWICE = "@@twice@@"
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


class Runs:
    """Object whose unpickling would write a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (Path(EXECUTED), "code ran")


def hostile_pickle() -> bytes:
    """Return a pickle that would run code."""
    return pickle.dumps({"weight": Runs()})


def json_text(value: object) -> str:
    """Return JSON, with the markers of this module replaced by what Python cannot hold."""
    text = json.dumps(value)
    return text.replace(f'"{DEEP}"', _DEEP_TEXT)


def value_damages(value: Any, *, per_kind: int = 3) -> Iterator[tuple[str, Any]]:
    """Yield copies of a tree of JSON values with one damage each, and their names.

    Args:
        value: a mapping or a list.
        per_kind: entries of a list that are damaged, from the first.
    """
    for path, inner in _paths(value, per_kind):
        where = ".".join(map(str, path))
        if path:
            yield f"drop {where}", _without(value, path)
            if isinstance(path[-1], str):
                yield f"rename {where}", _renamed(value, path)
        for name, other in _retyped(inner):
            yield f"{name} {where}", _replaced(value, path, other)
        if isinstance(inner, list) and inner:
            yield f"repeat {where}", _replaced(value, path, [*inner, inner[0]])
            yield f"empty {where}", _replaced(value, path, [])
        yield f"deep {where}", _replaced(value, path, DEEP)


def _retyped(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, bool):
        yield from {"text for": "true", "null for": None, "number for": 7}.items()
    elif isinstance(value, (int, float)):
        yield from {
            "text for": "wide", "null for": None, "list for": [1, 2], "mapping for": {"a": 1}, "bool for": True,
            "NaN for": float("nan"), "infinity for": float("inf"), "negative": -abs(value) - 1, "huge": 10**400,
        }.items()  # fmt: skip
    elif isinstance(value, str):
        yield from {"number for": 5, "null for": None, "list for": ["a"], "mapping for": {"a": 1}, "empty": ""}.items()
        yield "surrogate for", "\ud800"
    elif isinstance(value, list):
        yield from {"text for": "x", "number for": 5, "mapping for": {"a": 1}, "null for": None}.items()
    elif isinstance(value, dict):
        yield from {"text for": "x", "number for": 5, "list for": [1], "null for": None}.items()
    else:
        yield from {"text for": "x", "number for": -5, "list for": [[1]], "mapping for": {"a": 1}}.items()


def _paths(value: Any, per_kind: int, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    yield path, value
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _paths(inner, per_kind, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value[:per_kind]):
            yield from _paths(inner, per_kind, (*path, index))


def _parent(value: Any, path: tuple[Any, ...]) -> tuple[Any, Any]:
    changed = copy.deepcopy(value)
    parent = changed
    for step in path[:-1]:
        parent = parent[step]
    return changed, parent


def _without(value: Any, path: tuple[Any, ...]) -> Any:
    changed, parent = _parent(value, path)
    del parent[path[-1]]
    return changed


def _renamed(value: Any, path: tuple[Any, ...]) -> Any:
    changed, parent = _parent(value, path)
    parent[f"{path[-1]}x"] = parent.pop(path[-1])
    return changed


def _replaced(value: Any, path: tuple[Any, ...], other: Any) -> Any:
    if not path:
        return other
    changed, parent = _parent(value, path)
    parent[path[-1]] = other
    return changed


def text_damages(text: str) -> Iterator[tuple[str, bytes]]:
    """Yield damages of a text file as a whole."""
    content = text.encode()
    yield "empty", b""
    yield "truncated to a half", content[: len(content) // 2]
    yield "one byte less", content.rstrip()[:-1]
    yield "Git-LFS pointer", LFS_POINTER
    yield "no UTF-8", b"\xff\xfe" + content
    yield "null characters", b"\0" * 100
    yield "pickle", hostile_pickle()
    yield "deep", _DEEP_TEXT.encode()


def binary_damages(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield damages of a binary file as a whole."""
    yield "empty", b""
    yield "truncated to a half", content[: len(content) // 2]
    yield "truncated to 20 bytes", content[:20]
    yield "one byte less", content[:-1]
    yield "Git-LFS pointer", LFS_POINTER
    yield "pickle", hostile_pickle()
    yield "text", b"no such thing\n"
    yield "header of 2^60 bytes", (2**60).to_bytes(8, "little") + content[8:]
    yield "deep header", len(_DEEP_TEXT).to_bytes(8, "little") + _DEEP_TEXT.encode()


def tensor_damages(tensors: dict[str, Tensor], names: list[str]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield copies of a state dict with one damage each.

    Args:
        tensors: by name.
        names: those that are damaged.
    """
    for name in names:
        value = tensors[name]
        if not value.numel():
            continue
        yield f"drop {name}", {key: tensor for key, tensor in tensors.items() if key != name}
        yield f"rename {name}", {(f"module.{key}" if key == name else key): t for key, t in tensors.items()}
        yield f"whole numbers for {name}", tensors | {name: torch.ones(value.shape, dtype=torch.int64)}
        yield f"booleans for {name}", tensors | {name: torch.ones(value.shape, dtype=torch.bool)}
        yield f"NaN in {name}", tensors | {name: _with_first(value, float("nan"))}
        yield f"infinity in {name}", tensors | {name: _with_first(value, float("inf"))}
        yield f"one dimension more in {name}", tensors | {name: value[None].clone()}
        yield f"one row less in {name}", tensors | {name: (value[:-1] if value.ndim else value[None]).clone()}
        yield f"one row more in {name}", tensors | {name: torch.cat([value, value[:1]]) if value.ndim else value[None]}
        yield f"nothing in {name}", tensors | {name: value.flatten()[:0].clone()}
    yield "all names prefixed", {f"transformer.{key}": value for key, value in tensors.items()}
    yield "no tensors", {}
    yield "surplus tensor", tensors | {"surplus": torch.ones(2)}


def _with_first(value: Tensor, number: float) -> Tensor:
    changed = (value if value.is_floating_point() else value.float()).clone()
    changed.view(-1)[0] = number
    return changed
