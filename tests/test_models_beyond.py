"""VAEs, flows and the MMD-GAN against closed forms, and training that a kill cannot spoil."""

import math
from functools import partial

import pytest
import torch
from laws import assert_moments, normal_prior, seeded, standard_normal
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from logitflow import LatentTarget, cards, zoo
from logitflow.data import swiss_roll
from logitflow.models import MLP, GaussianDecoder, GaussianEncoder, RealNVP
from logitflow.training import (
    elbo,
    gaussian_kl,
    mmd_squared,
    train_likelihood,
    train_mmd_gan,
    witness_penalty,
)
from logitflow.training.mmd import rational_quadratic


def randomised(network, scale=0.3, seed=0):
    """The network in double precision with normal weights."""
    rng = seeded(seed)
    network = network.double()
    for parameter in network.parameters():
        noise = torch.randn(parameter.shape, generator=rng, dtype=torch.float64)
        parameter.data = scale * noise
    return network


# --- flows ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "num_couplings"), [(2, 1), (2, 6), (4, 3)])
def test_a_flow_inverts_itself(size, num_couplings):
    flow = randomised(RealNVP(size, num_couplings, 16))
    z = standard_normal(500, size)
    with torch.no_grad():
        x, log_det = flow.generate(z)
        back, inverse_log_det = flow.inverse(x)
    assert not torch.allclose(x, z, atol=0.1)
    torch.testing.assert_close(back, z, rtol=0, atol=1e-11)
    torch.testing.assert_close(inverse_log_det, -log_det, rtol=0, atol=1e-11)
    torch.testing.assert_close(flow(z), x)


@pytest.mark.parametrize("size", [2, 4])
def test_a_flows_log_determinant_is_that_of_its_jacobian(size):
    flow = randomised(RealNVP(size, 5, 16))
    z = standard_normal(20, size)
    x, log_det = flow.generate(z)
    for k in range(len(z)):
        jacobian = torch.autograd.functional.jacobian(lambda one: flow(one[None])[0], z[k])
        torch.testing.assert_close(log_det[k], jacobian.slogdet().logabsdet, rtol=0, atol=1e-12)
        jacobian = torch.autograd.functional.jacobian(
            lambda one: flow.inverse(one[None])[0][0], x[k]
        )
        torch.testing.assert_close(-log_det[k], jacobian.slogdet().logabsdet, rtol=0, atol=1e-10)


def test_a_flows_density_is_its_samples():
    """It sums to 1 on a grid, and its mean log density over samples is the negative of its entropy there."""
    flow = randomised(RealNVP(2, 4, 16), scale=0.15)
    axis = torch.linspace(-15, 15, 401, dtype=torch.float64)
    with torch.no_grad():
        log_density = flow.log_prob(torch.cartesian_prod(axis, axis))
        density = log_density.exp() * (axis[1] - axis[0]) ** 2
        x = flow(standard_normal(20_000))
        scores = flow.log_prob(x)
    assert density.sum().item() == pytest.approx(1, abs=1e-4)
    expected = (density * log_density).sum()
    assert abs(scores.mean() - expected) < 5 * scores.std() / math.sqrt(len(x))
    mean = (density[:, None] * torch.cartesian_prod(axis, axis)).sum(0)
    assert ((x.mean(0) - mean).abs() < 5 * x.std(0) / math.sqrt(len(x))).all()


def test_a_new_flow_moves_nothing():
    flow = RealNVP(2, 4, 8).double()
    z = standard_normal(10)
    assert torch.equal(flow(z), z)
    torch.testing.assert_close(flow.log_prob(z), Independent(normal_prior(), 1).log_prob(z))


@pytest.mark.parametrize("settings", [{"size": 3}, {"size": 0}, {"num_couplings": 0}])
def test_flows_that_cannot_be(settings):
    with pytest.raises(ValueError, match="even size and at least one coupling"):
        RealNVP(**settings)


# --- VAEs -------------------------------------------------------------------------------------------


