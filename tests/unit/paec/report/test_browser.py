"""The page in a real browser: Debian's chromium, headless, opening the file from the disk."""

from __future__ import annotations

import json
import re

import pytest
from pages import BACKGROUND, HOSTILE, IN_A_BROWSER, OTHER_THEME, PAPER, check_theme
from report_runs import SOURCE, record, write_run, write_saving

from recipe.paec.report.command import main
from recipe.paec.report.page import rounded

pytestmark = IN_A_BROWSER
ENTROPY = "Chart.all.find((chart) => chart.spec.id === 'entropy')"


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """The report of one run."""
    folder = write_run(tmp_path_factory.mktemp("runs") / "first", output=HOSTILE)
    assert main([str(folder)]) == 0
    return folder / "report.html"


def drawn(page):
    """Draw every chart, also those below the window."""
    page.evaluate("Chart.all.forEach((chart) => chart.draw())")


def test_every_chart_is_drawn(visit, file):
    page = visit(file)
    assert page.locator("#chart-entropy canvas").count() == 1
    drawn(page)
    assert page.locator("figure").count() == page.locator("figure canvas").count() > 20
    assert page.evaluate("Chart.all.every((chart) => chart.uplot.width > 200 && chart.uplot.height > 150)")


def test_the_charts_hold_the_metrics(visit, file):
    page = visit(file)
    steps, *lines = page.evaluate(f"{ENTROPY}.uplot.data")
    assert steps == list(range(1, 9))
    keys = ["actor/entropy", *(f"actor/paec/{name}" for name in ("selected_entropy", "anchor", "floor"))]
    assert lines == [[rounded(record(step)[key]) for step in steps] for key in keys]
    drawn(page)
    assert page.evaluate("Chart.all.find((chart) => chart.spec.id === 'avg').uplot.data") == [[0, 4, 8], [25, 37.5, 50]]


def test_a_stage_of_some_steps_has_no_area_in_the_others(visit, tmp_path):
    folder = write_saving(tmp_path / "a")
    assert main([str(folder)]) == 0
    page = visit(folder / "report.html")
    drawn(page)
    chart = "Chart.all.find((chart) => chart.spec.id === 'stages')"
    saving = page.evaluate(f"{chart}.lines.find((line) => line.label === 'save_checkpoint')")
    heights = [high - low for low, high in zip(saving["low"], saving["high"], strict=True)]
    assert heights == [0, 0, 12.5, 0, 0, 12.5, 0, 12.5]
    fills = page.evaluate(f"{chart}.uplot.bands.map((band) => band.fill())")
    assert len(fills) == len(set(fills)) == 4
    grey = page.locator("#chart-stages").get_by_role("button", name="other").locator("line")
    assert grey.evaluate("(line) => getComputedStyle(line).stroke") == "rgb(154, 160, 166)"


def test_a_line_is_where_its_values_are(visit, file):
    """The picture, not only its data: the pixels at the place of a value have the colour of the line."""
    page = visit(file)
    found = page.evaluate(
        f"""() => {{
          const u = {ENTROPY}.uplot, context = u.ctx;
          const at = (value) => context.getImageData(
            Math.round(u.valToPos(4, "x", true)), Math.round(u.valToPos(value, "y", true)), 1, 1).data;
          return [...at({record(4)["actor/entropy"]})];
        }}"""
    )
    assert found == pytest.approx([0, 114, 178, 255], abs=3)  # #0072b2


def test_what_some_steps_have_is_points_with_their_step(visit, tmp_path):
    folder = write_run(tmp_path / "a")
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for one in metrics[1:]:
        one |= {"actor/entropy/right": 0.25} | ({"actor/entropy/wrong": 0.5} if one["step"] < 7 else {})
        one |= {"actor/entropy/truncated": one["step"] / 8} if one["step"] in (2, 5) else {}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in metrics))
    assert main([str(folder)]) == 0
    page = visit(folder / "report.html")
    drawn(page)
    pixels = page.evaluate(
        """() => {
          const u = Chart.all.find((chart) => chart.spec.id === "entropy-cut-off").uplot;
          const { width, height } = u.ctx.canvas, { data } = u.ctx.getImageData(0, 0, width, height);
          return [2, 3.5, 5].map((step) => {
            const x = Math.round(u.valToPos(step, "x", true)), y = Math.round(u.valToPos(step / 8, "y", true));
            return [...data.slice(4 * (width * y + x), 4 * (width * y + x) + 3)];
          });
        }"""
    )
    first, between, last = pixels
    assert first == last == pytest.approx([0, 114, 178], abs=3) and between != first
    assert page.locator("#chart-entropy-cut-off .number").all_inner_texts() == ["0.625"]
    assert page.locator("#chart-entropy-cut-off .readout").inner_text() == "last values (step 5)"
    assert page.locator("#chart-entropy-outcome .readout").inner_text() == "last values"
    assert page.locator("#chart-entropy-outcome .number").all_inner_texts() == ["0.250", "0.500 (step 6)"]


