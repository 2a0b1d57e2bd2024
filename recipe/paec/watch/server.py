"""Serves a live run to browsers on this machine: the page at `/`, new rows at `/rows`. Reads only."""

from __future__ import annotations

import json
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from recipe.paec.common import secrets
from recipe.paec.common.errors import UserError
from recipe.paec.watch.live_run import LiveRun

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")
"""What a request may call this server; any other name is a page of somebody else's that was led here."""
HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def serve(run: LiveRun, port: int) -> ThreadingHTTPServer:
    """A server of this run on loopback, which is not running yet.

    Args:
        run: what is served.
        port: 0 takes any that is free.

    Raises:
        UserError: the port is taken.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if (self.headers.get("Host") or "").rpartition(":")[0] not in NAMES:
                self._answer(HTTPStatus.FORBIDDEN, "text/plain", f"ask for http://{HOST}\n")
                return
            asked = urlsplit(self.path)
            answer = HTTPStatus.NOT_FOUND, "text/plain", "there is only /\n"
            try:
                if asked.path == "/":
                    answer = HTTPStatus.OK, "text/html", run.page()
                elif asked.path == "/rows":
                    state = parse_qs(asked.query).get("after", [""])[0]
                    answer = HTTPStatus.OK, "application/json", secrets.hide(json.dumps(run.update(state)))
            except UserError as error:
                answer = HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", f"{error}\n"
            except OSError as error:
                text = f"{error.filename}: {error.strerror}: the page waits until it can be read\n"
                answer = HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", text
            self._answer(*answer)

        def _answer(self, status: HTTPStatus, kind: str, text: str) -> None:
            content = text.encode()
            self.send_response(status)
            for name, value in {**HEADERS, "Content-Type": f"{kind}; charset=utf-8"}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Nothing is printed for a request."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *about: Any) -> None:
            """A browser that has left, as at every reload, is not an error; anything else is printed."""
            if not isinstance(sys.exception(), ConnectionError):
                super().handle_error(*about)

    try:
        return Server((HOST, port), Handler)
    except OSError as error:
        raise UserError(f"--port {port}: {error.strerror}: choose another port, or leave it out") from None
