"""Progress bars for long work: silent for two seconds, and wherever TQDM_DISABLE is set."""

import os
from collections.abc import Iterable
from typing import Any

from tqdm.auto import tqdm


def progress(iterable: Iterable[Any] | None = None, **settings: Any) -> tqdm:
    """tqdm's bar for terminals and notebooks, shown only if the work outlasts two seconds."""
    # The notebook's bar does not read TQDM_DISABLE by itself.
    disable = bool(os.environ.get("TQDM_DISABLE"))
    return tqdm(iterable, delay=2, leave=False, disable=disable, **settings)
