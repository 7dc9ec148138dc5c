"""The fixtures of browser tests do what they promise."""

from __future__ import annotations

import socket

import pytest

from helpers.browser import find_chromium, loopback_alone
from sd4match.app.theme import import_gradio


def greeting():
    gr = import_gradio()
    with gr.Blocks(analytics_enabled=False, title="greeting") as app:
        name = gr.Textbox(label="Name")
        button = gr.Button("Greet")
        answer = gr.Textbox(label="Answer")
        button.click(lambda text: f"hello {text}", name, answer)
    return app


@pytest.mark.slow
def test_an_app_is_used_at_both_widths_and_asks_no_other_host_for_anything(serving, desktop, phone):
    address = serving(greeting())
    for screen in (desktop, phone):
        screen.open(address)
        screen.page.get_by_label("Name").fill("cat")
        screen.page.get_by_role("button", name="Greet").click()
        screen.page.wait_for_function(
            "document.body.innerHTML && [...document.querySelectorAll('textarea,input')]"
            ".some(one => one.value === 'hello cat')"
        )
        assert (screen.outside, screen.errors, screen.overflow) == ([], [], 0)
        assert screen.requests


def test_a_browser_that_is_named_and_missing_is_not_replaced_by_another(monkeypatch):
    monkeypatch.setenv("SD4MATCH_CHROMIUM", "/no/such/browser")
    assert find_chromium() is None


def test_a_connection_to_another_host_is_refused_and_recorded():
    with loopback_alone() as tried, socket.socket() as own:
        for call in (
            lambda: socket.create_connection(("192.0.2.1", 80)),
            lambda: own.connect(("192.0.2.2", 80)),
            lambda: socket.getaddrinfo("example.org", 80),
        ):
            with pytest.raises(OSError, match="may not reach"):
                call()
    assert tried == ["192.0.2.1", "192.0.2.2", "example.org"]
