"""A hub of one process: enough of its HTTP interface for `HfApi` and `hf_hub_download` to work against."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def fake_hub() -> Iterator[tuple[str, dict[str, bytes]]]:
    """Its address, and the files that it holds by "user/name/path"."""
    files: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def answer(self, content: object, status: int = 200, **headers: str) -> None:
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
                asked = json.loads(body)
                name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
                if asked["name"] == "forbidden":
                    self.answer({"error": "You don't have the rights"}, 403)
                else:
                    self.answer({"url": f"{address}/{name}", "name": name, "id": name})
            elif self.path == "/api/validate-yaml":
                self.answer({"errors": [], "warnings": []})
            elif "/preupload/" in self.path:
                wanted = json.loads(body)["files"]
                self.answer(
                    {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in wanted]}
                )
            elif "/commit/" in self.path:
                repo = self.path.removeprefix("/api/models/").split("/commit/")[0]
                for line in body.decode().splitlines():
                    entry = json.loads(line)
                    if entry["key"] == "file":
                        files[f"{repo}/{entry['value']['path']}"] = base64.b64decode(entry["value"]["content"])
                self.answer({"commitUrl": f"{address}/{repo}/commit/{COMMIT}", "commitOid": COMMIT, "success": True})
            else:
                self.answer({"error": self.path}, 404)

        def do_GET(self) -> None:
            repo, found, rest = self.path.lstrip("/").partition("/resolve/")
            content = files.get(f"{repo}/{rest.partition('/')[2].partition('?')[0]}")
            if found and content is not None:
                etag = f'"{hashlib.sha1(content).hexdigest()}"'
                self.answer(content, ETag=etag, X_Repo_Commit=COMMIT)
            elif self.path.startswith("/api/models/"):
                self.answer({"id": "me/mine", "sha": COMMIT, "siblings": [], "tags": [], "private": False})
            else:
                self.answer({}, 404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)

        do_HEAD = do_GET  # noqa: N815

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    address = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield address, files
    finally:
        server.shutdown()
        server.server_close()
