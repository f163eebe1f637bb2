"""Losses against values worked out by hand, and training that a kill cannot spoil."""

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from laws import normal_prior, seeded
from torch import nn

from logitflow.data import swiss_roll
from logitflow.models import MLP
from logitflow.training import LOSSES, gradient_penalty, train_gan


def softplus(x):
    return math.log1p(math.exp(x))


REAL, FAKE = [2.0, -1.0, 0.5], [-0.3, 3.0, 0.0]
BY_HAND = {  # the discriminator's loss and the generator's
    "wgan-gp": ((2.7 / 3) - (1.5 / 3), -2.7 / 3),
    "non-saturating": (
        (softplus(-2) + softplus(1) + softplus(-0.5)) / 3
        + (softplus(-0.3) + softplus(3) + math.log(2)) / 3,
        (softplus(0.3) + softplus(-3) + math.log(2)) / 3,
    ),
    "hinge": ((0 + 2 + 0.5) / 3 + (0.7 + 4 + 1) / 3, -2.7 / 3),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_those_worked_out_by_hand(name):
    loss, (discriminator, generator) = LOSSES[name], BY_HAND[name]
    real, fake = torch.tensor(REAL), torch.tensor(FAKE)
    for shape in ((3,), (3, 1)):
        value = loss.discriminator(real.view(shape), fake.view(shape))
        assert value.item() == pytest.approx(discriminator, rel=1e-6)
        assert loss.generator(fake.view(shape)).item() == pytest.approx(generator, rel=1e-6)
    assert loss.gradient_penalty == (10.0 if name == "wgan-gp" else 0.0)


@pytest.mark.parametrize("name", LOSSES)
def test_each_side_descends_in_its_own_interest(name):
    """The discriminator's loss raises real and lowers fake logits; the generator's raises fake ones."""
    real, fake = torch.zeros(4, requires_grad=True), torch.zeros(4, requires_grad=True)
    of_real, of_fake = torch.autograd.grad(LOSSES[name].discriminator(real, fake), (real, fake))
    assert (of_real < 0).all()
    assert (of_fake > 0).all()
    (of_fake,) = torch.autograd.grad(LOSSES[name].generator(fake), fake)
    assert (of_fake < 0).all()


def test_the_non_saturating_losses_do_not_overflow():
    far = torch.tensor([1e4, -1e4])
    loss = LOSSES["non-saturating"]
    assert torch.isfinite(loss.discriminator(far, far))
    assert torch.isfinite(loss.generator(far))


def test_the_gradient_penalty_of_a_linear_critic_is_its_slope_less_one_squared():
    critic = nn.Linear(2, 1)
    critic.weight.data = torch.tensor([[3.0, 4.0]])
    real, fake = torch.randn(2, 8, 2, generator=seeded())
    penalty = gradient_penalty(critic, real, fake, seeded())
    assert penalty.item() == pytest.approx((5 - 1) ** 2)
    penalty.backward()  # 2(|w| − 1)·w/|w|
    torch.testing.assert_close(critic.weight.grad, 2 * 4 * torch.tensor([[0.6, 0.8]]))


class Square(nn.Module):
    def forward(self, x):
        return x.square().flatten(1).sum(1, keepdim=True) / 2  # ∇ = x


def test_the_gradient_penalty_is_taken_at_uniform_points_between_pairs():
    """With ∇d(x) = x on the segment from 1 to 3: the mean of (x − 1)² for uniform x is 4/3."""
    n = 100_000
    real, fake = torch.full((n, 1), 3.0), torch.ones(n, 1).requires_grad_()
    penalty = gradient_penalty(Square(), real, fake, seeded())
    deviation = math.sqrt(16 / 5 - 16 / 9)  # of (x − 1)², x − 1 uniform on [0, 2]
    assert abs(penalty.item() - 4 / 3) < 5 * deviation / math.sqrt(n)
    penalty.backward()
    assert fake.grad is None  # the penalty trains the critic alone


def test_the_gradient_penalty_takes_images_whole():
    real = torch.full((5, 2, 3, 3), 0.5)
    penalty = gradient_penalty(Square(), real, real, seeded())
    assert penalty.item() == pytest.approx((0.5 * math.sqrt(18) - 1) ** 2)


# --- the loop ---------------------------------------------------------------------------------------


def networks(seed=0):
    """A generator and a critic with the same weights each time."""
    pair = MLP([2, 16, 2]), MLP([2, 16, 1])
    rng = seeded(seed)
    for network in pair:
        for parameter in network.parameters():
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=rng)
    return pair


