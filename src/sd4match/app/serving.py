"""Serving an app on the loopback address, with temporary files that are gone when it ends."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

from sd4match.app.theme import LOOPBACK, launch_options
from sd4match.errors import InputError

FIRST_PORT, _PORTS_TRIED = 7860, 20
TEMPORARY_FILES = "GRADIO_TEMP_DIR"
"""Environment variable of gradio, by which uploads and pictures go into a folder."""


def choose_port(wanted: int | None) -> int:
    """Return a free port of the loopback address.

    Args:
        wanted: the port to take; None for the first free one from `FIRST_PORT`.

    Raises:
        InputError: it is taken, or may not be used.
    """
    ports = range(FIRST_PORT, FIRST_PORT + _PORTS_TRIED) if wanted is None else [wanted]
    for port in ports:
        reason = _why_not(port)
        if reason is None:
            return port
    if wanted is not None:
        raise InputError(f"port {wanted} cannot be used ({reason}): give another --port, or none for a free one")
    raise InputError(f"no port from {ports[0]} to {ports[-1]} is free: give --port")


def _why_not(port: int) -> str | None:
    """Return why a port cannot be used; None if it can."""
    with socket.socket() as own:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            own.bind((LOOPBACK, port))
        except (OSError, OverflowError) as error:
            return getattr(error, "strerror", None) or str(error)
    return None


@contextmanager
def served(build: Callable[[], Any], *, port: int) -> Iterator[str]:
    """Build an app and serve it while the block runs.

    Args:
        build: returns the `gradio.Blocks`; is called when the folder of its temporary files is there.
        port: free one of the loopback address; see `choose_port`.

    Returns:
        The address of the page.

    Raises:
        InputError: gradio cannot serve it.
    """
    with TemporaryDirectory(prefix="sd4match-app-") as folder, _environment(folder):
        app = build()
        try:
            try:
                app.launch(**launch_options(), server_port=port, prevent_thread_lock=True, inbrowser=False)
            except Exception as error:  # of gradio and of the web server below it
                reason = " ".join(str(error).split())
                raise InputError(f"the app cannot be served on {LOOPBACK}:{port}: {reason}") from None
            yield f"http://{LOOPBACK}:{port}/"
        finally:
            app.close(verbose=False)


@contextmanager
def _environment(folder: str) -> Iterator[None]:
    """Let gradio keep its files in a folder, and ask this machine for the page without a proxy."""
    names = (TEMPORARY_FILES, "NO_PROXY", "no_proxy")
    before = {name: os.environ.get(name) for name in names}
    os.environ[TEMPORARY_FILES] = folder
    for name in names[1:]:
        os.environ[name] = ",".join(filter(None, [before[name], LOOPBACK]))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
