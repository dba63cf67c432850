"""A stand-in for the Hugging Face Hub on loopback: one data set's files, behind the HTTP calls its client makes."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlparse

COMMIT = "c" * 40


class Hub(ThreadingHTTPServer):
    """``files`` is what lies there; ``token`` None lets everyone write."""

    def __init__(self, repo: str, token: str | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repo, self.token = repo, token
        self.files: dict[str, bytes] = {}
        self.commits: list[list[str]] = []
        self.unknown: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def running(hub: Hub):
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, value, status=200, **headers):
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for k, v in (
            {"Content-Length": str(len(body)), "Content-Type": "application/json"} | headers
        ).items():
            self.send_header(k.replace("_", "-"), v)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def entry(self, path):
        data = self.server.files[path]
        oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        return {"type": "file", "path": path, "size": len(data), "oid": oid}

    def listing(self, folder, recursive):
        under = [f for f in self.server.files if f.startswith(f"{folder}/" if folder else "")]
        if folder and not under:
            return None
        files, folders = [], {}
        for f in sorted(under):
            rest = f[len(folder) + 1 if folder else 0 :]
            if recursive or "/" not in rest:
                files.append(self.entry(f))
            for depth in range(1, rest.count("/") + 1) if recursive else ([1] if "/" in rest else []):
                name = "/".join([*([folder] if folder else []), *rest.split("/")[:depth]])
                folders[name] = {"type": "directory", "path": name, "size": 0, "oid": "0" * 40}
        return [*folders.values(), *files]

    def allowed(self):
        if self.server.token and self.headers.get("Authorization") != f"Bearer {self.server.token}":
            self.answer(
                {"error": "Invalid username or password."},
                401,
                X_Error_Message="Invalid username or password.",
            )
            return False
        return True

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        parts = urlparse(self.path)
        path, repo = unquote(parts.path), self.server.repo
        if m := re.fullmatch(rf"/datasets/{repo}/resolve/[^/]+/(.*)", path):
            return self.file(m[1])
        if re.fullmatch(rf"/api/datasets/{repo}(/revision/[^/]+)?", path):
            return self.answer(
                {
                    "id": repo,
                    "sha": COMMIT,
                    "private": False,
                    "tags": [],
                    "downloads": 0,
                    "likes": 0,
                    "siblings": [],
                }
            )
        if m := re.fullmatch(rf"/api/datasets/{repo}/tree/[^/]+/?(.*)", path):
            found = self.listing(m[1], "recursive=true" in parts.query.lower())
            if found is None:
                return self.answer({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")
            return self.answer(found)
        if re.match(r"/api/datasets/[^/]+/[^/]+", path):
            return self.answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
        self.server.unknown.append(f"{self.command} {self.path}")
        return self.answer({"error": "unknown"}, 404)

    def file(self, name):
        if name not in self.server.files:
            return self.answer({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")
        data, status, more = self.server.files[name], 200, {}
        if m := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(m[1]), min(int(m[2] or len(data) - 1), len(data) - 1)
            more = {"Content_Range": f"bytes {first}-{last}/{len(data)}"}
            data, status = data[first : last + 1], 206
        etag = f'"{hashlib.sha1(self.server.files[name]).hexdigest()}"'
        return self.answer(data, status, X_Repo_Commit=COMMIT, ETag=etag, Accept_Ranges="bytes", **more)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path, repo = unquote(urlparse(self.path).path), self.server.repo
        if re.fullmatch(rf"/api/datasets/{repo}/paths-info/[^/]+", path):
            form = self.headers.get("Content-Type", "").startswith("application/x-www-form-urlencoded")
            wanted = parse_qs(body.decode())["paths"] if form else json.loads(body)["paths"]
            folders = {
                "/".join(f.split("/")[:i]) for f in self.server.files for i in range(1, f.count("/") + 1)
            }
            found = [self.entry(p) for p in wanted if p in self.server.files]
            found += [
                {"type": "directory", "path": p, "oid": "0" * 40, "size": 0} for p in wanted if p in folders
            ]
            return self.answer(found)
        if re.fullmatch(rf"/api/datasets/{repo}/preupload/[^/]+", path):
            if not self.allowed():
                return None
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                for f in json.loads(body)["files"]
            ]
            return self.answer({"files": files})
        if re.fullmatch(rf"/api/datasets/{repo}/commit/[^/]+", path):
            if not self.allowed():
                return None
            return self.commit(body)
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        self.server.unknown.append(f"{self.command} {self.path}")
        return self.answer({"error": "unknown"}, 404)

    def commit(self, body):
        changed = []
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                self.server.files[value["path"]] = base64.b64decode(value["content"])
                changed.append(value["path"])
            elif line["key"] == "deletedFile":
                if value["path"] not in self.server.files:
                    return self.answer({"error": "A file with this name does not exist"}, 400)
                del self.server.files[value["path"]]
                changed.append(f"-{value['path']}")
        self.server.commits.append(changed)
        url = f"{self.server.url}/datasets/{self.server.repo}/commit/{COMMIT}"
        return self.answer({"success": True, "commitOid": COMMIT, "commitUrl": url, "hookOutput": ""})
