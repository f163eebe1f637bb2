"""What every sampler promises, whatever its law: one parametrised test a promise."""

from functools import partial

import numpy as np
import pytest
import torch
from laws import CHAINS, identity, normal_prior, seeded
from torch import nn
from torch.distributions import Normal
from torch.nn.utils import parametrizations

from logitflow import LatentTarget, run
from logitflow.samplers import (
    rejection_sample,
)

DETERMINISTIC = {"dot", "dot-estimated"}


def chain_move(make, target, z, generator):
    return run(make(target), z, num_steps=3, generator=generator).z


def rejection_move(target, z, generator):
    samples = rejection_sample(
        target, num_samples=len(z), generator=generator, num_pilot=200, batch_size=200
    )
    return samples.z


MOVES = {name: partial(chain_move, make) for name, make in CHAINS.items()}
MOVES["drs"] = rejection_move

every_sampler = pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
every_chain = pytest.mark.parametrize("name", CHAINS)
devices = pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda",
            marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
        ),
    ],
)


class ImageGenerator(nn.Module):
    """Latents (N, 4, 2, 2) to images (N, 3, 4, 4), with state that training mode would change."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.ConvTranspose2d(4, 8, 2, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5)
        )
        self.last = parametrizations.spectral_norm(nn.Conv2d(8, 3, 3, padding=1))

    def forward(self, z):
        return self.last(self.layers(z)).tanh()


class ImageCritic(nn.Module):
    """Images (N, 3, 4, 4) to logits of shape (N, 1, 1, 1)."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            parametrizations.spectral_norm(nn.Conv2d(3, 8, 3, padding=1)),
            nn.BatchNorm2d(8),
            nn.SiLU(),
            nn.Conv2d(8, 1, 4),
        )
        self.layers[0].bias.requires_grad_(False)  # a frozen parameter stays frozen

    def forward(self, x):
        return 5 * self.layers(x)


@pytest.fixture
def pair():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ImageGenerator().train(), ImageCritic().train()


def image_target(pair, dtype=torch.float32, device="cpu"):
    generator, critic = (network.to(device, dtype) for network in pair)
    zeros = torch.zeros(4, 2, 2, dtype=dtype, device=device)
    return LatentTarget(generator, critic, Normal(zeros, torch.ones_like(zeros)))


def image_latents(n=6, dtype=torch.float32, device="cpu"):
    return torch.randn(n, 4, 2, 2, generator=seeded(5), dtype=torch.float64).to(device, dtype)


