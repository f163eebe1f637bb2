"""Execute the chapters that have changed, as many at a time as there are cores, into the cache the build reads.

python tools/execute_chapters.py

`jupyter-book build` executes one after the other what it does not find in the cache. Left to it: chapters that
measure time, which want the machine to themselves, and those that fail here, so that the build says why.
"""

import logging
import os
import sys
from pathlib import Path

from jupyter_cache import get_cache  # type: ignore[import-untyped]
from jupyter_cache.executors import load_executor  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "book" / "_ext"))
import still  # noqa: E402

CACHE = ROOT / "_build" / ".jupyter_cache"
READER = {"name": "myst_nb_md", "type": "plugin"}  # the build's own


def side_by_side(folder: Path) -> list[Path]:
    """The chapters with code in a folder, less those that measure time."""
    texts = {path: path.read_text() for path in sorted(folder.glob("*.md"))}
    return [p for p, text in texts.items() if "{code-cell}" in text and "perf_counter" not in text]


def execute(chapters: list[Path], cache_folder: Path) -> list[str]:
    """Execute what the cache lacks as the build would, and return the chapters that failed."""
    os.environ.update(still.SETTINGS)  # the kernels inherit it
    cache = get_cache(cache_folder)
    for path in chapters:
        cache.add_nb_to_project(str(path), read_data=READER)
    executor = load_executor("local-parallel", cache, logger=logging.getLogger("chapters"))
    result = executor.run_and_cache(timeout=300)
    return [*result.excepted, *result.errored]


def main() -> None:
    """Execute this book's chapters."""
    chapters = side_by_side(ROOT / "book")
    print(f"executing what has changed of {len(chapters)} chapters, {os.cpu_count()} at a time")
    for path in execute(chapters, CACHE):
        print(f"{path} failed; the build executes it once more and says why")


if __name__ == "__main__":
    main()
