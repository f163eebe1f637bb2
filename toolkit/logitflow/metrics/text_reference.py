"""Making `TextReference`, what evaluating needs to know of the text, and its few bytes on disk."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from logitflow.cards import load_checked, read_card, save_checked, write_card, wrong_tensors
from logitflow.data.text import Text, encode, windows
from logitflow.metrics.text import (
    ORDERS,
    NGrams,
    TextReference,
    hashes,
    ngram_figures,
    ngrams,
    pieces,
    share,
    word_share,
)
from logitflow.progress import progress

SHIPPED = Path(__file__).parents[1] / "zoo" / "billion-words-reference"
"""The reference that ships: of the One Billion Word benchmark.

:meta hide-value:
"""

SIZES = (250, 500, 1000, 2000, 5000, 10_000, 20_000)
"""Numbers of samples at which floors are measured."""


def make_reference(train: Text, test: Text) -> TextReference:
    """What `evaluate_text` needs of training and held-out text; without floors, see `floors`.

    The n-grams are those of all held-out windows, overlapping ones too: so each counts as often as a window
    drawn at random would show it, and there are as many as the text can tell. Fewer would raise JS of every
    sample, real ones included, the more so the longer the n-gram.

    Raises:
        ValueError: one of the texts has no sentence as long as a window.
    """
    known, held_out = windows(train.sentences), windows(test.sentences)
    if not len(known) or not len(held_out):
        raise ValueError("the training and the held-out text need a sentence of 32 characters each")
    vocabulary = {word for sentence in train.sentences for word in sentence.split(" ") if word}
    words = hashes([encode([word])[0].numpy().tobytes() for word in vocabulary]).unique()
    seen = hashes(pieces(known)).unique()
    return TextReference(
        f"{test.source}; words and copies: {train.source}",
        tuple(ngrams(held_out, n) for n in ORDERS),
        words,
        seen,
        {
            "word_share": word_share(held_out, words),
            "copied_share": share(hashes(pieces(held_out)), seen),
        },
        {},
    )


def floors(
    train: Text,
    reference: TextReference,
    generator: torch.Generator,
    sizes: tuple[int, ...] = SIZES,
    draws: int = 20,
) -> dict[str, Any]:
    """What training windows, drawn without replacement, get against the held-out ones.

    Raises:
        ValueError: the training text has fewer windows than the largest size asks for.
    """
    known = windows(train.sentences)
    if len(known) < max(sizes):
        raise ValueError(f"{max(sizes)} samples cannot be drawn of {len(known)} windows")
    rows: dict[str, list[Tensor]] = {}
    with progress(total=len(sizes) * draws, desc="floors") as bar:
        for n in sizes:
            values = []
            for _ in range(draws):
                drawn = known[torch.randperm(len(known), generator=generator)[:n]]
                values.append(ngram_figures(drawn, reference.ngrams))
                bar.update()
            for name in values[0]:
                rows.setdefault(name, []).append(
                    torch.tensor([v[name] for v in values], dtype=torch.float64)
                )
    return {
        "n": list(sizes),
        "draws": draws,
        "figures": {
            name: {"mean": [v.mean().item() for v in of], "std": [v.std().item() for v in of]}
            for name, of in rows.items()
        },
    }


def save_reference(folder: str | Path, reference: TextReference, **card: Any) -> None:
    """Write a reference: `reference.safetensors` with counts and hashes but no text, and `card.json`.

    Args:
        folder: made if it is not there; files of the same names are replaced.
        reference: by `make_reference`.
        card: what else the card should say: command, seed, data.
    """
    tensors = {"words": pack(reference.words), "windows": pack(reference.windows)}
    for n, counted in zip(ORDERS, reference.ngrams, strict=True):
        tensors[f"keys_{n}"] = pack(counted.keys)
        tensors[f"counts_{n}"] = pack(counted.counts.cumsum(0))  # ascending, as pack asks
    folder = Path(folder)
    entry = {
        "name": reference.name,
        "held_out": reference.held_out,
        "floors": reference.floors,
        "sha256": save_checked(folder / "reference.safetensors", tensors),
    }
    # every card says which networks its folder holds: here, none
    write_card(folder / "card.json", {"networks": {}, "reference": entry, **card})


def load_reference(folder: str | Path = SHIPPED) -> TextReference:
    """The shipped reference or a folder's, after checking its file against its card.

    Raises:
        FileNotFoundError: the folder has no card, or the file is missing.
        ValueError: the checksum is wrong, a tensor is missing, or the card is of something else.
    """
    path, file = Path(folder) / "card.json", Path(folder) / "reference.safetensors"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: pass a folder that `save_reference` wrote")
    entry = read_card(path, "reference")["reference"]
    tensors = load_checked(file, entry)
    try:
        return TextReference(
            entry["name"],
            tuple(_counted(tensors, n) for n in ORDERS),
            unpack(tensors["words"]),
            unpack(tensors["windows"]),
            entry["held_out"],
            entry["floors"],
        )
    except KeyError as error:
        raise wrong_tensors(file, error) from error


def _counted(tensors: dict[str, Tensor], n: int) -> NGrams:
    sums = unpack(tensors[f"counts_{n}"])
    return NGrams(unpack(tensors[f"keys_{n}"]), sums.diff(prepend=sums.new_zeros(1)))


def pack(values: Tensor) -> Tensor:
    """Ascending numbers of at least 0 as bytes: their differences, seven bits a byte, the lowest first.

    A byte of 128 or more says that another follows.
    """
    differences = np.diff(values.numpy(), prepend=0)
    shifted = differences[:, None] >> (7 * np.arange(7))  # 49 bits: more than any of ours has
    more = shifted[:, 1:] > 0
    kept = np.column_stack([np.ones(len(more), bool), more])
    low = (shifted & 127).astype(np.uint8)
    low[:, :-1] |= more.astype(np.uint8) << 7
    return torch.from_numpy(low[kept])


def unpack(data: Tensor) -> Tensor:
    """The numbers that `pack` took: (K,), int64."""
    values = data.numpy()
    begins = np.append(True, values[:-1] < 128)[: len(values)]
    starts = np.flatnonzero(begins)
    if not len(starts):
        return torch.zeros(0, dtype=torch.int64)
    position = np.arange(len(values)) - starts[np.cumsum(begins) - 1]
    shifted = (values & 127).astype(np.int64) << (7 * position)
    return torch.from_numpy(np.add.reduceat(shifted, starts).cumsum())
