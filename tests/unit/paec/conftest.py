"""Fixtures of several rooms."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf, open_dict
from pages import PROGRAM

BASE: list[DictConfig] = []
"""The quick start's configuration, composed once: it takes a second."""


@pytest.fixture
def tiny_config(compose, tiny_files, tmp_path, monkeypatch):
    """tiny_config(*overrides, root=folder) -> the quick start's resolved configuration, with single keys changed."""

    def make(*overrides: str, root: Path = tmp_path / "runs") -> DictConfig:
        monkeypatch.setenv("PAEC_TINY_DIR", str(tiny_files))
        if not BASE:
            BASE.append(compose())
        config = BASE[0].copy()
        with open_dict(config):
            for override in overrides:
                key, _, value = override.partition("=")
                OmegaConf.update(config, key, yaml.safe_load(value))
            config.run.root, config.run.directory = str(root), str(root / "tiny")
            config.trainer.default_local_dir = str(root / "tiny" / "checkpoints")
        return config

    return make


@pytest.fixture
def model(tiny_files, tmp_path):
    """A copy of the tiny model, to be changed."""
    shutil.copytree(tiny_files / "model", tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def scored(tiny_files, tmp_path):
    """A copy of the tiny training file with scores: row i has i / 100."""
    from recipe.paec.curriculum import prompt_scores

    path = tmp_path / "train.semantic_entropy.parquet"
    prompt_scores.write_scores(
        tiny_files / "data" / "train.parquet", path, {i: i / 100 for i in range(64)}, {"seed": 1}
    )
    return path


@pytest.fixture(scope="module")
def browser():
    """Debian's chromium, headless, for modules with the marks `pages.IN_A_BROWSER`."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: bash launch/setup_env.sh cpu")
    with playwright.sync_playwright() as started:
        # Without its own sandbox, which root may not use; the pages are ours.
        opened = started.chromium.launch(executable_path=PROGRAM, args=["--no-sandbox", "--no-proxy-server"])
        yield opened
        opened.close()


@pytest.fixture
def visit(browser):
    """visit(file, width=..., theme=...) -> its page; at the end nothing must have been printed, asked for or failed."""
    pages, heard = [], []

    def opened(file, width=1280, theme="light"):
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
        pages.append(page)
        page.on("console", lambda message: heard.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: heard.append(f"error: {error}"))
        page.on("dialog", lambda dialog: heard.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: heard.append(request.url) if request.url != file.as_uri() else None)
        page.goto(file.as_uri())
        page.wait_for_selector("html[data-ready]")
        return page

    yield opened
    for page in pages:
        page.close()
    assert heard == []
