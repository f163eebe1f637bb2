"""A file of finished work, by which a long table that was killed goes on where it stopped."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from logitflow.files import write_atomically

Figures = TypeVar("Figures")  # whatever JSON gives back as it was


def remembered(path: Path | None, key: str, work: Callable[[], Figures]) -> Figures:
    """The figures that an earlier, killed run wrote under this key, or else those of doing the work.

    Processes that do different work may share a file: each adds to what it finds there when its work is done.

    Args:
        path: a JSON file of figures by key, made if it is not there; None remembers nothing.
        key: says everything that the figures depend on.
        work: gives the figures.

    Raises:
        ValueError: the file is not what this function writes.
    """
    if path is None:
        return work()
    finished = _read(path)
    if key in finished:
        return finished[key]
    figures = work()
    with _in_turn(path):
        write_atomically(path, json.dumps(_read(path) | {key: figures}, indent=1).encode())
    return figures


@contextmanager
def _in_turn(path: Path) -> Iterator[None]:
    """One process at a time writes to a file's folder; the lock ends with its process, killed or not."""
    try:
        import fcntl
    except ImportError:  # Windows has another kind: there let no two processes share a file
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged: remove it to begin the table anew") from error
