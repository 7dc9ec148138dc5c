"""Everything that sd4match raises on purpose.

    SD4MatchError
    ├── InputError (ValueError)        what a user handed over: a photo, a point, a text
    │   ├── PhotoError                 not there, or not an image
    │   └── ShapeError                 a tensor whose shape does not fit
    ├── ConfigError (ValueError)       a file, a preset, a field, or a combination that cannot work
    │   └── UnknownComponentError      a kind that nobody registered
    ├── CheckpointError                a model folder that is missing, empty or of another layout
    ├── PromptFileError                a prompt file that cannot be read or written
    │   └── PromptMismatchError        a prompt learned on another architecture
    ├── DatasetError                   a data set that is not what its layout promises
    └── TrainingError                  a training that cannot go on

Each message names the input and says what would be right.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class SD4MatchError(Exception):
    """The root of the tree: catch this to catch all of them."""


class InputError(SD4MatchError, ValueError):
    """Something handed to a function is not usable."""


class PhotoError(InputError):
    """A photo that is not there or cannot be decoded."""


class ShapeError(InputError):
    """A tensor whose shape does not fit; the message gives expected and actual."""


class ConfigError(SD4MatchError, ValueError):
    """A configuration that cannot work."""


class UnknownComponentError(ConfigError):
    """A component kind that is not registered."""


class CheckpointError(SD4MatchError):
    """A folder of model weights that cannot be loaded."""


class PromptFileError(SD4MatchError):
    """A prompt file that cannot be read or written."""


class PromptMismatchError(PromptFileError):
    """A prompt that was learned on another backbone; the message names both."""


class DatasetError(SD4MatchError):
    """A data set that is incomplete or malformed."""


class TrainingError(SD4MatchError):
    """A training that cannot go on; the message says at which step and why."""


def choose_from(name: str, known: Iterable[str]) -> str:
    """The end of an error line: the nearest known name, and all of them.

    >>> choose_from("sinlge", ["empty", "single"])
    "did you mean 'single'? known: empty, single"
    """
    names = sorted(known)
    near = get_close_matches(name, names, n=1)
    listing = f"known: {', '.join(names) or 'none'}"
    return f"did you mean {near[0]!r}? {listing}" if near else listing
