"""Progress bars for long work: silent for two seconds, and wherever TQDM_DISABLE is set."""

import os
from collections.abc import Iterable
from typing import Any

from tqdm.auto import tqdm

from logitflow.processes import is_silent


def progress(iterable: Iterable[Any] | None = None, **settings: Any) -> tqdm:
    """tqdm's bar for terminals and notebooks, shown only if the work outlasts two seconds.

    Of several processes the first shows how far its own share has come.
    """
    # The notebook's bar does not read TQDM_DISABLE by itself.
    disable = bool(os.environ.get("TQDM_DISABLE")) or is_silent()
    return tqdm(iterable, delay=2, leave=False, disable=disable, **settings)
