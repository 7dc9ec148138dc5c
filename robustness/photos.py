"""Damaged photos in every format that pillow writes here."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, features

from robustness.cases import Case, input_is_ready
from robustness.damage import binary_damages
from sd4match import Photo

_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA", "ICO", "AVIF", "JPEG2000", "DDS")


def cases(base: Path) -> Iterator[Case]:
    """Yield files cut, with bytes changed, and with pixels that are no colors."""
    rng = random.Random(0)
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    for name in _FORMATS:
        buffer = io.BytesIO()
        try:
            Image.fromarray(pixels).save(buffer, format=name)
        except (OSError, KeyError, ValueError):
            continue
        content = buffer.getvalue()
        for what, damaged in binary_damages(content):
            # some formats can be read without their last byte
            yield _case(f"{name}: {what}", damaged, may_differ=what == "one byte less")
        for number in range(20):
            changed = bytearray(content)
            for _ in range(1 + number % 4):
                changed[rng.randrange(len(changed))] = rng.randrange(256)
            yield _case(f"{name}: changed bytes {number}", bytes(changed), may_differ=True)
    for what, image in {
        "16-bit ramp": Image.fromarray((np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)),
        "32-bit whole numbers": Image.fromarray(np.full((4, 4), 70_000, dtype=np.int32)),
        "floats beyond 1": Image.fromarray(np.full((4, 4), 300.0, dtype=np.float32)),
        "NaN": Image.fromarray(np.full((4, 4), np.nan, dtype=np.float32)),
    }.items():
        buffer = io.BytesIO()
        image.save(buffer, format="TIFF")
        right = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2) if "16" in what else None
        yield _case(what, buffer.getvalue(), right=right)
    assert features.check("jpg")


def _case(name: str, content: bytes, *, may_differ: bool = False, right: object = None) -> Case:
    def act(folder: Path) -> object:
        path = folder / "photo.img"
        path.write_bytes(content)
        input_is_ready()
        return Photo.open(path).pixels

    return Case("photos", name, act, ("photo.img",), may_differ=may_differ, right=right)
