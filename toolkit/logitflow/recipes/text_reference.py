"""The shipped reference of text, remade from the data."""

from pathlib import Path

import torch

from logitflow.data import billion_words
from logitflow.metrics.text_reference import floors, make_reference, save_reference

COMMAND = (
    'python -c "from logitflow.recipes.text_reference import make_text_reference; '
    "make_text_reference('billion-words-reference')\""
)


def make_text_reference(folder: str | Path, seed: int = 0) -> None:
    """Write what `evaluate_text` compares with, from the One Billion Word benchmark; a minute on one core.

    Raises:
        ValueError, FileNotFoundError, ConnectionError: as `billion_words`.
    """
    train, test = billion_words("train"), billion_words("test")
    reference = make_reference(train, test)
    reference = reference._replace(
        floors=floors(train, reference, torch.Generator().manual_seed(seed))
    )
    save_reference(
        folder,
        reference,
        data={"train": train.source, "test": test.source},
        seed=seed,
        command=COMMAND,
    )
