"""Where data sets come from: a local folder that an environment variable names, or Hugging Face's hub."""

import os
from pathlib import Path
from typing import Any

VARIABLE = "LOGITFLOW_DATA"
"""The environment variable that names a local folder of data."""


def local(file: str, hub: str) -> Path | None:
    """The file's path in the folder that `LOGITFLOW_DATA` names; None where the variable is not set.

    Raises:
        FileNotFoundError: the folder has no such file.
    """
    root = os.environ.get(VARIABLE)
    if not root:
        return None
    path = Path(root) / file
    if not path.is_file():
        raise FileNotFoundError(
            f"{VARIABLE}={root} has no {file}: name the folder that has it, or unset the variable to fetch "
            f"{hub} from the hub"
        )
    return path


def fetch(hub: str, split: str, file: str, **settings: Any) -> Any:
    """A data set's rows from the hub; `file` is what a local folder would hold instead.

    Raises:
        ConnectionError: the hub cannot be reached and its cache has not got the rows.
    """
    import datasets  # slow to import, and needed only here
    import huggingface_hub

    try:
        if not datasets.config.HF_HUB_OFFLINE:
            # One question without retries: alone, load_dataset would try for half a minute.
            huggingface_hub.HfApi().dataset_info(hub, timeout=10)
        return datasets.load_dataset(hub, split=split, **settings)
    except Exception as error:  # whatever the hub's client or its transport raises
        raise ConnectionError(
            f"{hub} cannot be fetched ({type(error).__name__}): connect to the network, set {VARIABLE} to a "
            f"folder that holds {file}, or, where Hugging Face's cache has it, set HF_HUB_OFFLINE=1"
        ) from error
