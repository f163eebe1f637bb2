"""The CIFAR-10 table on tiny random networks: every row runs, counts its cost, and survives being killed."""

import json
import math
from pathlib import Path

import pytest
import torch
from laws import seeded
from torch.distributions import Normal

from logitflow import LatentTarget, cli, commands, priors, run, zoo
from logitflow.metrics.images import classifier_extractor, judge_against
from logitflow.models import DCGANDiscriminator, DCGANGenerator
from logitflow.models.classifier import Classifier
from logitflow.reproduce import curve_rows, image_rows, images, reproduce_images
from logitflow.reproduce import settings as settings_of_rows
from logitflow.reproduce.common import heading
from logitflow.reproduce.lab import follow, open_lab, row_target
from logitflow.reproduce.settings import PLAIN, PLAIN_STEPS
from logitflow.reproduce.table import STEPS, recall
from logitflow.run import seeded_generator
from logitflow.samplers import gradient_flow, gradient_root

N = 16


def made(make, seed, *arguments, **more):
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return make(*arguments, **more)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    critic = made(DCGANDiscriminator, 1, 16, num_classes=10)
    with torch.no_grad():  # else bfloat16 hardly tells a random network's logits apart
        critic.layers[-1].weight.mul_(100)
    networks = {"generator": made(DCGANGenerator, 0, 16), "discriminator": critic}
    zoo.save(folder, networks, Normal(torch.zeros(128), torch.ones(128)), seed=7)
    return folder


@pytest.fixture(scope="module")
def settings():
    real = torch.rand(40, 3, 32, 32, generator=seeded()) * 2 - 1
    tiny = judge_against(real, classifier_extractor(made(Classifier, 2, 8)), name="noise")
    return {"judge": tiny, "held_out": real}


def cut(row, most=2):
    return row._replace(stages=tuple((make, min(n, most)) for make, n in row.stages[:4]))


@pytest.fixture(scope="module", autouse=True)
def short():
    """The rows as they are, but for their numbers of steps; the plain curve must reach its goal."""
    plain, *others = curve_rows()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "image_rows", lambda: [cut(row) for row in image_rows()])
        curves = [cut(plain, PLAIN_STEPS), *map(cut, others)]
        patch.setattr(images, "curve_rows", lambda: curves)
        yield


@pytest.fixture(scope="module")
def result(pair, settings):
    return reproduce_images(pair, num_samples=N, num_seeds=2, command="a test", **settings)


def test_every_row_and_curve_is_there(result):
    assert [row["method"] for row in result["rows"]] == [
        "base",
        *(row.method for row in image_rows()),
    ]
    assert [curve["method"] for curve in result["curves"]] == [row.method for row in curve_rows()]
    assert json.loads(json.dumps(result)) == result
    assert result["command"] == "a test"
    assert (result["extractor"], result["reference"]) == ("CIFAR classifier", "noise")
    most = {("base", ""): None}
    most |= {(row.method, row.space): row.most_seeds for row in image_rows()}
    for row in result["rows"]:
        assert row["seeds"] == [0, 1][: most[row["method"], row["space"]]]
        metrics = row["metrics"]
        for name in ("frechet_distance", "kernel_distance", "inception_score", "precision"):
            assert math.isfinite(metrics[name]["mean"])
            error = metrics[name]["standard_error"]
            assert error is None if len(row["seeds"]) == 1 else error >= 0
        assert metrics["n"]["mean"] == N
        assert sum(share["mean"] for share in row["classes"].values()) == pytest.approx(1)


