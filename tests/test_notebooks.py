"""Chapters as notebooks: plain Markdown, a first cell that installs, and the buttons that lead there."""

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import logitflow

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "book" / "_ext"))
import notebooks  # noqa: E402
from plain import plain  # noqa: E402

REPOSITORY = "https://github.com/someone/the-book"
CONFIG = """\
title: A small book
only_build_toc_files: true
execute: {execute_notebooks: "off"}
parse: {myst_enable_extensions: [amsmath, attrs_inline, colon_fence, dollarmath]}
bibtex_bibfiles: [book/references.bib]
repository: {url: "", branch: main}
sphinx:
  extra_extensions: [sphinx_proof, sphinx_exercise, sphinx.ext.autodoc]
  local_extensions: {notebooks: EXT, pages: EXT, repository: EXT}
  config: {bibtex_default_style: unsrt, bibtex_reference_style: author_year, suppress_warnings: [myst.domains]}
"""
CHAPTER = """\
---
jupytext: {text_representation: {extension: .md, format_name: myst}}
kernelspec: {display_name: Python 3, language: python, name: python3}
---
# 3 · A chapter

(a-label)=
## Here

```{math}
:label: eq:ch3-a
a = b
```

````{prf:theorem} About $a$
:label: thm:ch3-a
With {eq}`eq:ch3-a`,

```{math}
:label: eq:ch3-b
b = a
```
````

```{code-cell} ipython3
:tags: [hide-input]
import json

found = json.loads("[1, 2]")
assert sum(found) == 3
```

```{exercise} Easy
:label: ex-ch3
Read {prf:ref}`thm:ch3-a`, {eq}`eq:ch3-b`, {ref}`a-label` and {cite:t}`che2020ddls` {cite:p}`ansari2021dgflow`.
```

```{solution} ex-ch3
:class: dropdown
See [notation](notation.md), [this chapter](03-chapter.md) and `{eq}` in $[a](b)$.
```
"""
REFERENCES = """\
@article{che2020ddls, author={Che, A and Zhang, B and Li, C}, title={One}, journal={J}, year={2020}}
@article{ansari2021dgflow, author={Ansari, A and Ang, B and Soh, C}, title={Two}, journal={J}, year={2021}}
"""
SHOWN = """\
## Here

$$
a = b
\\tag{3.1}
$$

**Theorem 3.1 (About $a$).**
With (3.1),

$$
b = a
\\tag{3.2}
$$
"""
EXERCISE = """\
**Exercise 3.1 (Easy).**
Read Theorem 3.1, (3.2), Here and Che et al. [2020] [Ansari et al., 2021].

<details>
<summary>Solution to Exercise 3.1</summary>

See notation, [this chapter](03-chapter.ipynb) and `{eq}` in $[a](b)$.

</details>"""

RUN_CELLS = """\
import json, sys
from IPython.core.interactiveshell import InteractiveShell

for cell in json.loads(sys.argv[1]):
    InteractiveShell.instance().run_cell(cell).raise_error()
"""


def build(folder: Path, **environment: str) -> Path:
    """Build a book of one chapter and one page, and return its pages' folder."""
    book = folder / "book"
    book.mkdir(parents=True, exist_ok=True)
    (folder / "_config.yml").write_text(CONFIG.replace("EXT", str(ROOT / "book" / "_ext")))
    (folder / "_toc.yml").write_text(
        "{format: jb-book, root: book/notation, chapters: [{file: book/03-chapter}]}"
    )
    (book / "03-chapter.md").write_text(CHAPTER)
    (book / "notation.md").write_text("# Notation\n\n```{bibliography}\n:all:\n```\n")
    (book / "references.bib").write_text(REFERENCES)
    environment = {**os.environ, "BOOK_REPOSITORY": "", "BOOK_VERSION": "", **environment}
    command = [Path(sys.executable).with_name("jupyter-book"), "build", folder, "-n", "-W"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return folder / "_build" / "html"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | Path]:
    """The small book's pages and notebooks, before and after its repository is known."""
    folder = tmp_path_factory.mktemp("small-book")
    html = build(folder)
    read = {"unknown": (html / "book/03-chapter.html").read_text(), "folder": html}
    shutil.copy(html / "notebooks/03-chapter.ipynb", html / "notebooks/unknown.ipynb")
    build(folder, BOOK_REPOSITORY=REPOSITORY, BOOK_VERSION="v9.9")
    return {**read, "known": (html / "book/03-chapter.html").read_text()}


def links(page: str) -> set[str]:
    """Where the page's links lead."""
    return set(re.findall(r'href="([^"]+)"', page))


def test_no_dead_button_where_the_repository_is_unknown(site):
    assert "../notebooks/03-chapter.ipynb" in links(site["unknown"])
    foreign = {link for link in links(site["unknown"]) if link.startswith("http")}
    assert not [link for link in foreign if re.search("github|colab|binder", link)]


