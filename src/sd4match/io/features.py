"""Feature maps as files: safetensors with the grid on which the cells lie, and the provenance of the features."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sd4match.errors import InputError
from sd4match.geometry import Grid, ImageFrame
from sd4match.io.files import read_safetensors, to_safetensors, write_atomically
from sd4match.structures.tensors import FeatureMap


def write_features(features: FeatureMap, path: Path, *, provenance: Mapping[str, Any]) -> None:
    """Write the map of one photo: `features` (C, h, w) in float32, with grid and provenance as JSON in the metadata.

    Args:
        features: (1, C, h, w).
        path: a .safetensors file.
        provenance: JSON-able description of backbone, prompt and sampling.

    Raises:
        SD4MatchError: it cannot be written.
    """
    metadata = {
        "format": "sd4match-features", **grid_metadata(features), "provenance": json.dumps(dict(provenance)),
    }  # fmt: skip
    write_atomically(path, to_safetensors({"features": features.values[0].float()}, metadata))


def read_features(path: str | Path) -> tuple[FeatureMap, dict[str, Any]]:
    """Return the map of a file, (1, C, h, w), ready to be correlated, and its provenance.

    Raises:
        InputError: it does not exist, or is not a file of features.
    """
    try:
        tensors, metadata = read_safetensors(Path(path))
        return map_of_metadata(tensors["features"][None], metadata), json.loads(metadata["provenance"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not a file of features ({' '.join(str(error).split())[:100]})") from None


def grid_metadata(features: FeatureMap) -> dict[str, str]:
    """Return all of the map of one photo but its values, as strings for the metadata of a file."""
    grid = features.grid
    (frame,) = grid.frames
    return {
        "frame": json.dumps(asdict(frame)),
        "alignment": grid.alignment,
        "offset": json.dumps(grid.offset),
        "groups": json.dumps(features.groups),
    }


def map_of_metadata(values: Any, metadata: Mapping[str, str]) -> FeatureMap:
    """Rebuild the map of one photo from its values (1, C, h, w) and its metadata; inverse of `grid_metadata`.

    Raises:
        KeyError, TypeError, ValueError: the metadata are incomplete or malformed.
    """
    stored = json.loads(metadata["frame"])
    frame = ImageFrame(*(tuple(stored[name]) for name in ("original_size", "model_size", "scale", "offset")))
    offset = json.loads(metadata["offset"])
    height, width = values.shape[-2:]
    grid = Grid((frame,), (height, width), metadata["alignment"], offset)  # type: ignore[arg-type]
    return FeatureMap(values, grid, tuple(json.loads(metadata["groups"])))
