"""The assignments: solutions get full marks, blanks nothing, and each planted mistake costs what it should.

Most grading happens in this process, as otter does it in a kernel: the notebook's cells in order, errors
ignored, then the same tests from the same zip. One folder goes through `make grade`'s tool for comparison.
"""

import contextlib
import copy
import csv
import functools
import html
import importlib.util
import re
import sys
import warnings
import zipfile
from pathlib import Path
from types import ModuleType

import matplotlib.pyplot as plt
import nbformat
import pytest
import torch
import yaml

ROOT = Path(__file__).parent.parent
SOURCES = ROOT / "coursework"
PAGES = ROOT / "_build" / "html"
NAMES = sorted(path.stem for path in SOURCES.glob("[0-9]*.md"))
STEPS = "NUM_STEPS = 3000", "NUM_STEPS = 300"  # assignment 4 trains a tenth as long here

FULL = {
    "01-identity": {"q1": 3, "q2": 4, "q3": 4, "q4": 3, "q5": 4, "q6": 4},
    "02-langevin": {"q1": 4, "q2": 3, "q3": 3, "q4": 5, "q5": 3, "q6": 3},
    "03-dgflow": {"q1": 3, "q2": 4, "q3": 5, "q4": 5, "q5": 3, "q6": 3},
    "04-lab": {"q1": 4, "q2": 4, "q3": 4, "q4": 4, "q5": 4},
}

# the mistake, what of the solution it replaces by what, and the points of the questions that it costs something
WRONG = {
    "01-identity": [
        ("the ratio upside down", [("return a, b, c", "return -a, -b, -c")], {"q1": 0}),
        (
            "an exponential that overflows, and a sigmoid in place of the ratio",
            [
                ("torch.softmax(logits, dim=0)", "logits.exp() / logits.exp().sum()"),
                ("(logits - logits.max()).exp()", "torch.sigmoid(logits)"),
            ],
            {"q2": 3, "q6": 1},
        ),
        (
            "what the visible tests ask, and nothing else",
            [
                ("return a, b, c", "return 0.0, 1.0, -0.5"),
                (
                    "return (mean / std**2 + alpha) / precision, precision**-0.5",
                    "return alpha, 1.0",
                ),
                ("return math.log(new_std / std) + (squares - 1) / 2", "return alpha**2 / 2"),
                ("return (low + high) / 2", "return 1.0"),
            ],
            {"q1": 1, "q3": 2, "q4": 1, "q5": 1},
        ),
    ],
    "02-langevin": [
        (
            "noise without the root",
            [("math.sqrt(step_size) * noise", "step_size * noise")],
            {"q1": 3, "q4": 2},
        ),
        (
            "Metropolis without the proposal's densities, and the other half of the gradient",
            [
                (" + log_q(z, new) - log_q(new, z)", ""),
                (
                    "torch.autograd.grad(energy(z).sum(), z)",
                    "torch.autograd.grad(energy(z).mean(), z)",
                ),
            ],
            {"q4": 3, "q6": 1},
        ),
        (
            "the logit's sign, the stability forgotten, and the toolkit asked for the rest",
            [
                ("if abs(shrink) >= 1:", "if False:"),
                (
                    "(z**2).sum(1) / 2 - logit(generator(z))",
                    "(z**2).sum(1) / 2 + logit(generator(z))",
                ),
                (
                    "return z - step_size / 2 * grad_energy(z) + math.sqrt(step_size) * noise",
                    "from logitflow.samplers.core import randn_like\n"
                    "    noise = randn_like(z, generator)\n"
                    "    return z - step_size / 2 * grad_energy(z) + math.sqrt(step_size) * noise",
                ),
            ],
            {"q1": 0, "q2": 2, "q4": 0, "q5": 1},
        ),
    ],
    "03-dgflow": [
        (
            "the ratio upside down, and a factor r forgotten",
            [("(1 - alpha) * logits", "(alpha - 1) * logits"), ("(r * curvature)", "curvature")],
            {"q1": 1, "q2": 1},
        ),
        (
            "half the noise",
            [
                ("math.sqrt(2 * step_size * gamma)", "math.sqrt(step_size * gamma)"),
                ("variance + 2 * step_size * gamma", "variance + step_size * gamma"),
            ],
            {"q3": 3, "q4": 2},
        ),
        (
            "downhill, and the toolkit's weights",
            [
                ("+ step_size * drift", "- step_size * drift"),
                (
                    "return (r * curvature).detach()",
                    "from logitflow.divergences import velocity_weight\n    return velocity_weight(f)(logits)",
                ),
            ],
            {"q2": 0, "q3": 3},
        ),
    ],
    "04-lab": [
        (
            "the loss that saturates",
            [("return F.softplus(-fake_logits).mean()", "return -F.softplus(fake_logits).mean()")],
            {"q1": 1, "q2": 3},
        ),
        (
            "gradients that pile up, and e to the mean",
            [
                ("    d_optimizer.zero_grad()\n", ""),
                ("    g_optimizer.zero_grad()\n", ""),
                ("float(ratios.mean())", "float(logits.mean().exp())"),
            ],
            {"q2": 3, "q3": 2, "q5": 1},
        ),
        (
            "a distance axis by axis, no noise where it is asked for, and steps far too large",
            [
                ("torch.cdist(x, centers)", "(x[:, None] - centers).abs().amax(2)"),
                (" + math.sqrt(2 * step_size * gamma) * noise", " + 0.3 * noise"),
                ('"step_size": 0.003', '"step_size": 0.1'),
            ],
            {"q3": 3, "q4": 1, "q5": 1},
        ),
    ],
}


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("coursework")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in NAMES:
            tool("build_coursework").build(name, out, grade=False)
    return out


