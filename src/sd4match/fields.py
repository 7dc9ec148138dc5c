"""Types of config fields with their bounds. Importing this module loads no torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from sd4match.checks import LARGEST_POSITIVE, SMALLEST_POSITIVE

__all__ = ["Count", "PositiveNumber", "Seed"]

Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""Seed of random numbers; what torch and NumPy take."""
Count = Annotated[int, Field(ge=1, le=10**9)]
"""Number of things of which there is at least one."""
PositiveNumber = Annotated[float, Field(ge=SMALLEST_POSITIVE, le=LARGEST_POSITIVE)]
"""Number that values are divided by in float32: a temperature, a standard deviation, a learning rate."""
