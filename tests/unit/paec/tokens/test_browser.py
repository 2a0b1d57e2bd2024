"""The page in a real browser: Debian's chromium, headless, opening the file from the disk."""

from __future__ import annotations

import json
import re
import time

import pytest
from pages import HOSTILE, IN_A_BROWSER, check_theme
from token_records import record_of, reported, response_of, write_recorded_run

from recipe.paec.tokens.command import content_of, main
from recipe.paec.tokens.settings import read_request
from recipe.paec.tokens.views import view_of

pytestmark = IN_A_BROWSER
COLOURS = {
    ("light", ""): (242, 163, 60),
    ("light", "down"): (125, 184, 234),
    ("dark", ""): (160, 90, 8),
    ("dark", "down"): (31, 95, 153),
}
"""The colour of a full weight, above and below the neutral one."""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two recorded steps; the first response of the second step is hostile."""
    first, second = record_of(1), record_of(2)
    texts = ["So", HOSTILE, *second.responses[0].texts[2:]]
    hostile = response_of(second.responses[0].uid, 30, 20, texts=texts)
    second = record_of(2, [hostile, *second.responses[1:]])
    return write_recorded_run(tmp_path_factory.mktemp("runs") / "mine", first, second)


@pytest.fixture(scope="module")
def file(run, tiny_files):
    """A page of both steps, also read by the tiny model."""
    assert main([str(run), "1", "2", f"model={tiny_files / 'model'}"]) == 0
    return run / "tokens.html"


@pytest.fixture(scope="module")
def content(run, tiny_files):
    return content_of(read_request([str(run), "1", "2", f"model={tiny_files / 'model'}"]))


def tokens(page):
    return page.locator(".text").first.locator(".t")


def painted(page, i: int) -> tuple[list[float], float]:
    """([red, green, blue] in [0, 255], opacity) of a token's background."""
    text = tokens(page).nth(i).evaluate("(one) => getComputedStyle(one).backgroundColor")
    values = [float(v) for v in re.findall(r"[\d.]+(?:e-\d+)?", text.replace("srgb", ""))]
    if text.startswith("color("):
        values = [255 * v for v in values[:3]] + values[3:]
    return values[:3], values[3] if len(values) > 3 else 1.0


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", ["paec (this run)", "forking_tokens", "steer", "clip_cov"])
def test_the_colours_are_the_weights(visit, file, content, theme, name):
    page = visit(file, theme=theme)
    page.get_by_label("Method").select_option(label=name)
    (named,) = [one for one in content.methods if one.name == name]
    weights = view_of(named, content.sources[0], content.responses).weights
    # The scale is that of the whole page: all sources.
    views = [view_of(named, source, content.responses) for source in content.sources]
    largest = max((v.weights.values - weights.neutral).abs().max().item() for v in views if v.weights is not None)
    if weights.neutral == 0 and largest <= 1:
        largest = 1.0
    seen = 0
    for i in range(30):
        over = weights.values[0, i].item() - weights.neutral
        colour, opacity = painted(page, i)
        assert opacity == pytest.approx(abs(over) / largest if largest else 0.0, abs=2e-3), i
        if opacity > 0.02:
            seen += 1
            assert colour == pytest.approx(COLOURS[theme, "down" if over < 0 else ""], abs=1.5)
    assert seen > 0 or name == "clip_cov"


def test_the_details_are_the_numbers(visit, file, content):
    page = visit(file)
    tokens(page).nth(7).hover()
    shown = dict(
        row.locator("th, td").all_inner_texts() for row in page.locator("#token table").first.locator("tr").all()
    )
    record = content.sources[0].statistics[0.8]
    view = view_of(content.methods[0], content.sources[0], content.responses)
    assert page.locator("#token .text-of").inner_text() == json.dumps(content.responses[0].texts[7])
    expected = {
        "probability": record.log_prob[0, 7].exp(),
        "entropy, nats": record.entropy[0, 7],
        "nucleus entropy, nats": record.nucleus_entropy[0, 7],
        "nucleus size": record.nucleus_size[0, 7],
        "nucleus mass": record.nucleus_mass[0, 7],
        "weight": view.weights.values[0, 7],
        "score": view.score[0, 7],
        "threshold": view.threshold[0],
        "advantage": 1.0,
    }
    assert {"normalised nucleus entropy", "competition", *expected} == {*shown}
    for label, value in expected.items():
        assert float(shown[label].replace("\u2212", "-")) == pytest.approx(float(value), rel=6e-3, abs=1e-6), label


def test_numbers_have_three_digits(visit, file):
    expected = {
        **{1.1309: "1.13", -1.1309: "\u22121.13", 1.5: "1.50", 9.996: "10", 12.34: "12.3", 123.4: "123", 2: "2"},
        **{0.5: "0.500", 0.11309: "0.113", 0.0012349: "0.00123"},
    }
    assert visit(file).evaluate(f"{list(expected)}.map(number)") == list(expected.values())