def solution(built: Path, name: str) -> nbformat.NotebookNode:
    return nbformat.read(built / "solutions" / name / f"{name}.ipynb", 4)


def blank(built: Path, name: str) -> nbformat.NotebookNode:
    return nbformat.read(built / "student" / name / f"{name}.ipynb", 4)


def changed(notebook: nbformat.NotebookNode, *changes: tuple[str, str]) -> nbformat.NotebookNode:
    """The notebook with pieces of code replaced, each of which must be there exactly once."""
    notebook = copy.deepcopy(notebook)
    for old, new in changes:
        cells = [cell for cell in notebook.cells if cell.cell_type == "code" and old in cell.source]
        assert len(cells) == 1, f"{old!r} is in {len(cells)} cells"
        assert cells[0].source.count(old) == 1, old
        cells[0].source = cells[0].source.replace(old, new)
    return notebook


@contextlib.contextmanager
def grading_mode(tests: Path):
    """Otter as it is in a grading kernel."""
    from otter import Notebook
    from otter.execute import Checker

    Notebook.init_grading_mode(str(tests))
    try:
        yield Checker
    finally:
        Notebook._grading_mode, Notebook._tests_dir_override = False, None
        Checker.disable_tracking()
        Checker.clear_results()


def grade(
    notebook: nbformat.NotebookNode, built: Path, name: str, folder: Path
) -> dict[str, float]:
    """Each question's points, graded in this process."""
    if name == "04-lab":
        notebook = changed(notebook, STEPS)
    with zipfile.ZipFile(built / "autograder" / f"{name}.zip") as archive:
        archive.extractall(folder)
    nbformat.write(notebook, folder / f"{name}.ipynb")
    namespace = {"__name__": "__main__", "display": lambda figure: None}
    with (
        contextlib.chdir(folder),
        on_path(folder / "files"),
        warnings.catch_warnings(),
        torch.random.fork_rng(),
        grading_mode(folder / "tests") as checker,
    ):
        warnings.simplefilter("ignore")
        for cell in notebook.cells:
            if cell.cell_type == "code" and "otter_ignore" not in cell.metadata.get("tags", ()):
                with contextlib.suppress(Exception):
                    exec(compile(cell.source, name, "exec"), namespace)
        for test in sorted((folder / "tests").glob("*.py")):
            checker.check_if_not_already_checked(str(test), namespace)
        results = checker.get_results()
    plt.close("all")
    return {result.name: result.score for result in results}


