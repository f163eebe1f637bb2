"""Grade a folder of submissions: their marks in a table and a picture, and a file of feedback for each.

python tools/grade_coursework.py FOLDER

Submissions are notebooks, or the zip files that the notebooks' last cell makes; each says which assignment it
is. Every one is graded by otter in processes of its own, for as long as the time limit lets it, without Docker
or a network. This *runs* what students wrote, on this machine.
"""

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from tqdm.auto import tqdm

ROOT = Path(__file__).resolve().parent.parent
GRADERS = ROOT / "_build" / "coursework" / "autograder"
ANSWER = "otter_answer_cell"  # the tag of a cell that a student fills


class Marks(NamedTuple):
    """What one submission earned."""

    submission: str
    assignment: str
    points: dict[str, float]  # by question
    possible: dict[str, float]  # by question
    note: str  # what went wrong, if anything
    feedback: str  # every test's message, the hidden ones too
    written: list[str]  # answers in words, for a person to read


class UngradableError(Exception):
    """A submission that earns nothing; the message says why."""


def read(path: Path) -> dict[str, Any]:
    """A submission's notebook.

    Raises:
        UngradableError: it is none, or several.
    """
    try:
        if path.suffix != ".zip":
            return json.loads(path.read_text(encoding="utf8"))
        with zipfile.ZipFile(path) as archive:
            inside = [name for name in archive.namelist() if name.endswith(".ipynb")]
            if len(inside) != 1:
                raise UngradableError(f"the zip holds {len(inside)} notebooks, not one")
            return json.loads(archive.read(inside[0]))
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UngradableError(f"not a notebook: {error}") from error


def grade(path: Path, name: str, graders: Path, time_limit: float) -> Marks:
    """Grade one submission; whatever is wrong with it is told in the note."""
    assignment, written = "", []
    try:
        notebook = read(path)
        assignment = str(notebook.get("metadata", {}).get("otter", {}).get("assignment_name", ""))
        grader = graders / f"{assignment}.zip"
        if not assignment or not grader.is_file():
            raise UngradableError(
                "it does not say which assignment it is: begin from the handed-out notebook"
            )
        written = answers(notebook)
        tests = results(notebook, assignment, grader, time_limit)
    except UngradableError as error:
        return Marks(name, assignment, {}, {}, str(error), str(error), written)
    points = {test["name"]: float(test["score"]) for test in tests}
    possible = {test["name"]: float(test["max_score"]) for test in tests}
    feedback = "\n\n".join(test["output"].strip() for test in tests)
    return Marks(name, assignment, points, possible, "", feedback, written)


def answers(notebook: dict[str, Any]) -> list[str]:
    """The answers in words: the text cells that were there to be filled."""
    cells = notebook.get("cells", [])
    filled = [c for c in cells if ANSWER in c.get("metadata", {}).get("tags", ())]
    return ["".join(c["source"]) for c in filled if c["cell_type"] == "markdown"]


def results(
    notebook: dict[str, Any], assignment: str, grader: Path, time_limit: float
) -> list[dict[str, Any]]:
    """Run otter on a notebook: name, score, max_score and output of each question.

    Raises:
        UngradableError: it took too long, or it broke the grader.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / f"{assignment}.ipynb"
        copy.write_text(json.dumps(notebook), encoding="utf8")
        words = ["otter", "run", str(copy), "-a", str(grader), "-o", folder, "--no-logo"]
        settings = {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg", "TQDM_DISABLE": "1"}
        process = subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=folder,
            env={**os.environ, **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            said, _ = process.communicate(timeout=time_limit)
        except subprocess.TimeoutExpired as error:
            os.killpg(process.pid, signal.SIGKILL)  # its kernel ends with it
            process.communicate()
            raise UngradableError(f"stopped after {time_limit:g} seconds") from error
        found = Path(folder) / "results.json"
        tests = json.loads(found.read_text())["tests"] if found.is_file() else []
    tests = [test for test in tests if "max_score" in test]
    if process.returncode or not tests:
        last = (said.strip().splitlines() or ["nothing was said"])[-1]
        raise UngradableError(f"it broke the grader: {last}")
    return tests


def write_table(rows: Sequence[Marks], path: Path) -> None:
    """A line for each submission: the sum, each question's points, and what went wrong."""
    questions = sorted({question for row in rows for question in row.points})
    with path.open("w", newline="", encoding="utf8") as file:
        table = csv.writer(file)
        table.writerow(["submission", "assignment", "points", "possible", *questions, "note"])
        for row in rows:
            each = [f"{row.points[q]:g}" if q in row.points else "" for q in questions]
            sums = [f"{sum(column.values()):g}" for column in (row.points, row.possible)]
            table.writerow([row.submission, row.assignment, *sums, *each, row.note])


