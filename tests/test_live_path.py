"""Images and texts on a slider: every frame is the one it should be, and the slider is the reader's."""

import base64
import io
import json

import numpy as np
import pytest
import torch
from browsing import CHROMIUM, FLAGS, WIDTHS, check_that_paper_shows_the_still
from matplotlib.figure import Figure
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from logitflow import live
from logitflow.data.images import to_bytes

PATIENCE = 60_000  # milliseconds, on a busy machine
STEPS = 6
WAIT = 450  # milliseconds from frame to frame
FIGURES = [{"Step": f"{k} of 50", "Mean logit": f"{k}.5"} for k in range(0, 10 * STEPS, 10)]
TEXTS = [
    ["the cat", "a\\b </script> $1$"],
    *[[f"the c{k}t", "a\\b </script> $1$"] for k in range(1, STEPS)],
]


def shade(step, latent):
    """A colour for each step and latent, as bytes."""
    return [40 * step, 50 * latent, 200]


def images():
    """Six steps of five images of 4×4 pixels, each of one colour."""
    colours = torch.tensor([[shade(k, i) for i in range(5)] for k in range(STEPS)]).float()
    pixels = (colours / 127.5 - 1)[..., None, None].expand(-1, -1, 3, 4, 4)
    return list(pixels)


def shown(monkeypatch, show, frames, **environment):
    """What a notebook is given to show."""
    outputs = []
    monkeypatch.setattr("IPython.display.display", outputs.append)
    monkeypatch.delenv("LOGITFLOW_STILL", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    show(frames, FIGURES, "latents on their way")
    (output,) = outputs
    return output


def test_one_file_holds_every_image(monkeypatch):
    widget = shown(monkeypatch, live.show_images, images())
    sheet = widget.data["images"]
    assert (sheet["size"], sheet["count"]) == (4, 5)
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(sheet["png"]))))
    tiles = torch.tensor(pixels).view(STEPS, 4, 5, 4, 3).permute(0, 2, 4, 1, 3)
    assert torch.equal(tiles, torch.stack([to_bytes(x) for x in images()]))


@pytest.mark.parametrize("show", [live.show_images, live.show_texts])
def test_jupyter_gets_the_same_program(monkeypatch, show):
    frames = images() if show is live.show_images else TEXTS
    widget = shown(monkeypatch, show, frames)
    assert live.source("pathView") in widget._esm
    assert json.loads(json.dumps(widget.data))["figures"] == FIGURES
    page = shown(monkeypatch, show, frames, LOGITFLOW_STILL="1").data
    assert live.source("pathView") in page


@pytest.mark.parametrize(
    ("show", "frames", "told"),
    [
        (live.show_images, images()[:1], "at least two frames"),
        (live.show_images, images()[:3], "not 3 and 6"),
        (live.show_images, [*images()[:-1], torch.zeros(4, 3, 4, 4)], "shapes differ"),
        (live.show_texts, [*TEXTS[:1], ["the cat"], *TEXTS[2:]], "each as long as before"),
    ],
)
def test_what_does_not_fit_is_refused(monkeypatch, show, frames, told):
    monkeypatch.setenv("LOGITFLOW_STILL", "1")
    with pytest.raises(ValueError, match=told):
        show(frames, FIGURES[:1] if len(frames) == 1 else FIGURES, "about")


# --- in a browser -------------------------------------------------------------------------------------------

browser_only = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium"),
]


def in_browser(test):
    for mark in browser_only:
        test = mark(test)
    return test


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_path(browser, monkeypatch, tmp_path):
    """Opens a page with a path, as a file, and gathers what goes wrong on it."""
    contexts = []

    def opened(kind, width="desktop", stopped_clock=False, **settings):
        if stopped_clock:  # nothing moves before the test says so
            settings["reduced_motion"] = "reduce"
        show, frames = (
            (live.show_images, images()) if kind == "images" else (live.show_texts, TEXTS)
        )
        content = shown(monkeypatch, show, frames, LOGITFLOW_STILL="1").data
        below = '<p style="margin-top: 3000px" id="below">below</p>'
        file = tmp_path / f"{kind}.html"
        head = (
            "<!doctype html><html lang=en><meta charset=utf-8>"
            "<meta name=viewport content='width=device-width'>"
        )
        file.write_text(f"{head}{content}{below}", encoding="utf-8")
        context = browser.new_context(viewport={"width": WIDTHS[width], "height": 900}, **settings)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.wrong = []
        page.on("console", lambda m: page.wrong.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: page.wrong.append(str(error)))
        if stopped_clock:
            page.clock.install(time=0)
        page.goto(file.as_uri())
        if stopped_clock:
            page.clock.pause_at(3_600_000)
        return page

    yield opened
    for context in contexts:
        context.close()


