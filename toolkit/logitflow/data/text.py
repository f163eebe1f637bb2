"""The One Billion Word benchmark as windows of 32 characters, from a local folder or from the hub.

Gulrajani et al. 2017 train on the first 32 characters of each sentence. The local copy has only some 12,000
sentences, so that we take every window that begins with a word: about twenty of each sentence.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from logitflow.data.source import fetch, local

CHARACTERS = "\N{REPLACEMENT CHARACTER}" + "".join(map(chr, range(32, 127)))
"""The 96 characters in the order of their codes: one for all that is unknown, then printable ASCII."""

LENGTH = 32
"""Characters in a window."""

HUB = "billion-word-benchmark/lm1b"
# The hub's main revision is a loading script, which `datasets` no longer runs; this one holds its rows.
REVISION = "refs/convert/parquet"
# The benchmark has 30 million training sentences; the windows of a million take 0.7 GB as codes.
MOST = 1_000_000


class Text(NamedTuple):
    """Sentences, and where they come from."""

    sentences: list[str]
    source: str  # for the figures computed with them


class Windows(NamedTuple):
    """Pieces of text in memory, one code a character: 250,000 of 32 characters take 8 MB."""

    codes: Tensor  # (N, L), uint8
    source: str

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n windows drawn with replacement as one-hot rows: (n, L, 96), float32.

        Raises:
            ValueError: there are no windows.
        """
        if not len(self.codes):
            raise ValueError("there are no windows to draw from: is every sentence too short?")
        at = generator.device
        which = torch.randint(len(self.codes), (n,), generator=generator, device=at)
        return one_hot(self.codes[which.to(self.codes.device)].to(at))


def encode(strings: Sequence[str]) -> Tensor:
    """Strings of one length L to codes: (N, L), uint8; what is not printable ASCII gets code 0.

    Raises:
        TypeError: a single string rather than a list.
        ValueError: strings of several lengths.
    """
    if isinstance(strings, str):
        raise TypeError("encode takes a list of strings: write encode([text])")
    lengths = {len(string) for string in strings}
    if len(lengths) > 1:
        raise ValueError(
            f"the strings have {min(lengths)} to {max(lengths)} characters: cut or pad them to one length"
        )
    return torch.from_numpy(_codes("".join(strings)).reshape(len(strings), *(lengths or {0})))


def decode(x: Tensor) -> list[str]:
    """Codes (N, L), or rows of probabilities (N, L, 96) by their likeliest characters, to strings.

    Raises:
        ValueError: another shape, a code above 95, or NaN.
    """
    array = np.array(list(CHARACTERS))[to_codes(x).cpu().numpy()]
    return ["".join(row) for row in array]


def one_hot(codes: Tensor) -> Tensor:
    """Codes (N, L) to float32 rows (N, L, 96) that are 1 at the code and 0 elsewhere."""
    return torch.nn.functional.one_hot(codes.long(), len(CHARACTERS)).float()


def to_codes(x: Tensor) -> Tensor:
    """Rows of probabilities (N, L, 96) to their likeliest codes (N, L), uint8; codes are left as they are.

    Raises:
        ValueError: another shape, a code that is not in 0…95, or NaN.
    """
    if x.ndim == 3 and x.shape[2] == len(CHARACTERS) and x.is_floating_point():
        if x.isnan().any():
            raise ValueError("rows of characters hold NaN: find out why the sampler made them")
        return x.argmax(2).to(torch.uint8)
    if x.ndim != 2 or x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
        raise ValueError(
            f"text is codes of whole numbers (N, L) or rows of probabilities (N, L, {len(CHARACTERS)}), not "
            f"{x.dtype} of shape {tuple(x.shape)}"
        )
    if x.numel() and (x.min() < 0 or x.max() >= len(CHARACTERS)):
        raise ValueError(f"codes lie in 0…{len(CHARACTERS) - 1}, not {x.min()}…{x.max()}")
    return x.to(torch.uint8)


def windows(sentences: Sequence[str], length: int = LENGTH) -> Tensor:
    """Every window of `length` characters that begins with a word and ends within its sentence.

    Words are what spaces part. Sentences shorter than a window have none; nothing is padded.

    Returns:
        Codes, shape (N, length), uint8, in the order of the text; N is 0 where no sentence is long enough.
    """
    codes = _codes("".join(sentences))
    if len(codes) < length:
        return torch.zeros(0, length, dtype=torch.uint8)
    ends = np.cumsum([len(sentence) for sentence in sentences])
    space = codes == CHARACTERS.index(" ")
    begins = ~space
    begins[1:] &= space[:-1]
    firsts = np.append(
        0, ends[:-1]
    )  # of each sentence; an empty one's is the next one's, or the end
    firsts = firsts[firsts < len(codes)]
    begins[firsts] = ~space[firsts]
    starts = np.flatnonzero(begins)
    starts = starts[starts + length <= ends[np.searchsorted(ends, starts, side="right")]]
    return torch.from_numpy(np.lib.stride_tricks.sliding_window_view(codes, length)[starts])


def billion_words(split: str = "train") -> Text:
    """The One Billion Word benchmark's sentences, tokenised: words and punctuation parted by spaces.

    Where `LOGITFLOW_DATA` names a folder, reads its `lm1b/{split}.txt`, one sentence a line; else asks the hub
    for the first million of billion-word-benchmark/lm1b.

    Args:
        split: "train" or "test", which share no sentence.

    Raises:
        ValueError: another split, or a file that is truncated, empty or no text.
        FileNotFoundError: `LOGITFLOW_DATA` names a folder without the file.
        ConnectionError: there is neither the variable nor a network.
    """
    if split not in ("train", "test"):
        raise ValueError(
            f"the One Billion Word benchmark has the splits 'train' and 'test', not {split!r}"
        )
    file = f"lm1b/{split}.txt"
    path = local(file, HUB)
    if path is not None:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is truncated or no UTF-8 text: fetch it again") from error
        if text and not text.endswith("\n"):
            raise ValueError(f"{path} ends within a line: it is truncated, fetch it again")
        lines = text.split("\n")
    else:
        rows = fetch(HUB, f"{split}[:{MOST}]", file, revision=REVISION)
        if "text" not in rows.column_names:
            raise ValueError(f"{HUB} has no column 'text': has the hub's data set changed?")
        lines = rows["text"][:]
    sentences = [line.strip() for line in lines if line.strip()]
    if not sentences:
        raise ValueError(f"{path or HUB} holds no sentences: fetch it again")
    return Text(sentences, f"One Billion Word ({split}, {len(sentences)} sentences)")


def _codes(text: str) -> np.ndarray:
    """One code a character: (len(text),), uint8."""
    # surrogates may stand alone in a string; they are unknown characters like any other
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    known = (points >= 32) & (points < 127)
    return np.where(known, points - 31, 0).astype(np.uint8)