def test_the_kl_is_torchs():
    mean, log_std = torch.randn(2, 50, 3, generator=seeded(), dtype=torch.float64)
    posterior = Independent(Normal(mean, log_std.exp()), 1)
    prior = Independent(normal_prior(3), 1)
    torch.testing.assert_close(gaussian_kl(mean, log_std), kl_divergence(posterior, prior))
    assert torch.equal(gaussian_kl(torch.zeros(2, 3), torch.zeros(2, 3)), torch.zeros(2))


def linear_vae(shift=0.0):
    """A linear decoder of a 1-D code with the exact posterior for an encoder, its mean off by `shift`."""
    decoder, std = GaussianDecoder([1, 2], std=0.4).double(), 0.4
    w, b = torch.tensor([[1.2], [-0.5]], dtype=torch.float64), torch.tensor([0.3, 1.0])
    decoder.network.layers[0].weight.data, decoder.network.layers[0].bias.data = w, b.double()
    precision = 1 + float(w.T @ w) / std**2

    def encoder(x):
        mean = (x - b) @ w / (std**2 * precision)
        return mean + shift, torch.full_like(mean, -math.log(precision) / 2)

    covariance = w @ w.T + std**2 * torch.eye(2)
    return encoder, decoder, MultivariateNormal(b.double(), covariance), precision


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_the_elbo_is_the_log_likelihood_less_the_posteriors_kl(shift):
    """Its mean over codes, for one x at a time; with the exact posterior there is no gap."""
    encoder, decoder, law, precision = linear_vae(shift)
    for x in (torch.tensor([0.5, 0.2]), torch.tensor([-1.0, 2.0])):
        bounds = elbo(encoder, decoder, x.double().expand(40_000, 2), seeded()).detach()
        gap = shift**2 * precision / 2  # KL of two normals of one variance 1/precision
        error = bounds.std() / math.sqrt(len(bounds))
        assert abs(bounds.mean() - (law.log_prob(x.double()) - gap)) < 5 * error
        assert error < 0.01


def test_a_decoder_samples_the_density_that_it_is_trained_for():
    """Codes and noise together: a linear decoder's samples have the law whose likelihood was bounded."""
    _, decoder, law, _ = linear_vae()
    with torch.no_grad():
        x = decoder(standard_normal(20_000, decoder.latent_size))
    white = torch.linalg.solve_triangular(
        torch.linalg.cholesky(law.covariance_matrix), (x - law.mean).T, upper=False
    )
    assert_moments(white.T, 0.0, 1.0)
    z = standard_normal(5, 3)
    torch.testing.assert_close(decoder(z), decoder.mean(z[:, :1]) + 0.4 * z[:, 1:])


@pytest.mark.parametrize("std", [0.0, -1.0, math.nan, math.inf])
def test_a_decoder_without_noise_is_refused(std):
    with pytest.raises(ValueError, match="std must be positive and finite"):
        GaussianDecoder([1, 2], std)


def test_networks_come_back_from_their_cards(tmp_path):
    networks = {
        "generator": randomised(GaussianDecoder([2, 8, 2], 0.1)).float(),
        "encoder": randomised(GaussianEncoder([2, 8, 2])).float(),
        "discriminator": MLP([2, 4, 1]),
    }
    zoo.save(tmp_path, networks, normal_prior(4, torch.float32))
    again = zoo.load(tmp_path)
    z, x = torch.randn(5, 4, generator=seeded()), torch.randn(5, 2, generator=seeded())
    assert torch.equal(again.generator(z), networks["generator"](z))
    for ours, theirs in zip(again.networks["encoder"](x), networks["encoder"](x), strict=True):
        assert torch.equal(ours, theirs)
    entry = cards.save_network(tmp_path / "flow.safetensors", flow := RealNVP(2, 3, 4))
    assert torch.equal(cards.load_network(tmp_path / "flow.safetensors", entry)(x), flow(x))


# --- the MMD ----------------------------------------------------------------------------------------


