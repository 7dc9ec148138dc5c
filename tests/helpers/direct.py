"""Calls without the type checker of the tests, as users call: what must be refused is refused by our own checks."""

from __future__ import annotations

import pytest
from jaxtyping import config


@pytest.fixture(autouse=True)
def no_type_checker():
    """Turn the run-time type checker off for the tests of a module that imports this fixture."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)
