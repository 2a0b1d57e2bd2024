"""What the tests of HTML pages share: a browser's program, hostile text, and the check of a page's policy."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil

import pytest

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
IN_A_BROWSER = [
    pytest.mark.browser,
    pytest.mark.skipif(PROGRAM is None, reason="needs a browser: apt-get install chromium"),
]
"""Marks of a module whose tests use the fixture `browser`."""
HOSTILE = '</script><img src=x onerror="window.harmed = 1"><script>window.harmed = 1</script>'


def check_policy(page: str) -> None:
    """The content security policy allows exactly the scripts and styles of the page, and there are no others."""
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    policy = policy.replace("&#39;", "'")
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy and "http" not in policy
    allowed = dict(part.split(" ", 1) for part in policy.split("; "))

    def hashes(pattern):
        found = re.findall(pattern, page, re.S)
        return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(t.encode()).digest()).decode()}'" for t in found)

    assert allowed["script-src"] == hashes(r"<script>(.*?)</script>")
    assert allowed["style-src"] == hashes(r"<style>(.*?)</style>")
    assert not re.search(r"\son\w+=|\sstyle=|javascript:", re.sub(r"<script.*?</script>", "", page, flags=re.S))


PAPER = {"light": "rgb(253, 253, 251)", "dark": "rgb(20, 23, 26)"}
"""Theme -> background of a page."""
OTHER_THEME = {"light": "dark", "dark": "light"}
BACKGROUND = "getComputedStyle(document.body).backgroundColor"


def check_theme(page, system: str, *scripts: str) -> None:
    """A page has the system's theme until the reader chooses the other one, which is then chosen.

    Args:
        page: in a browser whose system has the theme `system`.
        scripts: expressions whose value is the background, beside the page's own.
    """
    for theme in (system, OTHER_THEME[system]):
        if theme != system:
            page.get_by_role("button", name="Dark theme").click()
        assert [page.evaluate(script) for script in (BACKGROUND, *scripts)] == [PAPER[theme]] * (1 + len(scripts))
        assert page.locator("#theme").get_attribute("aria-pressed") == str(theme == "dark").lower()
