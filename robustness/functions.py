"""Hostile arguments: of the functional core, PCK and geometry by value; of all that is public by type."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustness import callables
from robustness.cases import Case
from sd4match import geometry
from sd4match.data import pad_points
from sd4match.matching import functional as f
from sd4match.matching.pck import correct_points, pck
from sd4match.structures.tensors import Correlation, FeatureMap, Keypoints, Matches, PromptEmbedding, Sampling

_FRAME = geometry.squash_frame((40, 60), (64, 64))
_GRID = geometry.Grid((_FRAME, _FRAME), (5, 6))
_FEATURES, _OTHER = torch.randn(2, 4, 5, 6), torch.randn(2, 4, 5, 6)
_CORRELATION = torch.randn(2, 3, 5, 6)
_CELLS = torch.rand(2, 3, 2) * 4
_VISIBLE = torch.ones(2, 3, dtype=torch.bool)
_LENGTH = torch.tensor([10.0, 20.0])
_MAP = FeatureMap(_FEATURES, _GRID)

FUNCTIONS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "correlate": (f.correlate, {"source_features": _FEATURES, "target_features": _OTHER, "query_cells": _CELLS}),
    "nearest_neighbor": (f.nearest_neighbor, {"correlation": _CORRELATION}),
    "soft_argmax": (f.soft_argmax, {"correlation": _CORRELATION, "temperature": 0.1}),
    "kernel_soft_argmax": (
        f.kernel_soft_argmax, {"correlation": _CORRELATION, "temperature": 0.1, "sigma": 2.0},
    ),
    "window_soft_argmax": (f.window_soft_argmax, {"correlation": _CORRELATION, "temperature": 0.1, "window": 3}),
    "bilinear_nearest_neighbor": (
        f.bilinear_nearest_neighbor,
        {"source_features": _FEATURES, "target_features": _OTHER, "query_cells": _CELLS},
    ),
    "gaussian_cross_entropy": (
        f.gaussian_cross_entropy,
        {
            "correlation": _CORRELATION, "target_cells": _CELLS, "visible": _VISIBLE, "temperature": 0.1,
            "kernel_size": 7,
        },
    ),
    "best_cells": (f.best_cells, {"correlation": _CORRELATION, "count": 2, "radius": 1.0}),
    "match_probability": (f.match_probability, {"correlation": _CORRELATION, "temperature": 0.1}),
    "probability_mass": (
        f.probability_mass, {"correlation": _CORRELATION, "cells": _CELLS, "temperature": 0.1, "radius": 1.5},
    ),
    "co_pca": (f.co_pca, {"source": _FEATURES, "target": _OTHER, "components": 2}),
    "sample_bilinear": (f.sample_bilinear, {"maps": _FEATURES, "cells": _CELLS}),
    "pck": (
        pck,
        {"predicted": _CELLS, "target": _CELLS, "visible": _VISIBLE, "reference_length": _LENGTH, "alphas": (0.1, 0.2)},
    ),
    "correct_points": (
        correct_points,
        {"predicted": _CELLS, "target": _CELLS, "visible": _VISIBLE, "reference_length": _LENGTH, "alphas": (0.1, 0.2)},
    ),
    "pixels_to_cells": (
        geometry.pixels_to_cells,
        {"points": _CELLS, "image_size": (64, 64), "map_size": (5, 6), "alignment": "corners"},
    ),
    "cells_to_pixels": (
        geometry.cells_to_pixels,
        {"cells": _CELLS, "image_size": (64, 64), "map_size": (5, 6), "alignment": "patch", "offset": 2.0},
    ),
    "to_model": (geometry.to_model, {"points": _CELLS, "frames": (_FRAME, _FRAME)}),
    "to_photo": (geometry.to_photo, {"points": _CELLS, "frames": (_FRAME, _FRAME)}),
    "squash_frame": (geometry.squash_frame, {"original_size": (40, 60), "model_size": (64, 64)}),
    "pad_frame": (geometry.pad_frame, {"original_size": (40, 60), "side": 64}),
    "grid_points": (geometry.grid_points, {"size": (40, 60), "side": 3}),
    "Grid.to_cells": (_GRID.to_cells, {"points": _CELLS}),
    "Grid.to_pixels": (_GRID.to_pixels, {"cells": _CELLS}),
    "Grid.query_cells": (_GRID.query_cells, {"points": _CELLS, "mode": "bilinear"}),
    "FeatureMap": (FeatureMap, {"values": _FEATURES, "grid": _GRID}),
    "Correlation": (
        Correlation, {"values": _CORRELATION, "query_points": _CELLS, "source": _MAP, "target": _MAP},
    ),
    "Keypoints": (Keypoints, {"points": _CELLS, "visible": _VISIBLE}),
    "Matches": (Matches, {"points": _CELLS, "scores": torch.rand(2, 3)}),
    "PromptEmbedding": (PromptEmbedding, {"values": torch.randn(1, 77, 8)}),
    "Sampling": (Sampling, {"timestep": 50, "ensemble_size": 2, "posterior": "image", "ensemble": "matched"}),
    "pad_points": (pad_points, {"arrays": [np.zeros((2, 2)), np.zeros((3, 2))]}),
}  # fmt: skip
"""By name: the function, and arguments that are right."""


def cases(base: Path) -> Iterator[Case]:
    """Yield every function with one hostile argument."""
    yield from callables.cases(base)
    for name, (function, arguments) in FUNCTIONS.items():
        for argument, value in arguments.items():
            for what, other, may_differ in hostile_values(value, argument):

                def act(
                    folder: Path,
                    function: Callable[..., Any] = function,
                    changed: Mapping[str, Any] = {**arguments, argument: other},
                ) -> Any:
                    return function(**changed)

                title, names = f"{name}({argument}: {what})", (argument, *_SYNONYMS)
                differ = may_differ or (name in _ANY_RANK and what in _OTHER_RANKS)
                yield Case("functions", title, act, names, may_differ=differ)


_ANY_RANK = ("pixels_to_cells", "cells_to_pixels")
_OTHER_RANKS = ("one dimension less", "one dimension more", "another batch", "one image")


_SYNONYMS = ("expected", "maps", "points", "size", "frames", "grid", "cells", "visible", "correlation",
             "target", "scores", "covariances")  # fmt: skip
"""Words by which a message may name an argument that only together with another one is wrong."""


def hostile_values(value: Any, name: str) -> Iterator[tuple[str, Any, bool]]:
    """Yield hostile values in place of a right one: what it is, the value, and whether it may be taken."""
    yield "None", None, name == "offset"
    yield "text", "x", False
    yield "a mapping", {"a": 1}, False
    if isinstance(value, Tensor):
        yield from _hostile_tensors(value, name)
        return
    yield "a tensor of 3 numbers", torch.tensor([0.1, 0.2, 0.3]), name == "temperature"
    if isinstance(value, (int, float)):
        yield "zero", 0, name in ("timestep", "components", "radius", "offset")
        yield "negative", -1, name == "offset"
        yield "NaN", math.nan, False
        yield "infinity", math.inf, False
        yield "huge", 10**400, name == "components"
        yield "tiny", 1e-300, name in ("offset", "radius")
        yield "a bool", True, False
        yield "a list", [1], False
        if isinstance(value, int):
            yield "half", 2.5, name in ("offset",)
            yield "10^12", 10**12, name == "components"
    elif isinstance(value, (tuple, list)):
        yield "nothing", type(value)(), False
        yield "one less", value[:-1], name in ("alphas", "arrays")
        yield "one more", (*value, value[0]), name in ("alphas", "arrays")
        yield "a number", 5, False
        if name not in ("frames", "arrays"):
            yield "zeros", (0,) * len(value), name == "alphas"
            yield "negative", (-1, *value[1:]), False
            yield "NaN", (math.nan, *value[1:]), False
            yield "texts", ("a",) * len(value), False
            yield "bools", (True,) * len(value), False


def _hostile_tensors(value: Tensor, name: str) -> Iterator[tuple[str, Any, bool]]:
    yield "a NumPy array", value.numpy(), False
    yield "a list", value.tolist(), False
    yield "a number", 1.0, False
    yield "one dimension less", value[0], False
    yield "one dimension more", value[None], False
    yield "another batch", torch.cat([value, value]), value.ndim > 1 and name in ("correlation", "maps", "values")
    yield "one image", value[:1], name in ("correlation", "maps", "values")
    if value.ndim > 1:
        fewer = name in ("correlation", "values", "points", "query_cells", "cells", "maps")
        any_map = name in ("correlation", "maps", "values", "source_features", "target_features", "source", "target")
        yield "one point less", value[:, :-1], fewer
        yield "one column", value[..., :1], any_map and value.ndim != 2
        yield "no columns", value[..., :0], False
    if value.dtype == torch.bool:
        yield "whole numbers", value.long(), False
        yield "floats", value.float(), False
    else:
        yield "bools", value > 0, False
        yield "complex", value.to(torch.complex64), False
        # not a number in, not a number out: what passes between components is checked by those that pass it
        yield "all -inf", torch.full_like(value, -math.inf), True
        # whole numbers are taken as floats where they are points or lengths
        yield "whole numbers", value.long(), name not in ("source_features", "target_features", "maps", "values")
        yield "NaN", torch.full_like(value, math.nan), True
