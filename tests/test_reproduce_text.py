"""The text table on tiny random networks: every row runs, counts its cost, and survives being killed."""

import json
import math

import pytest
import torch
from laws import assert_moments, normal_prior, seeded
from safetensors.torch import load_file

from logitflow import LatentTarget, run, zoo
from logitflow.cli import main
from logitflow.data import Text, decode, one_hot, windows
from logitflow.metrics.text_reference import floors, make_reference
from logitflow.models import TextCritic, TextGenerator
from logitflow.reproduce import reproduce_text, text, text_curve_rows, text_rows
from logitflow.reproduce.lab import row_target
from logitflow.reproduce.table import Job, measure
from logitflow.reproduce.text import decoded, open_text_lab
from logitflow.run import seeded_generator
from logitflow.samplers import gradient_flow, langevin

N = 8
SENTENCES = [
    "The quick brown fox jumps over the lazy dog near the river .",
    "A funeral service will take place on Saturday , they said .",
    "Everybody is aware of consequences , or so it was said then .",
]


def networks(seed=0, width=4, depth=1):
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return TextGenerator(width, depth), TextCritic(width, depth), TextCritic(width, depth)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    trained = dict(zip(("generator", "discriminator", "fitted"), networks(), strict=True))
    zoo.save(folder, trained, normal_prior(128, torch.float32), seed=7, data="text")
    return folder


@pytest.fixture(scope="module")
def settings():
    data = Text(SENTENCES, "three sentences")
    reference = make_reference(data, data)
    measured = floors(data, reference, seeded(), sizes=(4, N), draws=3)
    known = windows(SENTENCES)
    held_out = known[torch.arange(24) % len(known)]
    return {"reference": reference._replace(floors=measured), "held_out": held_out}


def cut(row, most=2):
    def few(stages):
        return tuple((make, min(n, most)) for make, n in stages)

    return row._replace(stages=few(row.stages), data_stages=few(row.data_stages))


