"""The built book as its readers find it: from a folder, below another address, searched, and on paper."""

from collections.abc import Iterator

import pytest
from browsing import (
    HTML,
    NEEDS_BOOK_AND_BROWSER,
    VENDORED,
    Visit,
    chromium,
    new_page,
    open_page,
    served,
)
from playwright.sync_api import Browser

pytestmark = [*NEEDS_BOOK_AND_BROWSER, pytest.mark.xdist_group("reading")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def below(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The book's address when it lies two folders below its server's root."""
    root = tmp_path_factory.mktemp("site")
    (root / "some").mkdir()
    (root / "some/where").symlink_to(HTML, target_is_directory=True)
    with served(root) as address:
        yield f"{address}/some/where"


def assert_whole(visit: Visit) -> None:
    """Equations are set, and nothing was missing."""
    written = visit.page.locator(".math").count()
    assert 0 < written <= visit.page.locator(".math mjx-container").count()
    assert visit.console == []
    assert visit.failed == []
    if VENDORED:
        assert visit.foreign == []


def test_opens_from_a_folder(browser: Browser) -> None:
    """The pages open as files too, with their equations set; the first one leads to the book."""
    visit = open_page(browser, (HTML / "book/notation.html").as_uri())
    assert_whole(visit)
    visit.page.goto((HTML / "index.html").as_uri())
    visit.page.wait_for_url("**/book/index.html")
    visit.page.close()


def test_opens_below_another_address(browser: Browser, below: str) -> None:
    visit = open_page(browser, f"{below}/book/notation.html")
    assert_whole(visit)
    visit.page.goto(f"{below}/index.html")
    visit.page.wait_for_url(f"{below}/book/index.html")
    visit.page.close()


@pytest.mark.parametrize("where", ["served", "folder"])
def test_search_finds_a_chapter(browser: Browser, below: str, where: str) -> None:
    """The index was made with the pages, so that a search needs no server."""
    address = below if where == "served" else HTML.as_uri()
    page = new_page(browser)
    page.goto(f"{address}/search.html?q=Metropolis")
    first = page.locator("#search-results li a").first
    first.wait_for()
    links = page.locator("#search-results li a").evaluate_all("all => all.map(a => a.href)")
    assert any("book/03-langevin.html" in link for link in links)
    first.click()
    page.wait_for_load_state()
    assert page.locator(".bd-article h1").count() == 1
    page.close()


def test_search_box_opens_by_key(browser: Browser, below: str) -> None:
    page = new_page(browser)
    page.goto(f"{below}/book/notation.html", wait_until="load")
    page.keyboard.press("Control+k")
    page.keyboard.type("Metropolis")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=Metropolis**")
    page.close()


def test_paper_shows_the_text_alone(browser: Browser) -> None:
    """In print no side bar and no button is left, solutions are open, and no box scrolls."""
    page = new_page(browser)
    page.route("**/mathjax/**", lambda route: route.abort())
    page.goto((HTML / "book/03-langevin.html").as_uri())
    page.emulate_media(media="print")
    shown = page.evaluate(
        """() => {
            const visible = query => [...document.querySelectorAll(query)].filter(
                node => node.checkVisibility() && node.getBoundingClientRect().height > 0).length;
            const scrolls = [...document.querySelectorAll('.bd-article :is(pre, .cell_output, div.math)')];
            return {
                frame: visible('.bd-sidebar-primary, .bd-sidebar-secondary, .bd-header-article, .bd-footer'),
                buttons: visible('.bd-article button, details.hide'),
                solutions: [visible('.solution .section > p, .solution p:not(.admonition-title)'),
                            document.querySelectorAll('.solution p:not(.admonition-title)').length],
                scrolls: scrolls.filter(node => getComputedStyle(node).overflowX !== 'visible').length,
                titles: visible('h1'),
            };
        }"""
    )
    seen, written = shown["solutions"]
    assert seen == written > 0
    assert (shown["frame"], shown["buttons"], shown["scrolls"], shown["titles"]) == (0, 0, 0, 1)
    page.close()
