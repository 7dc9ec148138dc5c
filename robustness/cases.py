"""One hostile input, and what became of it."""

from __future__ import annotations

import contextlib
import io
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from sd4match.errors import SD4MatchError

EXECUTED = "executed"
"""Name of the file that the code in a hostile pickle would write."""


class Outcome(StrEnum):
    """What became of an input. Only the first two are right."""

    CLEAR = "one clear line"
    RIGHT = "accepted, and right"
    UNCLEAR = "error that does not name the input"
    FOREIGN = "foreign exception"
    ACCEPTED = "accepted without a word"
    HANG = "no end"
    CRASH = "process died"
    LOST = "file of the user lost"
    HALF = "file left half written"
    EXECUTED = "code executed"


FINE = (Outcome.CLEAR, Outcome.RIGHT)
UNDAMAGED = object()
"""Stands for a result that no damaged input can have."""


@dataclass(frozen=True)
class Case:
    """One hostile input.

    Args:
        group: file format or entry that is tried.
        name: which damage.
        act: uses the input, in an empty folder of its own; returns what came of it.
        names: one of these must stand in the message of an error.
        right: result of the undamaged input; a damage that changes nothing is accepted.
        may_differ: whether another result is right too, because the damaged input means something else.
    """

    group: str
    name: str
    act: Callable[[Path], Any]
    names: tuple[str, ...]
    right: Any = field(default=UNDAMAGED, repr=False)
    may_differ: bool = False


@dataclass(frozen=True)
class Result:
    """Outcome of a case, and the line that shows why."""

    group: str
    name: str
    outcome: Outcome
    detail: str


class CommandError(SD4MatchError):
    """A command ended as the command line ends for errors: one line, exit code 2."""


def run_command(*arguments: object) -> str:
    """Run the command line in this process.

    Returns:
        Its standard output.

    Raises:
        CommandError: it printed one line and ended with exit code 2 (1 for a check that found problems).
        RuntimeError: it ended in any other way.
    """
    from sd4match.__main__ import main

    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    before = sys.argv
    sys.argv = ["sd4match", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
            main()
    except SystemExit as leave:
        code = leave.code or 0
    finally:
        sys.argv = before
    lines = [line for line in err.getvalue().splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("sd4match: error: ")]
    if code == 0:
        return out.getvalue()
    if code == 2 and len(errors) == 1 and lines[-1] == errors[0]:
        raise CommandError(errors[0].removeprefix("sd4match: error: "))
    if code == 1 and lines and "problem" in lines[-1]:
        raise CommandError(out.getvalue())
    raise RuntimeError(f"exit code {code}, and on stderr: {err.getvalue()[-600:]}")


def run_case(case: Case, folder: Path) -> Result:
    """Use a hostile input in an empty folder, and say what became of it."""
    before: dict[str, bytes] = {}
    is_ready = False

    def prepared() -> None:
        nonlocal is_ready
        before.update(_files(folder))
        is_ready = True

    _state.on_prepared = prepared
    _state.may_change = ()
    outcome, detail = _use(case, folder)
    after = _files(folder)
    changed = [name for name, content in before.items() if after.get(name) != content and not _may_change(name)]
    new = [name for name in after if name not in before and name != EXECUTED]
    if (folder / EXECUTED).exists():
        outcome, detail = Outcome.EXECUTED, detail
    elif changed:
        outcome, detail = Outcome.LOST, f"{changed[0]}: {detail}"
    elif is_ready and any(_is_left(name, outcome) for name in new):
        outcome, detail = Outcome.HALF, f"{new}: {detail}"
    return Result(case.group, case.name, outcome, detail)


class _State:
    """What the case that runs has said of its files."""

    on_prepared: Callable[[], None] = staticmethod(lambda: None)
    may_change: tuple[str, ...] = ()


_state = _State()


def input_is_ready(*, may_change: tuple[str, ...] = ()) -> None:
    """Say that the files of the user are in the folder: from here on none may change, and an error leaves no new one.

    Args:
        may_change: beginnings of names of files that the command is meant to write.
    """
    _state.may_change = may_change
    _state.on_prepared()


def _is_left(name: str, outcome: Outcome) -> bool:
    """Return whether a new file should not be there: temporary, or made by a command that ended with an error."""
    failed = outcome not in (Outcome.RIGHT, Outcome.ACCEPTED)
    return name.endswith(".part") or (failed and not _may_change(name))


def _may_change(name: str) -> bool:
    return name.startswith(_state.may_change) if _state.may_change else False


def _use(case: Case, folder: Path) -> tuple[Outcome, str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = case.act(folder)
    except SD4MatchError as error:
        line = " ".join(str(error).split())
        named = not case.names or any(name in line for name in case.names)
        return (Outcome.CLEAR if named and line else Outcome.UNCLEAR), f"{type(error).__name__}: {line}"
    except MemoryError:
        return Outcome.FOREIGN, "MemoryError"
    except Exception as error:
        return Outcome.FOREIGN, f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
    if case.may_differ or _equal(result, case.right):
        return Outcome.RIGHT, "accepted"
    return Outcome.ACCEPTED, " ".join(f"{result!r:.400}".split())


def _equal(a: Any, b: Any) -> bool:
    import numpy as np
    import torch

    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.shape == b.shape and bool(torch.allclose(a.double(), b.double(), rtol=1e-4, atol=1e-5))
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.shape == b.shape and bool(np.allclose(a, b, equal_nan=True))
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(_equal(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and bool(a == b)


def _files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }
