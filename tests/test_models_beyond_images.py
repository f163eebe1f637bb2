"""The image flow, the image VAE and the vector-valued critic against closed forms and automatic derivatives."""

import copy
import math

import pytest
import torch
from laws import normal_prior, seeded
from torch import nn
from torch.distributions import Independent, Normal

from logitflow import LatentTarget, zoo
from logitflow.data import Images
from logitflow.data.images import from_bytes, to_bytes
from logitflow.inference import fast
from logitflow.models import DCGANDiscriminator, DCGANGenerator, ImageDecoder, ImageEncoder
from logitflow.models import ImageFlow as Flow
from logitflow.ratio import corrected, fit_log_ratio, fitting
from logitflow.training import dequantised, elbo, gaussian_kl, train_likelihood, train_mmd_gan

NOISE = Images(
    torch.randint(0, 256, (40, 3, 32, 32), dtype=torch.uint8, generator=seeded(7)),
    torch.arange(40) % 10,
    "noise",
)
SMALL = {"width": 4, "num_couplings": 6}


def made(make, *arguments, seed=0, **settings):
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return make(*arguments, **settings)


def flow_of(size, num_scales, scale=0.05):
    """A flow in double precision whose every parameter is drawn."""
    flow, rng = Flow(size, num_scales=num_scales, **SMALL).double(), seeded()
    for parameter in flow.parameters():
        parameter.data = scale * torch.randn(parameter.shape, generator=rng, dtype=torch.float64)
    return flow.requires_grad_(False)


def latents(n, size):
    return torch.randn(n, 3, size, size, generator=seeded(1), dtype=torch.float64)


def same(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


# --- the flow ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "num_scales"), [(2, 1), (4, 2), (8, 3), (16, 2)])
def test_an_image_flow_inverts_itself(size, num_scales):
    flow, z = flow_of(size, num_scales, scale=0.04), latents(5, size)
    x, log_det = flow.generate(z)
    back, inverse_log_det = flow.inverse(x)
    assert x.abs().max() < 1 / (255 / 256) / 0.9
    torch.testing.assert_close(back, z, rtol=0, atol=1e-10)
    torch.testing.assert_close(inverse_log_det, -log_det, rtol=0, atol=1e-9)
    assert torch.equal(flow(z), x.clamp(-1, 1))
    law = Independent(normal_prior(1), 1)
    expected = law.log_prob(z.flatten(1)[..., None]).sum(1) - log_det
    torch.testing.assert_close(flow.log_prob(x), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("size", "num_scales"), [(2, 1), (4, 2), (8, 3)])
def test_its_log_determinant_is_that_of_its_jacobian(size, num_scales):
    flow, z = flow_of(size, num_scales, scale=0.03), latents(2, size)
    x, log_det = flow.generate(z)
    for k in range(2):
        jacobian = torch.autograd.functional.jacobian(
            lambda one: flow.generate(one[None])[0].flatten(), z[k]
        ).view(3 * size**2, -1)
        torch.testing.assert_close(log_det[k], jacobian.slogdet().logabsdet, rtol=0, atol=1e-9)
        jacobian = torch.autograd.functional.jacobian(
            lambda one: flow.inverse(one[None])[0].flatten(), x[k]
        ).view(3 * size**2, -1)
        torch.testing.assert_close(-log_det[k], jacobian.slogdet().logabsdet, rtol=0, atol=1e-9)


def test_every_pixel_is_moved_by_others():
    """After six couplings each pixel of a 4×4 image depends on the latents of other pixels."""
    flow = flow_of(4, 2)
    jacobian = torch.autograd.functional.jacobian(
        lambda one: flow.generate(one[None])[0].sum((0, 1)).flatten(), latents(1, 4)[0]
    )
    touched = (jacobian.view(16, 3, 16).abs().sum(1) > 1e-12).sum(
        1
    )  # latents' pixels, of each pixel
    assert (touched > 4).all()


def test_whitening_leaves_channels_uncorrelated():
    """A new flow's couplings move nothing: the first scale's latents are the last linear map's channels."""
    flow = Flow(4, num_scales=1, **SMALL).double()
    x = 0.5 * torch.tanh(latents(300, 4) + latents(300, 4).mean(1, keepdim=True))
    flow.whiten(x)
    z, _ = flow.inverse(x)
    channels = torch.nn.functional.pixel_unshuffle(z.detach(), 2).transpose(0, 1).flatten(1)
    eye = torch.eye(12, dtype=torch.float64)
    torch.testing.assert_close(torch.cov(channels), eye, rtol=0, atol=1e-9)
    torch.testing.assert_close(channels.mean(1), 0 * eye[0], rtol=0, atol=1e-9)
    back, _ = flow.generate(z)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-9)


