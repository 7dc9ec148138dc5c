"""Exceptions that sd4match raises.

    SD4MatchError
    ├── InputError (ValueError)        an argument: a photo, a point, a text
    │   ├── PhotoError                 a photo that is missing or no image
    │   └── ShapeError                 a tensor of a wrong shape
    ├── ConfigError (ValueError)       a file, a preset, a field, or a combination that cannot work
    │   └── UnknownComponentError      a kind that is not registered
    ├── CheckpointError                a model folder that is missing, empty or of another layout
    ├── PromptFileError                a prompt file that cannot be read or written
    │   └── PromptMismatchError        a prompt learned on another architecture
    ├── DatasetError                   a data set that is incomplete or malformed
    ├── NonFiniteError (ValueError)    computed values that are NaN or infinite
    ├── ComponentError                 a component that raises, or returns what its interface does not allow
    └── TrainingError                  a training that cannot continue

Each message names the input and says what would be right.
"""

from __future__ import annotations

import math
import re
import reprlib
import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "CheckpointError",
    "ComponentError",
    "ConfigError",
    "DatasetError",
    "InputError",
    "NonFiniteError",
    "PhotoError",
    "PromptFileError",
    "PromptMismatchError",
    "SD4MatchError",
    "ShapeError",
    "TrainingError",
    "UnknownComponentError",
]


class SD4MatchError(Exception):
    """Base class of all exceptions of sd4match."""


class InputError(SD4MatchError, ValueError):
    """Error about an argument that cannot be used."""


class PhotoError(InputError):
    """Error about a photo that is missing or cannot be decoded."""


class ShapeError(InputError):
    """Error about a tensor of a wrong shape; the message gives the expected and the actual one."""


class ConfigError(SD4MatchError, ValueError):
    """Error about a configuration that cannot work."""


class UnknownComponentError(ConfigError):
    """Error about a component kind that is not registered."""


class CheckpointError(SD4MatchError):
    """Error about model weights that cannot be found or loaded."""


class PromptFileError(SD4MatchError):
    """Error about a prompt file that cannot be read or written."""


class PromptMismatchError(PromptFileError):
    """Error about a prompt that was learned on another backbone; the message names both."""


class DatasetError(SD4MatchError):
    """Error about a data set that is incomplete or malformed."""


class NonFiniteError(SD4MatchError, ValueError):
    """Error about computed values that are NaN or infinite; the message names them and suggests a remedy."""


class ComponentError(SD4MatchError):
    """Error about a component that fails, or returns what its interface does not allow; the message names it."""


class TrainingError(SD4MatchError):
    """Error about a training that cannot continue; the message says at which step and why."""


def choose_from(name: str, known: Iterable[str]) -> str:
    """Return the end of an error message: the nearest known name, and all known names.

    Args:
        name: the unknown name.
        known: all names that would be right.

    >>> choose_from("sinlge", ["empty", "single"])
    "did you mean 'single'? known: empty, single"
    """
    names = sorted(known)
    near = get_close_matches(name, names, n=1)
    listing = f"known: {', '.join(names) or 'none'}"
    return f"did you mean {near[0]!r}? {listing}" if near else listing


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80
_SHORT.maxlong = 40
_SHORT.maxlevel = 2


def shown(value: object) -> str:
    """Return the `repr` of a value for a message, shortened and on one line.

    Args:
        value: any.

    >>> shown("sigma"), shown(list(range(1000)))
    ("'sigma'", '[0, 1, 2, 3, 4, 5, ...]')
    """
    try:
        return " ".join(_SHORT.repr(value).split())
    except Exception:  # of a foreign `__repr__`, or of an integer of thousands of digits
        return f"<{type(value).__name__}>"


_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_INVISIBLE = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""Letters and symbols that are invisible."""


def decimal_of(text: str) -> float:
    """Return the number that a text spells in the digits 0 to 9; NaN for any other text, also for "inf" and "1_000".

    Args:
        text: for example "1.5e3"; spaces around the number are ignored.

    >>> decimal_of("1.5e3"), decimal_of(" -7 "), decimal_of("1_0"), decimal_of("\uff15")
    (1500.0, -7.0, nan, nan)
    """
    return float(text) if _NUMBER.fullmatch(text.strip(" \t")) else math.nan


def is_visible(text: str) -> bool:
    r"""Return whether a text has a visible character, that is more than spaces, controls and marks of formatting.

    Args:
        text: any.

    >>> is_visible("cat"), is_visible(" \u200b\ufeff\0")
    (True, False)
    """
    return any(unicodedata.category(letter)[0] not in "CZM" and letter not in _INVISIBLE for letter in text)


def control_character(text: str) -> str | None:
    r"""Return the first control character of a text, such as a line break or an escape; None if there is none.

    Args:
        text: any.

    >>> control_character("a\x1b[2J"), control_character("a b")
    ('\x1b', None)
    """
    return next((letter for letter in text if unicodedata.category(letter) in ("Cc", "Zl", "Zp")), None)


def a(noun: str) -> str:
    """Return a noun with its indefinite article.

    Args:
        noun: any.

    >>> a("image encoder"), a("unit"), a("prompt file")
    ('an image encoder', 'a unit', 'a prompt file')
    """
    return f"{'an' if re.match(r'(?!uni|use|eu|one)[aeiou]', noun, re.IGNORECASE) else 'a'} {noun}"


def is_unicode(text: str) -> bool:
    r"""Return whether a text can be written as UTF-8. Surrogates in names of files that are not UTF-8 cannot.

    Args:
        text: any.

    >>> is_unicode("\u00e9"), is_unicode(b"\xff".decode(errors="surrogateescape"))
    (True, False)
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