def test_cost_is_counted(result):
    table = {
        (row["method"], row["space"]): row["metrics"]["gradient_evaluations"]["mean"]
        for row in result["rows"]
    }
    for (method, _), gradients in table.items():
        langevin = method.startswith("DDLS")  # which takes one to begin
        pilot = 500 / N if "preconditioned" in method else 0
        follows = not method.startswith(("base", "DRS", "MH-GAN"))
        expected = 2 + langevin + pilot if follows else 0
        assert gradients == expected, method
    forwards = {
        row["method"]: row["metrics"]["forward_evaluations"]["mean"] for row in result["rows"]
    }
    assert forwards["MH-GAN"] == 3
    assert forwards["DRS"] > 10_000 / N  # the pilot's share
    plain = result["curves"][0]
    assert [p["steps"] for p in plain["points"]] == [k for k in STEPS if k <= PLAIN_STEPS]
    assert all(p["gradient_evaluations"] == p["steps"] for p in plain["points"])
    assert all(p["work"] == p["steps"] for p in plain["points"])
    proposed = next(c for c in result["curves"] if "5 proposals" in c["method"])["points"]
    # half a gradient's work for the start, and half for each of two proposals; then a whole one a step
    pilot = proposed[0]["work"]
    assert [p["work"] - pilot for p in proposed] == [0, 1, 1.5, 2.5, 3.5][: len(proposed)]
    seconds = [p["seconds"] for p in plain["points"]]
    assert seconds == sorted(seconds)
    piloted = next(c for c in result["curves"] if "preconditioned" in c["method"])
    assert piloted["points"][0]["gradient_evaluations"] == 500 / N


def test_a_curve_begins_at_the_base(result):
    base = result["rows"][0]["metrics"]["frechet_distance"]
    firsts = [curve["points"][0]["frechet_distance"] for curve in result["curves"]]
    assert max(firsts) - min(firsts) < 1e-6 * max(firsts)
    assert abs(firsts[0] - base["mean"]) <= base["standard_error"] * math.sqrt(2)  # of two seeds


def test_the_cheapest_setting_is_no_worse_than_the_plain_one(result):
    goal, reached = result["cheapest"]["goal"], result["cheapest"]["reached"]
    assert goal["steps"] == PLAIN_STEPS
    assert reached["frechet_distance"] <= goal["frechet_distance"]
    assert reached["inception_score"] >= goal["inception_score"]
    assert reached["work"] <= goal["work"]
    by_hand = [
        {"method": PLAIN, "settings": [], "points": [point(25, 3.0, 6.0), point(40, 2.0, 6.5)]},
        {"method": "a", "settings": ["s"], "points": [point(5, 2.9, 5.9), point(8, 2.9, 6.0)]},
        {"method": "b", "settings": [], "points": [point(3, 3.1, 7.0), point(9, 2.0, 7.0)]},
    ]
    found = images.cheapest(by_hand)
    assert found["goal"]["steps"] == 25
    assert (found["reached"]["method"], found["reached"]["steps"]) == ("a", 8)


def point(steps, distance, score):
    return {
        "steps": steps,
        "work": float(steps),
        "frechet_distance": distance,
        "inception_score": score,
    }


def without_seconds(content):
    if isinstance(content, dict):
        return {k: without_seconds(v) for k, v in content.items() if k != "seconds"}
    return [without_seconds(v) for v in content] if isinstance(content, list) else content


def test_a_killed_table_goes_on_from_its_ledger(pair, settings, result, tmp_path, monkeypatch):
    ledger, work, done = tmp_path / "ledger.json", images._do, []

    def killed_at_the_fifth(*arguments):
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(arguments)
        return work(*arguments)

    keywords = {"num_samples": N, "num_seeds": 2, "command": "a test", "ledger": ledger}
    with monkeypatch.context() as patch:
        patch.setattr(images, "_do", killed_at_the_fifth)
        with pytest.raises(KeyboardInterrupt):
            reproduce_images(pair, **keywords, **settings)
    assert len(json.loads(ledger.read_text())) == 4
    counted = []
    monkeypatch.setattr(images, "_do", lambda *a: counted.append(a) or work(*a))
    resumed = reproduce_images(pair, **keywords, **settings)
    lab = open_lab(pair, **settings)
    assert len(counted) == len(images.jobs(lab, N, 2, N)) - 4
    assert without_seconds(resumed) == without_seconds(result)


def test_the_book_tells_of_the_rows_as_they_are():
    results = Path(__file__).parents[1] / "book" / "results"
    table, opinion = (
        json.loads((results / name).read_text()) for name in ("cifar10.json", "second-judge.json")
    )

    def kinds(lines):
        return [{key: line[key] for key in heading(None)} for line in lines]

    rows = [heading(None), *map(heading, image_rows())]
    assert kinds(table["rows"]) == rows
    assert kinds(table["curves"]) == [heading(row) for row in curve_rows()]
    assert all(line in rows for line in kinds(opinion["rows"]))
    assert table["pair"]["name"] == opinion["pair"] == images.PAIR