@contextlib.contextmanager
def on_path(folder: Path):
    """Import from a folder, and forget what came from it."""
    sys.path.insert(0, str(folder))
    sys.modules.pop("checks", None)
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("checks", None)


@pytest.mark.parametrize("name", NAMES)
def test_the_solution_gets_full_marks(built, name, tmp_path):
    assert grade(solution(built, name), built, name, tmp_path) == FULL[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_blank_gets_nothing(built, name, tmp_path):
    assert grade(blank(built, name), built, name, tmp_path) == dict.fromkeys(FULL[name], 0)


@pytest.mark.parametrize(
    ("name", "changes", "costs"),
    [(name, *wrong[1:]) for name in WRONG for wrong in WRONG[name]],
    ids=[f"{name}: {wrong[0]}" for name in WRONG for wrong in WRONG[name]],
)
def test_a_mistake_costs_what_it_should(built, name, changes, costs, tmp_path):
    wrong = changed(solution(built, name), *changes)
    assert grade(wrong, built, name, tmp_path) == FULL[name] | costs


def test_the_tool_grades_a_folder(built, tmp_path, capsys):
    """A zip with a mistake through otter itself, as `make grade` does it; and what cannot be graded."""
    name, (_, changes, costs) = "01-identity", WRONG["01-identity"][1]
    wrong = changed(solution(built, name), *changes)
    nbformat.write(wrong, tmp_path / "copy.ipynb")
    folder = tmp_path / "submissions"
    folder.mkdir()
    with zipfile.ZipFile(folder / "ada.zip", "w") as archive:
        archive.write(tmp_path / "copy.ipynb", f"{name}.ipynb")
    (folder / "bob.ipynb").write_text("my dog ate it")
    nbformat.write(nbformat.v4.new_notebook(), folder / "eve.ipynb")
    graders = str(built / "autograder")
    assert tool("grade_coursework").main([str(folder), "--graders", graders]) == 0
    with (folder / "marks" / "marks.csv").open() as file:
        ada, bob, eve = csv.DictReader(file)
    assert (ada["submission"], ada["assignment"], ada["note"]) == ("ada.zip", name, "")
    assert {q: float(ada[q]) for q in FULL[name]} == FULL[name] | costs
    assert float(ada["points"]) == sum((FULL[name] | costs).values())
    assert float(ada["possible"]) == sum(FULL[name].values())
    assert bob["note"].startswith("not a notebook")
    assert "begin from the handed-out notebook" in eve["note"]
    assert bob["points"] == eve["points"] == "0"
    said = (folder / "marks" / "feedback" / "ada.zip.txt").read_text()
    assert "The variance of the kept ones. Yours is" in said  # a hidden test, with its hint
    written = (folder / "marks" / "written.md").read_text()
    assert "ada.zip" in written
    assert (folder / "marks" / "marks.png").is_file()
    assert "1 of 3 submissions graded" in capsys.readouterr().out


def test_the_tool_stops_what_does_not_end(built, tmp_path):
    nbformat.write(blank(built, "02-langevin"), tmp_path / "eve.ipynb")
    marks = tool("grade_coursework").grade(
        tmp_path / "eve.ipynb", "eve.ipynb", built / "autograder", time_limit=0.5
    )
    assert (marks.points, marks.note) == ({}, "stopped after 0.5 seconds")


def test_the_tool_says_what_is_missing(tmp_path, capsys):
    grade_folder = tool("grade_coursework").main
    assert grade_folder([str(tmp_path / "nowhere")]) == 2
    assert "There is no folder" in capsys.readouterr().err
    assert grade_folder([str(tmp_path), "--graders", str(tmp_path)]) == 2
    assert "make coursework first" in capsys.readouterr().err
    assert tool("build_coursework").main(["05-nothing"]) == 1
    assert "choose one of 01-identity" in capsys.readouterr().err


def test_a_function_may_not_lean_on_the_toolkit():
    """Neither by itself, nor through another function, a module, an instance or an import inside."""
    from logitflow import divergences
    from logitflow.divergences import velocity_weight

    with on_path(SOURCES):
        from checks import by_yourself

    bound = velocity_weight("logd")

    def honest(d):
        return torch.exp(d)

    def through_a_module(d):
        return divergences.velocity_weight("kl")(d)

    def helper(d):
        return velocity_weight("kl")(d)

    def through_another(d):
        return [helper(each) for each in d]

    def imported(d):
        from logitflow import run

        return run(d)

    by_yourself(honest, functools.partial(honest))
    for function in (through_a_module, helper, through_another, imported, lambda d: bound(d)):
        with pytest.raises(AssertionError, match="from logitflow"):
            by_yourself(function)
    with pytest.raises(AssertionError, match="missing"):
        by_yourself(None)


CODE = re.compile(
    r"^(?: +# BEGIN SOLUTION|# BEGIN SOLUTION NO PROMPT)\n(.*?)^ *# END SOLUTION", re.DOTALL | re.M
)
WORDS = re.compile(r"```otter\n# BEGIN SOLUTION\n```\n([^`]*?)```otter\n# END SOLUTION")


@functools.cache
def solutions() -> list[set[str]]:
    """Each answer as the lines that it is made of; of an answer in words, the long pieces without markup."""
    sources = [(SOURCES / f"{name}.md").read_text() for name in NAMES]
    code = [text.splitlines() for source in sources for text in CODE.findall(source)]
    words = [re.split(r"[$*]", text) for source in sources for text in WORDS.findall(source)]
    pieces = [[line.strip() for line in lines] for lines in code]
    pieces += [[piece.strip() for piece in text if len(piece) > 40] for text in words]
    return [set(lines) - {""} for lines in pieces]


def told(text: str) -> list[set[str]]:
    """The answers of which every line is in a text, or in what a page shows of it."""
    shown = html.unescape(re.sub(r"<[^>]*>", "", text))
    return [lines for lines in solutions() if all(line in text or line in shown for line in lines)]


def test_the_solutions_can_be_told(built):
    """The two tests below look for something that is there: what is kept holds every answer."""
    kept = "\n".join(cell.source for name in NAMES for cell in solution(built, name).cells)
    assert len(solutions()) == len(told(kept)) == 29
    assert min(map(len, solutions())) >= 1


def test_what_is_handed_out_holds_neither_solutions_nor_hidden_tests(built):
    hidden, public = set(), set()
    for name in NAMES:
        source = (SOURCES / f"{name}.md").read_text()
        hidden |= set(re.findall(r"# HIDDEN\ndef (\w+)", source))
        public |= set(re.findall(r"ipython3\ndef (test_\w+)", source))
    assert len(hidden - public) > 30
    for path in (built / "student").rglob("*.*"):
        if path.suffix in (".ipynb", ".py"):
            cells = nbformat.read(path, 4).cells if path.suffix == ".ipynb" else []
            assert told("\n".join(cell.source for cell in cells)) == []
            assert not [name for name in hidden - public if name in path.read_text()]


def test_no_source_of_the_book_holds_a_solution():
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    assert "coursework" in config["exclude_patterns"]
    assert "coursework/" not in (ROOT / "_toc.yml").read_text()
    for path in (ROOT / "book").glob("*.md"):
        assert told(path.read_text()) == [], path


@pytest.mark.skipif(not PAGES.is_dir(), reason="no built book: make book")
def test_the_built_book_holds_no_solution():
    """Neither a page nor what lies beside the pages (`_sources`, downloads) holds one."""
    assert not [path for path in PAGES.rglob("*") if path.stem in NAMES]
    for path in PAGES.rglob("*"):
        if path.suffix in (".html", ".md", ".ipynb", ".txt") and path.is_file():
            assert told(path.read_text(errors="replace")) == [], path


def test_the_teachers_page_knows_the_points():
    page = (ROOT / "book" / "teachers.md").read_text()
    for number, name in enumerate(NAMES, start=1):
        [row] = re.findall(rf"^\| {number} · .*$", page, re.M)
        [words] = re.findall(r"manual: true\npoints: (\d)", (SOURCES / f"{name}.md").read_text())
        assert row.endswith(f"| {sum(FULL[name].values())} + {words} |")