# --- randomness -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MOVES)
def test_the_seed_decides_everything(name, pair):
    target, z = image_target(pair), image_latents()
    first, same, other = (MOVES[name](target, z, seeded(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, same)
    assert torch.equal(first, other) == (name in DETERMINISTIC)


@every_sampler
def test_global_randomness_is_untouched(move, pair):
    target, z = image_target(pair), image_latents()
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    before = move(target, z, seeded(3))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert all(map(np.array_equal, np.random.get_state(), numpy_state))  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)  # nor is it used
        assert torch.equal(move(target, z, seeded(3)), before)


@every_chain
def test_one_run_is_two_half_runs(name, pair):
    """A step depends on the state and the generator only, and leaves the old state as it was."""
    target, z = image_target(pair), image_latents()
    sampler, rng = CHAINS[name](target), seeded(3)
    state = sampler.init(z)
    seen = [field.clone() for field in state]
    for _ in range(3):
        state, info = sampler.step(state, rng)
    assert torch.equal(state.z, run(sampler, z, num_steps=3, generator=seeded(3)).z)
    again = sampler.init(z)
    sampler.step(again, seeded(3))
    assert all(map(torch.equal, again, seen))
    assert [field.ndim for field in info] == [0, 0, 0]
    assert 0 <= info.acceptance_rate <= 1
    assert info.num_nonfinite == 0


# --- shapes, types, devices -------------------------------------------------------------------------


@devices
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@every_sampler
def test_shape_type_and_device_are_kept(move, dtype, device, pair):
    target, z = image_target(pair, dtype, device), image_latents(5, dtype, device)
    kept = z.clone()
    rng = torch.Generator(device).manual_seed(0)
    out = move(target, z, rng)
    assert (out.shape, out.dtype, out.device) == (z.shape, z.dtype, z.device)
    assert torch.equal(z, kept)
    assert not out.requires_grad
    assert torch.isfinite(out).all()
    assert (out != z).any()


@every_sampler
def test_a_batch_of_one(move, pair):
    out = move(image_target(pair), image_latents(1), seeded())
    assert out.shape == (1, 4, 2, 2)
    assert torch.isfinite(out).all()


@every_chain
def test_points_do_not_see_one_another(name):
    """What a point does is the same beside other points (drawn from the same noise)."""
    if name == "dot-estimated":
        pytest.skip("the estimated constant is a property of the batch")
    target = LatentTarget(identity, lambda x: -x.square().sum(1), normal_prior())
    z = torch.randn(6, 2, generator=seeded(1), dtype=torch.float64)
    shifted = z.clone()
    shifted[3:] += 1
    here, there = (
        run(CHAINS[name](target), start, num_steps=4, generator=seeded()).z
        for start in (z, shifted)
    )
    assert torch.equal(here[:3], there[:3])


@pytest.mark.parametrize("shape", [(-1,), (-1, 1), (-1, 1, 1, 1)])
@every_sampler
def test_logit_shapes_are_equivalent(move, shape):
    def logit(x):
        return 2 - x.square().sum(1)

    z = torch.randn(4, 2, generator=seeded(1), dtype=torch.float64)
    flat, shaped = (
        move(LatentTarget(identity, d, normal_prior()), z, seeded())
        for d in (logit, lambda x: logit(x).reshape(shape))
    )
    assert torch.equal(flat, shaped)


@every_sampler
def test_latents_with_a_gradient_of_their_own_are_left_alone(move, pair):
    z = image_latents().requires_grad_()
    out = move(image_target(pair), z, seeded())
    assert not out.requires_grad
    assert z.grad is None
    assert z.requires_grad


# --- the caller's modules ---------------------------------------------------------------------------


def snapshot(*modules):
    """Everything about a module that a sampler could disturb."""
    return [
        (
            [(name, tensor.clone()) for name, tensor in module.state_dict().items()],
            [(id(p), p.requires_grad, p.grad) for p in module.parameters()],
            [child.training for child in module.modules()],
        )
        for module in modules
    ]


def assert_untouched(before, *modules):
    for (tensors, flags, modes), (tensors_now, flags_now, modes_now) in zip(
        before, snapshot(*modules), strict=True
    ):
        assert flags_now == flags
        assert modes_now == modes
        for (name, tensor), (_, now) in zip(tensors, tensors_now, strict=True):
            assert torch.equal(tensor, now), name


@every_sampler
def test_modules_are_as_they_were(move, pair):
    generator, critic = pair
    generator.last.eval()  # a mixed state is restored as it was, not made uniform
    before = snapshot(*pair)
    assert any(mode for *_, modes in before for mode in modes)
    move(image_target(pair), image_latents(), seeded())
    assert_untouched(before, generator, critic)


@every_sampler
def test_methods_of_modules_are_found(move, pair):
    before = snapshot(*pair)
    by_module = move(image_target(pair), image_latents(), seeded())
    prior = image_target(pair).prior
    by_method = move(
        LatentTarget(pair[0].forward, pair[1].forward, prior), image_latents(), seeded()
    )
    assert torch.equal(by_module, by_method)
    assert_untouched(before, *pair)


@every_sampler
def test_modules_are_restored_when_the_logit_raises(move, pair):
    calls = []

    def stop(*_):
        calls.append(1)
        if len(calls) > 2:
            raise RuntimeError("stop")

    before = snapshot(*pair)
    pair[1].layers[2].register_forward_hook(stop)
    with pytest.raises(RuntimeError, match="stop"):
        [move(image_target(pair), image_latents(), seeded()) for _ in range(3)]
    assert_untouched(before, *pair)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", sorted(MOVES))
def test_callers_grad_mode_does_not_matter(name, mode, pair):
    move, target = MOVES[name], image_target(pair)
    expected = move(target, image_latents(), seeded())
    before = snapshot(*pair)
    with mode():
        assert torch.equal(move(target, image_latents(), seeded()), expected)
    assert_untouched(before, *pair)
