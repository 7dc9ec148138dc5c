"""Shapes of backbones that wrap other backbones. Importing this module loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sd4match.errors import ConfigError
from sd4match.structures.specs import FeatureSpec as FeatureSpec


def fused_spec(specs: Sequence[FeatureSpec], *, weights: Sequence[float], normalize: bool) -> FeatureSpec:
    """Return the spec of a fusion, with the grid of the first backbone and the channels of all.

    Args:
        specs: spec of each backbone, at least one.
        weights: factor of each backbone's map.
        normalize: whether each map is normalized over its channels.

    Raises:
        ConfigError: two of the backbones take a prompt.
    """
    prompted = [spec for spec in specs if spec.prompt_width is not None]
    if len(prompted) > 1:
        names = " and ".join(f"[{spec.architecture}]" for spec in prompted)
        raise ConfigError(f"at most one backbone of a fusion may take a prompt, and {names} do")
    prompt = prompted[0] if prompted else specs[0]
    options = [f"{weight} [{spec.options}]" for weight, spec in zip(weights, specs, strict=True)]
    groups = [size for spec in specs for size in (spec.groups or (spec.channels,))]
    return replace(
        specs[0], channels=sum(spec.channels for spec in specs), prompt_width=prompt.prompt_width,
        max_length=prompt.max_length, architecture=" + ".join(spec.architecture for spec in specs),
        layer="+".join(str(spec.layer) for spec in specs), groups=tuple(groups),
        dtype="+".join(spec.dtype for spec in specs),
        options=" + ".join(options) + (", normalized" if normalize else ""),
    )  # fmt: skip


def mirrored_spec(spec: FeatureSpec) -> FeatureSpec:
    """Return the spec of a backbone that also extracts each photo mirrored: every channel group twice.

    Args:
        spec: spec of the inner backbone.
    """
    groups = spec.groups or (spec.channels,)
    return replace(spec, channels=2 * spec.channels, groups=2 * groups, options=_with_option(spec, "mirrored"))


def debiased_spec(spec: FeatureSpec, *, components: int) -> FeatureSpec:
    """Return the spec of a backbone without the first directions of a blank image.

    Args:
        spec: spec of the inner backbone.
        components: number of directions that are removed from each channel group.

    Raises:
        ConfigError: a group has no more channels than that.
    """
    fewest = min(spec.groups or (spec.channels,))
    if components >= fewest:
        raise ConfigError(
            f"components must be less than the {fewest} channels of backbone ({spec.architecture}), not {components}"
        )
    return replace(spec, options=_with_option(spec, f"without {components} directions of a blank image"))


def _with_option(spec: FeatureSpec, option: str) -> str:
    return f"{spec.options}, {option}" if spec.options else option