def write_written(rows: Sequence[Marks], path: Path) -> None:
    """All answers in words on one page, by assignment, to be read and marked."""
    lines = ["# Answers in words", ""]
    for name in sorted({row.assignment for row in rows if row.written}):
        lines += [f"## {name}", ""]
        for row in rows:
            if row.assignment == name:
                lines += [f"### {row.submission}", "", *row.written, ""]
    path.write_text("\n".join(lines), encoding="utf8")


def draw(rows: Sequence[Marks], path: Path) -> None:
    """How much of each question those who were graded got on average, a panel for each assignment."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    names = sorted({row.assignment for row in rows if row.points})
    size = (1 + 2.4 * len(names), 3)
    fig, axes = plt.subplots(
        1, len(names), figsize=size, sharey=True, squeeze=False, layout="constrained"
    )
    for ax, name in zip(axes[0], names, strict=True):
        those = [row for row in rows if row.assignment == name and row.points]
        shares = {
            q: sum(row.points[q] for row in those) / (len(those) * most)
            for q, most in sorted(those[0].possible.items())
        }
        ax.bar(list(shares), list(shares.values()), color="#0173b2")
        ax.set(title=f"{name}\n{len(those)} graded", ylim=(0, 1), xlabel="question")
    axes[0, 0].set_ylabel("mean share of the points")
    fig.savefig(path, dpi=150)
    plt.close(fig)


def main(arguments: Sequence[str] | None = None) -> int:
    """Grade all submissions in a folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, help="where the .ipynb and .zip files are")
    parser.add_argument("--out", type=Path, help="where the marks go; FOLDER/marks if not given")
    parser.add_argument("--graders", type=Path, default=GRADERS, help="what make coursework made")
    parser.add_argument("--time-limit", type=float, default=600.0, help="seconds a submission")
    parser.add_argument("--jobs", type=int, default=2, help="submissions graded at a time")
    options = parser.parse_args(arguments)
    out = options.out or options.folder / "marks"
    if not options.folder.is_dir():
        print(
            f"There is no folder {options.folder}: say where the submissions are.", file=sys.stderr
        )
        return 2
    if not list(options.graders.glob("*.zip")):
        print(f"No graders in {options.graders}: make coursework first.", file=sys.stderr)
        return 2
    paths = [path for path in sorted(options.folder.rglob("*")) if is_submission(path, out)]
    if not paths:
        print(f"Neither .ipynb nor .zip files in {options.folder}.", file=sys.stderr)
        return 2
    names = [path.relative_to(options.folder).as_posix() for path in paths]
    with ThreadPoolExecutor(options.jobs) as pool:
        graders, limits = [options.graders] * len(paths), [options.time_limit] * len(paths)
        graded = pool.map(grade, paths, names, graders, limits)
        rows = list(tqdm(graded, total=len(paths), unit="submission"))
    (out / "feedback").mkdir(parents=True, exist_ok=True)
    write_table(rows, out / "marks.csv")
    write_written(rows, out / "written.md")
    for row in rows:
        file = out / "feedback" / (row.submission.replace("/", "-") + ".txt")
        file.write_text(row.feedback + "\n", encoding="utf8")
    if any(row.points for row in rows):
        draw(rows, out / "marks.png")
    failed = [row for row in rows if row.note]
    for row in failed:
        print(f"{row.submission}: {row.note}")
    print(f"{len(rows) - len(failed)} of {len(rows)} submissions graded: {out}/marks.csv")
    return 0


def is_submission(path: Path, out: Path) -> bool:
    """A notebook or a zip file, and not one that Jupyter or this tool put there."""
    hidden = any(part.startswith(".") for part in path.parts if part not in (".", ".."))
    return path.suffix in (".ipynb", ".zip") and not hidden and out not in path.parents


if __name__ == "__main__":
    raise SystemExit(main())
