"""Make the assignments' notebooks for students, their solutions and their graders from coursework/*.md.

python tools/build_coursework.py

Everything goes to _build/coursework: `student/NAME/` to hand out (and the same as NAME.zip), `solutions/NAME/`
and `autograder/NAME.zip` to keep. No network and no Docker is needed. Each solution is graded on the way, and
anything below full marks stops the build.
"""

import argparse
import contextlib
import io
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import jupytext
from otter.assign import main as assign  # type: ignore[import-untyped]
from tqdm.auto import tqdm

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "coursework"
BUILT = ROOT / "_build" / "coursework"


def names() -> list[str]:
    """The assignments, by their files' names."""
    return sorted(path.stem for path in SOURCES.glob("[0-9]*.md"))


def build(name: str, out: Path = BUILT, *, grade: bool = True) -> None:
    """Make one assignment.

    Args:
        name: an entry of `names()`.
        out: folder for what is made; what it held of this assignment is replaced.
        grade: also grade the solution.

    Raises:
        ValueError: there is no such assignment.
        RuntimeError: the solution does not get full marks; the message says which test failed.
    """
    if name not in names():
        raise ValueError(f"there is no assignment {name!r}: choose one of {', '.join(names())}")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        notebook = jupytext.read(SOURCES / f"{name}.md")
        notebook.metadata.pop("jupytext", None)  # what is handed out is a notebook and nothing else
        jupytext.write(notebook, work / f"{name}.ipynb", version=4)
        shutil.copy(SOURCES / "checks.py", work)
        with contextlib.redirect_stdout(io.StringIO()):
            assign(str(work / f"{name}.ipynb"), str(work / "made"), no_run_tests=not grade)
        [grader] = (work / "made" / "autograder").glob("*-autograder_*.zip")
        for kind, part in (("student", "student"), ("solutions", "autograder")):
            folder_out = out / kind / name
            shutil.rmtree(folder_out, ignore_errors=True)
            folder_out.mkdir(parents=True)
            for file in (f"{name}.ipynb", "checks.py"):
                shutil.copy(work / "made" / part / file, folder_out)
        (out / "autograder").mkdir(exist_ok=True)
        shutil.move(grader, out / "autograder" / f"{name}.zip")
    shutil.make_archive(str(out / "student" / name), "zip", out / "student", name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make all assignments, or those named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these, such as 02-langevin")
    parser.add_argument("--out", type=Path, default=BUILT, help="folder for what is made")
    parser.add_argument("--no-grade", action="store_true", help="do not grade the solutions")
    options = parser.parse_args(arguments)
    bar = tqdm(options.names or names(), unit="assignment")
    for name in bar:
        bar.set_description(name)
        try:
            build(name, options.out, grade=not options.no_grade)
        except (RuntimeError, ValueError) as error:
            bar.close()
            print(f"{name}: {error}", file=sys.stderr)
            return 1
    bar.close()
    print(f"To hand out:     {options.out}/student  (a folder and a zip for each assignment)")
    print(f"To keep:         {options.out}/solutions and {options.out}/autograder")
    print("To grade later:  make grade SUBMISSIONS=folder")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
