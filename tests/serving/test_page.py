"""The pages in a real browser, at the size of a screen and of a phone: what is drawn, what is downloaded, what is said.

Needs playwright and the system's Chromium (Debian: `apt install chromium`).
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import PIL.Image
import pytest

import internimage as ii
from internimage.checkpoints.catalog import BUNDLED
from internimage.visualize import distinct_color
from tests.serving.conftest import CLASSIFIER, DETECTOR, SEGMENTOR, Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="playwright is not installed"),
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]
SCENE = BUNDLED / "pictures" / "closet_scene.jpg"
BAG = BUNDLED / "pictures" / "fashion_0018_bag.png"
SIZES = {"screen": (1280, 860), "phone": (360, 740)}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=SIZES)
def page(browser: Browser, server: Server, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page, which must neither complain nor ask for anything outside, nor be wider than the window."""
    width, height = SIZES[request.param]
    context = browser.new_context(viewport={"width": width, "height": height}, accept_downloads=True)
    page = context.new_page()
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    asked: list[str] = []
    page.on("request", lambda sent: asked.append(sent.url))
    page.goto(server.address)
    page.wait_for_selector("#model option:nth-child(3)", state="attached")
    yield page
    assert all(url.startswith((server.address, "blob:")) for url in asked)
    assert [problem for problem in problems if "415" not in problem] == []
    box = page.locator("main, article").bounding_box()
    assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= width
    context.close()


def show(page: Page, model: str, image: Path) -> None:
    page.select_option("#model", model)
    page.set_input_files("#file", str(image))
    page.wait_for_selector("#save-json:enabled")
    page.wait_for_selector("#busy", state="hidden")


def downloaded(page: Page, button: str) -> Path:
    with page.expect_download() as download:
        page.click(button)
    return download.value.path()


def legend(page: Page) -> list[str]:
    return page.locator("#legend button span:nth-child(2)").all_inner_texts()


def pixels(page: Page) -> np.ndarray:
    return np.asarray(PIL.Image.open(downloaded(page, "#save-png")).convert("RGB")).astype(int)


def test_classes_are_listed_with_their_probabilities(page: Page, server: Server) -> None:
    show(page, CLASSIFIER, BAG)
    [row] = server.rows(CLASSIFIER, BAG)
    assert legend(page) == [entry["name"] for entry in row["top"]]
    assert page.inner_text("#summary") == "Most probable: Bag"
    assert json.loads(downloaded(page, "#save-json").read_text()) == {"model": CLASSIFIER, "predictions": [row]}


def test_boxes_and_masks_are_drawn_from_a_score_on(page: Page) -> None:
    show(page, "closet", SCENE)
    [result] = ii.load(DETECTOR).predict([SCENE])
    seen = result.filter(score_threshold=0.3)
    assert sorted(legend(page)) == sorted(set(seen.names))
    before = np.asarray(PIL.Image.open(SCENE)).astype(int)
    drawn = pixels(page)
    assert drawn.shape == before.shape
    for mask, label in zip(seen.masks.numpy(), seen.labels.tolist(), strict=True):
        painted = (before + np.array(distinct_color(label))) / 2
        assert np.median(np.abs(drawn - painted)[mask]) <= 2  # but for boxes, names and other objects
    untouched = ~seen.masks.any(0).numpy()
    assert np.median(np.abs(drawn - before)[untouched]) == 0
    page.fill("#threshold", "100")
    assert page.inner_text("#summary").startswith("0 objects of")
    assert np.abs(pixels(page) - before).max() <= 1


def test_label_maps_are_drawn_and_classes_can_be_hidden(page: Page) -> None:
    show(page, SEGMENTOR, SCENE)
    [result] = ii.load(SEGMENTOR).predict([SCENE])
    assert legend(page) == [name for name, _ in result.areas()]
    before = np.asarray(PIL.Image.open(SCENE)).astype(int)
    labels = result.label_map.numpy()
    painted = np.stack([distinct_color(i) for i in range(result.num_classes)])[labels]
    is_garment = labels > 0
    page.fill("#opacity", "100")
    drawn = pixels(page)
    assert np.abs(drawn - painted)[is_garment].max() <= 1
    assert np.abs(drawn - before)[~is_garment].max() <= 1  # the background is hidden at first
    for name in legend(page)[1:]:  # the first is the background
        page.click(f"#legend button:has-text('{name}')")
    assert np.abs(pixels(page) - before).max() <= 1


def test_what_is_no_image_is_said(page: Page, tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("no image")
    page.set_input_files("#file", str(tmp_path / "notes.jpg"))
    page.wait_for_selector("#message:visible")
    assert "no image of a known format" in page.inner_text("#message")
    show(page, CLASSIFIER, BAG)
    assert not page.is_visible("#message")


def test_the_api_is_described(page: Page, server: Server) -> None:
    page.goto(f"{server.address}/docs")
    page.wait_for_selector("article section")
    text = page.inner_text("article")
    assert "POST /v1/models/{name}/predict" in text and "score_threshold" in text and "Retry-After" in text
