"""A logit that aims each sample of a batch at a class of its own: its law, and what it refuses."""

import math
import re

import pytest
import torch
from laws import assert_moments, identity, normal_prior, plant, seeded, standard_normal
from torch import nn

from logitflow import LatentTarget, run
from logitflow.inference import fast
from logitflow.models import DCGANDiscriminator
from logitflow.ratio import stratified
from logitflow.samplers import gradient_flow, langevin, metropolis_hastings

MEANS = torch.tensor([[1.5, 0.0], [-1.0, 1.0], [0.0, -1.5]], dtype=torch.float64)
DEVIATIONS = torch.tensor([0.5, 0.7, 0.6], dtype=torch.float64)
K = len(MEANS)
N = 60_000


class Exact(nn.Module):
    """log p_data(x, k)/p_g(x) for p_g = N(0, I) and classes of N(m_k, s_k² I), each a K-th of the data.

    `errors`, (K,), are added: a discriminator's mistakes about how often a class is made.
    """

    def __init__(self, errors=(0.0, 0.0, 0.0)):
        super().__init__()
        self.errors = torch.tensor(errors, dtype=torch.float64)

    def evidence(self, x):
        away = (x[:, None] - MEANS).square().sum(2) / DEVIATIONS.square()
        log_ratio = -away / 2 - 2 * DEVIATIONS.log() + x.square().sum(1)[:, None] / 2
        return log_ratio - math.log(K) + self.errors

    def forward(self, x):
        return self.evidence(x).logsumexp(1)


def aimed(discriminator, stratified=stratified):
    return LatentTarget(identity, stratified(discriminator), normal_prior())


def class_laws(stratified=stratified):
    """MH-GAN's proposals, then MALA: each third of the points follows its class's normal law."""
    target = aimed(Exact(errors=(2.0, -1.0, 0.0)), stratified)
    z = standard_normal(N)
    z = run(metropolis_hastings(target), z, num_steps=120, generator=seeded(2)).z
    z = run(langevin(target, step_size=0.1, adjust=True), z, num_steps=10, generator=seeded(3)).z
    for k in range(K):
        assert_moments(z[k::K], MEANS[k], DEVIATIONS[k] ** 2)


def unadjusted_law(langevin=langevin, step_size=0.05):
    """ULA within one class: variance s²/(1 − ε/(4 s²)) about its mean, from anywhere near."""
    target = aimed(Exact())
    start = MEANS[torch.arange(N) % K] + 0.5 * standard_normal(N)
    z = run(langevin(target, step_size=step_size), start, num_steps=40, generator=seeded()).z
    for k in range(K):
        squared = DEVIATIONS[k] ** 2
        assert_moments(z[k::K], MEANS[k], squared / (1 - step_size / (4 * squared)))


def test_each_class_has_its_law_and_all_have_their_shares():
    class_laws()


def test_an_error_in_the_aim_is_seen():
    turn = "points % evidence.shape[1]"
    for wrong in (f"({turn} + 1) % 3", f"({turn}).clamp_max(1)"):
        with pytest.raises(AssertionError):
            class_laws(plant(stratified, turn, wrong))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("state.z + step_size / 2 *", "state.z + 0.9 * step_size / 2 *"),
        ("noise_scale * noise\n", "0.95 * noise_scale * noise\n"),
    ],
)
def test_an_error_in_the_chain_is_seen(old, new):
    with pytest.raises(AssertionError):
        unadjusted_law(plant(langevin, old, new))


def test_ula_has_its_law_in_each_class():
    unadjusted_law()


def test_the_flow_drifts_by_the_class_alone():
    x = standard_normal(30)
    flow = gradient_flow(aimed(Exact()), step_size=0.1, gamma=0.0)
    moved = run(flow, x, num_steps=1, generator=seeded()).z
    k = torch.arange(30) % K
    slope = (MEANS[k] - x) / DEVIATIONS[k, None] ** 2 + x
    torch.testing.assert_close(moved, x + 0.1 * slope)


def test_it_is_the_evidence_in_turn_and_fast_leaves_it_so():
    torch.manual_seed(0)
    critic = DCGANDiscriminator(16, num_classes=10).double().eval()
    x = torch.rand(25, 3, 32, 32, dtype=torch.float64, generator=seeded()) * 2 - 1
    logit, evidence = stratified(critic), critic.evidence(x).detach()
    expected = torch.stack([evidence[i, i % 10] for i in range(25)])
    torch.testing.assert_close(logit(x).detach(), expected)
    torch.testing.assert_close(fast(logit)(x), expected)


def test_calibration_is_of_the_ratio_and_leaves_the_classes_probabilities():
    x = standard_normal(30)
    plain = Exact().evidence(x)
    calibrated = stratified(Exact(), lambda d: 3 * d + 1)(x)
    k = torch.arange(30) % K
    expected = 3 * plain.logsumexp(1) + 1 + plain.log_softmax(1)[torch.arange(30), k]
    torch.testing.assert_close(calibrated, expected)


def test_the_caller_s_network_stays_as_it_is():
    critic = DCGANDiscriminator(16, num_classes=10).train()
    before = {name: tensor.clone() for name, tensor in critic.state_dict().items()}
    generator = nn.Sequential(nn.Linear(4, 3072), nn.Unflatten(1, (3, 32, 32)))
    target = LatentTarget(generator, stratified(critic), normal_prior(4, torch.float32))
    target.logits_and_grad(torch.randn(20, 4, generator=seeded()))
    assert critic.training
    assert all(parameter.requires_grad for parameter in critic.parameters())
    for name, tensor in critic.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("nameless", [nn.Linear(2, 1), DCGANDiscriminator(16)])
def test_a_discriminator_without_classes_is_refused(nameless):
    with pytest.raises(TypeError, match="names no classes: take a discriminator with"):
        stratified(nameless)


def test_evidence_of_another_shape_is_refused():
    class Odd(nn.Module):
        def evidence(self, x):
            return x.sum(1)

    with pytest.raises(ValueError, match=re.escape("must be of shape (N, K), not (4,)")):
        stratified(Odd())(torch.ones(4, 2))
