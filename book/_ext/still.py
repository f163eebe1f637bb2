"""How chapters run when the book is built: no progress bars, and pictures in place of controls."""

import os

from sphinx.application import Sphinx

SETTINGS = {"LOGITFLOW_STILL": "1", "TQDM_DISABLE": "1"}
"""What the chapters' kernels inherit. In Jupyter nothing is set, and controls are live."""


def setup(app: Sphinx) -> dict[str, bool]:
    """Set it for the chapters that Sphinx executes."""
    os.environ.update(SETTINGS)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
