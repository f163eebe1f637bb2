"""Text: codes and back, windows that begin with words, fair draws, files as they should and should not be."""

import math
import os

import pytest
import torch
from laws import seeded

from logitflow.data import (
    CHARACTERS,
    Windows,
    billion_words,
    decode,
    encode,
    one_hot,
    windows,
)
from logitflow.data.source import VARIABLE
from logitflow.data.text import HUB, to_codes

datasets = pytest.importorskip("datasets")
DATA = os.environ.get(VARIABLE)
with_data = pytest.mark.skipif(not DATA, reason=f"{VARIABLE} names no folder of data")


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A data folder that the loader reads."""
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    monkeypatch.setattr(datasets, "load_dataset", None)  # nothing may ask the hub
    (tmp_path / "lm1b").mkdir()
    return tmp_path


# Codes and back


def test_the_characters_are_the_unknown_and_printable_ascii():
    assert len(CHARACTERS) == len(set(CHARACTERS)) == 96
    assert CHARACTERS[0] == "\ufffd"
    assert CHARACTERS[1:] == "".join(sorted(c for c in map(chr, range(128)) if c.isprintable()))


def test_every_character_comes_back():
    codes = encode([CHARACTERS, CHARACTERS[::-1]])
    assert codes.dtype == torch.uint8
    assert codes[0].tolist() == list(range(96))
    assert decode(codes) == [CHARACTERS, CHARACTERS[::-1]]
    assert decode(one_hot(codes)) == decode(codes.long()) == decode(codes)


def test_unknown_characters_get_one_code_each():
    text = "a\n\t\x7f\x00é€😀\ud800z"
    assert encode([text])[0].tolist() == [66, 0, 0, 0, 0, 0, 0, 0, 0, 91]
    assert decode(encode([text])) == ["a" + "\ufffd" * 8 + "z"]


def test_rows_of_probabilities_count_by_their_likeliest_character():
    codes = torch.randint(0, 96, (5, 7), generator=seeded())
    noise = torch.rand(5, 7, 96, generator=seeded(1))
    rows = (3 * one_hot(codes) + noise).softmax(2)
    assert torch.equal(to_codes(rows), codes.to(torch.uint8))
    torch.testing.assert_close(one_hot(codes).sum(2), torch.ones(5, 7))


def test_empty_text_has_codes_of_its_shape():
    assert encode([]).shape == (0, 0)
    assert encode(["", ""]).shape == (2, 0)
    assert decode(encode([""])) == [""]
    assert decode(torch.zeros(0, 32, dtype=torch.uint8)) == []


def test_what_is_no_text_is_refused():
    with pytest.raises(ValueError, match="have 1 to 2 characters: cut or pad them"):
        encode(["a", "bc"])
    with pytest.raises(TypeError, match=r"write encode\(\[text\]\)"):
        encode("abc")
    for x in (torch.zeros(2, 32), torch.zeros(2, 32, 95), torch.zeros(32, dtype=torch.uint8)):
        with pytest.raises(ValueError, match=r"codes of whole numbers \(N, L\) or rows"):
            decode(x)
    for wrong in (-1, 96):
        with pytest.raises(ValueError, match=r"codes lie in 0…95"):
            decode(torch.tensor([[3, wrong]]))
    with pytest.raises(ValueError, match="hold NaN"):
        decode(torch.full((1, 2, 96), math.nan))


# Windows


def by_hand(sentences, length):
    return [
        sentence[i : i + length]
        for sentence in sentences
        for i in range(len(sentence) - length + 1)
        if sentence[i] != " " and (i == 0 or sentence[i - 1] == " ")
    ]


def test_windows_begin_with_words_and_stay_within_a_sentence():
    assert decode(windows(["to be , or not", "be"], 6)) == ["to be ", "be , o", ", or n", "or not"]
    alphabet = torch.tensor([0, 1, 1, 34, 35])  # an unknown, spaces in a row, two letters
    drawn = alphabet[torch.randint(0, 5, (40, 50), generator=seeded())].to(torch.uint8)
    sentences = [text[: 3 * i] for i, text in enumerate(decode(drawn[:17]))]  # the first is empty
    for length in (1, 2, 7, 32):
        assert decode(windows(sentences, length)) == by_hand(sentences, length)


@pytest.mark.parametrize("short", [[], [""], ["", "a" * 31], ["a" * 31, "b" * 31, ""]])
def test_short_text_has_no_windows(short):
    assert windows(short).shape == (0, 32)
    with pytest.raises(ValueError, match="no windows to draw from"):
        Windows(windows(short), "").sample(1, seeded())


def test_one_window_of_just_its_length():
    assert decode(windows(["", "a" * 32, ""])) == ["a" * 32]


def test_draws_are_uniform_and_from_the_given_generator_alone():
    data = Windows(encode(["abc", "de ", "fgh"]), "")
    state = torch.get_rng_state()
    n = 6000
    x = data.sample(n, seeded(1))
    assert x.shape == (n, 3, 96)
    assert x.dtype == torch.float32
    which = (to_codes(x)[:, None] == data.codes).all(2)
    assert (which.sum(1) == 1).all()
    assert ((which.sum(0) - n / 3).abs() < 5 * math.sqrt(n * 2 / 9)).all()
    assert torch.equal(x, data.sample(n, seeded(1)))
    assert torch.equal(torch.get_rng_state(), state)


# Files


def test_sentences_are_the_lines_of_the_file(root):
    # only "\n" ends a sentence: U+2028 and U+0085 are characters of it
    (root / "lm1b/train.txt").write_text("one é\u2028 .\n\n two\u0085 \nthree\n", encoding="utf-8")
    (root / "lm1b/test.txt").write_text("held out\n")
    text = billion_words()
    assert text.sentences == ["one é\u2028 .", "two", "three"]
    assert text.source == "One Billion Word (train, 3 sentences)"
    assert billion_words("test").sentences == ["held out"]


def test_a_missing_file_is_named(root):
    with pytest.raises(FileNotFoundError, match=r"has no lm1b/train\.txt: name the folder"):
        billion_words()
    with pytest.raises(ValueError, match="splits 'train' and 'test', not 'valid'"):
        billion_words("valid")


@pytest.mark.parametrize(
    ("content", "advice"),
    [
        (b"", "holds no sentences: fetch it again"),
        (b"\n \n", "holds no sentences: fetch it again"),
        (b"a sentence\nand half of ano", "ends within a line: it is truncated, fetch it again"),
        (b"caf\xc3", "truncated or no UTF-8 text: fetch it again"),
        (bytes(range(256)), "truncated or no UTF-8 text"),
    ],
)
def test_a_damaged_file_is_refused_by_one_sentence(root, content, advice):
    (root / "lm1b/train.txt").write_bytes(content)
    with pytest.raises(ValueError, match=rf"train\.txt.* {advice}"):
        billion_words()


# The hub


def test_the_hub_is_asked_for_rows_rather_than_a_script(monkeypatch):
    asked = []

    def fetch(name, **settings):
        asked.append((name, settings))
        return datasets.Dataset.from_dict({"text": ["a sentence", ""]})

    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets, "load_dataset", fetch)
    assert billion_words("test").sentences == ["a sentence"]
    assert asked == [(HUB, {"split": "test[:1000000]", "revision": "refs/convert/parquet"})]
    monkeypatch.setattr(
        datasets, "load_dataset", lambda *_, **__: datasets.Dataset.from_dict({"x": [1]})
    )
    with pytest.raises(ValueError, match="has no column 'text'"):
        billion_words()


def test_without_a_network_one_sentence_says_what_to_do_at_once(no_network, capfd):
    with pytest.raises(ConnectionError, match=rf"set {VARIABLE} to a folder .*lm1b/train\.txt"):
        billion_words()
    assert capfd.readouterr() == ("", "")


# The real one


@with_data
def test_the_real_sentences_and_how_far_train_and_test_are_apart():
    """No sentence is in both; phrases are: one held-out window in five hundred also begins in training text."""
    train, test = billion_words("train"), billion_words("test")
    assert len(train.sentences) > 12_000
    assert len(test.sentences) > 12_000
    assert not set(train.sentences) & set(test.sentences)
    some = train.sentences[:300]
    known = [encode([sentence])[0] for sentence in some]
    restored = [decode(codes[None])[0] for codes in known]
    assert decode(windows(some)) == by_hand(restored, 32)
    unknown = sum(int((codes == 0).sum()) for codes in known) / sum(len(codes) for codes in known)
    assert unknown < 1e-3
    seen = set(decode(windows(train.sentences)))
    held_out = decode(windows(test.sentences))
    overlap = sum(window in seen for window in held_out)
    assert overlap / len(held_out) < 0.005, overlap
