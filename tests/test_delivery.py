"""How the book leaves this folder: the workflow that publishes it, its versions, its PDF, its own MathJax."""

import io
import re
import shutil
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from browsing import CHROMIUM
from jupyter_cache import get_cache
from pypdf import PdfReader

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "book" / "_ext")]
import execute_chapters  # noqa: E402
import join_pdf  # noqa: E402
import make_pdf  # noqa: E402
import notebooks  # noqa: E402
import pages  # noqa: E402
import place_version  # noqa: E402
import repository  # noqa: E402
import still  # noqa: E402
import vendor_mathjax  # noqa: E402

WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/book.yml").read_text())
COMMANDS = [
    step["run"] for job in WORKFLOW["jobs"].values() for step in job["steps"] if "run" in step
]


def test_workflow_calls_what_there_is():
    """Every make target and every script that it names exists, and it sets what the buttons are made from."""
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    called = {word for run in COMMANDS for word in re.findall(r"\bmake ([a-z-]+)", run)}
    assert {"test", "pdf"} <= called <= targets
    scripts = {word for run in COMMANDS for word in re.findall(r"tools/\w+\.py", run)}
    assert scripts
    assert all((ROOT / script).is_file() for script in scripts)
    assert {"BOOK_REPOSITORY", "BOOK_VERSION"} <= WORKFLOW["env"].keys()


def test_workflow_publishes_releases_and_what_the_launch_buttons_open(monkeypatch):
    triggers = WORKFLOW[True]  # YAML reads "on" as a truth value
    assert triggers["push"] == {"branches": ["main"], "tags": ["v*"]}
    assert WORKFLOW["jobs"]["publish"]["needs"] == "test"
    monkeypatch.setenv("BOOK_VERSION", "$BOOK_VERSION")
    assert any(repository.branch() in run for run in COMMANDS)
    assert any(f"site/{notebooks.FOLDER}" in run for run in COMMANDS)


def built(folder: Path, words: str) -> Path:
    (folder / "_static").mkdir(parents=True, exist_ok=True)
    (folder / "index.html").write_text(words)
    return folder


def test_versions_lie_side_by_side(tmp_path):
    site, published = tmp_path / "site", tmp_path / "pages"
    place_version.place(built(site, "first"), published, "latest")
    assert "url=latest/index.html" in (published / "index.html").read_text()
    place_version.place(built(site, "release"), published, "v0.9.0")
    place_version.place(built(site, "newer"), published, "v0.10.0")
    place_version.place(built(site, "second"), published, "latest")
    assert place_version.versions(published) == ["v0.10.0", "v0.9.0", "latest"]
    assert "url=v0.10.0/index.html" in (published / "index.html").read_text()
    for version, words in (("v0.9.0", "release"), ("v0.10.0", "newer"), ("latest", "second")):
        assert (published / version / "index.html").read_text() == words
        assert f'href="{version}/index.html"' in (published / "index.html").read_text()


def test_a_version_that_is_none_is_refused(tmp_path):
    site = built(tmp_path / "site", "book")
    with pytest.raises(ValueError, match="a version is a tag"):
        place_version.place(site, tmp_path / "pages", "../elsewhere")
    with pytest.raises(ValueError, match="holds no built book"):
        place_version.place(tmp_path / "nothing", tmp_path / "pages", "latest")


def test_mathjax_is_unpacked_inside_its_folder(tmp_path):
    """Only what the pages load, and nothing beside the folder, whatever the archive's names say."""
    fonts = "es5/output/chtml/fonts/woff-v2"
    names = ("LICENSE", "es5/tex-mml-chtml.js", f"{fonts}/a.woff", "es5/other.js")
    with tarfile.open(tmp_path / "it.tgz", "w:gz") as archive:
        for name in (*names, f"{fonts}/../../../../../../evil.js"):
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = 1
            archive.addfile(entry, io.BytesIO(b"x"))
    vendor_mathjax.unpack(tmp_path / "it.tgz", tmp_path / "in")
    found = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    wanted = {"in/LICENSE", "in/tex-mml-chtml.js", f"in/{fonts.removeprefix('es5/')}/a.woff"}
    assert found == wanted | {"it.tgz"}