@pytest.fixture(scope="module", autouse=True)
def short():
    """The rows as they are, but for their numbers of steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "text_rows", lambda: [cut(row) for row in text_rows()])
        patch.setattr(text, "text_curve_rows", lambda: [cut(row) for row in text_curve_rows()])
        yield


KEYWORDS = {"num_samples": N, "num_seeds": 2, "curve_samples": 4, "command": "a test"}


@pytest.fixture(scope="module")
def result(pair, settings):
    return reproduce_text(pair, **KEYWORDS, **settings)


def test_every_row_and_curve_is_there(result):
    expected = [(row.method, row.logit) for row in text_rows()]
    assert [(row["method"], row["logit"]) for row in result["rows"]] == [("base", ""), *expected]
    assert [curve["method"] for curve in result["curves"]] == [c.method for c in text_curve_rows()]
    assert json.loads(json.dumps(result)) == result
    most = {(row.method, row.logit): row.most_seeds for row in text_rows()} | {("base", ""): None}
    for row in result["rows"]:
        assert row["seeds"] == [0, 1][: most[row["method"], row["logit"]]]
        metrics = row["metrics"]
        assert metrics["n"]["mean"] == N
        for name in ("js_1", "js_4", "js_6", "distinct_4", "word_share", "copied_share"):
            error = metrics[name]["standard_error"]
            assert error is None if len(row["seeds"]) == 1 else error >= 0
        assert all(0 <= metrics[f"js_{n}"]["mean"] <= math.log(2) for n in range(1, 7))
        assert metrics["js_6"]["mean"] > metrics["js_1"]["mean"]


def test_cost_is_counted(result):
    for row in result["rows"]:
        costs = row["metrics"]
        langevin_first = row["method"].startswith("DDLS")  # which takes one to begin
        gradients = 0 if row["method"] in ("base", "MH-GAN") else 2 + langevin_first
        gradients += 2 * row["method"].endswith("then in data space")
        assert costs["gradient_evaluations"]["mean"] == gradients, row["method"]
        if row["method"] == "MH-GAN":
            assert costs["forward_evaluations"]["mean"] == 3
    for curve in result["curves"]:
        assert [point["steps"] for point in curve["points"]] == [0, 1, 2]
        assert curve["points"][0]["n"] == 4


def test_what_real_text_gets_is_the_references_floor(result, settings):
    reference = settings["reference"]
    for figures, n in ((result["real"]["metrics"], N), (result["real_of_curves"], 4)):
        floor = reference.floor(n)
        assert figures["js_4"]["mean"] == floor["js_4"].mean
        assert figures["js_4"]["standard_error"] == floor["js_4"].std / math.sqrt(3)
        assert figures["word_share"]["mean"] == reference.held_out["word_share"] == 1


def without_seconds(content):
    if isinstance(content, dict):
        return {k: without_seconds(v) for k, v in content.items() if k != "seconds"}
    return [without_seconds(v) for v in content] if isinstance(content, list) else content


def test_a_killed_table_goes_on_from_its_ledger(pair, settings, result, tmp_path, monkeypatch):
    ledger, work, done = tmp_path / "ledger.json", text._do, []

    def killed_at_the_fifth(*arguments):
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(arguments)
        return work(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(text, "_do", killed_at_the_fifth)
        with pytest.raises(KeyboardInterrupt):
            reproduce_text(pair, **KEYWORDS, ledger=ledger, **settings)
    assert len(json.loads(ledger.read_text())) == 4
    counted = []
    monkeypatch.setattr(text, "_do", lambda *a: counted.append(a) or work(*a))
    resumed = reproduce_text(pair, **KEYWORDS, ledger=ledger, **settings)
    lab = open_text_lab(pair, **settings)
    assert len(counted) == len(text.jobs(lab, N, 2, 4)) - 4
    assert without_seconds(resumed) == without_seconds(result)


def test_the_last_stages_move_the_rows_themselves(pair, settings):
    lab = open_text_lab(pair, **settings)
    row = next(cut(row) for row in text_rows() if row.data_stages)
    seen = []

    def look(x, judge):
        seen.append(x)
        return {}

    for each in (row._replace(data_stages=()), row):
        measure(lab, Job(each, 0, N), look, look)
    target, _ = row_target(lab, row._replace(space="data"))
    ((make, steps),) = row.data_stages
    by_hand = torch.cat(
        [
            run(make(target), x, num_steps=steps, generator=seeded_generator(10**6, 1000 + b)).z
            for b, x in enumerate(seen[0].split(lab.batch_size))
        ]
    )
    assert torch.equal(seen[1], by_hand)
    assert not torch.equal(*seen)


def test_rows_stay_between_0_and_1(pair, settings):
    lab = open_text_lab(pair, **settings)
    target, _ = row_target(
        lab, next(row for row in text_rows() if row.data_stages)._replace(space="data")
    )
    x = torch.rand(4, 32, 96, generator=seeded())
    steep = gradient_flow(target, step_size=1e3, gamma=0.0)
    moved = run(steep, x, num_steps=2, generator=seeded()).z
    assert (moved.min(), moved.max()) == (0, 1)


def test_a_pair_without_a_fitted_critic_has_fewer_rows(pair, settings, tmp_path):
    own = zoo.load(pair)
    both = {"generator": own.generator, "discriminator": own.discriminator}
    zoo.save(tmp_path, both, own.prior)
    lab = open_text_lab(tmp_path, **settings)
    assert set(lab.logits) == {"critic", "calibrated", "calibrated, decoded"}
    methods = {job.row.logit for job in text.jobs(lab, N, 1, 4) if job.row is not None}
    assert methods == set(lab.logits)


def test_a_decoded_logit_sees_the_text_and_not_the_rows(pair, settings):
    lab = open_text_lab(pair, **settings)
    x = torch.rand(6, 32, 96, generator=seeded()).softmax(2).requires_grad_()
    assert decode(decoded(x)) == decode(x)
    assert torch.equal(decoded(x), one_hot(x.argmax(2)))
    (passed,) = torch.autograd.grad(decoded(x)[..., 0].sum(), x)
    assert torch.equal(passed, one_hot(torch.zeros(6, 32)))  # straight through
    expected = lab.logits["fitted"](one_hot(x.argmax(2)))
    torch.testing.assert_close(lab.logits["fitted, decoded"](x), expected, rtol=0, atol=0)
    facts = lab.calibration
    both = facts["slope"] * lab.logits["critic"](x) + facts["shift"]
    torch.testing.assert_close(lab.logits["calibrated"](x), both, rtol=0, atol=0)


def test_refusals(pair, settings):
    with pytest.raises(ValueError, match="at least 1 seed"):
        reproduce_text(pair, num_seeds=0, **settings)
    with pytest.raises(ValueError, match="floor is known for 4 to 8 samples"):
        reproduce_text(pair, num_samples=9, **settings)
    with pytest.raises(FileNotFoundError, match="the zoo has no"):
        reproduce_text("nowhere", num_samples=N, **settings)


# The samplers' contract on this target


@pytest.mark.parametrize("number", range(len(text_rows())))
def test_every_row_keeps_the_samplers_contract(pair, settings, number):
    """Same seed, same result; another seed, another; finite moves; the networks stay as they are."""
    lab, row = open_text_lab(pair, **settings), cut(text_rows()[number])
    target, _ = row_target(lab, row)
    z = torch.randn(5, 128, generator=seeded())

    def moved_with(seed):
        points, rng = z, seeded(seed)
        for make, steps in row.stages:
            points = run(make(target), points, num_steps=steps, generator=rng).z
        return points

    trained = [n for n in (lab.pair.generator, lab.pair.discriminator, lab.pair.fitted) if n]
    for network in trained:
        network.train().requires_grad_(True)
    weights = [p.clone() for network in trained for p in network.parameters()]
    moved, again, other = map(moved_with, (3, 3, 4))
    assert torch.equal(moved, again)
    assert torch.equal(moved, other) == (row.method == "DOT")
    assert moved.isfinite().all()
    assert not torch.equal(moved, z)
    after = [p for network in trained for p in network.parameters()]
    assert all(map(torch.equal, weights, after))
    assert all(p.requires_grad and p.grad is None for p in after)
    assert all(network.training for network in trained)
    x = target.generate(moved)
    # probabilities rounded to bfloat16, each by 2⁻⁹ of itself at most
    torch.testing.assert_close(x.sum(2), torch.ones(5, 32), rtol=0, atol=2**-8)


def test_the_gradient_reaches_the_latent_through_the_softmax(pair):
    """Central differences in double precision along a random direction."""
    generator, critic = (network.double() for network in networks()[:2])
    target = LatentTarget(generator, critic, normal_prior(128))
    z, direction = (torch.randn(4, 128, generator=seeded(s), dtype=torch.float64) for s in (1, 2))
    slope = (target.logits_and_grad(z).grad * direction).sum(1)
    step = 1e-4
    rise = target.logits(z + step * direction) - target.logits(z - step * direction)
    assert slope.abs().min() > 0
    torch.testing.assert_close(slope, rise / (2 * step), rtol=1e-5, atol=1e-9)


def text_target(logit, dimensions=3):
    """Short texts of a small alphabet, so that a law can be measured on many latents."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        generator = TextGenerator(4, 1, length=5, num_characters=4, latent_size=dimensions)
    return LatentTarget(generator.double(), logit, normal_prior(dimensions))


