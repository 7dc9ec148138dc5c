"""Fake Hugging Face hub: the part of its HTTP interface that `HfApi` and `hf_hub_download` use."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """Give the hub's client a cache of its own, a token, and no pauses between tries."""
    import huggingface_hub.constants as constants

    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.setattr(constants, name, str(tmp_path / "cache"), raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def fake_hub() -> Iterator[tuple[str, dict[str, bytes]]]:
    """Serve a hub on a local port; yield its address and its files by "user/name/path"."""
    files: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def respond(self, content: object, status: int = 200, **headers: str) -> None:
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.path == "/api/repos/create":
                request = json.loads(body)
                name = "/".join(filter(None, (request.get("organization"), request["name"])))
                if request["name"] == "forbidden":
                    self.respond({"error": "You don't have the rights"}, 403)
                else:
                    self.respond({"url": f"{address}/{name}", "name": name, "id": name})
            elif self.path == "/api/validate-yaml":
                self.respond({"errors": [], "warnings": []})
            elif "/preupload/" in self.path:
                requested = json.loads(body)["files"]
                self.respond(
                    {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in requested]}
                )
            elif "/commit/" in self.path:
                repo = self.path.removeprefix("/api/models/").split("/commit/")[0]
                for line in body.decode().splitlines():
                    entry = json.loads(line)
                    if entry["key"] == "file":
                        files[f"{repo}/{entry['value']['path']}"] = base64.b64decode(entry["value"]["content"])
                self.respond({"commitUrl": f"{address}/{repo}/commit/{COMMIT}", "commitOid": COMMIT, "success": True})
            else:
                self.respond({"error": self.path}, 404)

        def do_GET(self) -> None:
            repo, found, rest = self.path.lstrip("/").partition("/resolve/")
            content = files.get(f"{repo}/{rest.partition('/')[2].partition('?')[0]}")
            if found and content is not None:
                etag = f'"{hashlib.sha1(content).hexdigest()}"'
                self.respond(content, ETag=etag, X_Repo_Commit=COMMIT)
            elif self.path.startswith("/api/models/"):
                self.respond({"id": "me/mine", "sha": COMMIT, "siblings": [], "tags": [], "private": False})
            else:
                self.respond({}, 404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)

        do_HEAD = do_GET  # noqa: N815

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    address = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield address, files
    finally:
        server.shutdown()
        server.server_close()
