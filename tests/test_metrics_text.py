"""Measures of text against hand counts and bounds; the reference that ships, and what it refuses."""

import json
import math
import os

import pytest
import torch
from laws import seeded
from safetensors.torch import load_file, save_file

from logitflow import cards, metrics, zoo
from logitflow.cli import main
from logitflow.data import Text, billion_words, decode, encode, one_hot, windows
from logitflow.metrics.text import ORDERS, hashes, pieces, share, whole_words
from logitflow.metrics.text_reference import (
    SHIPPED,
    floors,
    load_reference,
    make_reference,
    pack,
    save_reference,
    unpack,
)

with_data = pytest.mark.skipif(
    "LOGITFLOW_DATA" not in os.environ, reason="LOGITFLOW_DATA names no data"
)

TRAIN = Text(
    ["the cat sat on the mat and the dog sat on the cat .", "all cats are grey ."], "train"
)
TEST = Text(["the dog and the cat lay on the mat all day long ."], "test")


@pytest.fixture(scope="module")
def small():
    return make_reference(TRAIN, TEST)


@pytest.fixture(scope="module")
def shipped():
    return load_reference()


@pytest.fixture(scope="module")
def real():
    """The windows of the training text."""
    return windows(billion_words("train").sentences)


def random_codes(n, seed=0, high=96):
    return torch.randint(0, high, (n, 32), generator=seeded(seed), dtype=torch.uint8)


# n-grams


