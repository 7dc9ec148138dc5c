"""`sd4match`, also as `python -m sd4match`."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from sd4match.errors import SD4MatchError


class _Stopped(BaseException):
    """Request of the system to end; like Ctrl-C, it passes through everything that removes temporary files."""

    def __init__(self, number: int) -> None:
        self.number = number


def _one_line(message: Warning | str, *_: object, **__: object) -> str:
    return f"sd4match: warning: {' '.join(str(message).split())}\n"


def main() -> None:
    """Run the command line: an error of ours is one line on stderr and exit code 2."""
    warnings.formatwarning = _one_line
    warnings.filterwarnings("ignore", module=r"(diffusers|transformers|torch|accelerate|huggingface_hub|PIL)\b")
    try:
        with _ending_on_signals():
            code = _run()
            sys.stdout.flush()
    except BrokenPipeError:  # whoever reads the output has seen enough
        _drop_stdout()
        code = 1
    except OSError as error:
        _drop_stdout()
        code = _fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
    except MemoryError:
        code = _fail("memory does not suffice; a smaller image, batch or model may help")
    except KeyboardInterrupt:
        code = _say("sd4match: stopped", 130)
    except _Stopped as stop:
        code = _say("sd4match: stopped", 128 + stop.number)
    sys.exit(code)


def _run() -> int:
    """Run the command, and return its exit code."""
    for stream in (sys.stdout, sys.stderr):  # what cannot be encoded, such as names of files that are no UTF-8
        getattr(stream, "reconfigure", lambda **_: None)(errors="backslashreplace")
    try:
        Path.cwd()
    except OSError:
        return _fail("the working folder does not exist any more: change to another one")
    from sd4match.cli.app import app

    try:
        return int(app(prog_name="sd4match", standalone_mode=False) or 0)
    except SD4MatchError as error:
        return _fail(str(error))
    except Exception as error:
        message = getattr(error, "format_message", None)  # click's, of which typer has a private copy
        if message is None:
            raise
        help_wanted = type(error).__name__ == "NoArgsIsHelpError"
        return _say(message(), 2) if help_wanted else _fail(message())


def _fail(message: str) -> int:
    return _say(f"sd4match: error: {' '.join(message.split())}", 2)


def _say(line: str, code: int) -> int:
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:  # nobody can be told
        sys.stderr = None
    return code


def _drop_stdout() -> None:
    """Forget what cannot be written, or the interpreter tries again at its end and complains."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        sys.stdout = None


@contextmanager
def _ending_on_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as Ctrl-C does, so that temporary files are removed.

    A signal that is ignored, as SIGHUP under nohup, or that has a handler already, keeps its meaning.
    """
    known = (getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP"))  # Windows has no SIGHUP
    is_main = threading.current_thread() is threading.main_thread()  # no other thread may set handlers
    handled = [number for number in known if number and is_main and signal.getsignal(number) is signal.SIG_DFL]

    def stop(number: int, frame: FrameType | None) -> None:
        for other in handled:
            signal.signal(other, signal.SIG_IGN)  # the removal is not to be interrupted
        raise _Stopped(number)

    for number in handled:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, signal.SIG_DFL)


if __name__ == "__main__":
    main()