def test_a_pair_without_classes_has_no_rows_by_class(settings, tmp_path):
    networks = {
        "generator": made(DCGANGenerator, 0, 16),
        "discriminator": made(DCGANDiscriminator, 1, 16),
    }
    zoo.save(tmp_path, networks, Normal(torch.zeros(128), torch.ones(128)))
    lab = open_lab(tmp_path, **settings)
    methods = {job.row.method for job in images.jobs(lab, N, 1, N) if job.row is not None}
    every = {row.method for row in (*image_rows(), *curve_rows())}
    assert every - methods == {name for name in every if "by class" in name} != set()


def test_two_processes_fill_one_ledger(pair, settings, tmp_path, monkeypatch):
    lab, ledger = open_lab(pair, **settings), tmp_path / "ledger.json"
    mine, yours = images.jobs(lab, N, 1, N)[:2]
    work = images._do

    def meanwhile(*arguments):
        monkeypatch.setattr(images, "_do", work)
        images.do(lab, yours, ledger)  # the other finishes first
        return work(*arguments)

    monkeypatch.setattr(images, "_do", meanwhile)
    images.do(lab, mine, ledger)
    assert len(json.loads(ledger.read_text())) == 2


def test_a_point_on_a_curve_is_where_the_sampler_stands(pair, settings):
    lab = open_lab(pair, **settings)
    row = next(cut(row, 5) for row in image_rows() if row.method == "DGflow (KL)")
    target, counted = row_target(lab, row)
    z = torch.randn(6, 128, generator=seeded())
    seen = follow(target, counted, row, z, (0, 2, 5), seed=3, batch_size=4)
    sampler = gradient_flow(target, step_size=0.03, gamma=0.01)
    for k, points, cost in seen:
        parts = [
            run(sampler, part, num_steps=k, generator=seeded_generator(3, 1000 + b)).z
            for b, part in enumerate(z.split(4))
        ]
        torch.testing.assert_close(points, torch.cat(parts), rtol=0, atol=0)
        assert float(cost[0]) == 6 * k


def test_a_sharpened_sampler_aims_at_the_prior_times_a_power_of_the_ratio():
    prior = torch.distributions.Normal(torch.zeros(2), 1.0)
    target = LatentTarget(lambda z: z, lambda x: x.sin().sum(1), prior)
    z = torch.randn(5, 2, generator=seeded())
    sampler = settings_of_rows._sharpened(3.0, settings_of_rows._langevin(0.1))(target)
    epsilon, noise = 0.1, torch.randn(5, 2, generator=seeded(1))
    by_hand = z + epsilon / 2 * (3 * z.cos() - z) + epsilon**0.5 * noise
    torch.testing.assert_close(run(sampler, z, num_steps=1, generator=seeded(1)).z, by_hand)
    assert sampler.description.endswith("logit × 3")


def test_a_sharpened_sampler_can_be_preconditioned():
    prior = torch.distributions.Normal(torch.zeros(2, dtype=torch.float64), 1.0)
    target = LatentTarget(lambda z: z, lambda x: (x * x.new_tensor([2.0, 0.5])).sin().sum(1), prior)
    make = settings_of_rows._preconditioned(settings_of_rows._langevin(0.1))
    pilot = priors.sample(prior, 500, seeded_generator(0, 300))
    root = gradient_root(target, pilot)
    z = torch.randn(5, 2, generator=seeded(), dtype=torch.float64)
    noise = torch.randn(5, 2, generator=seeded(1), dtype=torch.float64)
    slope = 3 * target.logits_and_grad(z).grad - z
    by_hand = z + 0.05 * slope @ (root @ root.T) + 0.1**0.5 * noise @ root.T
    sampler = settings_of_rows._sharpened(3.0, make)(target)
    torch.testing.assert_close(run(sampler, z, num_steps=1, generator=seeded(1)).z, by_hand)
    assert sampler.description.endswith("P = C^−0.5, logit × 3")


def test_pixels_stay_in_their_box(pair, settings):
    lab = open_lab(pair, **settings)
    row = next(row for row in image_rows() if row.space == "data")
    target, _ = row_target(lab, row)
    x = torch.rand(4, 3, 32, 32, generator=seeded()) * 2 - 1
    steep = gradient_flow(target, step_size=1e3, gamma=0.0)
    moved = run(steep, x, num_steps=2, generator=seeded()).z
    assert moved.abs().max() == 1