def test_ngrams_by_hand():
    """Of abab and b a: ab, ba, ab, then "b ", " a"; nothing runs across two windows."""
    keys, counts = metrics.ngrams(torch.cat([encode(["abab"]), encode(["b a\n"])]), 2)
    counted = {
        decode(torch.tensor([[key // 96, key % 96]]))[0]: count
        for key, count in zip(keys.tolist(), counts.tolist(), strict=True)
    }
    assert counted == {"ab": 2, "ba": 1, "b ": 1, " a": 1, "a\ufffd": 1}
    assert (keys.diff() > 0).all()


@pytest.mark.parametrize("n", [1, 4, 6, 9])
def test_no_two_ngrams_share_a_number(n):
    codes = random_codes(20, high=3)
    codes[codes == 2] = 95  # the ends of the range
    keys, counts = metrics.ngrams(codes, n)
    expected = {}
    for row in codes.tolist():
        for i in range(33 - n):
            gram = tuple(row[i : i + n])
            expected[gram] = expected.get(gram, 0) + 1
    of_key = {sum(c * 96 ** (n - 1 - i) for i, c in enumerate(g)): k for g, k in expected.items()}
    assert dict(zip(keys.tolist(), counts.tolist(), strict=True)) == of_key
    assert len(of_key) == len(expected)


def test_impossible_ngrams_are_refused():
    for n, text in ((0, "abc"), (4, "abc"), (10, "a" * 32), (1, "")):
        with pytest.raises(ValueError, match=f"have no {n}-grams to count"):
            metrics.ngrams(encode([text]), n)


# Jensen–Shannon divergence


def counts_of(text, n=1):
    return metrics.ngrams(encode([text]), n)


def test_js_by_hand():
    """(a ½, b ½) and (a ¼, c ¾): m = (a 3/8, b ¼, c 3/8)."""
    p, q = counts_of("ab"), counts_of("accc")
    kl_p = 0.5 * math.log(0.5 / 0.375) + 0.5 * math.log(0.5 / 0.25)
    kl_q = 0.25 * math.log(0.25 / 0.375) + 0.75 * math.log(0.75 / 0.375)
    assert metrics.js_divergence(p, q) == pytest.approx((kl_p + kl_q) / 2, rel=1e-12)


def test_js_is_symmetric_and_lies_between_nothing_and_log_2():
    for seed in range(20):
        p = metrics.ngrams(random_codes(3, seed, high=2 + seed), 2)
        q = metrics.ngrams(random_codes(50, 100 + seed, high=3 + 2 * seed), 2)
        value = metrics.js_divergence(p, q)
        assert 0 < value < math.log(2)
        assert value == pytest.approx(metrics.js_divergence(q, p), rel=1e-12)


@pytest.mark.parametrize("n", ORDERS)
def test_js_of_equal_texts_is_zero_and_of_disjoint_ones_log_2(n):
    x = random_codes(50, high=40)
    p = metrics.ngrams(x, n)
    assert metrics.js_divergence(p, p) == pytest.approx(0, abs=1e-12)
    # how often the text is repeated does not matter
    twice = metrics.ngrams(torch.cat([x, x]), n)
    assert metrics.js_divergence(p, twice) == pytest.approx(0, abs=1e-12)
    other = metrics.ngrams(x + 40, n)
    assert metrics.js_divergence(p, other) == pytest.approx(math.log(2), rel=1e-12)
    assert metrics.js_divergence(p, other) <= math.log(2)


def test_js_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one n-gram on either side"):
        metrics.js_divergence(counts_of("a"), metrics.ngrams(random_codes(0), 1))


def test_distinct_by_hand():
    assert metrics.distinct(counts_of("aaaa")) == 1 / 4
    assert metrics.distinct(counts_of("aaaa", 2)) == 1 / 3
    assert metrics.distinct(counts_of("abcd", 3)) == 1


# words and copies


def test_words_are_what_a_space_ends():
    def words(text):
        return decode_all(whole_words(encode([text])))

    def decode_all(found):
        return [decode(torch.tensor([list(word)]))[0] for word in found]

    assert words("the cat sat") == ["the", "cat"]
    assert words("the cat sat ") == ["the", "cat", "sat"]
    assert words("  the  cat") == ["the"]
    assert words("nospaces") == ["nospaces"]
    assert words("    ") == []


def test_word_share_by_hand(small):
    x = encode(["the cat xyz the doggerel sat sat "[:32], "q" * 32])
    # the, cat, xyz, the, doggerel, sat; the last sat is cut; then one word of 32 letters
    assert metrics.word_share(x, small.words) == pytest.approx(4 / 7)
    assert metrics.word_share(encode([" " * 32]), small.words) == 0


def test_copies_begin_where_a_word_does(small):
    sentence = TRAIN.sentences[0]
    copied, shifted = encode([sentence[4:36]]), encode([sentence[5:37]])
    held_out = encode([TEST.sentences[0][:32]])
    figures = metrics.evaluate_text(torch.cat([copied, copied, shifted, held_out]), small)
    assert figures["copied_share"] == 2 / 4


def test_hashes_tell_apart_what_differs():
    """Of 20,000 strings none is taken for one of 40,000 others: expected are 0.0007."""
    made = hashes([f"{i}".encode() for i in range(60_000)])
    assert made.max() < 2**40
    assert share(made[:20_000], made[20_000:]) == 0
    assert share(made[:10], made[5:]) == 0.5
    assert share(made[:0], made) == 0


# everything at once


def test_figures_say_what_they_count(small):
    x = random_codes(7)
    figures = metrics.evaluate_text(x, small)
    assert figures["n"] == 7
    assert figures["reference"] == "test; words and copies: train"
    assert json.loads(json.dumps(figures)) == figures
    for n, held_out in zip(ORDERS, small.ngrams, strict=True):
        counted = metrics.ngrams(x, n)
        assert figures[f"js_{n}"] == metrics.js_divergence(counted, held_out)
        assert figures[f"distinct_{n}"] == metrics.distinct(counted)
    assert figures["js_6"] == pytest.approx(math.log(2))
    assert metrics.evaluate_text(one_hot(x), small) == figures
    assert metrics.evaluate_text(x.long(), small) == figures


def test_the_held_out_text_itself_has_no_divergence(small):
    figures = metrics.evaluate_text(windows(TEST.sentences), small)
    assert max(figures[f"js_{n}"] for n in ORDERS) == pytest.approx(0, abs=1e-12)
    assert figures["word_share"] == small.held_out["word_share"]
    assert figures["copied_share"] == small.held_out["copied_share"] == 0


def test_what_is_no_window_is_refused(small):
    with pytest.raises(ValueError, match="have 31 characters: the reference knows windows of 32"):
        metrics.evaluate_text(encode(["a" * 31]), small)
    with pytest.raises(ValueError, match="there are no samples"):
        metrics.evaluate_text(random_codes(0), small)
    with pytest.raises(ValueError, match="text is codes of whole numbers"):
        metrics.evaluate_text(torch.zeros(2, 32), small)
    with pytest.raises(ValueError, match="need a sentence of 32 characters each"):
        make_reference(TRAIN, Text(["short"], "test"))


# floors


def test_floors_are_interpolated_in_log_n_and_refused_outside(small):
    figures = {"js_4": {"mean": [0.4, 0.1, 0.05], "std": [0.04, 0.01, 0.01]}}
    reference = small._replace(floors={"n": [100, 400, 1600], "draws": 2, "figures": figures})
    for n, value in ((100, 0.4), (400, 0.1), (1600, 0.05)):
        assert reference.floor(n)["js_4"].mean == pytest.approx(value, rel=1e-12)
    middle = reference.floor(200)["js_4"]  # half way in log n: the geometric mean
    assert middle.mean == pytest.approx(0.2, rel=1e-12)
    assert middle.std == pytest.approx(0.02, rel=1e-12)
    for n in (99, 1601):
        with pytest.raises(ValueError, match=f"known for 100 to 1600 samples, not {n}"):
            reference.floor(n)
    with pytest.raises(ValueError, match="no number of samples, not 100"):
        small.floor(100)


def test_floors_are_what_training_windows_get(small):
    known = windows(TRAIN.sentences)
    made = floors(TRAIN, small, seeded(), sizes=(2, len(known)), draws=3)
    everything = metrics.evaluate_text(known, small)
    for name, entry in made["figures"].items():
        assert entry["mean"][1] == pytest.approx(everything[name], rel=1e-12)
        assert entry["std"][1] == pytest.approx(0, abs=1e-12)
    assert made["figures"]["js_4"]["mean"][0] > everything["js_4"]
    assert small._replace(floors=made).floor(2)["js_4"].mean == made["figures"]["js_4"]["mean"][0]
    with pytest.raises(ValueError, match=f"99 samples cannot be drawn of {len(known)} windows"):
        floors(TRAIN, small, seeded(), sizes=(99,))


# files


def test_packed_numbers_come_back():
    edges = [0, 0, 127, 128, 255, 2**14, 2**35, 96**6, 2**40 - 1, 2**40 + 126]
    for values in ([], [0], [5, 5, 5], edges, torch.randint(2**40, (999,)).sort().values.tolist()):
        packed = pack(torch.tensor(values, dtype=torch.int64))
        assert packed.dtype == torch.uint8
        assert unpack(packed).tolist() == values
    assert len(pack(torch.arange(100))) == 100


def test_a_reference_comes_back(small, tmp_path):
    floor = {"n": [1], "draws": 2, "figures": {"js_1": {"mean": [0.5], "std": [0.1]}}}
    save_reference(tmp_path, small._replace(floors=floor), seed=3)
    same(load_reference(tmp_path), small._replace(floors=floor))
    assert cards.read_card(tmp_path / "card.json")["seed"] == 3


def same(a, b):
    for p, q in zip(a.ngrams, b.ngrams, strict=True):
        assert torch.equal(p.keys, q.keys)
        assert torch.equal(p.counts, q.counts)
    assert torch.equal(a.words, b.words)
    assert torch.equal(a.windows, b.windows)
    assert (a.name, a.held_out, a.floors) == (b.name, b.held_out, b.floors)


def test_damaged_references_are_refused(small, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"card\.json is missing"):
        load_reference(tmp_path)
    save_reference(tmp_path, small)
    path = tmp_path / "reference.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    with pytest.raises(ValueError, match=r"does not match its card's checksum"):
        load_reference(tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"reference\.safetensors is missing"):
        load_reference(tmp_path)
    path.write_bytes(data)
    tensors = load_file(path)
    del tensors["keys_4"]
    save_file(tensors, path)
    card = json.loads((tmp_path / "card.json").read_text())
    card["reference"]["sha256"] = cards.sha256(path.read_bytes())
    (tmp_path / "card.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match=r"does not hold the tensors .*keys_4"):
        load_reference(tmp_path)


# the reference that ships


def test_the_shipped_reference_is_small_and_no_pair():
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 4e6
    assert SHIPPED.name not in zoo.names()
    assert SHIPPED.parent == zoo.FOLDER
    with pytest.raises(ValueError, match="is not a card"):
        zoo.load(SHIPPED.name)


def test_the_shipped_floors_fall_with_n_for_divergences_and_distinct_shares(shipped):
    figures = shipped.floors["figures"]
    assert set(figures) == {f"{kind}_{n}" for kind in ("js", "distinct") for n in ORDERS}
    for name, entry in figures.items():
        assert entry["mean"] == sorted(entry["mean"], reverse=True), name
        assert all(s < 0.2 * m for m, s in zip(entry["mean"], entry["std"], strict=True)), name
    for size in (1000, 5000, 10_000):
        assert shipped.floor(size)["js_4"].mean < shipped.floor(size)["js_6"].mean < math.log(2)


def test_evaluating_needs_no_data(monkeypatch):
    """Random letters are no text: nothing is known and nothing copied."""
    monkeypatch.delenv("LOGITFLOW_DATA", raising=False)
    figures = metrics.evaluate_text(random_codes(300))
    assert "One Billion Word" in figures["reference"]
    assert figures["js_1"] > 0.2
    assert figures["js_6"] > 0.99 * math.log(2)
    assert figures["word_share"] < 0.05
    assert figures["copied_share"] == 0


def test_the_command_measures_text(tmp_path, capsys):
    sentence = "the president said that it was not a good idea to do that ."
    x = windows([sentence] * 60)
    save_file({"x": one_hot(x)}, tmp_path / "samples.safetensors")
    arguments = ["evaluate", str(tmp_path / "samples.safetensors"), "--data", "text"]
    assert main([*arguments, "--out", str(tmp_path / "figures.json")]) == 0
    written = json.loads((tmp_path / "figures.json").read_text())
    assert written["figures"] == metrics.evaluate_text(x)
    assert written["figures"]["word_share"] == 1
    assert {"js_4", "distinct_6", "word_share", "copied_share"} <= set(written["real"])
    shown = capsys.readouterr().out
    assert f"n = {len(x)}, against One Billion Word" in shown
    assert "js 4" in shown
    save_file({"x": x[:9]}, tmp_path / "samples.safetensors")
    assert main(arguments) == 0
    assert "samples, not 9: measure that many" in capsys.readouterr().out
    save_file({"x": torch.zeros(9, 2)}, tmp_path / "samples.safetensors")
    assert main(arguments) == 2


# with the data


@with_data
def test_copies_and_shuffled_characters_of_real_windows(shipped, real):
    x = real[torch.randperm(len(real), generator=seeded())[:1000]]
    figures = metrics.evaluate_text(x, shipped)
    assert figures["copied_share"] == figures["word_share"] == 1
    for name, spread in shipped.floor(1000).items():
        assert abs(figures[name] - spread.mean) < 5 * spread.std, name
    order = torch.rand(1000, 32, generator=seeded(1)).argsort(1)
    shuffled = metrics.evaluate_text(x.gather(1, order), shipped)
    assert shuffled["copied_share"] == 0
    assert shuffled["js_1"] == pytest.approx(figures["js_1"], rel=1e-9)
    assert shuffled["js_4"] > 3 * figures["js_4"]
    assert shuffled["word_share"] < 0.5


@with_data
def test_floors_between_the_sizes_measured(shipped, real):
    """700 and 14,000 lie between them: interpolated within 3% and the spread of one draw."""
    for n in (700, 14_000):
        x = real[torch.randperm(len(real), generator=seeded(n))[:n]]
        figures = metrics.evaluate_text(x, shipped)
        for name, spread in shipped.floor(n).items():
            assert abs(figures[name] - spread.mean) < 0.03 * spread.mean + 5 * spread.std, name


@with_data
def test_the_shipped_reference_is_made_of_the_data(shipped, real):
    train, test = billion_words("train"), billion_words("test")
    same(make_reference(train, test)._replace(floors=shipped.floors), shipped)
    assert share(hashes(pieces(windows(test.sentences))), shipped.windows) < 0.005