def test_reading_with_the_keyboard(visit, file, content):
    page = visit(file)
    page.get_by_role("listbox", name=re.compile("^Tokens of step 1, prompt 1, response 1, step 1")).focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert page.locator(".at").evaluate("(one) => one.id") == "t0-3"
    spoken = page.locator("#spoken").inner_text()
    assert re.match(r".+, token 4: probability .+, entropy, nats .+, weight .+, threshold .+", spoken)
    weights = view_of(content.methods[0], content.sources[0], content.responses).weights.values[0]
    selected = [i for i in range(30) if weights[i] > 1e-3]
    page.keyboard.press("Home")
    for i in [j for j in selected if j > 0]:
        page.keyboard.press("ArrowDown")
        assert page.locator(".at").evaluate("(one) => one.id") == f"t0-{i}"
    page.keyboard.press("End")
    assert page.locator("#token .note").first.inner_text() == "token 30 of 30"
    assert page.locator(".text").first.get_attribute("aria-activedescendant") == "t0-29"


def test_switching_the_method_keeps_the_place(visit, file):
    page = visit(file)
    tokens(page).nth(5).click()
    before = page.locator("#token table").first.inner_text()
    page.get_by_label("Method").select_option(label="forking_tokens")
    assert page.locator(".at").evaluate("(one) => one.id") == "t0-5"
    assert page.locator("#token table").first.inner_text() != before
    assert page.locator("#about").inner_text().startswith("forking_tokens: The surrogate's mean over the ceil(rho N)")
    assert "1: in the policy loss, 0: left out" in page.locator("#legend").inner_text()


def test_two_policies_on_the_same_response(visit, file, content):
    page = visit(file)
    page.get_by_label("Beside it").select_option(label="the same, model")
    assert page.locator(".text").count() == 2
    tokens(page).nth(4).hover()
    assert page.locator(".at").count() == 2, "in both"
    heads = page.locator("#token thead th").all_inner_texts()
    assert heads == ["step 1", "model"]
    assert page.locator(".candidates caption").all_inner_texts() == ["Candidates, model"]
    assert page.locator(".candidates tr").count() == 5
    row = page.locator("#token table").first.locator("tr", has_text="entropy, nats").first
    values = [float(text) for text in row.locator("td").all_inner_texts()]
    expected = [source.statistics[0.8].entropy[0, 4].item() for source in (content.sources[0], content.sources[2])]
    assert values == pytest.approx(expected, rel=6e-3)


def test_another_response_beside_it(visit, file):
    page = visit(file)
    page.get_by_label("Beside it").select_option(label="step 1, prompt 1, response 2, step 1")
    assert page.locator(".pane h3").all_inner_texts() == [
        "step 1, prompt 1, response 1 \u00b7 step 1",
        "step 1, prompt 1, response 2 \u00b7 step 1",
    ]
    page.locator(".text").nth(1).locator(".t").nth(33).hover()
    assert page.locator(".at").count() == 1
    assert page.locator("#token .note").first.inner_text() == "token 34 of 35"


def test_filters(visit, file):
    page = visit(file)
    entries = page.locator("#responses button")
    assert entries.count() == 4 and page.locator("#count").inner_text() == "4 of 8", "those of the first step"
    page.get_by_label("Graded", exact=True).select_option("wrong")
    assert entries.count() == 2 and all("wrong (0)" in text for text in entries.all_inner_texts())
    assert page.locator(".pane h3").inner_text().startswith("step 1, prompt 1, response 2")
    page.get_by_label("Graded", exact=True).select_option("all")
    masses = [float(re.search(r"mass ([\d.]+) %", text)[1]) for text in entries.all_inner_texts()]
    edge = int(sorted(masses)[1]) + 1
    page.locator("#mass").fill(str(edge))
    assert entries.count() == sum(mass >= edge for mass in masses) > 0
    page.locator("#mass").fill("100")
    assert page.locator("#count").inner_text() == "0 of 8"


def test_the_most_selected_tokens(visit, file, content):
    page = visit(file)
    weights = view_of(content.methods[0], content.sources[0], content.responses).weights.values
    counts: dict[str, int] = {}
    for row, response in enumerate(content.responses[:4]):
        for i, text in enumerate(response.texts):
            counts[text] = counts.get(text, 0) + int(weights[row, i] > 1e-3)
    found = {
        row.locator("th").inner_text(): int(row.locator("td").first.inner_text())
        for row in page.locator("#often tbody tr").all()
    }
    names = {text.replace("\n", "\\n"): count for text, count in counts.items() if count}
    assert found == {f'"{text}"': count for text, count in names.items()}
    assert [*found.values()] == sorted(found.values(), reverse=True)


def test_where_in_the_response(visit, file, content):
    page = visit(file)
    weights = view_of(content.methods[0], content.sources[0], content.responses).weights.values
    tenths = [0.0] * 10
    for row, response in enumerate(content.responses[:4]):
        length = len(response.texts)
        for i in range(length):
            for tenth in range(10):
                covered = min(10 * i + 10, (tenth + 1) * length) - max(10 * i, tenth * length)
                tenths[tenth] += weights[row, i].item() * max(0, covered) / 10
    label = page.get_by_role("img").get_attribute("aria-label")
    shares = [float(text) for text in re.findall(r"([\d.]+) %", label)]
    assert shares == pytest.approx([100 * one / sum(tenths) for one in tenths], abs=0.15)


