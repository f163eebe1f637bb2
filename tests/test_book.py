"""The built book, page by page, in a real browser at desktop and phone width.

`make test` builds the book and then runs this file. Without a build, or without Chromium, it skips.
"""

import functools
import http.server
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Response, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
HTML = ROOT / "_build" / "html"
SCREENSHOTS = ROOT / "_build" / "screenshots"
VENDORED = (HTML / "_static/vendor/mathjax/tex-mml-chtml.js").is_file()
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDTHS = {"desktop": 1280, "phone": 390}
SERVED_HOST = "127.0.0.1"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (HTML / "index.html").is_file(), reason="no built book: make book"),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium"),
]


def built_pages() -> list[str]:
    """Every page below _build/html that is more than a redirect or a file that Sphinx keeps for itself."""
    found = (
        path for path in HTML.rglob("*.html") if 'http-equiv="Refresh"' not in path.read_text()
    )
    names = (path.relative_to(HTML).as_posix() for path in found)
    return sorted(name for name in names if not name.startswith("_static/"))


class Visit(NamedTuple):
    """A loaded page and everything that went wrong while it loaded."""

    page: Page
    failed: list[str]
    foreign: list[str]
    console: list[str]


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files and logs nothing."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    handler = functools.partial(QuietHandler, directory=str(HTML))
    with http.server.ThreadingHTTPServer((SERVED_HOST, 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://{SERVED_HOST}:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


def open_page(browser: Browser, url: str) -> Visit:
    """Open `url` in a fresh profile and wait until its equations and fonts are there."""
    page = browser.new_page(viewport={"width": WIDTHS["desktop"], "height": 900})
    visit = Visit(page, [], [], [])

    def on_response(response: Response) -> None:
        if response.status >= 400:
            visit.failed.append(f"{response.status} {response.url}")

    def on_request(request: Request) -> None:
        if not request.url.startswith((f"http://{SERVED_HOST}:", "file:", "data:", "blob:")):
            visit.foreign.append(request.url)

    def on_console(message: ConsoleMessage) -> None:
        if message.type == "error":
            visit.console.append(message.text)

    page.on("response", on_response)
    page.on("requestfailed", lambda request: visit.failed.append(f"failed {request.url}"))
    page.on("request", on_request)
    page.on("console", on_console)
    page.on("pageerror", lambda error: visit.console.append(str(error)))
    page.goto(url, wait_until="load")
    page.evaluate("window.MathJax?.startup?.promise")
    page.evaluate("document.fonts.ready.then(() => null)")
    return visit


@pytest.fixture(params=built_pages() or ["index.html"], scope="module")
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def visit(browser: Browser, address: str, name: str) -> Iterator[Visit]:
    visit = open_page(browser, f"{address}/{name}")
    yield visit
    visit.page.close()


def test_every_request_is_answered(visit: Visit) -> None:
    assert visit.failed == []
    if VENDORED:
        assert visit.foreign == []


def test_console_is_silent(visit: Visit) -> None:
    assert visit.console == []


def test_every_equation_is_set(visit: Visit) -> None:
    """MathJax replaced the text of each .math node by a container, and none holds an error."""
    counts = visit.page.evaluate(
        """() => ({
            written: document.querySelectorAll('.math').length,
            set: document.querySelectorAll('.math mjx-container').length,
            bare: [...document.querySelectorAll('.math')]
                .filter(node => !node.querySelector('mjx-container')).map(node => node.textContent),
            errors: [...document.querySelectorAll('mjx-merror, .MathJax_Error')].map(
                node => node.closest('.math')?.textContent ?? node.textContent),
        })"""
    )
    assert counts["errors"] == []
    assert counts["bare"] == []
    assert counts["set"] >= counts["written"]


def test_no_tex_is_left_in_the_text(visit: Visit) -> None:
    r"""Neither `\(`, `\[` nor a dollar formula shows in what a reader sees outside code."""
    text = visit.page.evaluate(
        """() => {
            const body = document.querySelector('article, main, body').cloneNode(true);
            body.querySelectorAll('pre, code, script, style, mjx-container').forEach(n => n.remove());
            return body.textContent;
        }"""
    )
    assert re.findall(r"\\[(\[].{0,40}|\$[^$\n]{1,60}\$|\\begin\{\w+.{0,40}", text) == []


def test_every_picture_shows_and_is_described(visit: Visit) -> None:
    pictures = visit.page.evaluate(
        """() => Promise.all([...document.querySelectorAll('.bd-article img')].map(async image => {
            await image.decode().catch(() => null);
            return {source: image.src.split('/').pop(), width: image.naturalWidth, alt: image.alt.trim()};
        }))"""
    )
    # myst-nb's fallback for a figure without `alt` is its file's path
    undescribed = [p for p in pictures if not p["alt"] or re.search(r"\.(png|svg)$", p["alt"])]
    assert [picture for picture in pictures if picture["width"] == 0] == []
    assert undescribed == []


@pytest.mark.parametrize("width", WIDTHS)
def test_page_fits_its_width(visit: Visit, name: str, width: str) -> None:
    """Wide tables, code and equations scroll in their own boxes; the page does not."""
    page = visit.page
    page.set_viewport_size({"width": WIDTHS[width], "height": 900})
    root = "document.documentElement"
    wide, seen, height = page.evaluate(
        f"() => [{root}.scrollWidth, {root}.clientWidth, {root}.scrollHeight]"
    )
    page.set_viewport_size({"width": WIDTHS[width], "height": height})
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    picture = f"{name.removesuffix('.html').replace('/', '-')}-{width}.png"
    page.screenshot(path=SCREENSHOTS / picture)
    assert wide <= seen


def test_no_control_is_dead(visit: Visit) -> None:
    """A widget on a page with no kernel does nothing: the build shows a picture in its place."""
    widgets = "script[type*='jupyter.widget'], .jupyter-widgets, .widget-subarea"
    assert visit.page.query_selector_all(widgets) == []


def test_opens_from_a_folder(browser: Browser) -> None:
    """The pages open as files too, with their equations set; the first one leads to the book."""
    visit = open_page(browser, (HTML / "book/notation.html").as_uri())
    written = visit.page.locator(".math").count()
    assert 0 < written <= visit.page.locator(".math mjx-container").count()
    assert visit.console == []
    if VENDORED:
        assert visit.foreign == []
    visit.page.goto((HTML / "index.html").as_uri())
    visit.page.wait_for_url("**/book/index.html")
    visit.page.close()