def test_a_constant_logit_leaves_the_prior_to_mala():
    """d(x) = Σ x is 5 for every text, its rows being softmax: the target is N(0, I), and noise alone moves."""
    target = text_target(lambda x: x.sum((1, 2)))
    z = torch.randn(4000, 3, generator=seeded(1), dtype=torch.float64)
    sampler = langevin(target, step_size=0.5, adjust=True)
    moved = run(sampler, z, num_steps=20, generator=seeded(2)).z
    assert_moments(moved, torch.zeros(3, dtype=torch.float64), 1.0)
    far = run(sampler, z + 2, num_steps=40, generator=seeded(2)).z  # from elsewhere too
    assert_moments(far, torch.zeros(3, dtype=torch.float64), 1.0)


def test_mala_on_decoded_text_follows_its_law():
    """The chain's texts against the prior's, weighed by e^d: their law has jumps, and the drift is made up."""
    taste = torch.linspace(-1, 1, 4, dtype=torch.float64)

    def logit(x):
        text = torch.nn.functional.one_hot(x.argmax(2), 4).to(x) + (x - x.detach())
        return (text @ taste).sum(1)

    target, n = text_target(logit), 4000
    z = torch.randn(n, 3, generator=seeded(1), dtype=torch.float64)
    moved = run(
        langevin(target, step_size=0.5, adjust=True), z, num_steps=60, generator=seeded(2)
    ).z
    drawn = torch.randn(40 * n, 3, generator=seeded(3), dtype=torch.float64)
    weight, value = target.logits(drawn).detach().softmax(0), target.logits(drawn).detach()
    mean = (weight * value).sum()
    std = (weight * (value - mean).square()).sum().sqrt()
    found = target.logits(moved).detach().mean()
    assert mean - value.mean() > 20 * std / n**0.5  # the tilt shows
    assert abs(found - mean) < 5 * std / n**0.5 * 1.2  # and the weighted draws err too


