"""The live component in a browser: frames run, every control does something, and it stops where it should."""

import itertools
import json

import pytest
from browsing import CHROMIUM, FLAGS, WIDTHS, check_that_paper_shows_the_still
from matplotlib.figure import Figure
from playwright.sync_api import expect, sync_playwright

from logitflow import live, zoo

VIEWS = ("refinementView", "densityView")
STEPS = 50
PATIENCE = 120_000  # milliseconds: a busy machine takes a while over a frame

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A page of each view with few points, opened as a file."""
    folder = tmp_path_factory.mktemp("pages")
    data = {
        "refinementView": {"pair": live.export(zoo.load(live.PAIR)), "count": 60},
        "densityView": {"count": 200},
    }
    for view in VIEWS:
        content = live.page(
            view,
            {"start": {"steps": STEPS, "logStepSize": -2.0}, **data[view]},
            Figure(),
            "a still picture",
        )
        below = '<p style="margin-top: 3000px" id="below">below</p>'
        (folder / f"{view}.html").write_text(
            f"<!doctype html><html lang=en><meta name=viewport content='width=device-width'>{content}{below}",
            encoding="utf-8",
        )
    return {view: (folder / f"{view}.html").as_uri() for view in VIEWS}


@pytest.fixture
def open_view(browser, files):
    """Opens a view and gathers what goes wrong on it."""
    contexts = []

    def opened(view, width="desktop", **settings):
        context = browser.new_context(viewport={"width": WIDTHS[width], "height": 900}, **settings)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.wrong = []
        page.on("console", lambda m: page.wrong.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: page.wrong.append(str(error)))
        page.goto(files[view])
        return page

    yield opened
    for context in contexts:
        context.close()


def step(page):
    return int(page.locator(".live").get_attribute("data-step"))


def wait_for_step(page, least):
    page.wait_for_function(f"Number(document.querySelector('.live').dataset.step) >= {least}")


def what_shows(page):
    """The figures and the picture, once it has come to its last step."""
    expect(page.get_by_role("button", name="Play again")).to_be_visible(timeout=PATIENCE)
    picture = page.evaluate("document.querySelector('canvas').toDataURL()")
    return page.locator(".live-side dl").inner_text(), picture


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("view", VIEWS)
def test_every_control_changes_what_shows(open_view, view, width):
    page = open_view(view, width)
    seen = [what_shows(page)]  # it began by itself, ran, and stopped
    assert step(page) == STEPS
    assert str(STEPS) in page.locator(".live-said").inner_text() or view == "densityView"
    if view == "refinementView":
        page.get_by_label("Method").select_option("dgflow")
    for select in reversed(page.locator(".live-side select").all()):
        for option in select.locator("option").all()[1:]:
            select.select_option(option.get_attribute("value"))
            seen.append(what_shows(page))
    if view == "refinementView":
        page.get_by_label("Method").select_option("dgflow")
        seen.append(what_shows(page))
    for slider in page.get_by_role("slider").all():
        said = slider.get_attribute("aria-valuetext")
        slider.press("ArrowRight")
        assert slider.get_attribute("aria-valuetext") not in (said, None)
        seen.append(what_shows(page))
    page.get_by_role("button", name="Other points").press("Enter")
    seen.append(what_shows(page))
    assert all(before != after for before, after in itertools.pairwise(seen))
    root = "document.documentElement"
    assert page.evaluate(f"{root}.scrollWidth <= {root}.clientWidth")
    assert page.wrong == []


def test_a_key_pauses_and_goes_on(open_view):
    page = open_view("densityView")
    page.get_by_label("Time").press("End")
    pause = page.get_by_role("button", name="Pause")
    pause.press("Space")
    page.wait_for_timeout(500)
    at = step(page)
    page.wait_for_timeout(300)
    assert 0 <= step(page) == at < 1000
    page.get_by_role("button", name="Play").press("Space")
    wait_for_step(page, at + 1)


@pytest.mark.parametrize("view", VIEWS)
def test_each_control_is_named(open_view, view):
    page = open_view(view)
    for control in page.locator(".live-side :is(select, input, button)").all():
        label = control.evaluate(
            "c => (c.labels?.[0]?.querySelector('span') ?? c).textContent.trim()"
        )
        assert label
    expect(page.get_by_role("img")).to_have_accessible_name(
        page.locator("canvas").get_attribute("aria-label")
    )


@pytest.mark.parametrize("view", VIEWS)
def test_it_stops_off_screen_and_goes_on(open_view, view):
    page = open_view(view)
    page.get_by_label("Steps" if view == "refinementView" else "Time").evaluate(
        "slider => { slider.value = slider.max; slider.dispatchEvent(new Event('input')); }"
    )
    wait_for_step(page, 1)
    page.locator("#below").scroll_into_view_if_needed()
    page.wait_for_timeout(500)
    at = step(page)
    page.wait_for_timeout(500)
    assert step(page) == at
    page.locator("canvas").scroll_into_view_if_needed()
    wait_for_step(page, at + 1)


def test_reduced_motion_waits_to_be_asked(open_view):
    page = open_view("refinementView", reduced_motion="reduce")
    expect(page.locator(".live-side dl")).to_contain_text(
        f"0 of {STEPS}", timeout=PATIENCE
    )  # the points, at rest
    page.get_by_label("Noise γ").press("ArrowRight")
    page.wait_for_timeout(300)
    assert step(page) == 0
    page.get_by_role("button", name="Play").press("Enter")
    wait_for_step(page, 1)


@pytest.mark.parametrize("view", VIEWS)
def test_paper_and_a_page_without_scripts_show_the_still_picture(open_view, view):
    page = open_view(view)
    check_that_paper_shows_the_still(page)
    bare = open_view(view, java_script_enabled=False)
    expect(bare.locator(".live-still")).to_be_visible()
    assert bare.locator(".live-still").get_attribute("alt") == "a still picture"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_points_are_seen_on_either_background(open_view, theme):
    """Each colour stands out from the page by a contrast of 3 : 1."""
    page = open_view("refinementView")
    dark = "html[data-theme=dark] { background: #14181e; color: #ced6dd }"
    page.add_style_tag(content=f"html {{ background: #fff; color: #222 }} {dark}")
    page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
    what_shows(page)
    seen = page.evaluate(
        """() => {
            const canvas = document.querySelector('canvas');
            const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
            const colours = {};
            for (let i = 0; i < data.length; i += 4) {
                const name = data.slice(i, i + 3).join();
                if (data[i + 3] === 255) colours[name] = (colours[name] ?? 0) + 1;
            }
            const most = Object.entries(colours).sort((a, b) => b[1] - a[1]).slice(0, 3);
            return most.map(([name]) => name.split(',').map(Number));
        }"""
    )
    background = [255, 255, 255] if theme == "light" else [0x14, 0x18, 0x1E]
    assert seen
    for colour in seen:
        assert contrast(colour, background) >= 3


def contrast(a, b):
    """WCAG's contrast of two sRGB colours."""
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour):
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (v / 255 for v in colour)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_jupyter_gets_the_same_program(monkeypatch):
    """Where a kernel listens, a widget holds the program and the data; in the book, the page does."""
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    monkeypatch.delenv("LOGITFLOW_STILL", raising=False)
    live.show_refinement(method="mala")
    (widget,) = shown
    assert live.source("refinementView") in widget._esm
    assert widget.data["start"] == {"method": "mala"}
    assert json.dumps(widget.data)
    monkeypatch.setenv("LOGITFLOW_STILL", "1")
    live.show_density(Figure(), "about", gamma=1.0)
    assert live.source("densityView") in shown[1].data
