"""The built book, page by page, in a real browser at desktop and phone width.

`make test` builds the book and then runs this file. Without a build, or without Chromium, it skips.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.base import AXE_FILE_PATH
from browsing import (
    HTML,
    NEEDS_BOOK_AND_BROWSER,
    ROOT,
    VENDORED,
    WIDTHS,
    Visit,
    chromium,
    open_page,
    served,
)
from playwright.sync_api import Browser, Page

SCREENSHOTS = ROOT / "_build" / "screenshots"

pytestmark = NEEDS_BOOK_AND_BROWSER


def built_pages() -> list[str]:
    """Every page below _build/html that is more than a redirect or a file that Sphinx keeps for itself.

    Sphinx lists each module's code on a page; they are made alike, and the longest stands for them all.
    """
    found = (
        path for path in HTML.rglob("*.html") if 'http-equiv="Refresh"' not in path.read_text()
    )
    size = {path.relative_to(HTML).as_posix(): path.stat().st_size for path in found}
    written = [name for name in size if not name.startswith(("_static/", "_modules/"))]
    listings = [name for name in size if name.startswith("_modules/logitflow/")]
    overview = [name for name in size if name == "_modules/index.html"]
    return sorted([*written, *overview, *sorted(listings, key=size.__getitem__)[-1:]])


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with served(HTML) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def one_worker_each(names: list[str]) -> list[Any]:
    """All tests of a page go to the same process, which opens it once (`pytest --dist loadgroup`)."""
    return [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in names]


@pytest.fixture(params=one_worker_each(built_pages() or ["index.html"]), scope="module")
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


def test_pictures_are_legible_in_the_dark(visit: Visit) -> None:
    """Figures are drawn on white: in the dark theme each keeps its white card, and its colours."""
    bare = visit.page.evaluate(
        """() => {
            document.documentElement.dataset.theme = 'dark';
            const found = [...document.querySelectorAll('.bd-article img')].filter(image => {
                const style = getComputedStyle(image);
                return style.backgroundColor !== 'rgb(255, 255, 255)' || style.filter !== 'none';
            }).map(image => image.src.slice(-60));
            document.documentElement.dataset.theme = 'light';
            return found;
        }"""
    )
    assert bare == []


# What repeats thousands of times is looked at once: a token of code of each kind. Formulas are left out: with
# all that MathJax makes of them, axe reads a page for a minute.
LIGHTEN = """() => {
    const seen = new Set();
    document.querySelectorAll('.highlight span, .math').forEach(node => {
        if (node.matches('.math')) node.remove();
        else if (seen.has(node.className)) node.replaceWith(...node.childNodes);
        else seen.add(node.className);
    });
}"""
# The dark theme differs in colours alone: five elements of each kind in each place show them.
PRUNE = """() => {
    const seen = {}, kind = node => node ? `${node.tagName}.${node.className}` : '';
    document.querySelectorAll('.bd-article *').forEach(node => {
        const place = [node, node.parentElement, node.parentElement?.parentElement].map(kind).join('<');
        seen[place] = (seen[place] ?? 0) + 1;
        if (seen[place] > 5) node.remove();
    });
    document.documentElement.dataset.theme = document.documentElement.dataset.mode = 'dark';
}"""


def findings(page: Page, options: str) -> list[str]:
    """What axe finds critical or serious on the page."""
    found = page.evaluate(f"axe.run(document, {{resultTypes: ['violations'], {options}}})")
    return [
        f"{violation['id']}: {violation['help']}: {[node['html'][:150] for node in violation['nodes'][:3]]}"
        for violation in found["violations"]
        if violation["impact"] in ("critical", "serious")
    ]


def test_page_is_accessible(visit: Visit) -> None:
    """axe finds nothing critical or serious, in light or dark. The last test: it thins the page."""
    page = visit.page
    page.set_viewport_size({"width": WIDTHS["desktop"], "height": 900})
    # else colours fade from theme to theme, for longer on a busy machine, and axe would read one on its way
    page.add_style_tag(content="*, *::before, *::after { transition: none !important; }")
    page.evaluate("document.documentElement.dataset.theme = 'light'")
    page.evaluate(Path(AXE_FILE_PATH).read_text())
    page.evaluate(LIGHTEN)
    light = findings(page, "iframes: false")
    page.evaluate(PRUNE)
    dark = findings(page, "iframes: false, runOnly: ['color-contrast']")
    assert light == []
    assert dark == []
