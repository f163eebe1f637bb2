"""What the book asks of Sphinx beyond its settings: MathJax of its own, numbers by chapter."""

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment

# below book/_static, where tools/vendor_mathjax.py puts it
MATHJAX = "vendor/mathjax/tex-mml-chtml.js"


def use_vendored_mathjax(app: Sphinx, config: Config) -> None:
    """Load MathJax from beside the pages where `make book` could put it there."""
    if (Path(app.srcdir) / "book" / "_static" / MATHJAX).is_file():
        config.mathjax_path = MATHJAX


def chapter_of(page: str) -> int | None:
    """The number that a chapter's file name starts with: 3 for "book/03-langevin"."""
    prefix = page.rpartition("/")[2].partition("-")[0]
    return int(prefix) if prefix.isdigit() else None


def number_by_chapter(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Number chapter 3's equations, figures, results and exercises 3.1, 3.2, … each.

    Sphinx has just counted them through the whole book. The titles carry the chapters' numbers
    themselves, so its own "numbered" tables of contents would number them twice.
    """
    for page, kinds in env.toc_fignumbers.items():
        chapter = chapter_of(page)
        if chapter is not None:
            for kind, numbers in kinds.items():
                kinds[kind] = {name: (chapter, n) for n, name in enumerate(numbers, start=1)}
    return []


def drop_dead_scripts(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Leave out what serves live cells and widgets: pages have neither, and thebe's would load twice."""

    def is_dead(script: Any) -> bool:
        told = f"{script.filename} {script.attributes}".lower()
        return "thebe" in told or "widget-state" in told

    context["script_files"] = [file for file in context["script_files"] if not is_dead(file)]


def mend_way_back(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Lead from a listing of source code back to what it documents.

    viewcode takes every name of a module to be documented under the same prefix as the first.
    """
    if not page.startswith("_modules/logitflow"):
        return
    module = page.removeprefix("_modules/").replace("/", ".")
    known = app.env.domaindata["py"]["objects"]

    def mend(found: re.Match[str]) -> str:
        name = found[1] if found[1] in known else f"{module}.{found[1].rpartition('.')[2]}"
        return f'#{name}"'

    context["body"] = re.sub(r'#(logitflow[\w.]*)"', mend, context["body"])


def make_entries_items(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Give the bibliography's list items: a list of docutils' deprecated "doc-biblioentry" is read as empty."""
    if "body" in context:
        context["body"] = context["body"].replace('role="doc-biblioentry"', 'role="listitem"')


def flatten_list_of_modules(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Make one list of the modules: viewcode puts the lists of submodules into lists, beside the items."""
    if page == "_modules/index":
        head, *items, tail = re.split(r"</?ul[^>]*>", context["body"])
        context["body"] = f"{head}<ul>{''.join(items)}</ul>{tail}"


def read_as_plain_text(
    app: Sphinx, what: str, name: str, item: object, options: object, lines: list[str]
) -> None:
    """Show docstrings as they read in the source: `code` is code, and * and | are only themselves."""

    def show(piece: str) -> str:
        if piece.startswith("`"):
            return f"\\ ``{piece.strip('`')}``\\ "
        return re.sub(r"([*|])", r"\\\1", piece)

    pieces = re.split(r"(``[^`]+``|`[^`]+`)", "\n".join(lines))
    lines[:] = "".join(map(show, pieces)).split("\n")


def skip_tuple_fields(
    app: Sphinx, what: str, name: str, item: object, skip: bool, options: object
) -> bool | None:
    """Leave out a NamedTuple's fields, which have nothing to say but their position."""
    return (getattr(item, "__doc__", None) or "").startswith("Alias for field number") or None


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the functions above to the events they serve."""
    app.connect("config-inited", use_vendored_mathjax)
    app.connect("env-get-updated", number_by_chapter, priority=900)  # after Sphinx's own count
    app.connect("autodoc-process-docstring", read_as_plain_text, priority=100)  # before napoleon
    app.connect("autodoc-skip-member", skip_tuple_fields)
    app.connect("html-page-context", drop_dead_scripts, priority=900)
    app.connect("html-page-context", mend_way_back)
    app.connect("html-page-context", make_entries_items)
    app.connect("html-page-context", flatten_list_of_modules)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
