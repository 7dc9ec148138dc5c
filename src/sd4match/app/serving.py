"""Serving an app on this machine only, with temporary files that are removed at the end."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

from sd4match.app.theme import CSS, build_theme, import_gradio
from sd4match.errors import InputError
from sd4match.io.locks import LOCK_FILE, locked_folder

LOOPBACK = "127.0.0.1"
_NAMES_OF_LOOPBACK = (LOOPBACK, "localhost")
FIRST_PORT, _PORTS_TRIED = 7860, 20
TEMPORARY_FILES = "GRADIO_TEMP_DIR"
"""Environment variable of gradio, by which uploads and pictures go into a folder."""

_PREFIX = "sd4match-app-"
"""Prefix of the names of folders for temporary files."""


def launch_options() -> dict[str, Any]:
    """Return the arguments of `gradio.Blocks.launch` that all apps share.

    Raises:
        ConfigError: gradio is not installed.

    >>> launch_options()["server_name"]  # doctest: +SKIP
    '127.0.0.1'
    """
    import_gradio()
    from starlette.middleware import Middleware

    return {
        "theme": build_theme(), "css": CSS, "server_name": LOOPBACK, "share": False, "ssr_mode": False,
        "run_history": False, "footer_links": [], "quiet": True, "max_file_size": "50mb",
        "app_kwargs": {"middleware": [Middleware(OwnPagesAlone)]},
    }  # fmt: skip


class OwnPagesAlone:
    """ASGI middleware that refuses requests unless they are for the loopback address and from the app's own page.

    Any web page in a browser can send requests to this machine, also by a host name that resolves to 127.0.0.1 (DNS
    rebinding). Such a request has that name as its Host, or the address of that page as its Origin.

    Args:
        app: ASGI application.
    """

    def __init__(self, app: Callable[..., Any]) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request, with 403 if it is refused."""
        reason = None
        if scope["type"] in ("http", "websocket"):
            values = {name: value.decode("latin-1") for name, value in scope["headers"]}
            reason = _why_refused(values.get(b"host", ""), values.get(b"origin"))
        if reason is None:
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": reason})
        else:
            headers = [(b"content-type", b"text/plain; charset=utf-8")]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": reason.encode()})


def _why_refused(host: str, origin: str | None) -> str | None:
    """Return why a request is refused; None if it is not. Requests of other pages that could write have an Origin.

    >>> _why_refused("localhost:7860", "http://localhost:7860"), _why_refused("127.0.0.1:7860", None)
    (None, None)
    >>> _why_refused("photos.example:7860", None)
    'the app answers to 127.0.0.1 and localhost alone'
    >>> _why_refused("127.0.0.1:7860", "http://127.0.0.1:9000")
    'the app answers to its own page alone'
    """
    name, _, port = host.partition(":")
    if name.lower() not in _NAMES_OF_LOOPBACK or (port and not (port.isascii() and port.isdigit())):
        return f"the app answers to {' and '.join(_NAMES_OF_LOOPBACK)} alone"
    if origin is not None and origin.lower() != f"http://{host.lower()}":
        return "the app answers to its own page alone"
    return None


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
        build: function that returns the `gradio.Blocks`; called after its folder for temporary files was created.
        port: free port of the loopback address; see `choose_port`.

    Returns:
        The address of the page.

    Raises:
        InputError: gradio cannot serve it.
    """
    Context().run(remove_left_folders, Path(gettempdir()))  # in which another app of this process holds its folder too
    with TemporaryDirectory(prefix=_PREFIX) as folder, locked_folder(Path(folder)), _environment(folder):
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


def remove_left_folders(parent: Path) -> None:
    """Remove the folders of apps that were killed. A running app has locked its folder, which remains.

    Args:
        parent: folder in which apps create their folders.
    """
    for folder in parent.glob(f"{_PREFIX}*"):
        # without the file of the lock it is no folder of an app, or one that is being made
        with suppress(InputError, OSError):
            if folder.is_symlink() or not (folder / LOCK_FILE).is_file() or folder.stat().st_uid != os.getuid():
                continue
            with locked_folder(folder):
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _environment(folder: str) -> Iterator[None]:
    """Set gradio's folder for files, and exclude this machine from proxies."""
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