def test_half_precision_is_the_couplings_networks_alone():
    """Under bfloat16 the inverse stays an inverse, and the sums stay in single precision."""
    flow = flow_of(8, 3).float()
    z = latents(20, 8).float()
    with torch.autocast("cpu", torch.bfloat16):
        x, log_det = flow.generate(z)
        back, inverse_log_det = flow.inverse(x)
    assert x.dtype == log_det.dtype == torch.float32
    torch.testing.assert_close(back, z, rtol=0, atol=0.02)
    torch.testing.assert_close(inverse_log_det, -log_det, rtol=0, atol=0.1)
    assert (x - flow.generate(z)[0]).abs().max() > 0
    torch.testing.assert_close(x, flow.generate(z)[0], rtol=0, atol=0.05)


def test_a_fast_flow_is_the_flow():
    flow, z = flow_of(8, 2), latents(3, 8)
    quick = fast(flow)
    torch.testing.assert_close(quick(z), flow(z), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "settings", [{"size": 12}, {"size": 0}, {"num_couplings": 0}, {"width": 0}, {"num_scales": 0}]
)
def test_image_flows_that_cannot_be(settings):
    with pytest.raises(ValueError, match="multiple of 2 to the number of scales, not size"):
        Flow(**settings)


def test_dequantised_images_stay_within_their_levels():
    x = from_bytes(NOISE.pixels)
    moved = dequantised(x, seeded())
    # but for rounding at a level's very edge
    assert (to_bytes(moved) != NOISE.pixels).double().mean() < 1e-4
    shift = (moved - x) * 127.5  # uniform on ±½, of variance 1/12
    n = shift.numel()
    assert shift.abs().max() <= 0.5 + 1e-4
    assert abs(shift.mean()) < 5 / math.sqrt(12 * n)
    assert abs(shift.var() * 12 - 1) < 5 * math.sqrt(0.8 / n)  # the uniform law's kurtosis is 1.8


# --- the VAE and the critic -------------------------------------------------------------------------


def test_the_elbo_of_a_decoder_that_ignores_its_code():
    """Its mean is black wherever it is: the likelihood is a normal law's, whichever code is drawn."""
    encoder, decoder = made(ImageEncoder, 8, 6), made(ImageDecoder, 8, 6, std=0.2)
    for parameter in decoder.layers[-2].parameters():
        nn.init.zeros_(parameter)
    x = from_bytes(NOISE.pixels[:4])
    mean, log_std = encoder(x)
    assert mean.shape == log_std.shape == (4, 6)
    normal = Normal(torch.zeros(3, 32, 32), 0.2).log_prob(x).sum((1, 2, 3))
    expected = normal - gaussian_kl(mean, log_std)
    torch.testing.assert_close(elbo(encoder, decoder, x, seeded()), expected)
    assert decoder(torch.zeros(2, 6)).shape == (2, 3, 32, 32)


@pytest.mark.parametrize("std", [0.0, -1.0, math.nan])
def test_a_decoder_of_images_without_noise_is_refused(std):
    with pytest.raises(ValueError, match="std must be positive and finite"):
        ImageDecoder(8, 6, std)


def test_a_vector_valued_critic_is_refused_as_a_logit():
    critic = made(DCGANDiscriminator, 16, num_features=5)
    assert critic(from_bytes(NOISE.pixels[:2])).shape == (2, 5)
    assert critic.settings["num_features"] == 5
    assert made(DCGANDiscriminator, 16, num_features=1)(from_bytes(NOISE.pixels[:2])).shape == (
        2,
        1,
    )
    assert "num_features" not in DCGANDiscriminator(16).settings
    target = LatentTarget(made(DCGANGenerator, 16), critic, normal_prior(128, torch.float32))
    with pytest.raises(ValueError, match=r"logitflow\.ratio\.corrected"):
        target.logits(torch.zeros(2, 128))
    with pytest.raises(ValueError, match="num_features must be at least 0, not -1"):
        DCGANDiscriminator(16, num_features=-1)


def test_image_networks_come_back_from_their_cards(tmp_path):
    networks = {
        "generator": flow_of(8, 2).float(),
        "decoder": made(ImageDecoder, 8, 6, std=0.3),
        "encoder": made(ImageEncoder, 8, 6),
        "critic": made(DCGANDiscriminator, 16, num_features=4),
        "discriminator": made(DCGANDiscriminator, 16, 8),
    }
    zoo.save(tmp_path, networks, Normal(torch.zeros(3, 8, 8), torch.ones(3, 8, 8)))
    again = zoo.load(tmp_path)
    for role, network in networks.items():
        assert again.networks[role].settings == network.settings
        assert same(again.networks[role], network)
    z = latents(2, 8).float()
    target = LatentTarget(again.generator, again.discriminator, again.prior)
    assert target.log_prob_and_grad(z).grad.shape == z.shape
    assert again.prior.batch_shape == (3, 8, 8)


