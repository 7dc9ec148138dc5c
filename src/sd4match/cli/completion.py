"""Shell completion of names of presets, data sets, models, protocols, prompts and devices.

Candidates are computed when the shell asks for them, without loading torch. If none fits, as for the path of a file,
shells complete file names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, get_args, get_type_hints

from typer.models import ParameterInfo

Words = Callable[[], Iterable[str]]


def _presets() -> Iterable[str]:
    from sd4match.config.composition import preset_names

    return preset_names()


def _experiments() -> Iterable[str]:
    from sd4match.config.composition import packaged_names

    return packaged_names("experiments")


def _packaged_models() -> Iterable[str]:
    from sd4match.config.composition import packaged_names

    return packaged_names("models")


def _datasets() -> Iterable[str]:
    from sd4match.registry import datasets

    return datasets.kinds()


def _datasets_on_disk() -> Iterable[str]:
    from sd4match.data.config import RootedConfig
    from sd4match.registry import datasets

    return [kind for kind in datasets.kinds() if issubclass(datasets.config_class(kind), RootedConfig)]


def _matchers() -> Iterable[str]:
    from sd4match.registry import matchers

    return matchers.kinds()


def _sorts() -> Iterable[str]:
    from sd4match.registry import REGISTRIES

    return [*(registry.sort.replace(" ", "-") for registry in REGISTRIES), "protocol"]


def _models() -> Iterable[str]:
    from sd4match.backbones.pretrained import PRETRAINED

    return PRETRAINED


def _protocols() -> Iterable[str]:
    from sd4match.config.protocols import all_protocols

    return all_protocols()


def _splits() -> Iterable[str]:
    from sd4match.data.config import Split

    return get_args(Split)


_PROMPTS = ("empty", "text")

COMPLETIONS: dict[str, Words] = {
    "preset": _presets,
    "dataset": _datasets,
    "split": _splits,
    "backbone": _models,
    "protocol": _protocols,
    "matcher": _matchers,
    "baseline": lambda: ("identity", "random"),
    "prompt": lambda: _PROMPTS,
    "against": lambda: _PROMPTS,
    "fallback": lambda: ("text",),
    "device": lambda: ("auto", "cpu", "cuda", "mps"),
    "dtype": lambda: ("float32", "float16", "bfloat16"),
    "data check kind": _datasets_on_disk,
    "models check name": _models,
    "components sort": _sorts,
    "sweep prompts model": _packaged_models,
    "sweep prompts only": _experiments,
}
"""Candidates by the name of the parameter, or by the path of the command and that name."""


def complete(command: Callable[..., Any], path: str) -> None:
    """Add shell completion to the options and arguments of a command.

    Args:
        command: function whose parameters have typer's options and arguments as metadata of their types.
        path: words of the command, for example "models check".
    """
    for name, hint in get_type_hints(command, include_extras=True).items():
        words = COMPLETIONS.get(f"{path} {name}") or COMPLETIONS.get(name)
        for info in getattr(hint, "__metadata__", ()):
            if words is not None and isinstance(info, ParameterInfo):
                info.autocompletion = _offer(words)


def _offer(words: Words) -> Callable[[str], list[str]]:
    def offer(incomplete: str) -> list[str]:
        return [word for word in words() if word.startswith(incomplete)]

    return offer
