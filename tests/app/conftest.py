"""Apps on a free port of the loopback address, and pages in a real, headless Chromium."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any
from unittest.mock import patch

import pytest

from helpers.browser import DESKTOP, PHONE, Screen, chromium, find_chromium, loopback_alone, screen, serve


@pytest.fixture(autouse=True)
def close_event_loops() -> Iterator[None]:
    """Close the event loops that gradio makes for its locks and leaves open."""
    made: list[asyncio.AbstractEventLoop] = []
    make = asyncio.new_event_loop

    def recorded() -> asyncio.AbstractEventLoop:
        made.append(make())
        return made[-1]

    with patch.object(asyncio, "new_event_loop", recorded):
        yield
    for loop in made:
        if not loop.is_running():
            loop.close()
    if made:
        asyncio.set_event_loop(None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, started once for a module: playwright's event loop must not run during the tests of others."""
    for library in ("gradio", "playwright"):
        if find_spec(library) is None:
            pytest.skip(f"browser tests need {library}: pip install -e '.[dev]'")
    if find_chromium() is None:
        pytest.skip("browser tests need Chromium: sh tools/install_chromium.sh, or name it in SD4MATCH_CHROMIUM")
    with chromium() as started:
        yield started


@pytest.fixture
def desktop(browser) -> Iterator[Screen]:
    """A fresh page, 1280 x 900."""
    with screen(browser, DESKTOP) as page:
        yield page


@pytest.fixture
def phone(browser) -> Iterator[Screen]:
    """A fresh page, 390 x 844, that is touched."""
    with screen(browser, PHONE) as page:
        yield page


@pytest.fixture
def serving() -> Iterator[Callable[[Any], str]]:
    """Start a `gradio.Blocks` with the options of all apps, and return its address; at the end it is closed.

    Neither the app nor anything else of the process may reach another host meanwhile.
    """
    pytest.importorskip("gradio")
    from sd4match.app import launch_options

    apps: list[Any] = []

    def start(app: Any) -> str:
        apps.append(app)
        return serve(app, launch_options())

    with loopback_alone() as tried:
        try:
            yield start
        finally:
            for app in apps:
                app.close(verbose=False)
    assert tried == []