def test_a_constant_logit_leaves_dgflow_its_noise():
    target = text_target(lambda x: x.sum((1, 2)))
    z = torch.randn(4000, 3, generator=seeded(1), dtype=torch.float64)
    sampler = gradient_flow(target, step_size=0.5, gamma=0.1)
    moved = run(sampler, z, num_steps=10, generator=seeded(2)).z
    assert_moments(moved, torch.zeros(3, dtype=torch.float64), 1 + 2 * 0.5 * 0.1 * 10)


# The command


@pytest.mark.parametrize("method", ["dgflow", "mh-gan"])
def test_refining_text_writes_lines_before_and_after(pair, tmp_path, capsys, method):
    words = ["--num-samples", "7", "--batch-size", "4", "--steps", "2", "--method", method]
    assert main(["refine", str(pair), "--out", str(tmp_path), *words]) == 0
    samples = load_file(tmp_path / "samples.safetensors")
    assert samples["x"].shape == (7, 32, 96)
    options = json.loads((tmp_path / "refine.json").read_text())["options"]
    assert options["logit"] == "fitted"
    z = torch.cat([load_file(path)["z"] for path in sorted(tmp_path.glob("shards/*.safetensors"))])
    assert torch.equal(z, samples["z"])
    lines = (tmp_path / "before-after.txt").read_text().splitlines()
    after = [line.partition("|")[2][:-1] for line in lines if line.startswith(" after")]
    assert after == decode(samples["x"])
    printed = capsys.readouterr().out
    assert printed.count("before |") == 5
    assert "7 samples" in printed
    assert not list(tmp_path.glob("*.png"))


def test_text_is_not_refined_in_data_space(pair, tmp_path, capsys):
    assert main(["refine", str(pair), "--out", str(tmp_path), "--space", "data"]) == 2
    assert "refine text with --space latent" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_command_writes_the_table_and_its_pictures(result, tmp_path, monkeypatch, capsys):
    from logitflow import commands

    def table(**keywords):
        keywords["ledger"].write_text("{}")
        return result | {"command": keywords["command"]}

    monkeypatch.setattr(commands, "reproduce_text", table)
    assert main(["reproduce", "text", "--num-samples", "8", "--out", str(tmp_path)]) == 0
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == ["text-curve.png", "text.json", "text.png"]
    assert (
        "reproduce text --num-samples 8"
        in json.loads((tmp_path / "text.json").read_text())["command"]
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_makes_the_table_alike(pair, settings, result):
    found = reproduce_text(pair, **KEYWORDS, device=torch.device("cuda"), **settings)
    assert torch.cuda.get_device_name() in found["hardware"]
    for row, twin in zip(found["rows"], result["rows"], strict=True):
        assert (row["method"], row["settings"]) == (twin["method"], twin["settings"])
        assert math.isfinite(row["metrics"]["js_4"]["mean"])
