"""Every rewrite is the same function, forward and input gradient, and leaves its argument alone."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.distributions import Normal
from torch.nn.utils import parametrize

from logitflow import LatentTarget, run
from logitflow.inference import (
    bake_parametrizations,
    compiled,
    fast,
    fold_batch_norms,
    freeze,
    merge_resampling,
    to_channels_last,
    to_dtype,
)
from logitflow.models import (
    DCGANDiscriminator,
    DCGANGenerator,
    ResNetDiscriminator,
    ResNetGenerator,
)
from logitflow.samplers import gradient_flow, langevin

REWRITES = [bake_parametrizations, fold_batch_norms, merge_resampling, freeze, to_channels_last]
NETWORKS = [DCGANGenerator, DCGANDiscriminator, ResNetGenerator, ResNetDiscriminator]
NORMAL = Normal(torch.zeros(128), torch.ones(128))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def shaken(network, seed=0):
    """The network with every parameter and statistic drawn anew, so that no bias is 0 and no scale 1."""
    rng = seeded(seed)
    with torch.no_grad():
        for name, tensor in (*network.named_parameters(), *network.named_buffers()):
            if name.endswith("running_var"):
                tensor.uniform_(0.3, 3, generator=rng)
            elif tensor.is_floating_point() and not name.endswith(("._u", "._v", "_u", "_v")):
                fan = tensor[0].numel() if tensor.ndim > 1 else 1
                tensor.normal_(std=fan**-0.5, generator=rng)
    network = network.double()
    for layer in network.modules():
        if parametrize.is_parametrized(layer):
            for _ in range(10):  # spectral norm's vectors learn the new weight
                layer.train().weight  # noqa: B018
    return network.eval()


def build(kind, size=32, **settings):
    return shaken(kind(width=16, size=size, **settings))


def an_input(network, size=32, n=2):
    shape = (128,) if hasattr(network, "unflatten") else (3, size, size)
    return torch.randn(n, *shape, dtype=torch.double, generator=seeded(1))


def value_and_gradient(network, x):
    x = x.clone().requires_grad_()
    y = network(x)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
    return y.detach(), torch.autograd.grad((weights * y).sum(), x)[0]


def assert_same_function(network, rewritten, x):
    for one, other in zip(
        value_and_gradient(network, x), value_and_gradient(rewritten, x), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10 * float(one.abs().max()))


@pytest.mark.parametrize("size", [32, 48])
@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("rewrite", [*REWRITES, fast])
def test_rewrites_keep_the_function(rewrite, kind, size):
    network = build(kind, size)
    assert_same_function(network, rewrite(network), an_input(network, size))


@pytest.mark.parametrize("kind", NETWORKS)
def test_rewrites_compose_in_any_order(kind):
    network = rewritten = build(kind)
    for rewrite in reversed(REWRITES):
        rewritten = rewrite(rewritten)
    assert_same_function(network, rewritten, an_input(network))
    assert_same_function(network, fast(fast(network)), an_input(network))


def test_a_pair_like_the_shipped_one():
    generator, critic = shaken(DCGANGenerator(256)), shaken(DCGANDiscriminator(256))
    target = LatentTarget(generator, critic, NORMAL)
    quick = LatentTarget(fast(generator), fast(critic), NORMAL)
    z = torch.randn(2, 128, dtype=torch.double, generator=seeded())
    for one, other in zip(target.logits_and_grad(z), quick.logits_and_grad(z), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_caller_s_network_stays_as_it_is(kind):
    network = build(kind).train()
    before = copy.deepcopy(network.state_dict())
    flags = [p.requires_grad for p in network.parameters()]
    text = repr(network)
    fast(network, dtype=torch.bfloat16)(an_input(network))
    assert repr(network) == text
    assert all(module.training for module in network.modules())
    assert [p.requires_grad for p in network.parameters()] == flags
    assert network.state_dict().keys() == before.keys()
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_what_is_left_to_compute():
    quick = fast(build(ResNetGenerator))
    (steps,) = (m for m in quick.original.layers[0].children() if hasattr(m, "steps"))
    kinds = [type(m).__name__ for m in steps.steps]
    assert kinds == ["_Affine", "ReLU", "ConvTranspose2d", "ReLU", "Conv2d"]
    quick = fast(build(DCGANGenerator))
    kinds = [type(m).__name__ for m in quick.original.layers.steps]
    assert kinds == ["_Affine", "ReLU", *["ConvTranspose2d", "ReLU"] * 3, "Conv2d", "Tanh"]
    quick = fast(build(ResNetDiscriminator))
    kinds = [type(m).__name__ for m in quick.original.layers[0].layers.steps]
    assert kinds == ["Conv2d", "ReLU", "Conv2d"]
    assert not any(parametrize.is_parametrized(m) for m in quick.modules())
    assert not any(p.requires_grad for p in quick.parameters())


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Linear(6, 4), nn.BatchNorm1d(4)],
        [nn.Linear(6, 4), nn.BatchNorm1d(4, affine=False), nn.Linear(4, 1, bias=False)],
    ],
)
def test_batch_norms_after_dense_layers_are_taken_in(layers):
    network = shaken(nn.Sequential(*layers))
    quick = fold_batch_norms(network)
    assert len(quick.steps) == len(layers) - 1
    assert_same_function(network, quick, torch.randn(5, 6, dtype=torch.double, generator=seeded(1)))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3, groups=2, padding=1, padding_mode="circular"),
        nn.Conv2d(4, 6, 1, bias=False),
        nn.ConvTranspose2d(4, 6, 3, stride=2),
        nn.ConvTranspose2d(4, 6, 3, groups=2),
    ],
)
def test_batch_norms_after_convolutions(layer):
    network = shaken(nn.Sequential(layer, nn.BatchNorm2d(6), nn.ReLU(), nn.BatchNorm2d(6)))
    x = torch.randn(2, 4, 5, 7, dtype=torch.double, generator=seeded(1))
    quick = fold_batch_norms(network)
    assert not any(type(m) is nn.BatchNorm2d for m in quick.steps)
    assert_same_function(network, quick, x)


@pytest.mark.parametrize("shape", [(5, 7), (1, 1), (4, 6)])
@pytest.mark.parametrize(
    "layers",
    [
        [nn.Upsample(scale_factor=2), nn.Conv2d(4, 6, 3, padding=1)],
        [nn.UpsamplingNearest2d(scale_factor=2), nn.Conv2d(4, 6, 3, padding="same", bias=False)],
    ],
)
def test_doubling_and_a_convolution_are_one(layers, shape):
    network = shaken(nn.Sequential(*layers))
    (merged,) = merge_resampling(network).steps
    assert merged.stride == (2, 2)
    x = torch.randn(2, 4, *shape, dtype=torch.double, generator=seeded(1))
    assert_same_function(network, merged, x)


@pytest.mark.parametrize("shape", [(5, 7), (2, 2), (4, 6)])
def test_a_convolution_and_halving_are_one(shape):
    network = shaken(nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.AvgPool2d(2)))
    (merged,) = merge_resampling(network).steps
    x = torch.randn(2, 4, *shape, dtype=torch.double, generator=seeded(1))
    assert_same_function(network, merged, x)


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(4, 4, 3, padding=1)],
        [nn.Upsample(scale_factor=3), nn.Conv2d(4, 4, 3, padding=1)],
        [nn.Upsample(size=(8, 8)), nn.Conv2d(4, 4, 3, padding=1)],
        [nn.Upsample(scale_factor=2), nn.Conv2d(4, 4, 3)],
        [nn.Upsample(scale_factor=2), nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")],
        [nn.Upsample(scale_factor=2), nn.Conv2d(4, 4, 3, padding=1, groups=2)],
        [nn.Conv2d(4, 4, 3, padding=1), nn.AvgPool2d(2, ceil_mode=True)],
        [nn.Conv2d(4, 4, 3, padding=1), nn.AvgPool2d(2, padding=1)],
        [nn.Conv2d(4, 4, 5, padding=2), nn.AvgPool2d(2)],
    ],
)
def test_what_only_looks_alike_is_left(layers):
    network = shaken(nn.Sequential(*layers))
    quick = merge_resampling(network)
    assert type(quick) is nn.Sequential
    x = torch.randn(2, 4, 5, 7, dtype=torch.double, generator=seeded(1))
    assert_same_function(network, quick, x)


class Odd(nn.Module):
    """What generators in the wild do: one layer twice, taps on a Sequential, branches on values, views."""

    def __init__(self):
        super().__init__()
        relu, conv = nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)
        self.body = nn.Sequential(conv, relu, conv, nn.BatchNorm2d(4), relu)
        self.tapped = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.named = nn.BatchNorm2d(4)
        self.batch_statistics = nn.BatchNorm2d(4, track_running_stats=False)
        self.either = nn.ModuleList([nn.Sequential(nn.Upsample(scale_factor=2), conv), nn.ReLU()])
        self.old = nn.utils.spectral_norm(nn.Conv2d(4, 4, 1))

    def forward(self, x):
        x = self.body(x)
        taps = []
        for layer in self.tapped:
            x = layer(x)
            taps.append(x.mean())
        x = x + self.tapped[0](x) + taps[0] * taps[1] * len(self.tapped)
        if not self.named.running_mean.isnan().any():
            x = self.batch_statistics(self.named(x)) * self.named.weight.norm()
        x = self.old(self.either[0](x))
        return x.reshape(len(x), -1)[:, :3]


def test_networks_that_do_as_they_like():
    network = Odd().train()
    network(torch.randn(2, 4, 6, 6, generator=seeded()))  # leaves a weight with a history
    network = shaken(network)
    x = torch.randn(2, 4, 6, 6, dtype=torch.double, generator=seeded(1))
    quick = fast(network)
    assert_same_function(network, quick, x)
    assert len(quick.original.body.steps) == 4  # the layer that is used twice, once with the norm
    assert not any(m._forward_pre_hooks for m in quick.modules())


def test_subclasses_hooks_and_overridden_layers_are_left():
    class Twice(nn.Sequential):
        def forward(self, x):
            return super().forward(super().forward(x))

    class Doubled(nn.Conv2d):
        def forward(self, x):
            return 2 * super().forward(x)

    hooked = nn.Conv2d(4, 4, 1)
    hooked.register_forward_hook(lambda module, args, y: y + 1)
    for layers in (
        Twice(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)),
        nn.Sequential(Doubled(4, 4, 1), nn.BatchNorm2d(4)),
        nn.Sequential(hooked, nn.BatchNorm2d(4)),
        nn.Sequential(nn.utils.weight_norm(nn.Conv2d(4, 4, 1)), nn.BatchNorm2d(4))
        if not hasattr(nn.utils.parametrizations, "weight_norm")
        else nn.Sequential(
            nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 1)), nn.BatchNorm2d(4)
        ),
    ):
        network = shaken(layers)
        x = torch.randn(2, 4, 3, 3, dtype=torch.double, generator=seeded(1))
        assert_same_function(network, fast(network), x)


def test_tied_weights_are_each_normalised():
    one, two = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
    two.weight = one.weight
    network = nn.Sequential(*map(nn.utils.parametrizations.spectral_norm, (one, two)))
    network = shaken(network)
    x = torch.randn(2, 3, 3, 3, dtype=torch.double, generator=seeded(1))
    assert_same_function(network, bake_parametrizations(network), x)


def test_what_is_no_module_comes_back():
    def function(x):
        return x.sum(1)

    network = build(DCGANDiscriminator)
    assert fast(function) is function
    assert fast(network.forward) == network.forward
    with pytest.raises(TypeError, match="must be a module"):
        fast("generator")
    with pytest.raises(TypeError, match="floating-point"):
        fast(network, dtype=torch.int8)


def test_a_form_that_does_not_work_is_left_with_a_warning():
    class Viewing(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return self.conv(x).view(len(x), -1)  # which channels-last storage cannot

    network = Viewing()
    quick = fast(network)
    x = torch.randn(2, 3, 8, 8, generator=seeded())
    with pytest.warns(UserWarning, match="without channels-last"):
        torch.testing.assert_close(quick(x), network(x))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quick(x)
    with pytest.raises(RuntimeError, match="channels"):  # a bad input: the network's own words
        fast(network)(x[:, :2])


def test_without_a_compiler(monkeypatch):
    def failing(module):
        def call(x):
            raise RuntimeError("no C++ compiler found")

        return call

    network, x = nn.Linear(3, 2), torch.randn(4, 3, generator=seeded())
    monkeypatch.setattr(torch, "compile", failing)
    quick = compiled(network)
    with pytest.warns(UserWarning, match=r"without torch\.compile.*no C\+\+ compiler"):
        torch.testing.assert_close(quick(x), network(x))
    monkeypatch.setattr(torch, "compile", lambda module: failing(module)(x))
    with pytest.warns(UserWarning, match="without torch"):
        torch.testing.assert_close(compiled(network)(x), network(x))


def bfloat16_pair():
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        generator, critic = ResNetGenerator(16).eval(), ResNetDiscriminator(16).eval()
    exact = LatentTarget(generator, critic, NORMAL)
    quick = LatentTarget(
        fast(generator, dtype=torch.bfloat16), fast(critic, dtype=torch.bfloat16), NORMAL
    )
    return exact, quick


def test_bfloat16_is_close():
    exact, quick = bfloat16_pair()
    z = torch.randn(16, 128, generator=seeded())
    one, other = exact.logits_and_grad(z), quick.logits_and_grad(z)
    assert other.value.dtype == other.grad.dtype == torch.float32
    # Some 40 operations, forward and back, each round to 8 significant bits: 40·2⁻⁸ if all erred one way
    bound = 40 * 2**-8
    assert float((one.grad - other.grad).norm() / one.grad.norm()) < bound
    assert float((one.value - other.value).norm() / one.value.norm()) < bound
    assert len(set(other.value.tolist())) == 16
    assert not torch.equal(
        other.value, other.value.bfloat16().float()
    )  # the last sum has more digits


@pytest.mark.parametrize("adjust", [None, False, True], ids=["dgflow", "ula", "mala"])
def test_samplers_run_on_a_bfloat16_pair(adjust):
    _, quick = bfloat16_pair()
    z = torch.randn(4, 128, generator=seeded())
    sampler = (
        gradient_flow(quick, step_size=0.01)
        if adjust is None
        else langevin(quick, step_size=1e-3, adjust=adjust)
    )
    state = run(sampler, z, num_steps=2, generator=seeded(1))
    assert state.z.dtype == torch.float32
    assert state.z.isfinite().all()
    assert not torch.equal(state.z, z)


def test_half_precision_keeps_a_lone_head():
    network = nn.Linear(8, 1)
    x = torch.randn(3, 8, generator=seeded())
    torch.testing.assert_close(to_dtype(network, torch.bfloat16)(x), network(x))