def train(pair, num_steps=12, loss="wgan-gp", **settings):
    train_gan(
        *pair,
        swiss_roll,
        normal_prior(dtype=torch.float32),
        loss=LOSSES[loss],
        num_steps=num_steps,
        **{"batch_size": 32, "discriminator_steps": 2, "seed": 1, **settings},
    )
    return pair


def assert_same_networks(pair, other):
    for network, twin in zip(pair, other, strict=True):
        for (name, tensor), now in zip(
            network.state_dict().items(), twin.state_dict().values(), strict=True
        ):
            assert torch.equal(tensor, now), name


def test_the_first_step_is_adams():
    """Adam's first update is a step of the learning rate against the sign of the gradient."""
    pair, before = networks(), networks()
    train(pair, num_steps=1, learning_rate=1e-3, discriminator_steps=1)
    rng = seeded(1)
    real, z = swiss_roll(32, rng), torch.randn(32, 2, generator=rng)
    generator, critic = before
    fake = generator(z).detach()
    loss = critic(fake).mean() - critic(real).mean()
    loss = loss + 10 * gradient_penalty(critic, real, fake, rng)
    loss.backward()
    for parameter, old in zip(pair[1].parameters(), critic.parameters(), strict=True):
        large = old.grad.abs() > 1e-4  # beside Adam's 1e-8
        expected = old - 1e-3 * old.grad.sign()
        torch.testing.assert_close(parameter[large], expected[large], rtol=0, atol=1e-6)
    generator.zero_grad()
    (-pair[1](generator(torch.randn(32, 2, generator=rng)))).mean().backward()
    for parameter, old in zip(pair[0].parameters(), generator.parameters(), strict=True):
        large = old.grad.abs() > 1e-4
        expected = old - 1e-3 * old.grad.sign()
        torch.testing.assert_close(parameter[large], expected[large], rtol=0, atol=1e-6)


def test_the_learning_rate_falls_linearly_to_zero(monkeypatch):
    seen = []
    step = torch.optim.Adam.step
    monkeypatch.setattr(
        torch.optim.Adam, "step", lambda s: (seen.append(s.param_groups[0]["lr"]), step(s))[1]
    )
    train(networks(), num_steps=4, learning_rate=0.4, discriminator_steps=1)
    assert seen == pytest.approx([0.4, 0.4, 0.3, 0.3, 0.2, 0.2, 0.1, 0.1])


@pytest.mark.parametrize("loss", LOSSES)
def test_training_moves_the_generator_toward_the_data(loss):
    """Data at (3, −2): the generator's mean begins near zero and ends nearer."""
    pair = networks()
    goal = torch.tensor([3.0, -2.0])
    train_gan(
        *pair,
        lambda n, rng: goal + 0.1 * torch.randn(n, 2, generator=rng),
        normal_prior(dtype=torch.float32),
        loss=LOSSES[loss],
        num_steps=200,
        batch_size=32,
        learning_rate=1e-2,
        discriminator_steps=3,
    )
    z = torch.randn(1000, 2, generator=seeded())
    with torch.no_grad():
        before, after = ((pair[0](z).mean(0) - goal).norm() for pair in (networks(), pair))
    assert after < before / 4


