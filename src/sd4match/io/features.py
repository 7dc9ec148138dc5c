"""Feature maps as files: safetensors with the frame in which cells lie, and where the features come from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sd4match.errors import InputError
from sd4match.geometry import ImageFrame
from sd4match.io.files import read_safetensors, to_safetensors, write_atomically
from sd4match.structures.tensors import FeatureMap


def write_features(features: FeatureMap, path: Path, *, provenance: Mapping[str, Any]) -> None:
    """Write the map of one photo: `features` (C, h, w) in float32, and JSON in the metadata.

    Args:
        features: of one photo.
        path: a .safetensors.
        provenance: what to say of backbone, prompt and sampling.

    Raises:
        SD4MatchError: it cannot be written.
    """
    (frame,) = features.frames
    metadata = {
        "format": "sd4match-features",
        "frame": json.dumps(asdict(frame)),
        "alignment": features.alignment,
        "groups": json.dumps(features.groups),
        "provenance": json.dumps(dict(provenance)),
    }
    write_atomically(path, to_safetensors({"features": features.values[0].float()}, metadata))


def read_features(path: str | Path) -> tuple[FeatureMap, dict[str, Any]]:
    """The map of a file, (1, C, h, w), ready to be correlated, and its provenance.

    Raises:
        InputError: missing, or not a file of features.
    """
    try:
        tensors, metadata = read_safetensors(Path(path))
        values = tensors["features"]
        stored = json.loads(metadata["frame"])
        frame = ImageFrame(*(tuple(stored[name]) for name in ("original_size", "model_size", "scale", "offset")))
        groups = tuple(json.loads(metadata["groups"]))
        features = FeatureMap(values[None], (frame,), metadata["alignment"], groups=groups)  # type: ignore[arg-type]
        return features, json.loads(metadata["provenance"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not a file of features ({' '.join(str(error).split())[:100]})") from None