def test_pages_fall_back_to_the_usual_mathjax(tmp_path, monkeypatch, capsys):
    """Without npm nothing is written and nothing fails; with the bundle in place pages use it."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(vendor_mathjax, "TARGET", tmp_path / "book/_static/vendor/mathjax")
    vendor_mathjax.main()
    assert "from its CDN" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    app, config = SimpleNamespace(srcdir=tmp_path), SimpleNamespace(mathjax_path="the usual one")
    pages.use_vendored_mathjax(app, config)
    assert config.mathjax_path == "the usual one"
    bundle = tmp_path / "book/_static" / pages.MATHJAX
    bundle.parent.mkdir(parents=True)
    bundle.touch()
    pages.use_vendored_mathjax(app, config)
    assert config.mathjax_path == pages.MATHJAX


def test_pdf_says_what_is_missing(tmp_path, monkeypatch):
    if CHROMIUM is not None:
        with pytest.raises(SystemExit, match="make book"):
            make_pdf.make(tmp_path, tmp_path / "out.pdf", "T", "A")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match="No Chromium"):
        make_pdf.make(tmp_path, tmp_path / "out.pdf", "T", "A")


PAGE = """\
<!doctype html><html lang="en"><style>@media print {{ .bd-sidebar-primary {{ display: none }} }}</style>
<body><div class="bd-sidebar-primary"><nav class="bd-links">
<p class="caption">Part</p><a class="reference internal" href="a.html">A</a>
<a class="reference internal" href="b.html">B</a></nav></div>
<article class="bd-article"><h1>{title}</h1><section id="here"><h2>Here{title}</h2>
<div style="height: 1500px"></div></section><section id="there"><h2>There{title}</h2>
{links}</section></article></body></html>
"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")
def test_pdf_has_contents_bookmarks_and_links(tmp_path):
    book = tmp_path / "html" / "book"
    book.mkdir(parents=True)
    links = {
        "index": '<a href="b.html#there">on</a>',
        "a": '<a href="#here">up</a> <a href="https://example.org/">out</a>',
        "b": '<a href="../other.html">gone</a> <a href="a.html">back</a>',
    }
    for name, words in links.items():
        (book / f"{name}.html").write_text(PAGE.format(title=name.upper(), links=words))
    make_pdf.make(tmp_path / "html", tmp_path / "out.pdf", "The title", "The author")
    pdf = PdfReader(io.BytesIO((tmp_path / "out.pdf").read_bytes()))
    words = [page.extract_text() for page in pdf.pages]
    assert pdf.metadata is not None
    assert pdf.metadata.title == "The title"
    starts = {item.title: pdf.get_destination_page_number(item) for item in flat(pdf.outline)}
    assert list(starts) == [
        *("INDEX", "HereINDEX", "ThereINDEX", "A", "HereA", "ThereA", "B", "HereB", "ThereB")
    ]
    for title, number in starts.items():
        assert title in words[number]
        assert re.search(rf"\b{title}\s*{number + 1}\b", words[1]), "the contents name the page"
        foot = words[number].strip().splitlines()[-1]
        assert foot.startswith(str(number + 1))
    leads = [
        (number, pdf.pages.index(link["/Dest"][0].get_object()) if "/Dest" in link else "out")
        for number, page in enumerate(pdf.pages)
        for link in (reference.get_object() for reference in page.get("/Annots", []))
    ]
    assert set(leads) == {
        *((1, number) for number in starts.values()),
        (starts["ThereINDEX"], starts["ThereB"]),
        (starts["ThereA"], starts["HereA"]),
        (starts["ThereA"], "out"),
        (starts["ThereB"], starts["A"]),
    }


def flat(outline: list) -> list:
    """An outline's items without their levels."""
    return [x for item in outline for x in (flat(item) if isinstance(item, list) else [item])]


def test_first_pages_follow_one_another():
    chapters = [SimpleNamespace(pdf=SimpleNamespace(pages=[None] * n)) for n in (3, 1, 4)]
    assert join_pdf.first_pages(chapters, before=2) == [2, 5, 6]


CHAPTER = """---
kernelspec:
  name: python3
---

# A chapter

```{{code-cell}} ipython3
{code}
```
"""


def test_chapters_are_executed_side_by_side_into_the_builds_cache(tmp_path, monkeypatch):
    """Those that measure time are left to the build, and so is one that fails; none runs twice.

    They run as in the build: without its settings, pages showed controls that no kernel listens to.
    """
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    for name in still.SETTINGS:
        monkeypatch.setenv(name, "")
    log = tmp_path / "log"
    codes = {
        "good": f"import os; open({str(log)!r}, 'a').write('ran'); "
        f"print(6 * 7, *(os.environ[name] for name in {list(still.SETTINGS)}))",
        "bad": "raise RuntimeError('no')",
        "timed": "from time import perf_counter",
    }
    for name, code in codes.items():
        (tmp_path / f"{name}.md").write_text(CHAPTER.format(code=code))
    (tmp_path / "words.md").write_text("# Words alone")
    chapters = execute_chapters.side_by_side(tmp_path)
    assert [path.name for path in chapters] == ["bad.md", "good.md"]
    for _ in range(2):
        assert execute_chapters.execute(chapters, tmp_path / "cache") == [str(tmp_path / "bad.md")]
    assert log.read_text() == "ran"
    [record] = get_cache(tmp_path / "cache").list_cache_records()
    notebook = get_cache(tmp_path / "cache").get_cache_bundle(record.pk).nb
    assert notebook.cells[0].outputs[0]["text"] == "42 1 1\n"


def test_the_build_reads_what_was_executed():
    makefile = (ROOT / "Makefile").read_text()
    assert makefile.index("tools/execute_chapters.py") < makefile.index("jupyter-book build")
    assert (
        yaml.safe_load((ROOT / "_config.yml").read_text())["execute"]["execute_notebooks"]
        == "cache"
    )
    assert execute_chapters.CACHE == ROOT / "_build" / ".jupyter_cache"
