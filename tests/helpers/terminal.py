"""Terminals of a chosen width, in this process and around others."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
import threading
from contextlib import contextmanager


@contextmanager
def terminal(columns=80):
    """Yield the file of a terminal, and a function that returns what was written to it so far, once it is closed."""
    inside, outside = pty.openpty()
    fcntl.ioctl(outside, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    written = []

    def read():
        try:
            while piece := os.read(inside, 65536):
                written.append(piece)
        except OSError:  # the last writer has closed it
            pass

    reading = threading.Thread(target=read)
    reading.start()
    file = os.fdopen(outside, "w", encoding="utf-8")

    def text():
        file.close()
        reading.join()
        return b"".join(written).decode()

    try:
        yield file, text
    finally:
        file.close()
        reading.join()
        os.close(inside)


def run_in_terminal(command, *, columns=80, folder=None, **environment):
    """Return exit code and screen of a command whose three streams are a terminal."""
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
    with terminal(columns) as (file, text):
        done = subprocess.run(
            command,
            stdin=file,
            stdout=file,
            stderr=file,
            cwd=folder,
            env=kept | {"TERM": "xterm"} | environment,
            check=False,
        )
        return done.returncode, text()
