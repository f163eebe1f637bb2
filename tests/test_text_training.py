"""The text networks, their WGAN-GP, and the recipe: resumed bit for bit, and by the papers' definitions."""

import copy
import json

import pytest
import torch
from laws import normal_prior, seeded
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from logitflow import LatentTarget, recipes, zoo
from logitflow.cli import main
from logitflow.data import text
from logitflow.models import TextCritic, TextGenerator
from logitflow.ratio import cross_entropy
from logitflow.recipes import TEXT_PRESETS, train_text
from logitflow.recipes.common import fit_copy
from logitflow.training import LOSSES, gradient_penalty, train_gan

SENTENCES = [
    "The quick brown fox jumps over the lazy dog near the river .",
    "A funeral service will take place on Saturday , they said .",
    "Everybody is aware of consequences , or so it was said then .",
    "Caf\N{LATIN SMALL LETTER E WITH ACUTE}s opened their doors again in the old town last week .",
    "Too short .",
]


def networks(seed=0, width=8, depth=1):
    """A generator and a critic, small unless told."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return TextGenerator(width, depth), TextCritic(width, depth)


def latents(n=4, seed=1):
    return torch.randn(n, 128, generator=seeded(seed))


def data():
    return text.Windows(text.windows(SENTENCES), "five sentences")


def assert_same(tensors, others):
    assert tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, others[name]), name


# The networks


@pytest.mark.parametrize(("length", "num_characters", "latent_size"), [(32, 96, 128), (7, 5, 3)])
def test_shapes_and_rows_that_sum_to_one(length, num_characters, latent_size):
    generator = TextGenerator(8, 2, length, num_characters, latent_size)
    critic = TextCritic(8, 2, length, num_characters)
    x = generator(torch.randn(4, latent_size, generator=seeded()))
    assert x.shape == (4, length, num_characters)
    assert (x > 0).all()
    torch.testing.assert_close(x.sum(2), torch.ones(4, length))
    assert critic(x).shape == (4,)
    assert generator(torch.zeros(0, latent_size)).shape == (0, length, num_characters)
    assert critic(x[:0]).shape == (0,)


def test_rows_sum_to_one_and_logits_are_in_full_precision_under_autocast():
    generator, critic = networks()
    with torch.autocast("cpu", torch.bfloat16):
        x = generator(latents())
        logits = critic(x)
    assert x.dtype == logits.dtype == torch.float32
    torch.testing.assert_close(x.sum(2), torch.ones(4, 32))


def test_a_critic_is_the_papers_residual_network():
    """x + 0.3·conv(relu(conv(relu(x)))), twice, between an embedding and a linear map of everything."""
    _, critic = networks(width=4, depth=2)
    x = torch.softmax(torch.randn(3, 32, 96, generator=seeded()), 2)
    weights = list(critic.parameters())
    for bias in weights[1::2]:
        nn.init.normal_(bias, generator=seeded(2))
    weights = [weights[i : i + 2] for i in range(0, len(weights), 2)]
    h = F.conv1d(x.transpose(1, 2), *weights[0])
    for first, second in (weights[1:3], weights[3:5]):
        h = h + 0.3 * F.conv1d(F.conv1d(h.relu(), *first, padding=2).relu(), *second, padding=2)
    torch.testing.assert_close(critic(x), F.linear(h.flatten(1), *weights[5]).squeeze(1))


def test_the_initial_weights_are_he_s_and_glorot_s():
    generator, critic = networks(width=64)
    expected = {
        generator.dense: 2 / (128 + 32 * 64),
        generator.layers[-1]: 4 / (64 + 96),
        generator.layers[1].layers[1]: 4 / (5 * 64 + 5 * 64),
        critic.layers[0]: 4 / (96 + 64),
        critic.dense: 2 / (32 * 64 + 1),
    }
    for layer, variance in expected.items():
        n = layer.weight.numel()
        # a uniform variable's square has a relative standard deviation of √0.8
        assert abs(layer.weight.square().mean() / variance - 1) < 5 * (0.8 / n) ** 0.5
        assert not layer.bias.any()


def test_the_critics_gradient_reaches_the_latent():
    generator, critic = networks(depth=3)
    _, grad = LatentTarget(generator, critic, normal_prior(128, torch.float32)).logits_and_grad(
        latents()
    )
    assert torch.isfinite(grad).all()
    assert (grad.norm(dim=1) > 1e-6).all()


def test_the_penaltys_second_derivatives_are_right():
    """In double precision, against finite differences."""
    with torch.random.fork_rng(devices=[]):  # where a kink is near, finite differences are wrong
        torch.default_generator.manual_seed(0)
        critic = TextCritic(3, 1, length=4, num_characters=5).double()
    x = torch.rand(2, 4, 5, generator=seeded(), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: critic(x.sin()), (x,))
    real, fake = torch.rand(2, 2, 4, 5, generator=seeded(1), dtype=torch.float64)
    weight, step = critic.layers[1].layers[1].weight, 1e-6
    (slope,) = torch.autograd.grad(gradient_penalty(critic, real, fake, seeded()), weight)
    one = slope.abs().argmax()
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight.view(-1)[one] += sign * step
        values.append(gradient_penalty(critic, real, fake, seeded()).item())
        with torch.no_grad():
            weight.view(-1)[one] -= sign * step
    assert slope.flatten()[one].abs() > 1e-4
    expected = (values[0] - values[1]) / (2 * step)
    assert slope.flatten()[one].item() == pytest.approx(expected, rel=1e-4)


def test_a_pair_is_saved_with_its_settings(tmp_path):
    pair = {"generator": TextGenerator(8, 2, 7, 5, 3), "discriminator": TextCritic(8, 1, 7, 5)}
    zoo.save(tmp_path, pair, normal_prior(3, torch.float32))
    loaded = zoo.load(tmp_path)
    for network, twin in zip(pair.values(), loaded[:2], strict=True):
        assert network.settings == twin.settings
        assert_same(network.state_dict(), twin.state_dict())


@pytest.mark.parametrize("size", [0, -1, 1.5, True, "8"])
def test_sizes_that_are_none_are_refused(size):
    for kind in (TextGenerator, TextCritic):
        for name in ("width", "depth", "length", "num_characters"):
            with pytest.raises(ValueError, match=f"{name} must be a whole number above 0, not"):
                kind(**{name: size})
    with pytest.raises(ValueError, match="latent_size must be a whole number above 0, not"):
        TextGenerator(latent_size=size)


# Training


def train(pair, **settings):
    generator, critic = pair
    average = copy.deepcopy(generator).requires_grad_(False)
    train_gan(
        generator,
        critic,
        data().sample,
        normal_prior(128, torch.float32),
        loss=LOSSES["wgan-gp"],
        average=average,
        **{"num_steps": 4, "batch_size": 2, "discriminator_steps": 1, "seed": 1, **settings},
    )
    return generator, critic, average


def test_a_continued_run_is_the_same_in_every_tensor(tmp_path):
    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    settings = {"precision": torch.bfloat16, "checkpoint_every": 2}

    def stop(step, loss):
        raise KeyboardInterrupt

    state = torch.get_rng_state()
    trained = train(networks(), checkpoint=whole, **settings)
    with pytest.raises(KeyboardInterrupt):
        train(networks(), checkpoint=cut, callback=stop, **settings)
    resumed = train(networks(seed=9), checkpoint=cut, **settings)
    for network, twin in zip(trained, resumed, strict=True):
        assert_same(network.state_dict(), twin.state_dict())
    assert_same(load_file(whole), load_file(cut))
    with pytest.raises(ValueError, match="checkpoint of other networks: move it away"):
        train(networks(width=6), checkpoint=cut, **settings)
    assert torch.equal(torch.get_rng_state(), state)


def test_training_raises_the_critics_gap_and_moves_the_generator_by_it():
    generator, critic = networks()
    before = copy.deepcopy(generator).state_dict()

    def gap():
        with torch.no_grad():
            return float((critic(data().sample(200, seeded())) - critic(fake)).mean())

    with torch.no_grad():
        fake = generator(latents(200))
    first = gap()
    train(
        (generator, critic), num_steps=10, batch_size=8, discriminator_steps=5, learning_rate=1e-2
    )
    assert gap() > first + 0.2
    for name, tensor in generator.state_dict().items():
        assert not torch.equal(tensor, before[name]), name


# The recipe


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """The recipe on a folder of five sentences, with tiny networks and a checkpoint every 2 steps."""
    small = TEXT_PRESETS["small"]._replace(
        networks=lambda: (TextGenerator(8, 1), TextCritic(8, 1)),
        num_steps=4,
        fit_steps=2,
        settings={"batch_size": 2, "discriminator_steps": 1},
    )
    monkeypatch.setitem(TEXT_PRESETS, "small", small)
    folder = tmp_path / "data" / "lm1b"
    folder.mkdir(parents=True)
    (folder / "train.txt").write_text("\n".join(SENTENCES) + "\n", encoding="utf-8")
    monkeypatch.setenv("LOGITFLOW_DATA", str(folder.parent))

    def judge(x):
        assert x.shape == (1000, 32, 96)
        return {"js_4": float(x.square().mean()), "js_6": 0.5, "word_share": 0.25}

    def often(*networks, **settings):
        train_gan(*networks, **{**settings, "checkpoint_every": 2})

    monkeypatch.setattr("logitflow.recipes.text.evaluate_text", judge)
    monkeypatch.setattr("logitflow.recipes.text.train_gan", often)


def test_the_recipe_keeps_curve_samples_and_card_when_killed_and_resumed(tiny, tmp_path):
    state = torch.get_rng_state()
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train_text("small", whole, device="cpu", command="typed")
    lines = []

    def halt(line):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_text("small", cut, device="cpu", say=halt)
    assert not (cut / "card.json").exists()
    train_text("small", cut, device="cpu", say=lines.append)
    assert torch.equal(torch.get_rng_state(), state)
    assert [line.split(":")[0] for line in lines if line[0] != " "] == ["step 4", "fitted"]
    assert [len(line) for line in lines if line[0] == " "] == [36] * 5
    for role in ("generator", "discriminator", "fitted", "checkpoint"):
        file = f"{role}.safetensors"
        assert_same(load_file(whole / file), load_file(cut / file))
    samples = (whole / "samples.txt").read_text(encoding="utf-8")
    assert samples == (cut / "samples.txt").read_text(encoding="utf-8")
    blocks = [block.split("\n") for block in samples.strip("\n").split("\n\n")]
    assert [block[0] for block in blocks] == ["step 2", "step 4"]
    assert all(len(block) == 33 and len(block[5]) == 32 for block in blocks)
    curves = [json.loads((folder / "curve.json").read_text()) for folder in (whole, cut)]
    for curve in curves:
        assert [point["step"] for point in curve] == [2, 4]
        assert 0 <= curve[0]["seconds"] <= curve[1]["seconds"]
    for figure in ("critic_loss", "wasserstein_estimate", "js_4"):
        assert [p[figure] for p in curves[0]] == [p[figure] for p in curves[1]]
    pair = zoo.load(whole)
    assert pair.fitted is not None
    assert not torch.equal(pair.discriminator.dense.weight, pair.fitted.dense.weight)
    average = load_file(whole / "checkpoint.safetensors")
    kept = pair.generator.dense.weight
    assert torch.equal(kept, average["average.dense.weight"].half().float())
    assert pair.card["data"] == "One Billion Word (train, 5 sentences)"
    assert pair.card["command"] == "typed"
    assert pair.card["training"]["num_steps"] == 4
    assert pair.card["figures"]["js_4"] == curves[0][-1]["js_4"]
    (whole / "checkpoint.safetensors").unlink()
    train_text("small", whole, device="cpu", num_steps=2, fit_steps=0)  # begun anew
    assert [p["step"] for p in json.loads((whole / "curve.json").read_text())] == [2]
    assert (whole / "samples.txt").read_text(encoding="utf-8").count("step") == 1


def test_the_fitted_critic_meets_decoded_text(tiny, tmp_path, monkeypatch):
    met = []

    def look(discriminator, sample_real, sample_fake, *, generator, **settings):
        met.extend([sample_real(6, generator), sample_fake(6, generator)])
        return discriminator, {}

    monkeypatch.setattr("logitflow.recipes.text.fit_copy", look)
    train_text("small", tmp_path / "pair", device="cpu", num_steps=1)
    for x in met:
        assert x.shape == (6, 32, 96)
        assert (x.amax(2) == 1).all()
        assert (x.sum(2) == 1).all()


def test_a_copy_is_fitted_with_the_weights_it_has_now():
    """Autocast once kept the first weights for every step's gradient, and the fit ran far past its goal."""

    def sample(mean):
        return lambda n, rng: 300 * (mean + torch.randn(n, 2, generator=rng))

    rng = torch.Generator().manual_seed(0)
    discriminator = nn.Linear(2, 1)
    nn.init.zeros_(discriminator.weight)
    nn.init.zeros_(discriminator.bias)
    fitted, figures = fit_copy(
        discriminator, sample(1.0), sample(-1.0), num_steps=300, generator=rng, say=print
    )
    x = [sample(mean)(20_000, rng) for mean in (1.0, -1.0)]
    best = float(cross_entropy(*(2 * each.sum(1) / 300 for each in x)))  # of the true log ratio
    with torch.no_grad():
        assert float(cross_entropy(*map(fitted, x))) < 1.1 * best
    # told by 1,000 samples of either kind, each loss with a spread below 1
    assert abs(figures["fitted_cross_entropy"] - best) < 5 / 2000**0.5


