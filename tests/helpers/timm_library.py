"""timm for tests, also beside a torch for which there is no torchvision."""

from __future__ import annotations

import sys
from enum import Enum
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

_MODULES = (
    "torchvision", "torchvision.datasets", "torchvision.models", "torchvision.models.feature_extraction",
    "torchvision.ops", "torchvision.ops.misc", "torchvision.transforms", "torchvision.transforms.functional",
)  # fmt: skip
"""What timm imports of torchvision: augmentations, data sets, and a class of norms; no model computes with it."""


class _StandIn(ModuleType):
    """Module whose names are empty classes."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value: Any = type(name, (), {})
        if name == "InterpolationMode":
            value = Enum(name, ["NEAREST", "BILINEAR", "BICUBIC", "BOX", "HAMMING", "LANCZOS"])
        setattr(self, name, value)
        return value


def import_timm() -> ModuleType:
    """Return timm; skip the test if it is not installed.

    torchvision works with the build of torch alone that it was made for, and stops transformers where it does not, so
    `make test` installs timm without it. Then empty modules take its place while timm is imported, and are gone after.
    """
    if find_spec("timm") is None:
        pytest.skip("timm is not installed: pip install --no-deps timm")
    stand_ins = [] if "timm" in sys.modules or find_spec("torchvision") else list(_MODULES)
    for name in stand_ins:
        module = _StandIn(name)
        module.__spec__, module.__path__ = ModuleSpec(name, None, is_package=True), []
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
    try:
        import timm
    finally:
        for name in stand_ins:
            del sys.modules[name]
    return timm


def write_random_timm(folder: Path, *, data_config: dict[str, Any] | None = None, **options: Any) -> Any:
    """Save a model of the name of the folder with random weights, as timm itself saves it, and return it."""
    timm = import_timm()
    torch.manual_seed(0)
    model = timm.create_model(folder.name, **{"num_classes": 0, **options}).eval()
    described = {} if data_config is None else {"data_config": data_config}
    timm.models.save_for_hf(model, folder, safe_serialization=True, **described)
    return model
