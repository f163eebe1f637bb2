"""The image networks: shapes and devices, the papers' tables layer by layer, and weights of spectral norm 1."""

from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from logitflow.models import (
    DCGANDiscriminator,
    DCGANGenerator,
    ResNetDiscriminator,
    ResNetGenerator,
)
from logitflow.models.classifier import Classifier, whiten
from logitflow.models.residual import UpBlock
from logitflow.models.spectral import largest_singular_values

GENERATORS = [DCGANGenerator, ResNetGenerator]
DISCRIMINATORS = [DCGANDiscriminator, ResNetDiscriminator]
DEVICES = [
    "cpu",
    "meta",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")
    ),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [32, 48])
@pytest.mark.parametrize("kind", GENERATORS)
def test_a_generator_maps_latents_to_images(kind, size, device):
    generator = kind(16, size).to(device)
    for n in (1, 3):
        x = generator.eval()(torch.randn(n, 128, device=device))
        assert x.shape == (n, 3, size, size)
        assert x.device.type == device
        assert device == "meta" or x.abs().max() <= 1
    assert kind(16, size, latent=5)(torch.randn(2, 5)).shape == (2, 3, size, size)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("spectral", [True, False])
@pytest.mark.parametrize("size", [32, 48])
@pytest.mark.parametrize("kind", DISCRIMINATORS)
def test_a_discriminator_maps_images_to_logits(kind, size, spectral, device):
    discriminator = kind(16, size, spectral).to(device)
    for n in (1, 3):
        logits = discriminator(torch.randn(n, 3, size, size, device=device))
        assert logits.shape == (n,)
        assert logits.device.type == device


@pytest.mark.parametrize("device", DEVICES)
def test_the_classifier_gives_features_and_classes(device):
    network = Classifier(4).to(device).eval()
    x = torch.randn(2, 3, 32, 32, device=device)
    assert network.features(x).shape == (2, 32)
    assert network(x).shape == (2, 10)
    assert network(x).device.type == device
    if device == "cpu":
        assert torch.equal(network.head(network.features(x)), network(x))


def test_whitened_patches_are_uncorrelated_and_stay_so():
    network = Classifier(4)
    rng = torch.Generator().manual_seed(0)
    x = F.avg_pool2d(
        torch.randn(200, 3, 34, 34, generator=rng), 3, stride=1
    )  # neighbours are alike
    whiten(network, x)
    y = F.conv2d(x, network.whiten.weight).transpose(0, 1).flatten(1)
    torch.testing.assert_close(y[12:], -y[:12])
    covariance = torch.cov(y[:12]).double()
    assert (covariance - covariance.diag().diag()).abs().max() < 1e-3
    assert (covariance.diag() > 0.5).all()
    assert (covariance.diag() < 1 + 1e-3).all()
    assert not network.whiten.weight.requires_grad