def test_the_rational_quadratic_kernel_by_hand():
    a, b = torch.tensor([[0.0, 0.0], [1.0, 2.0]]), torch.tensor([[1.0, 2.0]])
    far = sum((1 + 5 / (2 * alpha)) ** -alpha for alpha in (0.5, 1, 2))
    torch.testing.assert_close(rational_quadratic(a, b), torch.tensor([[far], [3.0]]))


def test_the_mmd_by_hand():
    """Two points of each kind and k = |a − b|: (1 + 1)/2 + (3 + 3)/2 − 2·(2 + 5 + 1 + 4)/4 = −2."""
    a, b = torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [5.0]])
    assert mmd_squared(a, b, torch.cdist).item() == pytest.approx(1 + 3 - 6)
    with pytest.raises(ValueError, match="at least two samples of each kind, not 1 and 2"):
        mmd_squared(a[:1], b)


def linear(a, b):
    return a @ b.T


def test_the_mmd_is_unbiased():
    """With k(a, b) = a·b the truth is the squared distance of the means; counting a point's meeting itself,
    as the biased estimate does, would add the variances' sum over n."""
    n, m, repeats, shift = 4, 6, 20_000, torch.tensor([0.5, -0.2], dtype=torch.float64)
    x = standard_normal(repeats * n).view(repeats, n, 2) + shift
    y = standard_normal(repeats * m, seed=2).view(repeats, m, 2)
    estimates = torch.func.vmap(partial(mmd_squared, kernel=linear))(x, y)
    error = estimates.std() / math.sqrt(repeats)
    assert abs(estimates.mean() - shift.square().sum()) < 5 * error
    assert 5 * error < (2 / n + 2 / m) / 10  # the bias would show


def test_the_mmd_of_one_law_is_as_often_negative():
    x, y = standard_normal(2000 * 8).view(2, 2000 * 4, 2).view(2, 2000, 4, 2)
    estimates = torch.func.vmap(mmd_squared)(x, y)
    assert abs(estimates.mean()) < 5 * estimates.std() / math.sqrt(2000)
    assert (estimates < 0).double().mean() > 0.3


def test_the_witness_penalty_is_its_slopes_distance_from_one():
    """Against differences of the witness itself, at the points that the same generator draws."""
    critic = randomised(MLP([2, 8, 3]))
    real, fake = standard_normal(2 * 6).view(2, 6, 2)
    share = torch.rand(6, 1, generator=seeded(3), dtype=torch.float64)
    between = fake + share * (real - fake)

    def witness(x):
        k = rational_quadratic
        return (k(critic(x), critic(real)).mean(1) - k(critic(x), critic(fake)).mean(1)).detach()

    steps = 1e-6 * torch.eye(2, dtype=torch.float64)
    slope = torch.stack([(witness(between + h) - witness(between - h)) / 2e-6 for h in steps], 1)
    expected = (slope.norm(dim=1) - 1).square().mean()
    penalty = witness_penalty(critic, real, fake.requires_grad_(), seeded(3))
    torch.testing.assert_close(penalty.detach(), expected, rtol=1e-6, atol=1e-8)
    penalty.backward()
    assert fake.grad is None  # the penalty trains the critic alone


# --- training ---------------------------------------------------------------------------------------


def train(model, num_steps=12, seed=1, weights=0, sample=swiss_roll, **settings):
    """A small model of the kind, trained; the networks' weights come from `weights`."""
    settings = {"num_steps": num_steps, "seed": seed, "batch_size": 32, **settings}
    if model == "mmd-gan":
        networks = {"generator": MLP([2, 8, 2]), "critic": MLP([2, 8, 4])}
    elif model == "vae":
        networks = {
            "encoder": GaussianEncoder([2, 8, 1]),
            "decoder": GaussianDecoder([1, 8, 2], 0.1),
        }
    else:
        networks = {"flow": RealNVP(2, 2, 8)}
    for network in networks.values():
        randomised(network, seed=weights).float()
    if model == "mmd-gan":
        prior = normal_prior(dtype=torch.float32)
        train_mmd_gan(*networks.values(), sample, prior, penalty=1.0, critic_steps=2, **settings)
    elif model == "vae":
        train_likelihood(partial(elbo, *networks.values()), networks, sample, **settings)
    else:
        log_prob = networks["flow"].log_prob
        train_likelihood(lambda x, rng: log_prob(x), networks, sample, **settings)
    return nn.ModuleDict(networks)


