"""Types of config fields with their bounds. Importing this module loads no torch.

The bounds are far above any sensible value. They prevent a typing error from using up memory or time.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from sd4match.checks import LARGEST_POSITIVE, SMALLEST_POSITIVE
from sd4match.errors import is_unicode, is_visible

__all__ = ["BatchSize", "Cells", "Count", "Factor", "Pixels", "PositiveNumber", "Seed", "Text"]

LARGEST_SIDE = 4096
"""Largest side of a model's image, in pixels."""
LONGEST_TEXT = 4096
"""Largest number of characters of a name, a path or a text in a config."""


def check_field_text(text: str) -> str:
    """Return a text of a config after a check.

    Args:
        text: any.

    Raises:
        ValueError: the text is empty or invisible, is longer than 4096 characters, contains a null character, or is not
            Unicode.

    >>> check_field_text("fish")
    'fish'
    """
    if not text.strip():
        raise ValueError("is empty")
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"has {len(text):,} characters; at most {LONGEST_TEXT:,} are allowed")
    if "\0" in text or not is_unicode(text):
        raise ValueError("holds a null character, or bytes that are not UTF-8")
    if not is_visible(text):
        raise ValueError("has no visible character")
    return text


Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""Seed of random numbers for torch and NumPy."""
Count = Annotated[int, Field(ge=1, le=10**9)]
"""Number of items, at least one."""
BatchSize = Annotated[int, Field(ge=1, le=65_536)]
"""Number of photos or pairs that are processed together."""
Pixels = Annotated[int, Field(ge=1, le=LARGEST_SIDE)]
"""Side of a model's image in pixels."""
Cells = Annotated[int, Field(ge=1, le=1024)]
"""Side of a square of cells of a feature map."""
PositiveNumber = Annotated[float, Field(ge=SMALLEST_POSITIVE, le=LARGEST_POSITIVE)]
"""Positive number that float32 can divide by: a temperature, a standard deviation, a learning rate."""
Factor = Annotated[float, Field(ge=-1e6, le=1e6)]
"""Factor or offset in float32."""
Text = Annotated[str, AfterValidator(check_field_text)]
"""Name, path or text with a visible character."""