def test_a_classifiers_convolutions_begin_by_copying():
    layer = next(m for m in Classifier(4).body if isinstance(m, nn.Conv2d) and m.in_channels == 8)
    x = torch.randn(2, 8, 5, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(layer(x), x)


@pytest.mark.parametrize("kind", GENERATORS + DISCRIMINATORS)
def test_a_network_can_be_made_again_from_its_settings(kind):
    network = kind(32, 48)
    again = kind(**network.settings)
    again.load_state_dict(network.state_dict())
    assert network.settings["width"] == 32


@pytest.mark.parametrize("kind", GENERATORS + DISCRIMINATORS)
@pytest.mark.parametrize("width", [0, -8, 4, 20])
def test_a_wrong_width_is_refused(kind, width):
    with pytest.raises(
        ValueError, match=rf"width must be a positive multiple of (8|16), not {width}"
    ):
        kind(width)


@pytest.mark.parametrize("kind", GENERATORS + DISCRIMINATORS)
@pytest.mark.parametrize("size", [0, -32, 28, 4])
def test_a_wrong_size_is_refused(kind, size):
    with pytest.raises(ValueError, match=rf"size must be .*32 or 48, not {size}"):
        kind(16, size)
    if "ResNet" in kind.__name__:
        with pytest.raises(ValueError, match="size must be 32 or 48, not 64"):
            kind(16, 64)


# Miyato et al. 2018, appendix B.4, at the papers' widths; on the meta device nothing is computed


def unbuilt(kind, *sizes):
    with torch.device("meta"):
        return kind(*sizes)


def layers(network, kind):
    return [layer for layer in network.modules() if isinstance(layer, kind)]


def kernels(convolutions):
    return [
        (c.in_channels, c.out_channels, c.kernel_size[0], c.stride[0], c.padding[0])
        for c in convolutions
    ]


@pytest.mark.parametrize("size", [32, 48])
def test_sn_dcgan_is_table_3(size):
    generator = unbuilt(DCGANGenerator, 512, size)
    discriminator = unbuilt(DCGANDiscriminator, 512, size)
    side = size // 8
    assert [(d.in_features, d.out_features) for d in layers(generator, nn.Linear)] == [
        (128, side * side * 512)
    ]
    assert kernels(layers(generator, nn.ConvTranspose2d)) == [
        (512, 256, 4, 2, 1),
        (256, 128, 4, 2, 1),
        (128, 64, 4, 2, 1),
    ]
    assert kernels(layers(generator, nn.Conv2d)) == [(64, 3, 3, 1, 1)]
    assert [b.num_features for b in layers(generator, nn.BatchNorm2d)] == [512, 256, 128, 64]
    assert kernels(layers(discriminator, nn.Conv2d)) == [
        (3, 64, 3, 1, 1),
        (64, 64, 4, 2, 1),
        (64, 128, 3, 1, 1),
        (128, 128, 4, 2, 1),
        (128, 256, 3, 1, 1),
        (256, 256, 4, 2, 1),
        (256, 512, 3, 1, 1),
    ]
    assert [a.negative_slope for a in layers(discriminator, nn.LeakyReLU)] == [0.1] * 7
    assert not layers(discriminator, nn.BatchNorm2d)
    assert [d.in_features for d in layers(discriminator, nn.Linear)] == [side * side * 512]


@pytest.mark.parametrize(
    ("size", "widths", "generator_maps", "discriminator_maps"),
    [
        (32, (256, 128), [256, 256, 256, 256], [3, 128, 128, 128, 128]),
        (48, (512, 1024), [512, 256, 128, 64], [3, 64, 128, 256, 512, 1024]),
    ],
    ids=["table 4", "table 5"],
)
def test_sn_resnet_is_tables_4_and_5(size, widths, generator_maps, discriminator_maps):
    generator = unbuilt(ResNetGenerator, widths[0], size)
    discriminator = unbuilt(ResNetDiscriminator, widths[1], size)
    expected = []
    for a, b in pairwise(generator_maps):
        expected += [(a, b, 3, 1, 1), (b, b, 3, 1, 1), (a, b, 1, 1, 0)]
    expected += [(generator_maps[-1], 3, 3, 1, 1)]
    assert kernels(layers(generator, nn.Conv2d)) == expected
    expected = []
    for i, (a, b) in enumerate(pairwise(discriminator_maps)):
        hidden = b if i == 0 else a
        expected += [(a, hidden, 3, 1, 1), (hidden, b, 3, 1, 1)]
        if a != b or i < 2:  # an identity where neither width nor size changes
            expected += [(a, b, 1, 1, 0)]
    assert kernels(layers(discriminator, nn.Conv2d)) == expected
    x = torch.empty(1, 3, size, size, device="meta")
    assert discriminator.layers(x).shape[2:] == ((8, 8) if size == 32 else (3, 3))
    assert not layers(discriminator, nn.BatchNorm2d)


def test_a_block_is_what_the_authors_compute():
    """Convolving before upsampling, and after averaging, on the shortcut: theirs is the other way about."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(2, 16, 32, 32, generator=rng, dtype=torch.float64)
    up = ResNetGenerator(16).layers[0].double()
    convolution, upsample = up.shortcut
    torch.testing.assert_close(up.shortcut(x), convolution(upsample(x)))
    down = ResNetDiscriminator(16, spectral=False).layers[1].double()
    pool, convolution = down.shortcut
    torch.testing.assert_close(down.shortcut(x), pool(convolution(x)))


# Spectral norm


def test_a_discriminator_of_classes_adds_up_what_speaks_for_each():
    """Its logit is the logarithm of a sum over the classes; only their layer is free of the norm."""
    network = DCGANDiscriminator(16, num_classes=5)
    x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    evidence = network.eval().evidence(x)
    assert evidence.shape == (3, 5)
    torch.testing.assert_close(network(x), evidence.exp().sum(1).log())
    weights = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    normalised = [hasattr(m, "parametrizations") for m in weights]
    assert normalised == [True] * (len(weights) - 1) + [False]
    with torch.autocast("cpu", torch.bfloat16):  # 8 bits cannot hold a sum of many
        assert network(x).dtype == torch.float32
    assert network.double()(x.double()).dtype == torch.float64
    with pytest.raises(ValueError, match="num_classes too, not -1"):
        DCGANDiscriminator(16, num_classes=-1)
    with pytest.raises(ValueError, match="give num_features or num_classes"):
        DCGANDiscriminator(16, num_features=2, num_classes=2)


def test_a_tapering_generator_halves_its_channels_but_not_below_the_narrowest():
    network = ResNetGenerator(32, narrowest=16)
    blocks = [m for m in network.layers if isinstance(m, UpBlock)]
    assert [m.layers[3].weight.shape[:2] for m in blocks] == [(16, 32), (16, 16), (16, 16)]
    assert network(torch.zeros(2, 128)).shape == (2, 3, 32, 32)
    again = ResNetGenerator(**network.settings)
    again.load_state_dict(network.state_dict())
    for narrowest in (0, 33):
        with pytest.raises(ValueError, match=f"from 1 to the width, 32, not {narrowest}"):
            ResNetGenerator(32, narrowest=narrowest)


def test_spectral_norm_is_on_every_layer_or_on_none():
    for kind in DISCRIMINATORS:
        for spectral in (True, False):
            network = kind(16, spectral=spectral)
            weights = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
            assert {hasattr(m, "parametrizations") for m in weights} == {spectral}


@pytest.mark.parametrize("kind", DISCRIMINATORS)
def test_power_iteration_brings_every_weights_largest_singular_value_to_1(kind):
    torch.manual_seed(0)
    network = kind(16)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        for _ in range(200):
            network.train()(x)
    values = largest_singular_values(network.eval())
    assert len(values) == sum(isinstance(m, nn.Conv2d | nn.Linear) for m in network.modules())
    # The iteration's estimate is at most the value it tends to, so a normalised weight is never below 1.
    assert values.min() > 1 - 1e-5
    assert values.max() < 1 + 1e-3


def test_largest_singular_values_are_those_of_the_matrices():
    network = DCGANDiscriminator(16, spectral=False)
    with torch.no_grad():
        weight = network.layers[2].weight
        weight.zero_()
        weight[0, 0, 1, 2], weight[1, 1, 0, 0] = 3.0, -5.0
    assert largest_singular_values(network)[1].item() == pytest.approx(5.0)
