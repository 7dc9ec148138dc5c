"""Calls as programs without a type checker make them: what a hook of these tests would refuse reaches the library."""

from __future__ import annotations

import pytest
from jaxtyping import config


@pytest.fixture(autouse=True)
def unchecked():
    """Turn the run-time type checks off; import it into a module of tests to use it there."""
    before = config.jaxtyping_disable
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", before)
