"""Print the built book into one PDF, with a table of contents, page numbers and bookmarks. Run by `make pdf`.

Headless Chromium prints every page in the order of the book, in the style of print.css. The pages are
joined behind a table of contents with their numbers, and links from page to page lead inside the PDF.
"""

import html
import io
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml
from join_pdf import CONTENTS_LINK, Chapter, first_pages, join, path_of, places
from playwright.sync_api import Browser, Page, PdfMargins, sync_playwright
from pypdf import PdfReader

ROOT = Path(__file__).resolve().parent.parent
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
MARGINS: PdfMargins = {"top": "18mm", "bottom": "20mm", "left": "18mm", "right": "18mm"}
CONTENTS = """\
<!doctype html><html lang="en"><meta charset="utf-8"><title>Contents</title><style>
body {{ font: 10.5pt/1.5 Charter, "Bitstream Charter", Georgia, serif; }}
.title {{ height: 235mm; display: flex; flex-direction: column; justify-content: center; break-after: page; }}
.title h1 {{ font: 600 32pt/1.2 system-ui, sans-serif; margin: 0 0 8mm; }}
h2, .chapter, .part {{ font-family: system-ui, sans-serif; }}
.part {{ margin: 5mm 0 1mm; color: #555; letter-spacing: .05em; text-transform: uppercase; font-size: 9pt; }}
a {{ display: flex; color: inherit; text-decoration: none; break-inside: avoid; }}
a.chapter {{ font-weight: 600; margin-top: 1.5mm; }}
a.section {{ padding-left: 6mm; font-size: 9.5pt; }}
a::before {{ order: 1; content: ""; flex: 1; margin: 0 2mm; border-bottom: 1px dotted #aaa; height: .8em; }}
a span {{ order: 2; }}
</style><div class="title"><h1>{title}</h1><p>{about}</p></div><h2>Contents</h2>
{lines}"""
FOOTERS = """\
<!doctype html><meta charset="utf-8"><style>@page {{ margin: 0 }} body {{ margin: 0; }}
div {{ height: 296mm; break-after: page; position: relative; font: 8.5pt system-ui, sans-serif; color: #555; }}
p {{ position: absolute; bottom: 8mm; left: 18mm; right: 18mm; margin: 0; }}
p span + span {{ float: right; }}
</style>{lines}"""


def pages_in_order(page: Page, index: Path) -> list[tuple[Path, str]]:
    """The book's pages and the parts they stand in, as in the side bar."""
    page.goto(index.as_uri())
    found = page.evaluate(
        """() => [...document.querySelectorAll('.bd-sidebar-primary .bd-links :is(.caption, a.internal)')].map(
            node => node.matches('a') ? [node.href, ''] : ['', node.textContent.trim()])"""
    )
    order: list[tuple[Path, str]] = [(index, "")]
    part = ""
    for address, caption in found:
        part = caption or part
        file = path_of(address) if address else None
        if file is not None and file not in [known for known, _ in order]:
            order.append((file, part))
    return order


def printed(page: Page, file: Path, part: str) -> Chapter:
    """A page of the book, printed."""
    page.goto(file.as_uri())
    page.evaluate("window.MathJax?.startup?.promise")
    page.evaluate(
        """async () => {
            document.documentElement.dataset.theme = 'light';
            document.querySelectorAll('.bd-article details:not(.hide)').forEach(d => { d.open = true; });
            document.querySelectorAll('img').forEach(i => { i.loading = 'eager'; });
            // Chromium keeps the places that a link on the same page leads to: let one lead to each
            const nav = document.body.appendChild(document.createElement('nav'));
            nav.hidden = true;
            document.querySelectorAll('.bd-article [id]').forEach(node => {
                nav.appendChild(document.createElement('a')).href = '#' + node.id;
            });
            await Promise.all([...document.images].map(i => i.decode().catch(() => null)));
            await document.fonts.ready;
        }"""
    )
    told = page.evaluate(
        """() => {
            const words = node => {
                const copy = node.cloneNode(true);
                copy.querySelectorAll('.headerlink, mjx-assistive-mml').forEach(n => n.remove());
                copy.querySelectorAll('mjx-container').forEach(n => n.replaceWith('…'));
                return copy.textContent.trim().replace(/\\s+/g, ' ');
            };
            return {
                title: words(document.querySelector('.bd-article h1')),
                sections: [...document.querySelectorAll('.bd-article h2')]
                    .map(node => [words(node), node.closest('section')?.id ?? '']),
            };
        }"""
    )
    pdf = PdfReader(io.BytesIO(page.pdf(format="A4", margin=MARGINS, print_background=True)))
    sections = [(title, anchor) for title, anchor in told["sections"]]
    return Chapter(file, part, told["title"], sections, pdf)


