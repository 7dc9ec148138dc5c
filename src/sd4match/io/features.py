"""Feature files: safetensors with the features of a photo, the grid of their cells, and their provenance."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from sd4match.arguments import check_arguments
from sd4match.checks import check_count, check_finite, check_number, check_shape
from sd4match.documents import parse_json
from sd4match.errors import InputError, SD4MatchError, ShapeError, shown
from sd4match.geometry import Alignment, Grid, ImageFrame
from sd4match.io.files import read_safetensors, to_safetensors, write_atomically
from sd4match.paths import as_path, require_file
from sd4match.structures.tensors import FeatureMap

_FORMAT = "sd4match-features"
_LARGEST = 1 << 24
"""Largest number of pixels or cells of a side, and of channels."""


@check_arguments
def write_features(features: FeatureMap, path: str | Path, *, provenance: Mapping[str, Any]) -> None:
    """Write the map of one photo: `features` (C, h, w) in float32, with grid and provenance as JSON in the metadata.

    Args:
        features: map of one photo, (1, C, h, w).
        path: a .safetensors file.
        provenance: JSON-able description of backbone, prompt and sampling.

    Raises:
        InputError: the provenance is no JSON.
        ShapeError: it is not the map of one photo.
        NonFiniteError: the features are not finite.
        SD4MatchError: the file cannot be written.
    """
    file = as_path(path, what="file of features")
    if len(features) != 1:
        raise ShapeError(f"a file of features holds the map of one photo, not of {len(features)}")
    check_finite("the features", features.values)
    try:
        described = json.dumps(dict(provenance), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"the provenance of features must be JSON: {error}") from None
    metadata = {"format": _FORMAT, **grid_metadata(features), "provenance": described}
    write_atomically(file, to_safetensors({"features": features.values[0].float()}, metadata))


@check_arguments
def read_features(path: str | Path) -> tuple[FeatureMap, dict[str, Any]]:
    """Return the map (1, C, h, w) of a feature file, and its provenance.

    Args:
        path: file that `write_features` wrote.

    Raises:
        InputError: the file does not exist, is no feature file, or its map is damaged or not finite.
    """
    file = as_path(path, what="file of features")
    try:
        tensors, metadata = read_safetensors(require_file(file, what="file"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file} is not a file of features ({' '.join(str(error).split())[:100]})") from None
    if metadata.get("format") != _FORMAT or set(tensors) != {"features"}:
        raise InputError(
            f"{file} is not a file of features: its format must be {_FORMAT!r}, with one tensor `features`"
        )
    try:
        features = map_of_metadata(tensors["features"][None], metadata)
        provenance = parse_json(metadata.get("provenance", ""), what="the provenance")
        if not isinstance(provenance, dict):
            raise InputError("the provenance is no JSON object")
        check_finite("the features", features.values)
    except SD4MatchError as error:
        raise InputError(f"{file} is not a file of features: {error}") from None
    return features, provenance


def grid_metadata(features: FeatureMap) -> dict[str, str]:
    """Return the grid and the channel groups of the map of one photo, as strings for the metadata of a file.

    Args:
        features: map of one photo.
    """
    grid = features.grid
    (frame,) = grid.frames
    return {
        "frame": json.dumps(asdict(frame)),
        "alignment": grid.alignment,
        "offset": json.dumps(grid.offset),
        "groups": json.dumps(features.groups),
    }


def map_of_metadata(values: Any, metadata: Mapping[str, str]) -> FeatureMap:
    """Rebuild the map of one photo from its values and metadata; inverse of `grid_metadata`.

    Args:
        values: (1, C, h, w) features.
        metadata: result of `grid_metadata`.

    Raises:
        InputError: a field of the metadata is missing or not valid, or the values are of another shape.
    """
    sizes = check_shape("features", values, "1 channels height width")
    if not values.is_floating_point():
        raise InputError(f"features must be floating-point numbers, not {values.dtype}")
    alignment = metadata.get("alignment")
    if alignment not in get_args(Alignment):
        raise InputError(f"the alignment must be {', '.join(get_args(Alignment))}, not {shown(alignment)}")
    offset = _field(metadata, "offset")
    if (offset is None) == (alignment == "patch"):
        raise InputError(f"the offset must be a number for the alignment 'patch' and null for others, not {offset}")
    if offset is not None:
        check_number("the offset", offset)
    groups = _field(metadata, "groups")
    if not isinstance(groups, list):
        raise InputError(f"groups must be a list of numbers of channels, not {shown(groups)}")
    for size in groups:
        check_count("the channels of a group", size, 1, _LARGEST)
    if groups and sum(groups) != sizes["channels"]:
        raise InputError(f"groups must have {sizes['channels']} channels together, not {sum(groups)}")
    frame = _frame(_field(metadata, "frame"))
    grid = Grid((frame,), (sizes["height"], sizes["width"]), alignment, offset)  # type: ignore[arg-type]
    return FeatureMap(values, grid, tuple(groups))


def _field(metadata: Mapping[str, str], name: str) -> Any:
    """Return the value of a field of the metadata.

    Raises:
        InputError: the field is missing, or is no JSON.
    """
    if name not in metadata:
        raise InputError(f"{name!r} is missing in the metadata")
    return parse_json(metadata[name], what=f"{name!r} of the metadata")


def _frame(stored: Any) -> ImageFrame:
    """Rebuild the frame of a photo in the model's image.

    Raises:
        InputError: a field is missing or not valid.
    """
    names = ("original_size", "model_size", "scale", "offset")
    if not isinstance(stored, dict) or set(stored) != set(names):
        raise InputError(f"the frame must have {', '.join(names)}, not {shown(stored)}")
    for name in names:
        if not isinstance(stored[name], list) or len(stored[name]) != 2:
            raise InputError(f"{name} of the frame must be two numbers, not {shown(stored[name])}")
    (height, width), (model_height, model_width) = (
        [check_count(f"{name} of the frame", value, 1, _LARGEST) for value in stored[name]] for name in names[:2]
    )
    scale = [check_number("scale of the frame", value, 1e-9, 1e9) for value in stored["scale"]]
    offset = [check_number("offset of the frame", value, -1e9, 1e9) for value in stored["offset"]]
    return ImageFrame((height, width), (model_height, model_width), (scale[0], scale[1]), (offset[0], offset[1]))
