"""Every chapter as a notebook beside the built pages, with the numbers of its page and a cell that installs.

Outputs are left out: whoever opens a notebook runs it.
"""

import ast
import re
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import jupytext
import nbformat
from names import Names
from nbformat import NotebookNode
from plain import plain
from repository import address, is_chapter, notebook_of, revision
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

FOLDER = "notebooks"
PACKAGE = "logitflow"
WIDGETS = ("anywidget", "ipywidgets")
"""What the toolkit imports only where a control is shown."""

INSTALL = """\
# On Colab, or wherever the toolkit is missing, install what this chapter was made with. Elsewhere, do nothing.
import importlib.util

if importlib.util.find_spec("{package}") is None:
{install}
import {package}

assert {package}.__version__ == "{version}", "this chapter was made with {package} {version}"
"""
CLONE = """\
    !git clone --quiet '{repository}' the-critic-knows
    %cd the-critic-knows/book
    !git checkout --quiet {revision}
    pins = "{pins}"
    if importlib.util.find_spec("torch") is None:
        pins += " {torch}"
    %pip install --quiet .. {{pins}}
"""
MISSING = """\
    raise ModuleNotFoundError(
        "This notebook needs {package} {version}: in the book's folder, `make lab` opens the chapters with it."
    )
"""


def pin(distribution: str) -> str:
    """The version of a package that the book is built with."""
    return f"{distribution}=={metadata.version(distribution).partition('+')[0]}"


def imported(cells: Iterable[str]) -> set[str]:
    """The packages that code imports, beside Python's own and the toolkit."""
    trees = [ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", cell, flags=re.M)) for cell in cells]
    names = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    providers = metadata.packages_distributions()
    return {providers[name][0] for name in names - sys.stdlib_module_names - {PACKAGE}}


def pins(cells: Iterable[str]) -> list[str]:
    """Pins of what the toolkit and these cells need, without torch: where there is one, it stays."""
    required = (metadata.requires(PACKAGE) or []) if PACKAGE else []
    always = {re.split(r"[^\w.-]", line)[0] for line in required if "extra ==" not in line}
    found = always | imported(cells) | set(WIDGETS)
    unique = {name.lower(): name for name in sorted(found)}
    return [pin(unique[name]) for name in sorted(unique) if name != "torch"]


def install_cell(repository: str, commit: str, cells: Iterable[str]) -> NotebookNode:
    """The first cell: it does nothing where the toolkit is there already."""
    version = metadata.version(PACKAGE)
    missing = MISSING.format(package=PACKAGE, version=version)
    clone = CLONE.format(
        repository=repository, revision=commit, pins=" ".join(pins(cells)), torch=pin("torch")
    )
    source = INSTALL.format(
        package=PACKAGE, version=version, install=clone if repository else missing
    )
    cell = nbformat.v4.new_code_cell(source.strip())
    cell.metadata = NotebookNode({"jupyter": {"source_hidden": True}, "cellView": "form"})
    return cell


def notebook(source: Path, names: Names, repository: str, commit: str) -> NotebookNode:
    """A chapter as Jupyter, Colab and VS Code show it."""
    book = jupytext.read(source)
    code = [cell.source for cell in book.cells if cell.cell_type == "code"]
    for cell in book.cells:
        if cell.cell_type == "markdown":
            cell.source = plain(cell.source, names.shown, names.link).strip("\n")
            cell.source = re.sub(r"\n{3,}", "\n\n", cell.source)
        hidden = bool({"hide-input", "remove-input"} & set(cell.metadata.get("tags", [])))
        cell.metadata = NotebookNode({"jupyter": {"source_hidden": True}} if hidden else {})
    book.cells = [cell for cell in book.cells if cell.source]
    book.cells.insert(0, install_cell(repository, commit, code))
    for number, cell in enumerate(book.cells):
        cell.id = f"cell-{number}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    book.metadata = NotebookNode({"kernelspec": kernel, "language_info": {"name": "python"}})
    return book


def write(app: Sphinx, error: Exception | None) -> None:
    """Write every chapter's notebook, and what Binder installs for them."""
    if error is not None or app.builder.format != "html":
        return
    folder = Path(app.outdir) / FOLDER
    folder.mkdir(exist_ok=True)
    repository, commit = address(app.config), revision(str(app.srcdir))
    chapters = [page for page in sorted(app.env.all_docs) if is_chapter(app, page)]
    code: list[str] = []
    for page in chapters:
        try:
            made = notebook(
                Path(app.env.doc2path(page)), Names(app, page, chapters), repository, commit
            )
        except ValueError as problem:
            raise ExtensionError(f"{page} cannot become a notebook: {problem}") from problem
        code += [cell.source for cell in made.cells[1:] if cell.cell_type == "code"]
        nbformat.write(made, folder / notebook_of(page))
    if repository:
        toolkit = f"{PACKAGE} @ git+{repository}@{commit}"
        lines = [*pins(code), pin("torch"), toolkit]
        (folder / "requirements.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Write the notebooks when the pages are there."""
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
