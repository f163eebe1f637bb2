"""A file of finished work, by which a long table that was killed goes on where it stopped."""

import json
from collections.abc import Callable
from pathlib import Path

from logitflow.files import write_atomically

Figures = dict[str, float]


def remembered(path: Path | None, key: str, work: Callable[[], Figures]) -> Figures:
    """The figures that an earlier, killed run wrote under this key, or else those of doing the work.

    Args:
        path: a JSON file of figures by key, made if it is not there; None remembers nothing.
        key: says everything that the figures depend on.
        work: gives the figures.

    Raises:
        ValueError: the file is not what this function writes.
    """
    if path is None:
        return work()
    finished: dict[str, Figures] = {}
    if path.exists():
        try:
            finished = dict(json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path} is damaged: remove it to begin the table anew") from error
    if key not in finished:
        finished[key] = work()
        write_atomically(path, json.dumps(finished, indent=1).encode())
    return finished[key]
