"""A server with the endpoints of the Hugging Face hub that an upload calls, for HF_ENDPOINT; keeps what it receives."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_standInQ7d2ZkX9f4Lm"


@dataclass
class Hub:
    """The state of the server."""

    url: str = ""
    token: str = TOKEN
    refuse: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Part of a path -> status and message of its answer; `{token}` in it is the token that was sent."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Method and path of every request."""
    visibility: dict[str, str] = field(default_factory=dict)
    """Of every repository."""
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Of every repository, as committed."""
    messages: list[str] = field(default_factory=list)
    """Of the commits."""
    objects: dict[str, bytes] = field(default_factory=dict)
    """Large files (LFS) by their SHA-256."""


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, content: Any, status: int = 200, **headers: str) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _handle(self) -> None:
        hub, path = self.hub, self.path.partition("?")[0]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        hub.requests.append((self.command, path))
        for part, (status, message) in hub.refuse.items():
            if part in path:
                sent = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
                return self._answer({"error": message.format(token=sent)}, status)
        if path.startswith("/objects/"):  # where LFS uploads go, without a token
            hub.objects[path.rpartition("/")[2]] = body
            return self._answer({})
        if self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self._answer({"error": "Invalid credentials in Authorization header"}, 401)
        if path == "/api/validate-yaml":
            return self._answer({"errors": [], "warnings": []})
        if path == "/api/repos/create":
            wanted = json.loads(body)
            name = f"{wanted['organization']}/{wanted['name']}" if wanted.get("organization") else wanted["name"]
            status = 409 if name in hub.files else 200
            hub.files.setdefault(name, {".gitattributes": b""})
            hub.visibility.setdefault(
                name, wanted.get("visibility") or ("private" if wanted.get("private") else "public")
            )
            return self._answer({"url": f"{hub.url}/{name}", "error": "You already created this model repo"}, status)
        if path.endswith(".git/info/lfs/objects/batch"):
            actions = [
                {**one, "actions": {"upload": {"href": f"{hub.url}/objects/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            return self._answer({"transfer": "basic", "objects": actions})
        name = "/".join(path.removeprefix("/api/models/").split("/")[:2])
        if path.startswith("/api/models/") and name in hub.files:
            return self._model(name, path, body)
        return self._answer({"error": "Repository not found"}, 404)

    def _model(self, name: str, path: str, body: bytes) -> None:
        hub = self.hub
        if "/preupload/" in path:
            modes = [
                {"path": one["path"], "uploadMode": "lfs" if one["path"].endswith(".safetensors") else "regular"}
                for one in json.loads(body)["files"]
            ]
            return self._answer({"files": [{**mode, "shouldIgnore": False, "oid": None} for mode in modes]})
        if "/commit/" in path:
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "header":
                    hub.messages.append(value["summary"])
                elif line["key"] == "file":
                    hub.files[name][value["path"]] = base64.b64decode(value["content"])
                else:
                    assert line["key"] == "lfsFile", line
                    content = hub.objects[value["oid"]]
                    assert hashlib.sha256(content).hexdigest() == value["oid"] and len(content) == value["size"]
                    hub.files[name][value["path"]] = content
            commit = "c0ffee" + "0" * 34
            url = f"{hub.url}/{name}/commit/{commit}"
            return self._answer({"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""})
        entries = [
            {"type": "file", "path": part, "oid": "0" * 40, "size": len(content)}
            for part, content in hub.files[name].items()
        ]
        if "/tree/" in path:
            return self._answer(entries)
        siblings = [{"rfilename": entry["path"]} for entry in entries]
        return self._answer({"id": name, "modelId": name, "sha": "0" * 40, "siblings": siblings, "private": True})

    do_GET = do_POST = do_PUT = do_HEAD = _handle


@contextmanager
def serving() -> Iterator[Hub]:
    """A stand-in on a free port of loopback."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