def test_the_seed_decides_and_global_randomness_is_untouched():
    first, same, other = networks(), networks(), networks()
    state = torch.get_rng_state()
    for pair, seed in ((first, 1), (same, 1), (other, 2)):
        train(pair, seed=seed)
    assert torch.equal(torch.get_rng_state(), state)
    assert_same_networks(first, same)
    assert not torch.equal(first[0].layers[0].weight, other[0].layers[0].weight)


def test_a_continued_run_is_the_same_bit_for_bit(tmp_path):
    whole, path = train(networks()), tmp_path / "folder" / "checkpoint.safetensors"

    def stop(step, loss):
        if step == 8:
            raise KeyboardInterrupt

    halted = networks()
    with pytest.raises(KeyboardInterrupt):
        train(halted, checkpoint=path, checkpoint_every=4, callback=stop)
    resumed, steps = networks(seed=9), []  # whatever the weights were before
    train(resumed, checkpoint=path, checkpoint_every=4, callback=lambda *s: steps.append(s))
    assert_same_networks(whole, resumed)
    assert [step for step, _ in steps] == [12]
    assert math.isfinite(steps[0][1])
    finished = train(networks(seed=9), checkpoint=path)  # nothing is left to do
    assert_same_networks(whole, finished)
    assert os.listdir(path.parent) == [path.name]


KILLED = """
import sys, torch
sys.path.insert(0, sys.argv[2])
torch.set_num_threads(1)
from test_training import networks, train
train(networks(), num_steps=150, checkpoint=sys.argv[1], checkpoint_every=10)
"""


def test_a_killed_run_goes_on_bit_for_bit(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    here = str(Path(__file__).parent)
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(path), here])
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    steps = []
    resumed = train(
        networks(seed=9),
        num_steps=150,
        checkpoint=path,
        checkpoint_every=10,
        callback=lambda step, loss: steps.append(step),
    )
    assert (
        0 < len(steps) < 20
    )  # some of the 20 checkpoints were made before the kill, and some after
    assert_same_networks(resumed, train(networks(), num_steps=150))


def test_a_checkpoint_of_other_networks_is_refused_and_kept(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    train(networks(), num_steps=2, checkpoint=path)
    data = path.read_bytes()
    for other in ((MLP([2, 8, 2]), MLP([2, 16, 1])), (MLP([2, 16, 2]), MLP([2, 16, 16, 1]))):
        with pytest.raises(ValueError, match="checkpoint of other networks: move it away"):
            train(other, num_steps=4, checkpoint=path)
    assert path.read_bytes() == data


def test_a_loss_that_is_not_finite_ends_training_and_keeps_the_last_checkpoint(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    train(networks(), num_steps=2, checkpoint=path)
    data = path.read_bytes()
    with pytest.raises(FloatingPointError, match=r"step 8: .*loss is nan.* smaller learning_rate"):
        train_gan(
            *networks(),
            lambda n, rng: torch.full((n, 2), torch.nan),
            normal_prior(dtype=torch.float32),
            loss=LOSSES["hinge"],
            num_steps=8,
            checkpoint=path,
            checkpoint_every=8,
        )
    assert path.read_bytes() == data


def test_networks_of_no_width_are_refused():
    for sizes in ([], [3], [2, 0, 1], [2, -1]):
        with pytest.raises(ValueError, match="at least an input and an output width"):
            MLP(sizes)


def test_a_network_has_its_widths_and_no_activation_at_its_end():
    network = MLP([2, 5, 3])
    assert [tuple(p.shape) for p in network.parameters()] == [(5, 2), (5,), (3, 5), (3,)]
    x = torch.randn(100, 2, generator=seeded())
    hidden = x @ network.layers[0].weight.T + network.layers[0].bias
    hidden = torch.where(hidden > 0, hidden, 0.2 * hidden)
    expected = hidden @ network.layers[2].weight.T + network.layers[2].bias
    torch.testing.assert_close(network(x), expected)
    assert (expected < 0).any()
