"""Semantic matching of photos with a frozen Stable Diffusion whose prompt is learned.

Importing this package loads neither torch nor diffusers: every public name is looked up when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sd4match.version import __version__ as __version__

_HOMES = {
    "ExperimentConfig": "config.experiment",
    "MatchResult": "structures.results",
    "Photo": "structures.images",
    "SemanticMatcher": "pipeline",
    "load_config": "config.experiment",
    "load_preset": "config.experiment",
    "load_prompt": "prompting.serialization",
    "preset_names": "config.experiment",
    "save_prompt": "prompting.serialization",
}

__all__ = [
    "ExperimentConfig",
    "MatchResult",
    "Photo",
    "SemanticMatcher",
    "load_config",
    "load_preset",
    "load_prompt",
    "preset_names",
    "save_prompt",
]

if TYPE_CHECKING:
    from sd4match.config.experiment import ExperimentConfig, load_config, load_preset, preset_names
    from sd4match.pipeline import SemanticMatcher
    from sd4match.prompting.serialization import load_prompt, save_prompt
    from sd4match.structures.images import Photo
    from sd4match.structures.results import MatchResult


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sd4match' has no attribute {name!r}")
    return getattr(import_module(f"sd4match.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