def test_the_command_line_trains_a_pair(tiny, tmp_path, capsys):
    out = tmp_path / "pair"
    words = ("--steps", "2", "--fit-steps", "1", "--seed", "5", "--device", "cpu")
    assert main(["train", "text", "--out", str(out), *words]) == 0
    printed = capsys.readouterr().out
    assert "step 2: critic's distance" in printed
    assert "samples.txt" in printed
    assert zoo.load(out).card["command"] == (
        "logitflow train text --preset small --steps 2 --fit-steps 1 --seed 5"
    )


def test_the_command_line_takes_a_presets_numbers(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(recipes, "train_text", lambda *words, **rest: asked.append((words, rest)))
    for name, preset in TEXT_PRESETS.items():
        assert main(["train", "text", "--preset", name, "--out", str(tmp_path)]) == 0
        words, settings = asked.pop()
        assert words == (name, tmp_path)
        assert settings["num_steps"] == preset.num_steps
        assert settings["fit_steps"] == preset.fit_steps


def test_what_is_not_there_is_one_sentence(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("LOGITFLOW_DATA", str(tmp_path))
    assert main(["train", "text", "--out", str(tmp_path / "out"), "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "has no lm1b/train.txt: name the folder that has it" in error
    with pytest.raises(ValueError, match="unknown preset 'huge': choose small or paper"):
        train_text("huge", tmp_path)


def test_the_shipped_pair_fits_its_budget():
    """The small preset's generator, critic and fitted critic: under 8 MB, matrices in half precision."""
    generator, critic = TEXT_PRESETS["small"].networks()
    parameters = [p for network in (generator, critic, critic) for p in network.parameters()]
    assert sum(p.numel() * (2 if p.ndim > 1 else 4) for p in parameters) < 8e6