def contents(
    browser: Browser, title: str, about: str, entries: Sequence[tuple[str, str, int]]
) -> PdfReader:
    """The title page and the table of contents, from lines of kind, words and page number."""
    lines = "\n".join(
        f'<p class="part">{html.escape(words)}</p>'
        if kind == "part"
        else f'<a class="{kind}" href="{CONTENTS_LINK}{number}">{html.escape(words)}<span>{number}</span></a>'
        for kind, words, number in entries
    )
    page = browser.new_page()
    page.set_content(CONTENTS.format(title=html.escape(title), about=about, lines=lines))
    pdf = page.pdf(format="A4", margin=MARGINS, print_background=True)
    page.close()
    return PdfReader(io.BytesIO(pdf))


def footers(browser: Browser, labels: Iterable[str]) -> PdfReader:
    """Empty pages with what stands at the foot of each page."""
    lines = "".join(
        f"<div><p><span>{html.escape(words)}</span><span>{number}</span></p></div>"
        for number, words in enumerate(labels, start=1)
    )
    page = browser.new_page()
    page.set_content(FOOTERS.format(lines=lines))
    pdf = page.pdf(format="A4", print_background=False)
    page.close()
    return PdfReader(io.BytesIO(pdf))


def table_of_contents(chapters: Sequence[Chapter], before: int) -> list[tuple[str, str, int]]:
    """The lines of the table of contents: parts, chapters and sections with their pages, counted from 1."""
    entries, part = [], ""
    for chapter, start in zip(chapters, first_pages(chapters, before), strict=True):
        if chapter.part != part:
            part = chapter.part
            entries.append(("part", part, 0))
        entries.append(("chapter", chapter.title, start + 1))
        known = places(chapter.pdf)
        for title, anchor in chapter.sections:
            entries.append(("section", title, start + known.get(anchor, (0, None))[0] + 1))
    return entries


def make(html_folder: Path, out: Path, title: str, about: str) -> None:
    """Print the book in `html_folder` into the file `out`.

    Raises:
        SystemExit: there is no Chromium, or no book.
    """
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise SystemExit("No Chromium to print with: on Debian, apt-get install chromium.")
    index = html_folder / "book" / "index.html"
    if not index.is_file():
        raise SystemExit(f"No built book in {html_folder}: run `make book` first.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page()
        page.set_default_timeout(300_000)
        order = pages_in_order(page, index.resolve())
        chapters = [printed(page, file, part) for file, part in order]
        front = contents(browser, title, about, table_of_contents(chapters, 0))
        before = len(front.pages)
        front = contents(browser, title, about, table_of_contents(chapters, before))
        labels = [title] * before
        labels += [chapter.title for chapter in chapters for _ in chapter.pdf.pages]
        writer = join(chapters, front, footers(browser, labels))
        browser.close()
    writer.add_metadata({"/Title": title, "/Author": about})
    writer.compress_identical_objects()
    with out.open("wb") as file:
        writer.write(file)
    print(f"The book is printed, {len(writer.pages)} pages. Open:\n  {out}")


def main() -> None:
    """Print the book that `make book` has built, with the title and the author of _config.yml."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    built = ROOT / "_build"
    make(built / "html", built / "book.pdf", config["title"], config["author"])


if __name__ == "__main__":
    main()
