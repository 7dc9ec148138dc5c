"""Folders of bare photos to annotate."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from sd4match.testing import random_photo


def write_photos(root: Path, names=("a.png", "b.png", "c.png"), *, size=(60, 90)) -> Path:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        random_photo((6, 9), seed=number).to_image().resize(size[::-1], Image.Resampling.NEAREST).save(root / name)
    return root


def write_points(root: Path, photos: dict, **more) -> Path:
    (root / "points.json").write_text(json.dumps({"photos": photos, **more}))
    return root


def bytes_below(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