def test_where_vllm_and_the_actor_disagree(visit, tmp_path):
    """Coloured and counted above 0.01 nats, with its sign; a token of a tool has no number."""
    texts = ["so", " tool", " up", " down", " near"]
    one = response_of("000001-000000_0_0", 5, texts=texts)
    one.statistics["log_prob"][:] = -4  # float16 has these numbers and their sums with the differences
    one = reported(one, [0.0, float("nan"), 0.5, -2.0, 0.00390625])
    folder = write_recorded_run(tmp_path / "mine", record_of(1, [one]))
    assert main([str(folder)]) == 0
    page = visit(folder / "tokens.html")
    rows = page.locator("#token table").first.locator("tr")

    def seen(i):
        tokens(page).nth(i).hover()
        return dict(row.locator("th, td").all_inner_texts() for row in rows.all())

    assert float(seen(2)["vLLM minus actor, nats"]) == 0.5
    assert "weight" in seen(2) and "vLLM minus actor, nats" not in seen(1)
    page.get_by_label("Method").select_option(label="vLLM minus actor")
    assert [painted(page, i)[1] for i in range(5)] == pytest.approx([0, 0, 0.25, 1, 0], abs=2e-3)
    assert painted(page, 2)[0] == pytest.approx(COLOURS["light", ""], abs=1.5)
    assert painted(page, 3)[0] == pytest.approx(COLOURS["light", "down"], abs=1.5)
    assert tokens(page).nth(3).get_attribute("aria-label") == "down, difference \u22122"
    assert "weight" not in seen(3) and "threshold" not in seen(3)
    assert page.locator("#legend span").first.inner_text() == "nats, 0: they agree"
    assert page.locator("#responses small").inner_text() == "5 tokens, apart by 0.626 nats"
    assert page.locator("#mass").is_disabled()
    names = page.locator("#often tbody th").all_inner_texts()
    assert names == ['" down"', '" up"']
    assert page.locator("#often-where").inner_text() == "the two differ by more than 0.01 nats"
    page.locator(".text").first.focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowDown")
    assert page.locator(".at").evaluate("(one) => one.id") == "t0-2"


def test_what_is_missing_is_reported(visit, file):
    page = visit(file)
    page.get_by_label("Policy").select_option(label="model")
    assert page.locator("#count").inner_text() == "8 of 8"
    assert page.locator("#reason").is_hidden()


def test_a_method_without_weights(visit, run, tmp_path):
    assert main([str(run), "methods=seed_grpo", f"output={tmp_path / 'o.html'}"]) == 0
    page = visit(tmp_path / "o.html")
    page.get_by_label("Method").select_option(label="seed_grpo")
    assert page.locator("#reason").inner_text() == (
        "seed_grpo has no weights for these tokens: it needs which answers are equivalent."
    )
    assert painted(page, 3)[1] == 0.0
    assert page.locator("optgroup").last.get_attribute("label") == "Without weights here"


def test_a_hostile_response_is_text(visit, file):
    page = visit(file)
    page.get_by_label("Policy").select_option(label="step 2")
    assert tokens(page).nth(1).inner_text() == HOSTILE
    tokens(page).nth(1).hover()
    assert page.evaluate("[window.harmed ?? null, document.images.length]") == [None, 0]
    assert page.locator("script").count() == 2


@pytest.mark.parametrize("system", ["light", "dark"])
def test_the_theme_is_the_systems_until_it_is_chosen(visit, file, system):
    page = visit(file, theme=system)
    check_theme(page, system)


def test_everything_has_a_name(visit, file):
    page = visit(file)
    unnamed = """[...document.querySelectorAll("button, select, input, a, summary, [tabindex='0']")].filter((one) =>
      !(one.ariaLabel || one.labels?.length || one.textContent.trim())).map((one) => one.outerHTML)"""
    assert page.evaluate(unnamed) == []
    reached = set()
    for _ in range(25):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.className"))
    assert {"skip", "theme", "method", "source", "beside", "score", "mass", "text"} <= reached


@pytest.mark.parametrize("width", [320, 768])
def test_narrow_windows(visit, file, width):
    page = visit(file, width=width)
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_fifty_responses_and_eight_methods(browser, tmp_path):
    """Of 1,000 tokens each: below 10 MB, open within 2 s. The best of four tries: the machine may be busy."""
    responses = [
        response_of(f"000001-{n // 8:06d}_{n % 8}_0", 1000, n, float(n % 2), 1 - 2.0 * (n % 2)) for n in range(50)
    ]
    folder = write_recorded_run(tmp_path / "large", record_of(1, responses))
    assert main([str(folder)]) == 0
    file = folder / "tokens.html"
    assert file.stat().st_size < 10e6
    times = []
    for _ in range(4):
        page = browser.new_page()
        started = time.perf_counter()
        page.goto(file.as_uri())
        page.wait_for_selector("html[data-ready]")
        times.append(time.perf_counter() - started)
        assert page.locator("#responses button").count() == 50 and page.locator("#method option").count() == 8
        page.close()
    assert min(times) < 2, times