def test_the_last_step_is_written_whole(visit, tmp_path):
    """The ink of the x axis' last number ends before the edge of the canvas."""
    folder = write_run(tmp_path / "a", steps=1)
    last = json.dumps(record(3000))
    (folder / "metrics.jsonl").write_text((folder / "metrics.jsonl").read_text() + last + "\n")
    assert main([str(folder)]) == 0
    page = visit(folder / "report.html", width=390)
    inked = page.evaluate(
        f"""() => {{
          const u = {ENTROPY}.uplot, {{ width, height }} = u.ctx.canvas, top = u.bbox.top + u.bbox.height + 2;
          const {{ data }} = u.ctx.getImageData(width - 12, top, 12, height - top);
          const rows = [...Array(data.length / 48).keys()];
          return [...Array(12).keys()].map((x) => rows.some((y) => data[4 * (12 * y + x) + 3] > 0));
        }}"""
    )
    assert any(inked) and not inked[-1]


def test_reading_with_the_mouse(visit, file):
    page = visit(file)
    box = page.locator("#chart-entropy .u-over").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 50)
    chart = page.locator("#chart-entropy")
    assert chart.locator(".readout").inner_text() == "training step 4"
    shown = chart.locator(".number").all_inner_texts()
    assert shown == ["0.438", "0.537", "0.600", "0.480"]
    assert chart.locator(".u-cursor-pt:not(.u-off)").count() == 4, "a dot on each line"
    assert page.locator("#chart-entropy-where").count() == 0 and page.locator("#chart-penalty").count() == 1
    assert page.locator("#chart-penalty .readout").inner_text() == "training step 4", "all charts show the same step"


def test_every_minus_is_one(visit, file):
    found = visit(file).evaluate("[-4.09e-5, -2.5e6, -3, -0.25, 4.09e-5].map(shown)")
    assert found == ["−4.09 e−5", "−2.50 e+6", "−3", "−0.250", "4.09 e−5"]


def test_reading_with_the_keyboard(visit, file):
    page = visit(file)
    chart = page.get_by_role("group", name=re.compile("^Token entropy .nats. over training step: all tokens, H"))
    chart.focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#chart-entropy .readout").inner_text() == "training step 1"
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    assert page.locator("#chart-entropy .readout").inner_text() == "training step 7"
    spoken = page.locator("#spoken").inner_text()
    assert spoken.startswith("training step 7: all tokens 0.391, H\u0304, selected positions 0.491, anchor 0.600")
    page.keyboard.press("Escape")
    assert page.locator("#chart-entropy .readout").inner_text() == "last values"


def test_everything_can_be_reached_with_tab(visit, file):
    page = visit(file)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the charts"
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.className"))
    assert {"theme", "plot", "smoothing", "c0"} <= reached
    unnamed = """[...document.querySelectorAll("button, select, a, summary, [tabindex='0']")].filter((one) =>
      !(one.textContent.trim() || one.ariaLabel || one.labels?.length)).map((one) => one.outerHTML)"""
    assert page.evaluate(unnamed) == []


@pytest.mark.parametrize("system", ["light", "dark"])
def test_the_theme_is_the_systems_until_it_is_chosen(visit, file, system):
    page = visit(file, theme=system)
    check_theme(page, system, "COLOURS.paper")
    page.emulate_media(color_scheme=OTHER_THEME[system])
    page.emulate_media(color_scheme=system)
    assert page.evaluate(BACKGROUND) == PAPER[OTHER_THEME[system]], "the reader's choice stays"


def test_paper_is_light(visit, file):
    page = visit(file, theme="dark")
    theme = "[COLOURS.paper, Chart.all.every((chart) => chart.uplot)]"
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(theme) == [PAPER["light"], True], "and every chart is drawn"
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(theme)[0] == PAPER["dark"]


@pytest.mark.parametrize("width", [320, 768])
def test_narrow_windows(visit, file, width):
    page = visit(file, width=width)
    drawn(page)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.set_viewport_size({"width": 1000, "height": 900})
    page.wait_for_function(f"{ENTROPY}.uplot.width > 800")


