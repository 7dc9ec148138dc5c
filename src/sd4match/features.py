"""Feature maps as files: safetensors with the frame in which cells lie, and where the features come from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from sd4match.errors import InputError
from sd4match.files import to_safetensors, write_atomically
from sd4match.types import FeatureMap, ImageFrame


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
        with safe_open(path, framework="pt") as file:
            metadata, values = file.metadata() or {}, file.get_tensor("features")
        stored = json.loads(metadata["frame"])
        frame = ImageFrame(*(tuple(stored[name]) for name in ("original_size", "model_size", "scale", "offset")))
        groups = tuple(json.loads(metadata["groups"]))
        return FeatureMap(values[None], (frame,), metadata["alignment"], groups=groups), json.loads(
            metadata["provenance"]
        )
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not a file of features ({' '.join(str(error).split())[:100]})") from None