def test_buttons_lead_to_the_repository_and_to_the_branch_of_notebooks(site):
    found = links(site["known"])
    colab, binder = "https://colab.research.google.com/github", "https://mybinder.org/v2/gh"
    assert f"{colab}/someone/the-book/blob/notebooks-v9.9/03-chapter.ipynb" in found
    assert f"{binder}/someone/the-book/notebooks-v9.9?urlpath=lab/tree/03-chapter.ipynb" in found
    assert f"{REPOSITORY}/edit/main/book/03-chapter.md" in found
    assert any(link.startswith(f"{REPOSITORY}/issues/new") for link in found)


def test_a_notebook_is_plain_and_keeps_the_numbers(site):
    made = nbformat.read(site["folder"] / "notebooks/03-chapter.ipynb", 4)
    nbformat.validate(made)
    kinds = [cell.cell_type for cell in made.cells]
    assert kinds == ["code", "markdown", "code", "markdown"]
    assert made.cells[1].source == f"# 3 · A chapter\n\n{SHOWN}".strip()
    assert made.cells[3].source == EXERCISE
    assert made.cells[2].metadata == {"jupyter": {"source_hidden": True}}
    assert all(cell.outputs == [] for cell in made.cells if cell.cell_type == "code")


def test_a_notebook_runs(site):
    """From its first cell, in this environment: the toolkit is there, so nothing is installed."""
    for name in ("03-chapter", "unknown"):
        made = nbformat.read(site["folder"] / f"notebooks/{name}.ipynb", 4)
        NotebookClient(made, timeout=120).execute()


def test_pins_are_those_that_the_book_is_tested_with(site):
    made = nbformat.read(site["folder"] / "notebooks/03-chapter.ipynb", 4)
    tested = (ROOT / "requirements.txt").read_text().splitlines()
    [written] = re.findall(r'pins = "(.*)"', made.cells[0].source)
    [torch] = re.findall(r'pins \+= " (.*)"', made.cells[0].source)
    assert {*written.split(), torch} <= set(tested)
    assert f'"{logitflow.__version__}"' in made.cells[0].source
    for needed in ("numpy==", "safetensors==", "ipywidgets=="):
        assert needed in written
    binder = (site["folder"] / "notebooks/requirements.txt").read_text().splitlines()
    assert set(binder[:-1]) <= set(tested)
    assert binder[-1].startswith(f"logitflow @ git+{REPOSITORY}@")


def test_imports_are_pinned():
    cells = ["%pip list\nimport scipy.stats as s", "from pandas import DataFrame\nimport math"]
    assert notebooks.imported([*cells, "import logitflow.plots"]) == {"scipy", "pandas"}
    assert {"pandas", "scipy"} <= {pin.partition("==")[0] for pin in notebooks.pins(cells)}


def test_first_cell_installs_where_the_toolkit_is_missing(tmp_path):
    """An environment with this one's packages but no logitflow: the cell clones and installs the commit."""
    if not (ROOT / ".git").exists():
        pytest.skip("no git repository to install from")
    venv.create(tmp_path / "fresh", symlinks=True)
    [packages] = (tmp_path / "fresh").glob("lib/python3*/site-packages")
    for path in Path(nbformat.__file__).parent.parent.iterdir():
        if "logitflow" not in path.name and not (packages / path.name).exists():
            (packages / path.name).symlink_to(path)
    commit = notebooks.revision(str(ROOT))
    cell = notebooks.install_cell(str(ROOT), commit, ["import scipy"])
    after = "import glob, torch; print(logitflow.__file__, len(glob.glob('*.md')))"
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment |= {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "HOME": str(tmp_path)}
    done = subprocess.run(
        [tmp_path / "fresh/bin/python", "-c", RUN_CELLS, json.dumps([cell.source, after])],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    *_, where, chapters = done.stdout.split()
    assert Path(where).is_relative_to(tmp_path / "fresh")
    assert int(chapters) > 5


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("```{note}\nMind this.\n```", "\n> **Note**\n>\n> Mind this.\n"),
        (":::{admonition} Why\n:class: tip\nSo.\n:::", "\n> **Why**\n>\n> So.\n"),
        ("```python\n{eq}`a`\n```", "```python\n{eq}`a`\n```"),
        ("```{math}\na \\\\ b\n```", "\n$$\n\\begin{split}\na \\\\ b\n\\end{split}\n$$\n"),
        ("```{figure} a.png\n:alt: A\nWords.\n```", "\n![A](a.png)\n\nWords.\n"),
        ("{ref}`words <there>`, {math}`x`", "words, <math x>"),
    ],
)
def test_plain(written, shown):
    assert plain(written, lambda role, target: f"<{role} {target}>", lambda target: None) == shown


@pytest.mark.parametrize("text", ["```{list-table}\n```", "```{note}\nnever closed"])
def test_what_no_notebook_can_show_is_refused(text):
    with pytest.raises(ValueError, match=r"list-table|never closed"):
        plain(text, lambda role, target: target, lambda target: None)