def test_a_fast_corrected_logit_is_the_sum_of_both():
    """In single precision but for rounding; in bfloat16 to its third digit, the sum itself in full."""
    logit, corrector = (made(DCGANDiscriminator, 16, seed=k).eval() for k in (1, 2))
    for network in (logit, corrector):
        network.layers[-1].parametrizations.weight.original.data.mul_(3)
        network.layers[-1].bias.data += 100  # in bfloat16, a sum near 200 would be of whole numbers
    both, x = corrected(logit, corrector), from_bytes(NOISE.pixels[:8])
    with torch.no_grad():
        expected = (logit(x) + corrector(x)).detach()
        torch.testing.assert_close(fast(both)(x), expected, rtol=0, atol=1e-4)
        quick = fast(both, dtype=torch.bfloat16)(x)
    assert quick.dtype == torch.float32
    assert (quick - quick.round()).abs().max() > 1e-3
    torch.testing.assert_close(quick, expected, rtol=0, atol=0.05)
    x = x.requires_grad_()
    (slope,) = torch.autograd.grad(both(x).sum(), x)
    (quick_slope,) = torch.autograd.grad(fast(both, dtype=torch.bfloat16)(x).sum(), x)
    assert torch.cosine_similarity(slope.flatten(), quick_slope.flatten(), dim=0) > 0.95


# --- training ---------------------------------------------------------------------------------------


def stop_at(step):
    def stop(now, loss):
        if now == step:
            raise KeyboardInterrupt

    return stop


def train(model, num_steps=4, weights=0, **settings):
    shared = {"num_steps": num_steps, "seed": 1, "batch_size": 4, "precision": torch.bfloat16}
    settings = {**shared, **settings}
    if model == "flow":
        flow = made(Flow, 8, num_scales=2, **SMALL, seed=weights)
        networks = {"flow": flow}

        def log_prob(x, rng):
            return flow.log_prob(dequantised(x[:, :, ::4, ::4], rng))

        train_likelihood(log_prob, networks, NOISE.sample, **settings)
    else:
        networks = {
            "generator": made(DCGANGenerator, 16, seed=weights),
            "critic": made(DCGANDiscriminator, 16, num_features=4, seed=weights),
        }
        networks["average"] = copy.deepcopy(networks["generator"]).requires_grad_(False)
        trained, critic, average = networks.values()
        prior = normal_prior(128, torch.float32)
        settings = {"penalty": 0.0, "critic_steps": 1, "average": average, **settings}
        train_mmd_gan(trained, critic, NOISE.sample, prior, **settings)
    return nn.ModuleDict(networks)


@pytest.mark.parametrize("model", ["flow", "mmd-gan"])
def test_training_in_half_precision_goes_on_bit_for_bit(model, tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    state = torch.get_rng_state()
    whole = train(model)
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(KeyboardInterrupt):
        train(model, checkpoint=path, checkpoint_every=2, callback=stop_at(2))
    assert same(whole, train(model, weights=9, checkpoint=path))
    assert not same(whole, train(model, precision=torch.float32))
    assert {p.dtype for p in whole.parameters()} == {torch.float32}


def test_an_mmd_gan_with_a_penalty_trains_in_half_precision():
    assert not same(train("mmd-gan", num_steps=1, penalty=1.0), train("mmd-gan", num_steps=1))


def fit(path=None, evaluate_every=2, num_steps=6):
    network = made(DCGANDiscriminator, 16)
    record = fit_log_ratio(
        network,
        NOISE.sample,
        lambda n, rng: 0.8 * torch.tanh(torch.randn(n, 3, 32, 32, generator=rng)),
        num_steps=num_steps,
        generator=seeded(5),
        batch_size=4,
        num_held_out=8,
        evaluate_every=evaluate_every,
        checkpoint=path,
    )
    return network, record


@pytest.mark.parametrize("killed_at", [2, 6])
def test_a_killed_fit_goes_on_bit_for_bit(killed_at, tmp_path, monkeypatch):
    """The average and the spectral norms too; killed after the last step, nothing is left to do but judge."""
    path = tmp_path / "fit.safetensors"
    network, record = fit()
    write = fitting.write_atomically

    def stop(file, data):
        write(file, data)
        stop.calls += 1
        if stop.calls == killed_at // 2:
            raise KeyboardInterrupt

    stop.calls = 0
    with monkeypatch.context() as patch:
        patch.setattr(fitting, "write_atomically", stop)
        with pytest.raises(KeyboardInterrupt):
            fit(path)
    again, rest = fit(path)
    assert same(network, again)
    assert rest.mean_ratio == record.mean_ratio
    assert rest.losses[-1] == record.losses[-1]
    assert rest.steps == ([4, 6] if killed_at == 2 else [6])
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="damaged or no checkpoint"):
        fit(path)
