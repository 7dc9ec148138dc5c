"""A page in a real browser, and what it asked for and complained about."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Thread
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

NAMES = ("chromium", "chromium-browser", "google-chrome")
"""Programs that are looked for, in this order, after the one that SD4MATCH_CHROMIUM names."""
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # what asks for another host gets no answer
    "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",  # a camera, which needs no permission
)  # fmt: skip
DESKTOP = {"viewport": {"width": 1280, "height": 900}}
PHONE = {
    "viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2,
}  # fmt: skip
LOOPBACK = ("127.0.0.1", "localhost", "::1")
PATIENCE = 20_000
"""Milliseconds that a page is waited for: two cores may be busy with other tests."""


def find_chromium() -> str | None:
    """Return the program to start; None if there is none, or the one that SD4MATCH_CHROMIUM names is not there."""
    named = os.environ.get("SD4MATCH_CHROMIUM")
    return next(filter(None, map(shutil.which, (named,) if named else NAMES)), None)


@dataclass
class Screen:
    """A fresh page of one size."""

    page: Any
    requests: list[str] = field(default_factory=list)
    """Addresses of everything that the page asked for."""
    errors: list[str] = field(default_factory=list)
    """Errors of the console, and exceptions of scripts."""

    def __post_init__(self) -> None:
        self.page.set_default_timeout(PATIENCE)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("websocket", lambda one: self.requests.append(one.url))
        self.page.on("console", lambda line: self.errors.append(line.text) if line.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def open(self, address: str) -> None:
        """Go to an app, and wait until its components stand."""
        self.page.goto(address, wait_until="domcontentloaded")
        self.page.locator(".gradio-container .contain").first.wait_for()

    @property
    def outside(self) -> list[str]:
        """Requests to other hosts than this machine."""
        hosts = {url: urlsplit(url).hostname for url in self.requests if urlsplit(url).scheme not in ("data", "blob")}
        return [url for url, host in hosts.items() if host not in LOOPBACK]

    @property
    def overflow(self) -> int:
        """CSS pixels by which the page is wider than its window; a phone's `innerWidth` would grow with the page."""
        return int(self.page.evaluate("document.documentElement.scrollWidth")) - self.page.viewport_size["width"]


@contextmanager
def screen(browser: Any, form: dict[str, Any]) -> Iterator[Screen]:
    context = browser.new_context(**form)
    try:
        yield Screen(context.new_page())
    finally:
        context.close()


@contextmanager
def chromium() -> Iterator[Any]:
    """Start Chromium without a window, in a new folder for its user data, and end it with the block."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=list(ARGUMENTS), timeout=60_000)
        try:
            yield browser
        finally:
            browser.close()


def serve(app: Any, options: dict[str, Any]) -> str:
    """Start a gradio app on a free port of the loopback address, and return the address.

    It is started in a thread of its own, because playwright's event loop runs in that of the test.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    problems: list[BaseException] = []

    def launch() -> None:
        try:
            app.launch(**options, server_port=port, prevent_thread_lock=True, inbrowser=False)
        except BaseException as problem:
            problems.append(problem)

    thread = Thread(target=launch)
    thread.start()
    thread.join(60)
    if problems:
        raise problems[0]
    return f"http://127.0.0.1:{port}/"


@contextmanager
def loopback_alone() -> Iterator[list[str]]:
    """Refuse connections of this process to other hosts, and return the list of those that were tried."""
    tried: list[str] = []
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def check(host: object) -> None:
        if host is not None and str(host) not in LOOPBACK:
            tried.append(str(host))
            raise OSError(f"a test may not reach {host}")

    def checked_connect(self: socket.socket, address: Any) -> None:
        check(address[0] if self.family in (socket.AF_INET, socket.AF_INET6) else None)
        connect(self, address)

    def checked_look_up(host: Any, *args: Any, **options: Any) -> Any:
        check(host.decode() if isinstance(host, bytes) else host)
        return look_up(host, *args, **options)

    with patch.object(socket.socket, "connect", checked_connect), patch.object(socket, "getaddrinfo", checked_look_up):
        yield tried
