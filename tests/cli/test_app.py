"""`app`: what it refuses before a page is served, and how it starts and ends."""

from __future__ import annotations

import contextlib
import contextvars
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import pytest

from sd4match.app.serving import (
    FIRST_PORT,
    TEMPORARY_FILES,
    OwnPagesAlone,
    choose_port,
    remove_left_folders,
    served,
)
from sd4match.errors import InputError
from sd4match.io.locks import LOCK_FILE, locked_folder


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
        assert [one.cls for one in app.options["app_kwargs"]["middleware"]] == [OwnPagesAlone]
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


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("127.0.0.1:7860", None, 200), ("LOCALHOST:9000", "http://localhost:9000", 200), ("localhost", None, 200),
        ("evil.example:7860", None, 403), ("127.0.0.1.evil.example", None, 403), ("", None, 403),
        ("127.0.0.1:7860@evil.example", None, 403), ("192.168.0.2:7860", None, 403),
        ("127.0.0.1:7860", "http://evil.example", 403), ("127.0.0.1:7860", "null", 403),
        ("127.0.0.1:7860", "http://127.0.0.1:8888", 403), ("evil.example:1", "http://evil.example:1", 403),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_requests_of_other_pages_and_other_names_are_refused(kind, host, origin, status):
    headers = [(b"host", host.encode()), *([] if origin is None else [(b"origin", origin.encode())])]
    reached, sent = [], []

    async def app(scope, receive, send):
        reached.append(scope)

    async def send(message):
        sent.append(message)

    with contextlib.suppress(StopIteration):
        OwnPagesAlone(app)({"type": kind, "headers": headers}, None, send).send(None)
    assert len(reached) == (status == 200)
    assert bool(sent) == (status == 403)
    if sent:
        assert sent[0].get("status", sent[0].get("code")) == {"http": 403, "websocket": 1008}[kind]


def test_folders_of_apps_that_were_killed_are_removed_and_others_stay(tmp_path):
    for name in ("sd4match-app-killed", "sd4match-app-running", "sd4match-app-made", "sd4match-other"):
        (tmp_path / name).mkdir()
        if name != "sd4match-app-made":
            (tmp_path / name / LOCK_FILE).touch()
        (tmp_path / name / "photo.jpg").touch()
    (tmp_path / "sd4match-app-link").symlink_to(tmp_path / "sd4match-other")
    with locked_folder(tmp_path / "sd4match-app-running"):
        contextvars.Context().run(remove_left_folders, tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"sd4match-app-running", "sd4match-app-made", "sd4match-other", "sd4match-app-link"}
    assert all((tmp_path / name / "photo.jpg").exists() for name in left)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("gradio") is None, reason="needs gradio")
@pytest.mark.parametrize("is_annotating", [False, True])
def test_a_served_app_ends_with_ctrl_c_and_leaves_no_file(tmp_path, is_annotating, photos):
    (tmp_path / "temporary/sd4match-app-killed").mkdir(parents=True)
    (tmp_path / "temporary/sd4match-app-killed" / LOCK_FILE).touch()
    more = ["--annotate", str(Path(photos[0]).parent)] if is_annotating else []
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "sd4match", "app", "--preset", "hog", *more],
        env={**os.environ, "TMPDIR": str(tmp_path / "temporary"), "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE, text=True, cwd=tmp_path,
    )  # fmt: skip
    try:
        assert process.stdout.readline().endswith("Loading hog ...\n")
        line = process.stdout.readline()
        assert line.startswith("The app runs at http://127.0.0.1:")
        address = line.split()[4]
        page = urllib.request.urlopen(address).read().decode()
        assert "fonts.googleapis.com" not in page
        body = b'{"data": [], "fn_index": 0, "session_hash": "a"}'
        for path, headers in (
            ("config", {"Host": "evil.example:7860"}),
            ("gradio_api/queue/join", {"Host": "evil.example", "Content-Type": "application/json"}),
            ("gradio_api/upload", {"Origin": "http://evil.example", "Content-Type": "multipart/form-data; boundary=a"}),
        ):
            request = urllib.request.Request(address + path, None if path == "config" else body, headers)
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(request)
        own = urllib.request.Request(address + "config", headers={"Origin": address[:-1]})
        assert urllib.request.urlopen(own).status == 200
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60)[0] == "Stopped.\n"
        assert process.returncode == 0
    finally:
        process.kill()
    left = {file.name for file in (tmp_path / "temporary").iterdir() if not file.name.startswith("torchinductor")}
    assert left == set()