def test_the_lab_runs_the_pair_to_the_precision_of_bfloat16(pair, settings):
    own, lab = zoo.load(pair), open_lab(pair, **settings)
    z = torch.randn(8, 128, generator=seeded())
    with torch.no_grad():
        x = own.generator(z)
        images_apart = (lab.pair.generator(z) - x).abs().max()
        logits_apart = (lab.pair.discriminator(x) - own.discriminator(x)).abs().max()
    assert images_apart < 0.03
    assert logits_apart < 0.03 * own.discriminator(x).abs().max().clamp_min(1)


def test_calibration_says_how_far_the_logit_is_from_a_ratio(pair, settings):
    lab = open_lab(pair, **settings)
    d = lab.logits["discriminator"](lab.held_out[:4])
    calibrated = lab.logits["calibrated"](lab.held_out[:4])
    facts = lab.calibration
    torch.testing.assert_close(
        calibrated, facts["slope"] * d + facts["shift"], rtol=1e-4, atol=1e-4
    )


def test_refusals(pair, settings):
    with pytest.raises(ValueError, match="at least 1 seed and 4 images"):
        reproduce_images(pair, num_seeds=0, **settings)
    with pytest.raises(FileNotFoundError, match="the zoo has no"):
        reproduce_images("nowhere", **settings)


# --- on another device ------------------------------------------------------------------------------

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_cuda)])
@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("cifar10", "reproduce_images"),
        ("text", "reproduce_text"),
        ("beyond-images", "reproduce_beyond_images"),
    ],
)
def test_the_command_says_where(tmp_path, monkeypatch, name, function, device):
    asked = []

    def table(**keywords):
        asked.append(keywords["device"])
        raise ValueError("no table today")

    monkeypatch.setattr(commands, function, table)
    assert cli.main(["reproduce", name, "--device", device, "--out", str(tmp_path)]) == 2
    assert asked == [torch.device(device)]


def test_the_command_takes_a_pair_of_one_s_own(tmp_path, monkeypatch, capsys):
    asked = []

    def table(**keywords):
        asked.append((keywords["pair"], keywords["command"]))
        raise ValueError("no table today")

    monkeypatch.setattr(commands, "reproduce_images", table)
    words = ["reproduce", "cifar10", "--pair", "my pair", "--seeds", "1", "--out", str(tmp_path)]
    assert cli.main(words) == 2
    typed = "logitflow reproduce cifar10 --pair 'my pair' --num-samples 10000 --seeds 1"
    assert asked == [("my pair", typed)]
    assert cli.main(["reproduce", "cifar10", "swissroll", *words[2:]]) == 2
    assert "--pair is for cifar10 and text, not for swissroll" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_gpu_that_is_not_there_is_refused(tmp_path, capsys):
    assert cli.main(["reproduce", "cifar10", "--device", "cuda", "--out", str(tmp_path)]) == 2
    assert "there is no CUDA GPU here" in capsys.readouterr().err


def test_a_ledger_tells_devices_apart(pair, settings, tmp_path):
    """Another device draws other numbers."""
    lab = open_lab(pair, **settings)
    job = images.jobs(lab, N, 1, N)[0]
    other, ledger = lab._replace(device=torch.device("cuda")), tmp_path / "ledger.json"
    found = [
        recall(each, job, ledger, lambda *_, k=k: [k])
        for k, each in enumerate((lab, other, lab, other))
    ]
    assert found == [[0], [1], [0], [1]]


@needs_cuda
def test_a_gpu_makes_the_table_alike(pair, settings, result):
    cuda = torch.device("cuda")
    own, lab = open_lab(pair, **settings), open_lab(pair, device=cuda, **settings)
    there = lab.logits["discriminator"](lab.held_out)
    here = own.logits["discriminator"](own.held_out)
    assert there.device.type == "cuda"
    assert (there.cpu() - here).abs().max() < 0.05 * here.abs().max()  # of bfloat16's eight bits
    found = reproduce_images(pair, num_samples=N, num_seeds=2, device=cuda, **settings)
    assert torch.cuda.get_device_name() in found["hardware"]
    for row, twin in zip(found["rows"], result["rows"], strict=True):
        assert (row["method"], row["settings"]) == (twin["method"], twin["settings"])
        assert math.isfinite(row["metrics"]["frechet_distance"]["mean"])
