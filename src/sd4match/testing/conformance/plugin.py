"""Conformance of an installed package: its entry points, their configs, and the components that can be built."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, PackageNotFoundError, distribution
from inspect import cleandoc
from types import ModuleType
from typing import Any

from sd4match.arguments import check_arguments
from sd4match.config.protocols import parse_protocol, register_protocol
from sd4match.documents import parse_json
from sd4match.errors import SD4MatchError, choose_from
from sd4match.interfaces import Backbone
from sd4match.registry import REGISTRIES, Component, Registry
from sd4match.testing.config import FakeBackboneConfig
from sd4match.testing.conformance.backbone import check_backbone
from sd4match.testing.conformance.common import check_config, hold, promising
from sd4match.testing.conformance.dataset import check_dataset
from sd4match.testing.conformance.image_encoder import check_image_encoder
from sd4match.testing.conformance.loss import check_loss
from sd4match.testing.conformance.matcher import check_matcher
from sd4match.testing.conformance.pair_transform import check_pair_transform
from sd4match.testing.conformance.prompt import check_prompt

_CATEGORIES = ("cat", "dog", "fish")
_PROTOCOLS = "sd4match.protocols"
_GROUPS = {registry.group: registry for registry in REGISTRIES}


@dataclass(frozen=True)
class PluginCheck:
    """Result of `check_plugin`.

    >>> PluginCheck(checked=("matcher squared",), left_out={"backbone large": "no model 'large'"}).checked
    ('matcher squared',)
    """

    checked: tuple[str, ...]
    """Sort and kind of the components that were built and checked, for example "matcher squared"."""
    left_out: Mapping[str, str]
    """Reasons why other components could not be built, by sort and kind. Only their configs were checked."""


@check_arguments
def check_plugin(
    distribution_name: str,
    /,
    *,
    fields: Mapping[str, Mapping[str, Any]] | None = None,
    backbone: Backbone | None = None,
) -> PluginCheck:
    """Check an installed package that registers components of sd4match.

    - Every entry point can be loaded and registers a kind.
    - Every config has a docstring, and a default or a description for each field. It is the same after it was written
      to JSON and YAML and read again.
    - Every component that can be built passes the check of its sort.

    Args:
        distribution_name: name of the installed package, for example "sd4match-lowrank".
        fields: fields of kinds that have required ones, by kind.
        backbone: backbone for prompts and image encoders; a fake one by default.

    Returns:
        The components that were checked, and why others could not be built, for example because weights are missing.

    Raises:
        AssertionError: a promise is broken; the message names package, sort and kind.

    >>> check_plugin("not-installed")
    Traceback (most recent call last):
        ...
    AssertionError: the package 'not-installed' must be installed, and is not
    """
    try:
        package = distribution(distribution_name)
    except (PackageNotFoundError, ValueError):
        raise AssertionError(f"the package {distribution_name!r} must be installed, and is not") from None
    made = backbone or FakeBackboneConfig().build()
    checked: list[str] = []
    left_out: dict[str, str] = {}
    for registry, kind in dict.fromkeys(_registered(package)):
        name = f"{registry.sort} {kind}"
        with _naming(f"{package.name}, {name}"):
            config_class = registry.config_class(kind)
            _check_fields(config_class)
            try:
                config = config_class(**(fields or {}).get(kind, {}))
                check_config(config)
                check = _check_of(registry, config, made)
            except SD4MatchError as error:
                left_out[name] = str(error)
                continue
            check()
        checked.append(name)
    return PluginCheck(tuple(checked), left_out)


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Prefix the messages of checks with the name of a component."""
    try:
        yield
    except AssertionError as error:
        raise AssertionError(f"{name}: {error}") from error


def _registered(package: Distribution) -> Iterator[tuple[Registry[Any, Any], str]]:
    """Load the entry points of a package, and yield the registry and kind of each registered component."""
    points = [point for point in package.entry_points if point.group.startswith("sd4match.")]
    hold(
        bool(points),
        f"the package {package.name!r} must have entry points of the groups {', '.join(_GROUPS)}, and has none",
    )
    for point in points:
        if point.group == _PROTOCOLS:
            _check_protocol(point, package.name)
            continue
        if point.group not in _GROUPS:
            wrong = f"{package.name}: the entry point {point.name!r} is in an unknown group {point.group!r}"
            raise AssertionError(f"{wrong}; {choose_from(point.group, [*_GROUPS, _PROTOCOLS])}")
        registry = _GROUPS[point.group]
        kinds = list(_kinds(registry, point, package.name))
        where = f"{package.name}: the entry point {point.name!r} ({point.value})"
        hold(bool(kinds), f"{where} must register {registry.sort} kinds, and what it names is not registered")
        yield from ((registry, kind) for kind in kinds)


def _check_protocol(point: EntryPoint, package: str) -> None:
    """Check the evaluation protocol of an entry point."""
    where = f"{package}: the entry point {point.name!r} ({point.value})"
    with promising(f"{where} must be loaded and registered"):
        protocol = register_protocol(point.load())
        again = parse_protocol(parse_json(protocol.model_dump_json(), what="JSON"))
    hold(again == protocol, f"{where} must name a protocol that is read from JSON as it was written")


def _kinds(registry: Registry[Any, Any], point: EntryPoint, package: str) -> Iterator[str]:
    """Yield the kinds that an entry point registers."""
    with promising(f"{package}: the entry point {point.name!r} ({point.value}) must be loaded and registered"):
        try:
            loaded = point.load()
        except SystemExit as error:
            raise RuntimeError(f"it ends the process: SystemExit {error}") from error
        if isinstance(loaded, type) and issubclass(loaded, Component):
            registry.register(loaded)
    for kind in registry.kinds():
        config = registry.config_class(kind)
        made = config.target or config
        inside = isinstance(loaded, ModuleType) and getattr(made, "__module__", None) == loaded.__name__
        if loaded in (config, made) or inside:
            yield kind


def _check_fields(config: type[Component]) -> None:
    """Check that a config has a docstring, and each required field a description."""
    own = config.__doc__ if config.target is None else config.target.__doc__
    hold(
        bool(cleandoc(own or "").strip()),
        f"{config.__name__} must have a docstring, whose first line is its description",
    )
    for name, field in config.model_fields.items():
        described = not field.is_required() or bool(field.description)
        hold(
            described,
            f"the field {name!r} must have a default or a description: Annotated[..., Field(description=...)]",
        )


def _check_of(registry: Registry[Any, Any], config: Any, backbone: Backbone) -> Callable[[], object]:
    """Build a component and return the check to run on it.

    Raises:
        SD4MatchError: the component cannot be built here.
    """
    if registry.sort == "prompt":
        config = config.for_categories(_CATEGORIES) if config.wants_categories else config
        config.check_spec(backbone.spec)
        config.build(backbone=backbone)
        return lambda: check_prompt(config, backbone=backbone)
    if registry.sort == "image encoder":
        encoder = config.build(backbone=backbone)
        return lambda: check_image_encoder(encoder)
    if registry.sort == "pair transform":
        config.check_spec(backbone.spec)
    built = config.build()
    checks: dict[str, Callable[[Any], object]] = {
        "matcher": check_matcher, "loss": check_loss, "backbone": check_backbone, "data set": check_dataset,
        "pair transform": lambda transform: check_pair_transform(transform, spec=backbone.spec),
        "noise ensemble": lambda ensemble: None,
    }  # fmt: skip
    return lambda: checks[registry.sort](built)
