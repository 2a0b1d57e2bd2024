"""A live page in a real browser: steps that are recorded while it is open appear in it."""

from __future__ import annotations

import json
import re
import threading
import time

import pytest
from pages import IN_A_BROWSER
from report_runs import record, write_run

from recipe.paec.report.page import rounded
from recipe.paec.watch import live_run
from recipe.paec.watch.live_run import LiveRun
from recipe.paec.watch.server import serve

pytestmark = IN_A_BROWSER
ENTROPY = "Chart.all.find((chart) => chart.spec.id === 'entropy')"


@pytest.fixture
def opened(browser, tmp_path, monkeypatch):
    """(page, folder, server): the live page of a run at step 5 of 8; at the end nothing must have been printed."""
    monkeypatch.setattr(live_run, "SECONDS", 0.2)
    folder = write_run(tmp_path / "first", last=5)
    server = serve(LiveRun(folder), 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/"
    page, heard = browser.new_page(viewport={"width": 1280, "height": 900}), []
    page.on("console", lambda message: heard.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: heard.append(f"error: {error}"))
    page.on("request", lambda request: None if request.url.startswith(address) else heard.append(request.url))
    page.goto(address)
    page.wait_for_selector("html[data-ready]")
    yield page, folder, server
    page.close()
    server.shutdown()
    server.server_close()
    # Of a server that has ended, or says why it has no answer; where it is only slow, the page just waits.
    known = "net::ERR_(CONNECTION_|SOCKET_NOT_CONNECTED)|status of 500"
    assert [line for line in heard if not re.search(known, line)] == []


def until(page, expression: str, value, seconds: float = 30.0) -> None:
    """Wait in Python: the page's own waiting is refused by its content security policy."""
    deadline = time.monotonic() + seconds
    while (found := page.evaluate(expression)) != value:
        assert time.monotonic() < deadline, f"{expression} is {found}, not {value}"
        page.wait_for_timeout(50)


def append(folder, *records: dict) -> None:
    with open(folder / "metrics.jsonl", "a") as stream:
        stream.writelines(json.dumps(one) + "\n" for one in records)


def test_new_steps_are_drawn(opened):
    page, folder, _ = opened
    assert page.locator(".status").inner_text() == "stopped at step 5 of 8"
    page.evaluate("window.kept = true")
    page.locator("#chart-entropy summary").click()
    append(folder, record(6))
    until(page, f"{ENTROPY}.uplot.data[0].at(-1)", 6)
    append(folder, record(7), record(8))
    until(page, f"{ENTROPY}.uplot.data[0].at(-1)", 8)
    steps, *lines = page.evaluate(f"{ENTROPY}.uplot.data")
    assert steps == list(range(1, 9))
    keys = ["actor/entropy", *(f"actor/paec/{name}" for name in ("selected_entropy", "anchor", "floor"))]
    assert lines == [[rounded(record(step)[key]) for step in steps] for key in keys]
    assert page.locator(".status").inner_text() == "finished: 8 of 8 steps"
    assert page.locator(".status").get_attribute("class") == "status finished"
    assert "8 of 8" in page.locator(".facts").inner_text()
    page.evaluate("Chart.all.forEach((chart) => chart.draw())")
    assert page.evaluate("Chart.all.find((chart) => chart.spec.id === 'avg').uplot.data") == [[0, 4, 8], [25, 37.5, 50]]
    shares = page.evaluate("Chart.all.find((chart) => chart.spec.id === 'stages').lines[0].y.length")
    assert shares == 8
    labels = page.evaluate("Chart.all.find((chart) => chart.spec.id === 'passk-0').lines.map((line) => line.label)")
    assert labels == ["step 0", "step 4", "step 8"]
    rows = page.locator("#chart-entropy tbody tr")
    until(page, "document.querySelectorAll('#chart-entropy tbody tr').length", 8)
    assert rows.nth(7).locator("th").inner_text() == "8", "the table stays open"
    assert page.evaluate("window.kept"), "the page was not loaded again"


def test_new_steps_leave_the_reader_where_they_are(opened):
    """The focus on a table, in it, on CSV or on a name of a line, and the step that is read."""
    page, folder, _ = opened
    page.evaluate("Chart.all.forEach((chart) => chart.draw())")
    page.locator("#chart-entropy summary").click()
    page.wait_for_selector("#chart-entropy tbody tr")
    places = {
        **{"#chart-entropy summary": "Table", "#chart-entropy .scroll": "Token entropy, nats"},
        "#chart-avg .more button:last-child": "CSV",
    }
    for step, (selector, text) in enumerate(places.items(), start=6):
        page.locator(selector).focus()
        append(folder, record(step))
        until(page, f"{ENTROPY}.uplot.data[0].at(-1)", step)
        assert page.evaluate("document.activeElement.textContent").startswith(text)
        assert page.locator("#chart-entropy tbody tr").count() == step
    page.locator("#chart-passk-0 .legend button").nth(1).focus()
    append(folder, *(record(step) for step in (9, 10, 11, 12)))
    labels = "Chart.all.find((chart) => chart.spec.id === 'passk-0').lines.map((line) => line.label)"
    until(page, labels, ["step 0", "step 4", "step 8", "step 12"])
    assert page.evaluate("document.activeElement.textContent").startswith("step 4")
    page.locator("#chart-entropy .plot").focus()
    page.keyboard.press("Home")
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    append(folder, record(13))
    until(page, f"{ENTROPY}.uplot.data[0].at(-1)", 13)
    assert page.locator("#chart-entropy .readout").inner_text() == "training step 3"
    assert page.locator("#chart-entropy .number").first.inner_text() == "0.453"
    page.keyboard.press("ArrowRight")
    assert page.locator("#chart-entropy .readout").inner_text() == "training step 4"


def test_a_new_metric_loads_the_page_again(opened):
    """And leaves what the reader has chosen: theme, smoothing, hidden lines, zoom, metric, open tables."""
    page, folder, _ = opened
    page.evaluate("window.kept = true")
    page.get_by_role("button", name="Dark theme").click()
    page.get_by_label("Smoothing").select_option("10 steps")
    page.locator("#chart-entropy .legend button", has_text="anchor").click()
    page.get_by_label("Metric", exact=True).select_option("actor/grad_norm")
    page.locator("#chart-explore summary").click()
    page.evaluate("Chart.zoom('training step', [2, 4])")
    append(folder, record(6, **{"new/metric": 1.5}))
    page.locator("#metric option", has_text="new/metric").wait_for(state="attached")
    assert page.evaluate("window.kept ?? null") is None
    assert page.locator("#metric option", has_text="new/metric").count() == 1
    until(page, "history.state", None)
    page.evaluate("Chart.all.forEach((chart) => chart.draw())")
    assert page.evaluate("[document.documentElement.dataset.theme, Chart.smoothing]") == ["dark", 10]
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"
    assert page.evaluate(f"{ENTROPY}.uplot.series.map((one) => one.show)") == [True, True, True, False, True]
    assert page.evaluate(f"(({{ min, max }}) => [min, max])({ENTROPY}.uplot.scales.x)") == [2, 4]
    assert page.locator("#chart-explore h3").inner_text() == "actor/grad_norm"
    page.wait_for_selector("#chart-explore tbody tr")


def test_an_answer_that_cannot_be_made_is_reported(opened):
    page, folder, _ = opened
    (folder / "metrics.jsonl").rename(folder / "kept")
    (folder / "metrics.jsonl").mkdir()
    page.get_by_text(f"{folder / 'metrics.jsonl'}: Is a directory: the page waits until it can be read").wait_for()
    (folder / "metrics.jsonl").rmdir()
    (folder / "kept").rename(folder / "metrics.jsonl")
    append(folder, record(6))
    until(page, f"{ENTROPY}.uplot.data[0].at(-1)", 6)


def test_a_server_that_has_ended_is_reported(opened):
    page, folder, server = opened
    server.shutdown()
    server.server_close()
    page.get_by_text("The server of this page has ended: start paec watch again.").wait_for()
    assert page.evaluate(f"{ENTROPY}.uplot.data[0].at(-1)") == 5, "what was drawn stays"