def test_a_hostile_response_is_text(visit, file):
    page = visit(file)
    assert page.locator("#examples pre").nth(1).inner_text() == HOSTILE
    page.get_by_label("Step", exact=True).select_option(label="step 8")
    assert page.locator("#examples pre").nth(1).inner_text() == HOSTILE
    assert page.evaluate("[window.harmed ?? null, document.images.length]") == [None, 0]
    assert page.locator("script").count() == 3


def test_the_table_beside_a_chart(visit, file):
    page = visit(file)
    page.locator("#chart-entropy summary").click()
    rows = page.locator("#chart-entropy tbody tr")
    assert page.locator("#chart-entropy thead th").all_inner_texts()[:2] == ["training step", "all tokens"]
    assert rows.count() == 8
    assert rows.nth(2).locator("th, td").all_inner_texts() == ["3", "0.453125", "0.553125", "0.6", "0.48"]


def test_the_csv_file(visit, file):
    page = visit(file)
    with page.expect_download() as download:
        page.get_by_role("button", name="Save Accuracy as CSV").click()
    assert download.value.suggested_filename == "avg.csv"
    text = download.value.path().read_text(encoding="utf-8")
    assert text == '"training step","avg@4"\n0,25\n4,37.5\n8,50\n'


def test_lines_can_be_hidden(visit, file):
    page = visit(file)
    button = page.locator("#chart-entropy").get_by_role("button", name=re.compile("^anchor"))
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert page.evaluate(f"{ENTROPY}.uplot.series.map((one) => one.show)") == [True, True, True, False, True]


def test_zoom(visit, file):
    page = visit(file)
    box = page.locator("#chart-entropy .u-over").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + 60)
    page.mouse.up()
    window = f"(({{ min, max }}) => [min, max])({ENTROPY}.uplot.scales.x)"
    assert page.evaluate(window) == pytest.approx([4, 6], abs=0.1)
    assert page.evaluate("Chart.all.find((chart) => chart.spec.id === 'penalty').uplot.scales.x.min") > 3.9
    page.locator("#chart-entropy").get_by_role("button", name="All steps").click()
    assert page.evaluate(window) == [0, 8]


def test_any_metric(visit, file):
    page = visit(file)
    page.get_by_label("Metric", exact=True).select_option("actor/grad_norm")
    assert page.locator("#chart-explore h3").inner_text() == "actor/grad_norm"
    drawn(page)
    assert page.evaluate("Chart.all.find((c) => c.spec.id === 'actor_grad_norm').uplot.data") == [
        list(range(1, 9)),
        [0.5] * 8,
    ]


def test_several_runs_with_gaps(visit, tmp_path):
    first = write_run(tmp_path / "a-seed0", steps=400)
    write_run(tmp_path / "a-seed1", steps=400, seed=1)
    write_run(tmp_path / "b", steps=400, last=300, other=1, method=None)
    text = (tmp_path / "b" / "metrics.jsonl").read_text().splitlines()
    text[50] = json.dumps({"step": 50, "actor/entropy": None})
    del text[60]
    (tmp_path / "b" / "metrics.jsonl").write_text("\n".join(text) + '\n{"step": 301, "act')
    assert main([str(first), *(str(tmp_path / n) for n in ("a-seed1", "b")), "--output", str(tmp_path / "o.html")]) == 0
    page = visit(tmp_path / "o.html")
    drawn(page)
    steps, high, low, mean, other = page.evaluate(f"{ENTROPY}.uplot.data")
    assert steps == list(range(1, 401))
    assert (low[0], mean[0], high[0]) == (0.484375, 0.489375, 0.494375)
    assert other[48] == rounded(record(49)["actor/entropy"]) and other[49] is None and other[59] is None
    assert page.get_by_text("the last line of metrics.jsonl is incomplete").count() == 1
    page.get_by_label("Smoothing").select_option("10 steps")
    smooth = page.evaluate(f"{ENTROPY}.values[0]")
    assert smooth[9] == pytest.approx(sum(mean[:10]) / 10) and smooth[0] == mean[0]
    assert page.locator("#chart-entropy .readout").inner_text() == "last values, means of 10 steps"
    page.locator("#groups").get_by_role("button", name="b").click()
    assert page.evaluate(f"{ENTROPY}.uplot.series.slice(1).map((one) => one.show)") == [True] * 4 + [False] * 2


def test_six_long_runs(visit, tmp_path):
    folders = [str(write_run(tmp_path / f"run{i}", steps=400, other=i)) for i in range(6)]
    assert main([*folders, "--output", str(tmp_path / "o.html")]) == 0
    assert (tmp_path / "o.html").stat().st_size < 10e6
    page = visit(tmp_path / "o.html")
    drawn(page)
    assert page.locator("#chart-entropy .legend li").count() == 6
    assert f"{SOURCE}/avg@4" in page.locator("#runs").inner_text()


