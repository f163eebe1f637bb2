"""What the tests of the built book share: a server, Chromium, and all that goes wrong as a page loads."""

import contextlib
import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Page,
    Request,
    Response,
    expect,
    sync_playwright,
)

ROOT = Path(__file__).resolve().parent.parent
HTML = ROOT / "_build" / "html"
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
DESKTOP = 1280
WIDTHS = {"desktop": DESKTOP, "phone": 390}
SERVED_HOST = "127.0.0.1"

NEEDS_BOOK_AND_BROWSER = [
    pytest.mark.browser,
    pytest.mark.skipif(not (HTML / "index.html").is_file(), reason="no built book: make book"),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium"),
]


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


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder, and give its address."""
    handler = functools.partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer((SERVED_HOST, 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://{SERVED_HOST}:{server.server_port}"
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, headless."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def new_page(browser: Browser) -> Page:
    """A page as wide as a desktop's, with patience for a machine that others use too."""
    page = browser.new_page(viewport={"width": DESKTOP, "height": 900})
    page.set_default_timeout(180_000)
    return page


def open_page(browser: Browser, url: str) -> Visit:
    """Open `url` in a fresh profile and wait until its equations and fonts are there."""
    page = new_page(browser)
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


def check_that_paper_shows_the_still(page: Page) -> None:
    """On the screen a live view moves; printed, its still picture stands in its place."""
    expect(page.locator(".live-stage")).to_be_visible()
    expect(page.locator(".live-still")).to_be_hidden()
    page.emulate_media(media="print")
    expect(page.locator(".live-stage")).to_be_hidden()
    expect(page.locator(".live-still")).to_be_visible()