def colours(page):
    """The colour in the middle of each of the five images: four in the first row, one in the second."""
    return page.evaluate(
        """() => {
            const pen = document.querySelector('canvas').getContext('2d');
            return [0, 1, 2, 3, 4].map((i) => Array.from(
                pen.getImageData((i % 4) * 6 + 2, Math.floor(i / 4) * 6 + 2, 1, 1).data.slice(0, 3)));
        }"""
    )


def check(page, kind, step):
    """The frame, the figures and the words are all of this step."""
    expect(page.locator(f'.live[data-step="{step}"]')).to_be_visible()
    words = f"Step: {10 * step} of 50. Mean logit: {10 * step}.5"
    expect(page.get_by_role("slider")).to_have_attribute("aria-valuetext", f"{10 * step} of 50")
    assert page.locator(".live-side dl").inner_text().split("\n")[-1].endswith(f"{10 * step}.5")
    if kind == "images":
        expect(page.get_by_role("img")).to_have_accessible_name(f"latents on their way. {words}")
        assert colours(page) == [shade(step, i) for i in range(5)]
    else:
        assert page.locator(".live-lines li").all_inner_texts() == TEXTS[step]
        assert page.locator(".live-lines mark").all_inner_texts() == ([str(step)] if step else [])
    return words


@in_browser
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", ["images", "texts"])
def test_it_plays_once_and_then_follows_the_keys(open_path, kind, width):
    page = open_path(kind, width)
    slider, button = page.get_by_role("slider", name="Step"), page.get_by_role("button")
    expect(button).to_have_text("Play again")
    assert page.locator(".live-said").inner_text() == check(page, kind, STEPS - 1)
    for key, step in (("Home", 0), ("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1)):
        slider.press(key)
        assert page.locator(".live-said").inner_text() == check(page, kind, step)
        expect(button).to_have_text("Play")
    slider.press("End")
    button.press("Enter")  # from the beginning
    expect(button).to_have_text("Pause")
    expect(button).to_have_text("Play again")
    check(page, kind, STEPS - 1)
    root = "document.documentElement"
    assert page.evaluate(f"{root}.scrollWidth <= {root}.clientWidth")
    assert page.wrong == []


@in_browser
def test_it_pauses_where_it_is(open_path):
    page = open_path("texts", stopped_clock=True)
    button = page.get_by_role("button")
    button.press("Space")
    page.clock.run_for(2 * WAIT)
    check(page, "texts", 2)
    button.press("Space")
    expect(button).to_have_text("Play")
    page.clock.run_for(10 * WAIT)
    check(page, "texts", 2)
    button.press("Space")
    page.clock.run_for(WAIT)
    check(page, "texts", 3)


@in_browser
def test_reduced_motion_waits_to_be_asked(open_path):
    page = open_path("images", stopped_clock=True)
    page.clock.run_for(10 * WAIT)
    check(page, "images", 0)
    page.get_by_role("button", name="Play").press("Enter")
    page.clock.run_for(WAIT)
    check(page, "images", 1)


@in_browser
def test_it_stops_off_screen_and_goes_on(open_path):
    page = open_path("images", stopped_clock=True)
    page.get_by_role("button", name="Play").press("Enter")
    page.clock.run_for(WAIT)
    page.locator("#below").scroll_into_view_if_needed()
    page.wait_for_timeout(500)  # until the browser has told the page
    page.clock.run_for(10 * WAIT)
    check(page, "images", 1)
    page.locator("canvas").scroll_into_view_if_needed()
    page.wait_for_timeout(500)
    page.clock.run_for(WAIT)
    check(page, "images", 2)


@in_browser
@pytest.mark.parametrize("kind", ["images", "texts"])
def test_paper_and_a_page_without_scripts_show_three_frames(open_path, kind):
    page = open_path(kind)
    check_that_paper_shows_the_still(page)
    bare = open_path(kind, java_script_enabled=False)
    still = bare.locator(".live-still")
    expect(still).to_be_visible()
    if kind == "images":
        assert still.get_attribute("alt") == "latents on their way"
    else:
        assert still.locator("code").all_inner_texts() == [
            TEXTS[k][i] for i in range(2) for k in (0, STEPS // 2, -1)
        ]


def test_the_still_picture_names_its_moments(monkeypatch):
    stills = []
    monkeypatch.setattr(live, "_show", lambda view, data, still, about: stills.append(still))
    live.show_images(images(), FIGURES, "about")
    (still,) = stills
    assert isinstance(still, Figure)
    (ax,) = still.axes
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "0 of 50",
        "30 of 50",
        "50 of 50",
    ]