def test_an_empty_run(visit, tmp_path):
    (tmp_path / ".paec_folder.json").write_text('{"kind": "run"}')
    assert main([str(tmp_path)]) == 0
    page = visit(tmp_path / "report.html")
    assert page.locator("figure canvas").count() == 0
    assert "no step was recorded" in page.locator("header").inner_text()


PLANE = "Chart.all.find((chart) => chart.spec.id === 'plane')"


@pytest.fixture(scope="module")
def plane(tmp_path_factory):
    """The report of two runs: the second stopped earlier."""
    folder = tmp_path_factory.mktemp("plane")
    grpo = {"method": "none"}
    runs = write_run(folder / "a", identity=grpo), write_run(folder / "b", seed=3, other=1, last=6)
    assert main([*map(str, runs), "--output", str(folder / "both.html")]) == 0
    return folder / "both.html"


def test_the_plane_is_a_path_of_each_run(visit, plane):
    """Its dots are where the validations are: pixels in the colour of the run, at the ends several wide."""
    page = visit(plane)
    assert page.locator("main section").first.get_attribute("id") == "plane"
    found = page.evaluate(
        f"""() => {{
          const u = {PLANE}.uplot, {{ width, height }} = u.ctx.canvas;
          const {{ data }} = u.ctx.getImageData(0, 0, width, height);
          const at = (x, y, dx = 0) => {{
            const place = Math.round(u.valToPos(y, "y", true)) * width + Math.round(u.valToPos(x, "x", true)) + dx;
            return [...data.slice(4 * place, 4 * place + 4)];
          }};
          return [at(25, 45), at(50, 70, 4), at(40.5, 60.5, -4)];
        }}"""
    )
    blue, orange = [0, 114, 178, 255], [213, 94, 0, 255]
    assert found == [pytest.approx(colour, abs=3) for colour in (blue, blue, orange)]


def test_reading_the_plane(visit, plane):
    """Pointer and keyboard name a validation, for both axes at once."""
    page = visit(plane)
    chart = page.locator("#chart-plane")
    assert chart.locator(".number").all_inner_texts() == ["50.0, 70.0", "40.5, 60.5"]
    assert chart.locator(".readout").inner_text() == "avg@4, pass@4: last validations"
    box = chart.locator(".u-over").bounding_box()
    x, y = page.evaluate(f"[{PLANE}.uplot.valToPos(25, 'x'), {PLANE}.uplot.valToPos(45, 'y')]")
    page.mouse.move(box["x"] + x + 3, box["y"] + y - 3)
    assert chart.locator(".readout").inner_text() == "avg@4, pass@4: training step 0"
    assert chart.locator(".number").all_inner_texts() == ["25.0, 45.0", "28.0, 48.0"]
    page.get_by_role("group", name=re.compile("^pass@4 over avg@4 .%., a path over the validations: a, b")).focus()
    page.keyboard.press("End")
    assert page.locator("#spoken").inner_text() == "training step 8, avg@4 and pass@4: a 50.0, 70.0; b –"
    page.keyboard.press("ArrowLeft")
    assert chart.locator(".readout").inner_text() == "avg@4, pass@4: training step 4"
    page.keyboard.press("Escape")
    assert chart.locator(".readout").inner_text() == "avg@4, pass@4: last validations"


def test_the_numbers_of_the_plane(visit, plane):
    page = visit(plane)
    page.locator("#chart-plane summary").click()
    table = page.locator("#chart-plane table")
    assert table.locator("thead th").all_inner_texts() == [
        "training step",
        *("a, avg@4", "a, pass@4", "b, avg@4", "b, pass@4"),
    ]
    assert table.locator("tbody tr").nth(2).locator("th, td").all_inner_texts() == ["8", "50", "70", "–", "–"]


@pytest.mark.parametrize("width", [390, 1280])
def test_the_plane_is_square(visit, plane, width):
    page = visit(plane, width=width, theme="dark")
    sizes = page.evaluate(f"[{PLANE}.uplot.over.clientWidth, {PLANE}.uplot.over.clientHeight]")
    assert sizes[0] > 270 and sizes[1] == pytest.approx(sizes[0], rel=0.1)
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_a_run_can_be_hidden_in_the_plane(visit, plane):
    page = visit(plane)
    page.locator("#groups button").first.click()
    assert page.evaluate(f"[{PLANE}.points(0).length, {PLANE}.points(1).length]") == [0, 2]
    assert (
        page.locator("#chart-plane").get_by_role("button", name=re.compile("^a")).get_attribute("aria-pressed")
        == "false"
    )
