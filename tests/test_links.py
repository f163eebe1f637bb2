"""No link of the built book leads nowhere: every page, picture, download and anchor that one names is there.

`make test` builds the book and then runs this file. Without a build, it skips.
"""

import functools
import html
import json
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import jupytext
import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
HTML = ROOT / "_build" / "html"
CHAPTERS = re.findall(r"(?:file|root): *book/([\w-]+)", (ROOT / "_toc.yml").read_text())

pytestmark = pytest.mark.skipif(
    not (HTML / "index.html").is_file(), reason="no built book: make book"
)


@functools.cache
def text(path: Path) -> str:
    """A built page, without what scripts and comments say."""
    return re.sub(r"<script\b.*?</script>|<!--.*?-->", "", path.read_text(), flags=re.DOTALL)


@functools.cache
def anchors(path: Path) -> set[str]:
    """What a page's fragments may name."""
    return {html.unescape(name) for name in re.findall(r'\b(?:id|name)="([^"]+)"', text(path))}


def pages() -> list[Path]:
    found = [path for path in HTML.rglob("*.html") if "_static" not in path.parts]
    return sorted(found)


def problems(page: Path) -> list[str]:
    """The page's links that lead nowhere, and those that would leave the site's folder."""
    wrong = []
    for written in re.findall(r'\b(?:href|src)="([^"]*)"', text(page)):
        link = urlsplit(html.unescape(written))
        if link.scheme or link.netloc:
            continue
        target = page if not link.path else (page.parent / unquote(link.path)).resolve()
        inside = target.is_relative_to(HTML.resolve())
        if link.path.startswith("/") or not inside or not target.exists():
            wrong.append(f"{written}: no such file")
        elif target.suffix == ".html" and unquote(link.fragment) not in {"", *anchors(target)}:
            wrong.append(f"{written}: no such anchor")
    return wrong


def test_every_internal_link_leads_somewhere():
    """Relative, too: the book works from a folder and below any address."""
    wrong = {str(page.relative_to(HTML)): problems(page.resolve()) for page in pages()}
    assert {page: found for page, found in wrong.items() if found} == {}


def test_every_chapter_leads_on():
    """In the order of the book, each page names the next one and the one before."""
    following = {}
    for page in sorted((HTML / "book").glob("*.html")):
        found = re.search(r'class="right-next"\s+href="([^"]+)"', text(page))
        if found:
            following[page.name] = found[1]
    chain, page = [], "index.html"
    while page in following and page not in chain:
        chain.append(page)
        before, page = page, following[page]
        assert f'class="left-prev"\n       href="{before}"' in text(HTML / "book" / page)
    assert {f"{name}.html" for name in CHAPTERS} == {*chain, page}


def test_every_chapter_can_be_downloaded():
    for name in CHAPTERS:
        source = (ROOT / "book" / f"{name}.md").read_text()
        page = text(HTML / "book" / f"{name}.html")
        link = f'href="../notebooks/{name}.ipynb"'
        assert (link in page) == ("kernelspec:" in source), name
        if link in page:
            assert json.loads((HTML / "notebooks" / f"{name}.ipynb").read_text())["cells"]


def test_the_check_finds_what_is_planted(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.HTML", tmp_path)
    page = tmp_path / "a.html"
    links = '<a href="#here"><a href="#gone"><img src="b.png"><a href="/a.html">'
    page.write_text(f'<p id="here"></p>{links}')
    assert [found.partition(":")[0] for found in problems(page)] == ["#gone", "b.png", "/a.html"]


def test_every_chapter_of_the_built_book_is_a_clean_notebook():
    """What the page shows is in the notebook, in plain Markdown, and every cell of code as it was written."""
    for path in sorted((HTML / "notebooks").glob("*.ipynb")):
        made = nbformat.read(path, 4)
        nbformat.validate(made)
        words = "\n".join(cell.source for cell in made.cells if cell.cell_type == "markdown")
        words = re.sub(r"^(`{3,})\w*$.*?^\1$", "", words, flags=re.DOTALL | re.MULTILINE)
        assert re.findall(r"(?:`{3}|:{3})\{.*|\{[\w:]+\}`.*|^:label:.*", words) == [], path.name
        source = jupytext.read(ROOT / "book" / f"{path.stem}.md")
        written = [cell.source for cell in source.cells if cell.cell_type == "code" and cell.source]
        kept = [cell.source for cell in made.cells if cell.cell_type == "code"]
        assert kept[1:] == written, path.name
