"""Hostile arguments of `SemanticMatcher`, and components of a user that break their interface."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robustness.cases import Case
from sd4match import SemanticMatcher, load_preset
from sd4match.geometry import Grid
from sd4match.interfaces import Prompt
from sd4match.matching import KernelSoftArgmax
from sd4match.prompting import EmptyPromptConfig
from sd4match.structures.tensors import FeatureMap, Matches, PromptEmbedding, Sampling
from sd4match.testing import FakeBackbone, FakeTextEncoder, random_photo

GROUP = "matcher"
_PHOTO = random_photo((24, 32))
_POINTS = [(5.0, 6.0), (7.0, 8.0)]

PHOTOS: tuple[Any, ...] = (
    None, 5, [], {}, b"x.png", "", " ", "none.png", "~no-such-user/x.png", "x" * 300, "/dev/zero", "/",
    np.zeros((4, 4)), np.full((4, 4, 3), 2.0), np.zeros((0, 4, 3), np.uint8), object(), Path(), True, "a\0b",
)  # fmt: skip
POINTS: tuple[Any, ...] = (
    [], [1, 2], [[1, 2, 3]], [[math.nan, 1]], [[math.inf, 1]], [["a", "b"]], [[10**400, 1]], [[-1, 5]], [[99, 5]], "x",
    5, {"a": 1}, [[None, 1]], [[True, False]], [[1, 2], [3]], np.zeros((1, 2, 2)), object(),
)  # fmt: skip
CATEGORIES: tuple[Any, ...] = (
    5, b"cat", ["cat"], "", "  ", ("cat", "dog", "cow"), ("cat", 5), ("cat", ""), "\ud800", {"a": 1}, True,
)  # fmt: skip
COUNTS: tuple[Any, ...] = (0, -1, 2.5, "3", None, True, math.nan, 10**12)


class _Answers(Prompt):
    """Prompt that returns whatever it is told."""

    def __init__(self, answer: Callable[[int], Any], scope: Any = "dataset") -> None:
        super().__init__()
        self.answer, self.scope = answer, scope

    def forward(self, images: Any, partners: Any = None) -> Any:
        return self.answer(len(images))


class _Maps(FakeBackbone):
    """Backbone that returns whatever it is told."""

    def __init__(self, answer: Callable[[FeatureMap], Any]) -> None:
        super().__init__(text_encoder=FakeTextEncoder())
        self.answer = answer

    def extract(self, encoded: Any, prompt: Any, sampling: Any) -> Any:
        return self.answer(super().extract(encoded, prompt, sampling))


def _raise(*_: object) -> Any:
    raise KeyError("of the user")


def _matcher(**changes: Any) -> SemanticMatcher:
    backbone = FakeBackbone(text_encoder=FakeTextEncoder())
    parts = {
        "backbone": backbone,
        "prompt": EmptyPromptConfig().build(backbone=backbone),
        "matcher": KernelSoftArgmax(),
    }
    return SemanticMatcher(**(parts | changes))


def cases(base: Path) -> Iterator[Case]:
    """Yield hostile arguments, then hostile components."""
    for name, values in (
        ("backbone", (None, "mini", FakeBackbone, 5)), ("prompt", (None, "text", Prompt, 5)),
        ("matcher", (None, "nearest_neighbor", 5)), ("sampling", ("x", 5, 50.0)), ("protocol", ("x", 5)),
        ("pair_transform", ("x", 5)),
    ):  # fmt: skip
        for value in values:
            yield _case(f"{name}={value!r:.30}", lambda name=name, value=value: _matcher(**{name: value}), (name,))
    for value in PHOTOS:
        yield _case(f"source={value!r:.30}", lambda value=value: _matcher().match(value, _PHOTO), ())
        yield _case(f"target={value!r:.30}", lambda value=value: _matcher().match(_PHOTO, value), ())
    for value in POINTS:
        call = {"points": value}
        yield _case(f"points={value!r:.30}", lambda call=call: _matcher().match(_PHOTO, _PHOTO, **call), ("point",))
    for value in CATEGORIES:
        for method in ("match", "match_dense"):
            yield _case(
                f"{method}(category={value!r:.30})",
                lambda value=value, method=method: getattr(_matcher(), method)(_PHOTO, _PHOTO, category=value),
                ("category",),
            )
    for value in COUNTS:
        yield _case(f"grid={value!r}", lambda value=value: _matcher().match(_PHOTO, _PHOTO, grid=value), ("grid",))
        yield _case(
            f"count={value!r}",
            lambda value=value: _matcher().match_candidates(_PHOTO, _PHOTO, _POINTS, count=value),
            ("count", "candidates"),
        )
    for value in ("cuda:7", "meta", "tpu", "", 5, None):
        yield _case(
            f"device={value!r}",
            lambda value=value: SemanticMatcher.from_preset("mini-empty", device=value),
            ("device",),
        )
    for value in (5, None, "", "no-such", b"single"):
        yield _case(
            f"from_preset({value!r})", lambda value=value: SemanticMatcher.from_preset(value), ("preset", "name")
        )
        yield _case(f"load_preset({value!r})", lambda value=value: load_preset(value), ("preset",))
    yield from _components()


def _components() -> Iterator[Case]:
    matches: dict[str, Callable[[Any], Any]] = {
        "None": lambda c: None, "raises": _raise, "a tensor": lambda c: c.query_points,
        "NaN": lambda c: Matches(c.query_points * math.nan, c.values.flatten(2).amax(-1).sigmoid()),
        "one point": lambda c: Matches(c.query_points[:, :1], torch.ones(1, 1)),
        "three columns": lambda c: Matches(torch.zeros(1, c.values.shape[1], 3), torch.ones(1, c.values.shape[1])),
        "scores of 7": lambda c: Matches(c.query_points, torch.full(c.query_points.shape[:2], 7.0)),
        "scores of NaN": lambda c: Matches(c.query_points, torch.full(c.query_points.shape[:2], math.nan)),
        "scores of another shape": lambda c: Matches(c.query_points, torch.ones(1, 99)),
        "whole numbers": lambda c: Matches(c.query_points.long(), torch.ones(c.query_points.shape[:2])),
    }  # fmt: skip
    for name, matcher in matches.items():
        yield _case(
            f"matcher answers {name}", lambda matcher=matcher: _matcher(matcher=matcher).match(_PHOTO, _PHOTO, _POINTS),
            (), differ=name == "whole numbers",
        )  # fmt: skip
    embeddings: dict[str, Callable[[int], Any]] = {
        "None": lambda n: None, "raises": _raise, "a tensor": lambda n: torch.zeros(n, 16, 8),
        "NaN": lambda n: PromptEmbedding(torch.full((n, 16, 8), math.nan)),
        "two dimensions": lambda n: PromptEmbedding(torch.zeros(16, 8)),
        "another width": lambda n: PromptEmbedding(torch.zeros(n, 16, 9)),
        "no tokens": lambda n: PromptEmbedding(torch.zeros(n, 0, 8)),
        "another batch": lambda n: PromptEmbedding(torch.zeros(n + 3, 16, 8)),
        "whole numbers": lambda n: PromptEmbedding(torch.zeros(n, 16, 8, dtype=torch.int64)),
    }  # fmt: skip
    for name, answer in embeddings.items():
        # a backbone without text takes a prompt without tokens
        yield _case(
            f"prompt answers {name}", lambda a=answer: _matcher(prompt=_Answers(a)).match(_PHOTO, _PHOTO), (),
            differ=name == "no tokens",
        )  # fmt: skip
    good = lambda n: PromptEmbedding(torch.zeros(n, 16, 8))  # noqa: E731
    for scope in ("imag", None, 5):
        yield _case(
            f"scope {scope!r}", lambda s=scope: _matcher(prompt=_Answers(good, s)).match(_PHOTO, _PHOTO), ("scope",)
        )
    yield _case("no category", lambda: _matcher(prompt=_Answers(good, "category")).match(_PHOTO, _PHOTO), ("category",))
    maps: dict[str, Callable[[FeatureMap], Any]] = {
        "None": lambda m: None, "raises": _raise, "a tensor": lambda m: m.values,
        "NaN": lambda m: FeatureMap(m.values * math.nan, m.grid),
        "infinity": lambda m: FeatureMap(m.values / 0.0, m.grid),
        "another grid": lambda m: FeatureMap(m.values, Grid(m.grid.frames, (3, 3))),
        "no channels": lambda m: FeatureMap(m.values[:, :0], m.grid),
        "whole numbers": lambda m: FeatureMap(m.values.long(), m.grid),
        "another batch": lambda m: FeatureMap(m.values.repeat(3, 1, 1, 1), Grid(m.grid.frames * 3, m.grid.size)),
    }  # fmt: skip
    for name, answer in maps.items():
        backbone = _Maps(answer)
        prompt = EmptyPromptConfig().build(backbone=backbone)
        yield _case(
            f"backbone answers {name}",
            lambda b=backbone, p=prompt: _matcher(backbone=b, prompt=p).match(_PHOTO, _PHOTO), (),
        )  # fmt: skip
    for fields in (
        {"timestep": -1}, {"timestep": 1000}, {"timestep": 1.5}, {"timestep": None}, {"timestep": True},
        {"timestep": 5, "ensemble_size": 0}, {"timestep": 5, "ensemble_size": 2.5},
        {"timestep": 5, "posterior": "median"},
        {"timestep": 5, "noise": 3}, {"timestep": 5, "ensemble_size": 10**12},
    ):  # fmt: skip
        yield _case(f"Sampling({fields})", lambda fields=fields: Sampling(**fields), tuple(fields))


def _case(name: str, call: Callable[[], Any], names: tuple[str, ...], *, differ: bool = False) -> Case:
    def act(folder: Path) -> Any:
        return call()

    return Case(GROUP, name, act, names, may_differ=differ)
