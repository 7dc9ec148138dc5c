"""`app`: what it refuses before a page is served, and how it starts and ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import pytest

from sd4match.app.serving import FIRST_PORT, TEMPORARY_FILES, choose_port, served
from sd4match.errors import InputError


@pytest.fixture
def taken():
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        own.listen()
        yield own.getsockname()[1]


def test_without_gradio_one_line_says_what_to_install(run, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "gradio"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "gradio", None)
    code, _, error = run("app")
    assert (code, error) == (2, "sd4match: error: the app needs gradio: pip install 'sd4match[app]'\n")


@pytest.mark.skipif(find_spec("gradio") is None, reason="needs gradio")
def test_a_port_that_is_taken_is_one_line(run, taken):
    code, out, error = run("app", "--port", taken)
    assert (code, out) == (2, "")
    assert error.startswith(f"sd4match: error: port {taken} cannot be used (Address already in use): give another")
    assert error.count("\n") == 1


def test_the_first_free_port_is_taken(taken, monkeypatch):
    monkeypatch.setattr("sd4match.app.serving.FIRST_PORT", taken)
    assert taken < choose_port(None) < taken + 20
    monkeypatch.setattr("sd4match.app.serving._PORTS_TRIED", 1)
    with pytest.raises(InputError, match=f"no port from {taken} to {taken} is free"):
        choose_port(None)
    assert FIRST_PORT == 7860


class Blocks:
    """Stands for an app of gradio."""

    def __init__(self, error=None):
        self.error, self.is_closed, self.folder = error, False, None

    def launch(self, **options):
        self.options = options
        self.folder = Path(os.environ[TEMPORARY_FILES])
        (self.folder / "upload").touch()
        if self.error:
            raise self.error

    def close(self, **options):
        self.is_closed = True


@pytest.mark.skipif(find_spec("gradio") is None, reason="needs gradio")
def test_an_app_is_served_on_loopback_and_leaves_no_file(monkeypatch):
    monkeypatch.delenv(TEMPORARY_FILES, raising=False)
    monkeypatch.setenv("NO_PROXY", "example.org")
    app = Blocks()
    with served(lambda: app, port=7000) as address:
        assert address == "http://127.0.0.1:7000/"
        assert os.environ["NO_PROXY"] == "example.org,127.0.0.1"
        assert (app.options["server_name"], app.options["share"]) == ("127.0.0.1", False)
        assert "allowed_paths" not in app.options
    assert app.is_closed
    assert not app.folder.exists()
    assert (TEMPORARY_FILES in os.environ, os.environ["NO_PROXY"]) == (False, "example.org")
    broken = Blocks(OSError("no\nsuch address"))
    with (
        pytest.raises(InputError, match=r"cannot be served on 127\.0\.0\.1:7000: no such address"),
        served(lambda: broken, port=7000),
    ):
        pass
    assert broken.is_closed
    assert not broken.folder.exists()


@pytest.mark.slow
@pytest.mark.skipif(find_spec("gradio") is None, reason="needs gradio")
@pytest.mark.parametrize("is_annotating", [False, True])
def test_a_served_app_ends_with_ctrl_c_and_leaves_no_file(tmp_path, is_annotating, photos):
    (tmp_path / "temporary").mkdir()
    more = ["--annotate", str(Path(photos[0]).parent)] if is_annotating else []
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "sd4match", "app", "--preset", "hog", *more],
        env={**os.environ, "TMPDIR": str(tmp_path / "temporary"), "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE, text=True, cwd=tmp_path,
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "Loading hog ...\n"
        line = process.stdout.readline()
        assert line.startswith("The app runs at http://127.0.0.1:")
        page = urllib.request.urlopen(line.split()[4]).read().decode()
        assert "fonts.googleapis.com" not in page
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60)[0] == "Stopped.\n"
        assert process.returncode == 0
    finally:
        process.kill()
    left = {file.name for file in (tmp_path / "temporary").iterdir() if not file.name.startswith("torchinductor")}
    assert left == set()
