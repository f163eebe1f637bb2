"""How good text is: its n-grams against those of held-out text, its words, its copies and its variety.

    evaluate_text(x)  # against the One Billion Word benchmark's test text; needs no data set

Text is windows of 32 characters, (N, 32) codes or (N, 32, 96) rows of probabilities, which count by their
likeliest characters.
"""

import bisect
import math
from hashlib import blake2b
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from logitflow import processes
from logitflow.data.text import CHARACTERS, LENGTH, to_codes

ORDERS = range(1, 7)
"""The n of the n-grams; the papers report 4 and 6."""

HASH_BYTES = 5
SPACE = CHARACTERS.index(" ")


class NGrams(NamedTuple):
    """How often each n-gram occurs."""

    keys: Tensor  # (K,), int64, ascending: an n-gram's codes as the digits of a number to base 96
    counts: Tensor  # (K,), int64, positive


class Spread(NamedTuple):
    """What a metric gives real samples: mean and standard deviation over draws."""

    mean: float
    std: float


class TextReference(NamedTuple):
    """What training and held-out text are like, without the text."""

    name: str  # stated beside every figure
    ngrams: tuple[NGrams, ...]  # of the held-out windows, one for each of `ORDERS`
    words: Tensor  # hashes of the training text's words, ascending
    windows: Tensor  # hashes of the training text's windows, ascending
    held_out: dict[str, float]  # word_share and copied_share of the held-out windows
    floors: dict[str, Any]  # what n real windows get: by `text_reference.floors`

    def floor(self, n: int) -> dict[str, Spread]:
        """What n training windows get against the held-out text: js_1 … js_6 and distinct_1 … distinct_6.

        Between the sizes measured, mean and spread are interpolated, their logarithms linearly in log n.

        Raises:
            ValueError: n lies outside the sizes measured, or there are none.
        """
        sizes = self.floors.get("n", [])
        if not sizes or not sizes[0] <= n <= sizes[-1]:
            span = f"{sizes[0]} to {sizes[-1]}" if sizes else "no number of"
            raise ValueError(f"the floor is known for {span} samples, not {n}: measure that many")
        i = max(1, bisect.bisect_left(sizes, n))
        weight = math.log(n / sizes[i - 1]) / math.log(sizes[i] / sizes[i - 1])

        def between(values: list[float]) -> float:
            return values[i - 1] ** (1 - weight) * values[i] ** weight

        figures = self.floors["figures"]
        return {
            name: Spread(between(entry["mean"]), between(entry["std"]))
            for name, entry in figures.items()
        }


def evaluate_text(samples: Tensor, reference: TextReference | None = None) -> dict[str, Any]:
    """Every figure of a set of windows.

    JS and distinct n-grams depend on how many samples there are: compare them at equal n, and with
    `TextReference.floor` of that n. Under `torchrun` the processes share the orders of n-grams; all return the
    same figures.

    Args:
        samples: codes, shape (N, 32), or rows of probabilities, shape (N, 32, 96).
        reference: None for the shipped one, of the One Billion Word benchmark.

    Returns:
        A dict that JSON can hold: "n" (samples); "reference"; "js_1" … "js_6", the Jensen–Shannon divergence in
        nats between the samples' n-grams and the held-out text's; "distinct_1" … "distinct_6", the share of
        the samples' n-grams that are distinct; "word_share", see `word_share`; "copied_share", the share of
        samples that stand word for word in the training text, beginning where a word does.

    Raises:
        ValueError: no samples, or other than windows of 32 characters.
    """
    codes = check_windows(samples)
    if reference is None:
        from logitflow.metrics.text_reference import load_reference  # which knows `TextReference`

        reference = load_reference()
    return {
        "n": len(codes),
        "reference": reference.name,
        **ngram_figures(codes, reference.ngrams),
        "word_share": word_share(codes, reference.words),
        "copied_share": share(hashes(pieces(codes)), reference.windows),
    }


def ngram_figures(codes: Tensor, held_out: tuple[NGrams, ...]) -> dict[str, float]:
    """The figures of `evaluate_text` that count n-grams."""
    counts = processes.gathered([ngrams(codes, n) for n in processes.share(ORDERS)])
    counted = dict(zip(ORDERS, counts, strict=True))
    figures = {
        f"js_{n}": js_divergence(counted[n], real) for n, real in zip(ORDERS, held_out, strict=True)
    }
    return figures | {f"distinct_{n}": distinct(counted[n]) for n in ORDERS}


