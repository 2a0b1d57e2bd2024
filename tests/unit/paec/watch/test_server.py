"""The server is on loopback, answers two addresses, and only those who ask for it by its own name."""

from __future__ import annotations

import http.client
import json
import socket
import struct
import threading
import time

import pytest
from report_runs import write_run

from recipe.paec.common.errors import UserError
from recipe.paec.watch.live_run import LiveRun
from recipe.paec.watch.server import serve


@pytest.fixture
def ask(tmp_path):
    """ask(path, method=, **headers) -> the answer and its text."""
    server = serve(LiveRun(write_run(tmp_path / "first", output="my token is hf_abcdefgh12345678")), 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def asked(path: str, method: str = "GET", **headers: str) -> tuple[http.client.HTTPResponse, str]:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer, text

    asked.server, asked.others = server, set(threading.enumerate())
    yield asked
    server.shutdown()
    server.server_close()


def test_the_page_and_its_rows(ask):
    answer, page = ask("/")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert answer.headers["Cache-Control"] == "no-store" and answer.headers["X-Frame-Options"] == "DENY"
    assert "connect-src &#39;self&#39;" in page and "finished: 8 of 8 steps" in page
    assert "needs no server" not in page
    state = json.loads(page.split('id="data">')[1].split("</script>")[0])["live"]["state"]
    answer, text = ask(f"/rows?after={state}")
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    assert json.loads(text)["rows"] == [] and json.loads(text)["status"]["kind"] == "finished"
    assert json.loads(ask("/rows")[1]) == {"reload": True}


def test_it_listens_on_loopback(ask):
    assert ask.server.server_address[0] == "127.0.0.1"
    assert ask.server.socket.family == socket.AF_INET


@pytest.mark.parametrize("host", ["evil.example.com", "evil.example.com:80", "127.0.0.1.evil.example:1", ""])
def test_another_name_is_refused(ask, host):
    """A page of somebody else's whose name leads to this machine could read the answer otherwise."""
    answer, text = ask("/", Host=host)
    assert answer.status == 403 and "first" not in text
    assert ask("/", Host=f"localhost:{ask.server.server_port}")[0].status == 200


@pytest.mark.parametrize(("path", "method", "status"), [
    ("/metrics.jsonl", "GET", 404), ("/../first/config.yaml", "GET", 404), ("//etc/passwd", "GET", 404),
    ("/", "POST", 501), ("/", "DELETE", 501),
])  # fmt: skip
def test_nothing_else_is_answered(ask, path, method, status):
    assert ask(path, method)[0].status == status


def answered(others: set[threading.Thread]) -> None:
    """Wait for the threads of the requests; `others` are those of other tests' servers, which may outlive them."""
    while any("process_request_thread" in thread.name for thread in set(threading.enumerate()) - others):
        time.sleep(0.02)


@pytest.mark.parametrize("request_line", [b"GET /rows HTTP/1.0\r\nHost: localhost:1\r\n\r\n", b"GET /"])
def test_a_browser_that_leaves_is_no_error(ask, monkeypatch, capfd, request_line):
    """As at every reload: it resets the connection before it has the answer, or while it asks."""
    asked, left, update = threading.Event(), threading.Event(), LiveRun.update

    def waits(*arguments):
        asked.set()
        assert left.wait(60)
        return update(*arguments)

    monkeypatch.setattr(LiveRun, "update", waits)
    with socket.create_connection(("127.0.0.1", ask.server.server_port)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.sendall(request_line)
        assert asked.wait(60 if b"HTTP" in request_line else 0.5) == (b"HTTP" in request_line)
    left.set()
    answered(ask.others)
    assert capfd.readouterr().err == ""


def test_any_other_error_is_printed(ask, monkeypatch, capfd):
    monkeypatch.setattr(LiveRun, "update", lambda *_: 1 / 0)
    with pytest.raises(http.client.RemoteDisconnected):
        ask("/rows")
    answered(ask.others)
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_secrets_are_hidden(ask, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh12345678")
    _, page = ask("/")
    assert "hf_abcdefgh12345678" not in page and "my token is [hidden]" in page


def test_a_port_that_is_taken(tmp_path):
    run = LiveRun(write_run(tmp_path / "a"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"^--port {port}: Address already in use: choose another port"):
            serve(run, port)
