"""Command `sd4match doctor`, which lists what is installed and what is missing, with commands to fix it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import typer

from sd4match.cli.answer import Document

_PACKAGES = (
    "torch", "diffusers", "transformers", "accelerate", "safetensors", "huggingface_hub", "pydantic", "scipy",
)  # fmt: skip
_FOR_USERS = {
    "app": "the app in the browser",
    "timm": "timm's networks as backbones",
    "track": "a training's curves in TensorBoard",
}
"""Features that the extras for users add; the other extras are for developers."""


def command() -> Document:
    """Print versions, devices, models and plugins, and what is missing with the command that mends it."""
    from sd4match.cli.facts import print_facts
    from sd4match.cli.progress import waiting

    with waiting("looking at the installation"):
        found = _look()
    fixes = _fixes(found)
    models = found["models"]
    general = [("sd4match", found["sd4match"]), ("Python", found["python"]), ("system", found["system"])]
    sections = {
        "Packages": [(name, version or "MISSING") for name, version in found["packages"].items()]
        + [(name, f"BROKEN: {reason}") for name, reason in found["broken"].items()],
        "Extras": [(name, _extra(name, packages)) for name, packages in found["extras"].items()],
        "Devices": list(found["devices"].items()),
        "Models": [
            (models["variable"], (models["folder"] or "not set") + (" (no such folder)" if models["is_lost"] else "")),
            ("hub cache", models["hub_cache"] + (", offline" if models["offline"] else "")),
            ("here", ", ".join(models["here"])),
            ("not here", ", ".join(models["not_here"]) or "none"),
        ],
        "Plugins": [*((name, ", ".join(kinds)) for name, kinds in found["plugins"].items()),
                    *(("left out", reason) for reason in found["left_out"])] or [("none", "")],
    }  # fmt: skip
    labels = 2 + max(len(label) for facts in sections.values() for label, _ in facts)
    print_facts(general, labels=labels)
    for title, facts in sections.items():
        typer.echo(f"\n{title}")
        print_facts(facts, indent=2, labels=labels)
    typer.echo("")
    for fix in fixes:
        typer.echo(f"To do: {fix}")
    if not fixes:
        typer.echo("All is well. `sd4match demo` shows it at work in three minutes, without a download.")
    if models["not_here"]:
        typer.echo("Models are downloaded when first used; `sd4match models list` has sizes and licenses.")
    return {**found, "to_do": fixes}


def _look() -> dict[str, Any]:
    """Return the facts about the installation as JSON values."""
    import os
    import platform
    import sys

    from huggingface_hub import constants

    from sd4match.backbones.pretrained import MODELS_VARIABLE, PRETRAINED, whereabouts
    from sd4match.paths import is_folder
    from sd4match.version import __version__

    folder = os.environ.get(MODELS_VARIABLE)
    here = [name for name in PRETRAINED if whereabouts(name)]
    plugins, left_out = _plugins()
    devices, broken = _devices()
    return {
        "sd4match": __version__,
        "python": f"{platform.python_version()}, {sys.executable}",
        "system": platform.platform(),
        "packages": {package: _version(package) for package in _PACKAGES},
        "extras": _extras(),
        "broken": broken,
        "devices": devices,
        "models": {
            "variable": MODELS_VARIABLE,
            "folder": folder,
            "is_lost": folder is not None and not is_folder(Path(folder)),
            "hub_cache": str(constants.HF_HUB_CACHE),
            "offline": constants.HF_HUB_OFFLINE,
            "here": here,
            "not_here": [name for name in PRETRAINED if name not in here],
        },
        "plugins": plugins,
        "left_out": left_out,
    }


def _devices() -> tuple[dict[str, str], dict[str, str]]:
    """Return the devices that torch sees, and why torch cannot be imported, if it cannot."""
    import os

    try:
        import torch
    except Exception as error:  # of torch, or of a library below it that is missing or of another build
        return {}, {"torch": " ".join(str(error).split())[:200]}
    devices = {"cpu": f"torch takes {torch.get_num_threads()} of {os.cpu_count()} cores"}
    devices |= {f"cuda:{i}": torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
    return devices | ({"mps": "Apple's GPU"} if torch.backends.mps.is_available() else {}), {}


def _fixes(found: dict[str, Any]) -> list[str]:
    """Return how to fix problems, as commands if possible."""
    missing = [name for name, version in found["packages"].items() if version is None]
    fixes = [f"pip install {' '.join(missing)}"] if missing else []
    fixes += [f"pip install --force-reinstall {name}" for name in found["broken"] if name not in missing]
    if found["models"]["is_lost"]:
        fixes.append(f"set {found['models']['variable']} to a folder that exists, or unset it")
    return [*fixes, *(f"mend or uninstall a plugin: {reason}" for reason in found["left_out"])]


def _extras() -> dict[str, dict[str, str | None]]:
    """Return the packages of each extra for users, with their versions; None for one that is missing."""
    from importlib.metadata import PackageNotFoundError, requires

    try:
        requirements = requires("sd4match") or []
    except PackageNotFoundError:  # a source tree that is not installed
        requirements = []
    extras: dict[str, dict[str, str | None]] = {name: {} for name in _FOR_USERS}
    for requirement in requirements:
        package, extra = re.match(r"[\w.-]+", requirement), re.search(r"extra == [\"']([\w-]+)", requirement)
        if package and extra and extra[1] in extras:
            extras[extra[1]][package[0]] = _version(package[0])
    return {name: packages for name, packages in extras.items() if packages}


def _extra(name: str, packages: dict[str, str | None]) -> str:
    if None in packages.values():
        return f"not installed; for {_FOR_USERS[name]}: pip install 'sd4match[{name}]'"
    return ", ".join(f"{package} {version}" for package, version in packages.items())


def _plugins() -> tuple[dict[str, list[str]], list[str]]:
    """Return the kinds that each installed package registers, and the reasons why plugins are left out."""
    import warnings

    from sd4match.registry import REGISTRIES, PluginWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PluginWarning)  # each is among the reasons
        kinds = [(each, kind) for each in REGISTRIES for kind in each.kinds()]
    plugins: dict[str, list[str]] = {}
    for registry, kind in kinds:
        package = registry.package(kind)
        if package.split()[0] != "sd4match":
            plugins.setdefault(package, []).append(f"{registry.sort} {kind}")
    return dict(sorted(plugins.items())), [reason for registry in REGISTRIES for reason in registry.left_out()]


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None
