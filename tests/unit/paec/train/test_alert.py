"""Alerts reach a server as one line each, cost nothing where there is none, and keep their URL secret."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from omegaconf import OmegaConf
from report_runs import record

from recipe.paec.common.errors import Stalled, UserError
from recipe.paec.config import values
from recipe.paec.run.log import MetricsFile
from recipe.paec.train import alert
from recipe.paec.train.alert import Alerts, event_of, public, withhold
from recipe.paec.train.watch import Progress

SECRET = "https://hooks.example.com/services/T000/B000/abcdefgh?token=12345678"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server() -> Iterator[tuple[str, list]]:
    """(URL, the posts that have arrived)."""
    arrived: list[tuple[str, str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            text = self.rfile.read(int(self.headers["Content-Length"])).decode()
            arrived.append((self.path, self.headers["Content-Type"], text))
            self.send_response(500 if self.path == "/broken" else 200)
            self.end_headers()

        def log_message(self, *_):
            pass

    running = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}", arrived
    running.shutdown()
    running.server_close()


def test_one_json_line(server):
    url, arrived = server
    with Alerts(f"{url}/hook?key=1", "first") as alerts:
        alerts.step = 7
        alerts.post("collapse", "Hbar is low")
    ((path, kind, text),) = arrived
    assert (path, kind) == ("/hook?key=1", "application/json")
    assert text.endswith("}\n") and text.count("\n") == 1
    content = json.loads(text)
    assert {key: content[key] for key in ("run", "event", "step", "text", "host")} == {
        **{"run": "first", "event": "collapse", "step": 7, "text": "Hbar is low", "host": socket.gethostname()},
    }
    assert content["time"].startswith("20") and content["time"].endswith("Z") and len(content) == 6


@pytest.mark.parametrize(
    ("error", "event", "text"),
    [
        (Stalled("no heartbeat for 60 s\nlog: there"), "stall", "no heartbeat for 60 s"),
        (UserError("ActorDied: X has died", "the log: y"), "failure", "ActorDied: X has died"),
        (UserError("NonFiniteLogits: logits: NaN"), "nan", "NonFiniteLogits: logits: NaN"),
        (
            UserError("FloatingPointError: the gradient norm is nan"),
            "nan",
            "FloatingPointError: the gradient norm is nan",
        ),
        (KeyboardInterrupt(), "end", "stopped at once, as requested"),
        (SystemExit(143), "end", "stopped at once, as requested"),
        (ZeroDivisionError("x"), "failure", "ZeroDivisionError: x"),
    ],
)
def test_what_ends_a_run_is_posted(server, error, event, text):
    url, arrived = server
    with pytest.raises(type(error)), Alerts(url, "first"):
        raise error
    ((_, _, line),) = arrived
    assert (json.loads(line)["event"], json.loads(line)["text"]) == (event, text)
    assert event_of(error) == (event, text)


def test_an_end_is_posted_once(server):
    url, arrived = server
    with pytest.raises(SystemExit), Alerts(url, "first") as alerts:
        alerts.post("end", "stopped after step 3 of 8, as requested")
        raise SystemExit(143)
    assert [json.loads(line)["text"] for *_, line in arrived] == ["stopped after step 3 of 8, as requested"]


def test_warnings_of_the_metrics_are_posted(server, tmp_path, compose):
    """Collapse and NaN, once each; other warnings are only printed."""
    url, arrived = server
    config = compose()
    metrics = MetricsFile(tmp_path, lambda record: None)
    with Alerts(url, "first") as alerts:
        progress = Progress(config, tmp_path, alerts)
        low = {"actor/paec/selected_entropy": 0.25}
        nan = {"actor/grad_norm": float("nan")}
        for step, more in enumerate([{}, low, {**low, "reward/mixed_prompts": 0.0}, nan], 1):
            metrics.log({k: v for k, v in record(step, **more).items() if k != "step"}, step)
            progress.tick()
    found = [json.loads(line) for *_, line in arrived]
    assert sorted((one["event"], one["step"]) for one in found) == [("collapse", 2), ("nan", 4)]
    (text,) = (one["text"] for one in found if one["event"] == "collapse")
    assert text.startswith("step 2: Hbar 0.2500 is below half of the anchor, 0.6000")


def test_an_explosion_is_posted(server, tmp_path, compose):
    url, arrived = server
    metrics = MetricsFile(tmp_path, lambda record: None)
    with Alerts(url, "first") as alerts:
        progress = Progress(compose(), tmp_path, alerts)
        for step in range(1, 21):
            metrics.log({"actor/entropy": 0.5 if step <= 15 else 2.5}, step)
            progress.tick()
    (line,) = (json.loads(line) for *_, line in arrived)
    assert (line["event"], line["step"]) == ("explosion", 17)
    assert line["text"].startswith("step 17: token entropy 1.3000 (mean of 5 steps) is 2.6 times")


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def test_a_dead_url_costs_one_line(capsys, server):
    url, _ = server
    for dead, reason in (
        (f"http://127.0.0.1:{closed_port()}/secret", "Connection refused"),
        (f"{url}/broken", "HTTP Error 500"),
    ):
        began = time.monotonic()
        with Alerts(dead, "first") as alerts:
            alerts.post("end", "finished")
            assert time.monotonic() - began < 1
        out, err = capsys.readouterr()
        assert out.count("\n") == 1 and err == "" and reason in out
        assert out.startswith(f"the alert 'end' was not delivered to {public(dead)}: ")
        assert "secret" not in out and "broken" not in out


def test_a_url_that_does_not_answer_delays_only_the_end(monkeypatch, capsys):
    monkeypatch.setattr(alert, "TIMEOUT", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        began = time.monotonic()
        with Alerts(f"http://127.0.0.1:{silent.getsockname()[1]}/x", "first") as alerts:
            for _ in range(5):
                alerts.post("collapse", "low")
            assert time.monotonic() - began < 0.4, "a post is not waited for"
        assert time.monotonic() - began < 5
        for thread in alerts._threads:
            thread.join()
    alerts.complain()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" to ")[0] for line in lines] == ["the alert 'collapse' was not delivered"] * 5


def test_without_a_url_nothing_is_posted(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a post was started")

    monkeypatch.setattr(alert.threading, "Thread", refuse)
    with Alerts(None, "first") as alerts:
        alerts.post("end", "finished")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (SECRET, "https://hooks.example.com/<hidden>"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000/"),
        ("https://me:secret@host:1/x", "https://<hidden>@host:1/<hidden>"),
        ("hooks.example.com/abc", "hooks.example.com/<hidden>"),
        ("https://host?key=secret", "https://host/<hidden>"),
    ],
)
def test_what_others_may_see_of_a_url(url, shown):
    assert public(url) == shown


def test_the_url_is_not_in_the_configuration(compose):
    config = compose(f"run.alert='{SECRET}'")
    assert withhold(config) == SECRET
    text = OmegaConf.to_yaml(config)
    assert "services" not in text and "12345678" not in text
    assert config.run.alert == "https://hooks.example.com/<hidden>"
    assert config.run.overrides[-1] == "run.alert=https://hooks.example.com/<hidden>"
    assert values.check_values(config, names=["run.alert"]) == []


def test_it_may_come_from_the_environment(compose, monkeypatch):
    """So that it is not in the list of processes either."""
    assert withhold(compose()) is None
    monkeypatch.setenv("PAEC_ALERT", SECRET)
    config = compose()
    assert withhold(config) == SECRET and "services" not in OmegaConf.to_yaml(config)


@pytest.mark.parametrize("url", ["hooks.example.com/x", "ftp://host/x", "https://", "https://a b/", "https://me:pw@host/x",
                                 "http://host:99999/", 5, True])  # fmt: skip
def test_what_is_no_url_is_refused(compose, url):
    config = compose()
    config.run.alert = url
    (sentence,) = values.check_values(config, names=["run.alert"])
    assert sentence.startswith("run.alert=") and "must be a URL that begins with http:// or https://" in sentence


def test_a_url_is_accepted(compose):
    config = compose()
    for url in (None, SECRET, "http://127.0.0.1:8000", "http://[::1]:80/x"):
        config.run.alert = url
        assert values.check_values(config, names=["run.alert"]) == []
