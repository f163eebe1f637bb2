"""How chapters run when the book is built: no progress bars, and pictures in place of controls."""

import os

from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, bool]:
    """Set what the chapters' kernels inherit. In Jupyter nothing is set, and controls are live."""
    os.environ["LOGITFLOW_STILL"] = "1"
    os.environ["TQDM_DISABLE"] = "1"
    return {"parallel_read_safe": True, "parallel_write_safe": True}