def ngrams(codes: Tensor, n: int) -> NGrams:
    """Count the n-grams within windows: codes (N, L) have N·(L − n + 1) of them.

    Raises:
        ValueError: n is not in 1…9 (96⁹ still fits an int64), or the windows have fewer than n characters.
    """
    if not 1 <= n <= 9 or codes.shape[1] < n:
        raise ValueError(
            f"windows of {codes.shape[1]} characters have no {n}-grams to count: take n from 1 to 9 and no "
            "more than they have"
        )
    keys = torch.zeros_like(codes[:, n - 1 :], dtype=torch.int64)
    for i in range(n):
        keys = keys * len(CHARACTERS) + codes[:, i : codes.shape[1] - n + 1 + i]
    # numpy sorts integers several times faster than torch does
    found, counts = np.unique(keys.cpu().numpy(), return_counts=True)
    return NGrams(torch.from_numpy(found), torch.from_numpy(counts))


def js_divergence(p: NGrams, q: NGrams) -> float:
    """The Jensen–Shannon divergence in nats of two counts: 0 where equal, log 2 where nothing is shared.

    ½ KL(p ‖ m) + ½ KL(q ‖ m) with m = (p + q)/2. Between finite samples of one law it is positive: of
    sparse n-grams much so.

    Raises:
        ValueError: one of them counts nothing.
    """
    if not len(p.keys) or not len(q.keys):
        raise ValueError("the divergence needs at least one n-gram on either side")
    keys, where = torch.cat([p.keys, q.keys]).unique(return_inverse=True)
    shares = torch.zeros(2, len(keys), dtype=torch.float64)
    for row, positions, counts in zip(
        shares, where.split([len(p.keys), len(q.keys)]), (p.counts, q.counts), strict=True
    ):
        row[positions] = counts.double() / counts.sum()
    terms = torch.xlogy(shares, shares / shares.mean(0))
    value = (terms[0] + terms[1]).sum().item() / 2
    return min(max(value, 0.0), math.log(2))  # rounding may leave −1e-17


def distinct(counted: NGrams) -> float:
    """The share of n-grams that are distinct: how many there are, over how often they occur in all."""
    return len(counted.keys) / int(counted.counts.sum())


def word_share(codes: Tensor, known: Tensor) -> float:
    """The share of words that are in the training text's vocabulary, over all windows' words.

    A window's words are what a space ends, its first from where the window begins. The last is left out unless
    a space follows it, for the window's end may cut it. A window without any space is one word, so that text
    without spaces does not go free; a window of spaces alone has no words, and without words the share is 0.
    """
    return share(hashes(whole_words(codes)), known)


def whole_words(codes: Tensor) -> list[bytes]:
    """The words of `word_share`, in order."""
    space = bytes([SPACE])
    return list(
        chain.from_iterable(
            filter(None, window.split(space)[:-1]) if space in window else [window]
            for window in pieces(codes)
        )
    )


def pieces(codes: Tensor) -> list[bytes]:
    """Each window's codes as bytes."""
    return [row.tobytes() for row in codes.cpu().contiguous().numpy()]


def hashes(words: list[bytes]) -> Tensor:
    """40 bits of BLAKE2 of each: (len(words),), int64.

    Something unknown is taken for known with probability len(known) / 2⁴⁰: for 240,000 windows 2·10⁻⁷.
    """
    values = (
        int.from_bytes(blake2b(word, digest_size=HASH_BYTES).digest(), "big") for word in words
    )
    return torch.tensor(list(values), dtype=torch.int64)


def share(values: Tensor, known: Tensor) -> float:
    """The share of values that are among the known; 0 where there are none."""
    return torch.isin(values, known).double().mean().item() if len(values) else 0.0


def check_windows(samples: Tensor) -> Tensor:
    """Samples as codes (N, 32), uint8, on the CPU.

    Raises:
        ValueError: what they are instead.
    """
    codes = to_codes(samples.detach()).cpu()
    if codes.shape[1] != LENGTH:
        raise ValueError(
            f"the samples have {codes.shape[1]} characters: the reference knows windows of {LENGTH}"
        )
    if not len(codes):
        raise ValueError("there are no samples: pass at least one")
    return codes