def same(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


KINDS = pytest.mark.parametrize("model", ["vae", "flow", "mmd-gan"])


@KINDS
def test_the_seed_decides_and_global_randomness_is_untouched(model):
    whole = train(model)
    # layers are made with the global generator, so the state is compared around training alone
    states = []
    train(model, checkpoint_every=4, callback=lambda *_: states.append(torch.get_rng_state()))
    assert len(states) == 3
    assert torch.equal(states[0], states[2])
    assert same(whole, train(model))
    assert not same(whole, train(model, seed=2))


@KINDS
def test_a_continued_run_is_the_same_bit_for_bit(model, tmp_path):
    path = tmp_path / "folder" / "checkpoint.safetensors"

    def stop(step, loss):
        if step == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(model, checkpoint=path, checkpoint_every=4, callback=stop)
    steps = []
    again = {"checkpoint": path, "checkpoint_every": 4, "weights": 9}
    resumed = train(model, callback=lambda *s: steps.append(s), **again)
    assert same(train(model), resumed)
    assert [step for step, _ in steps] == [12]
    assert math.isfinite(steps[0][1])


@KINDS
def test_bad_checkpoints_and_losses(model, tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    train({"vae": "flow", "flow": "mmd-gan", "mmd-gan": "vae"}[model], checkpoint=path)
    with pytest.raises(
        ValueError, match=r"checkpoint\.safetensors is (damaged|a checkpoint of other)"
    ):
        train(model, checkpoint=path)
    with pytest.raises(FloatingPointError, match="smaller learning_rate"):
        train(model, sample=lambda n, rng: torch.full((n, 2), math.nan))


def test_likelihood_training_finds_a_known_law():
    """A flow of normal data: the loss ends near the entropy, which none can beat by more than luck."""
    flow, losses = RealNVP(2, 2, 16), []
    mean, std = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 0.2])

    def sample(n, rng):
        return mean + std * torch.randn(n, 2, generator=rng)

    train_likelihood(
        lambda x, rng: flow.log_prob(x), {"flow": flow}, sample, num_steps=600, learning_rate=1e-2
    )
    law = Independent(Normal(mean, std), 1)
    x = sample(10_000, seeded(5))
    with torch.no_grad():
        losses = law.log_prob(x) - flow.log_prob(x)  # its mean is KL(law ‖ flow)
    assert losses.mean() < 0.02
    assert losses.mean() > -5 * losses.std() / 100


def test_mmd_training_moves_the_generator_toward_the_data():
    generator, critic = (randomised(MLP(sizes)).float() for sizes in ([2, 16, 2], [2, 16, 4]))
    goal = torch.tensor([1.5, -1.0])
    z = torch.randn(1000, 2, generator=seeded())
    with torch.no_grad():
        before = (generator(z).mean(0) - goal).norm()
    train_mmd_gan(
        generator,
        critic,
        lambda n, rng: goal + 0.1 * torch.randn(n, 2, generator=rng),
        normal_prior(dtype=torch.float32),
        num_steps=150,
        penalty=1.0,
        batch_size=32,
        learning_rate=1e-2,
        critic_steps=2,
    )
    with torch.no_grad():
        assert (generator(z).mean(0) - goal).norm() < before / 4
    target = LatentTarget(generator, critic, normal_prior(dtype=torch.float32))
    with pytest.raises(ValueError, match=r"logitflow\.ratio\.corrected"):
        target.logits(z)
