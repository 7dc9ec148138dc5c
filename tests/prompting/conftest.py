from __future__ import annotations

import pytest

from sd4match.registry import image_encoders


@pytest.fixture(scope="module")
def fake_encoder():
    """Register the image encoder "fake" for the tests of a module."""
    from helpers.prompts import FakeEncoderConfig

    with image_encoders.temporarily():
        image_encoders.register(FakeEncoderConfig)
        yield
