"""How the shipped models of CIFAR-10 without a discriminator were made: `train` with `--data cifar10`."""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.distributions import Distribution, Normal, Uniform

from logitflow import priors, zoo
from logitflow.data import Sample, images
from logitflow.device import choose
from logitflow.files import write_atomically
from logitflow.metrics import evaluate_images
from logitflow.models import (
    DCGANDiscriminator,
    ImageDecoder,
    ImageEncoder,
    ImageFlow,
    ResNetGenerator,
)
from logitflow.models.spectral import settle_norms
from logitflow.processes import is_first
from logitflow.ratio import fit_along_flow
from logitflow.recipes.beyond import Model
from logitflow.recipes.classifier import round_weights
from logitflow.recipes.common import Curve, fit_copy, sampler_of, weights_from
from logitflow.recipes.toys import in_words
from logitflow.run import seeded_generator
from logitflow.samplers import Sampler, gradient_flow
from logitflow.target import LatentTarget
from logitflow.training import dequantised, elbo, train_likelihood, train_mmd_gan

GAN = "cifar10-sn-resnet-small"
"""The shipped pair whose discriminator the correctors are added to, and begin as."""


class ImageModel(NamedTuple):
    """How a model is made on a device, for whose first maps some images are at hand, and its steps."""

    make: Callable[[torch.device, images.Images], Model]
    num_steps: int
    checkpoint_every: int = 250


def _vae(at: torch.device, data: images.Images) -> Model:
    encoder, decoder = ImageEncoder(64), ImageDecoder(64, std=0.15)
    networks: dict[str, nn.Module] = {"generator": decoder, "encoder": encoder}
    _move(networks, at)
    log_likelihood = partial(elbo, encoder, decoder)
    train = partial(train_likelihood, log_likelihood, networks, batch_size=64, learning_rate=1e-3)
    return Model(networks, _standard_normal(at, 128), train)


def _flow(at: torch.device, data: images.Images) -> Model:
    flow = ImageFlow(32, width=48, num_couplings=6)
    networks: dict[str, nn.Module] = {"generator": flow}
    _move(networks, at)
    rng = seeded_generator(0, 5, at)
    flow.whiten(dequantised(data.sample(1000, rng), rng))
    train = partial(
        train_likelihood,
        lambda x, rng: flow.log_prob(dequantised(x, rng)),
        networks,
        batch_size=32,
        learning_rate=1e-3,
        longest_gradient=1000.0,  # a guard: of thousands of pixels a gradient is long
    )
    return Model(networks, _standard_normal(at, 3, 32, 32), train)


def _mmd_gan(at: torch.device, data: images.Images) -> Model:
    generator, critic = ResNetGenerator(64), DCGANDiscriminator(256, num_features=16)
    average = copy.deepcopy(generator).requires_grad_(False)
    networks: dict[str, nn.Module] = {"generator": average, "critic": critic}
    _move(networks | {"trained": generator}, at)
    prior = _standard_normal(at, 128)

    def train(sample_real: Sample, **settings: Any) -> None:
        settings = {"batch_size": 64, "learning_rate": 2e-4, "critic_steps": 1, **settings}
        train_mmd_gan(
            generator, critic, sample_real, prior, penalty=0.0, average=average, **settings
        )

    return Model(networks, prior, train)


IMAGE_MODELS = {
    "vae": ImageModel(_vae, 4000),
    "flow": ImageModel(_flow, 5000),
    "mmd-gan": ImageModel(_mmd_gan, 2000),
}
"""The models that `train_beyond_images` knows, with their steps for half an hour or so of one core.

:meta hide-value:
"""
FIT_STEPS = 500
"""Of each of a model's first two logits."""
ALONG_FIT_STEPS = 2000
"""Of the third logit, which is fitted along its own flow."""
ALONG_AGE = 50
"""Steps of that flow in which it should arrive."""


def along_flow(target: LatentTarget) -> Sampler:
    """DGflow in pixels, which the third logit is fitted along and used with."""
    return gradient_flow(target, divergence="kl", step_size=0.2, gamma=1e-4)


def train_beyond_images(
    model: str,
    folder: str | Path,
    *,
    num_steps: int | None = None,
    fit_steps: int = FIT_STEPS,
    seed: int = 0,
    device: str = "auto",
    say: Callable[[str], None] = lambda line: None,
    **card: Any,
) -> None:
    """Train a model without a discriminator on CIFAR-10 in bfloat16, and three logits for it.

    The corrector tells a shipped GAN's samples from the model's, so that it and the GAN's discriminator add up
    to the model's logit (`logitflow.ratio.corrected`); the fitted discriminator tells data from the
    model's samples. Both begin as copies of that GAN's discriminator, whose features are of use to both. The
    third begins as a copy of the fitted one, and goes on along a flow in pixels
    (`logitflow.ratio.fit_along_flow`).

    A killed run goes on from the folder's checkpoints. Those of the fits are removed at the end; the model's
    stays, so that the same command fits anew where the GAN has changed. As in `train_cifar10`, the folder
    gets pictures and `curve.json`. Weights are rounded to half precision before anything is fitted.

    Args:
        model: "vae", "flow" or "mmd-gan".
        folder: where the model goes, as `logitflow.zoo.save` lays it out.
        num_steps: training steps, None for the model's own.
        fit_steps: steps of fitting each of the first two logits.
        seed: of the initial weights, the data and the latents.
        device: "auto" (a GPU where there is one), "cpu" or "cuda".
        say: is told how training goes, a line a checkpoint.
        card: what else the card should say, such as the command.

    Raises:
        ValueError: the model is unknown, there is no such device, or a checkpoint is of other networks.
        FloatingPointError: a loss is not finite.
        FileNotFoundError, ConnectionError: there is no data: `logitflow.data.cifar10` says what to do.
    """
    if model not in IMAGE_MODELS:
        raise ValueError(f"unknown model {model!r}: choose {', '.join(IMAGE_MODELS)}")
    make, steps, checkpoint_every = IMAGE_MODELS[model]
    num_steps = steps if num_steps is None else num_steps
    folder, at, pair = Path(folder), choose(device), zoo.load(GAN)
    pair = zoo.to_device(pair, at)
    data = images.cifar10("train")
    data = data._replace(pixels=data.pixels.to(at))
    with weights_from(seed):
        networks, prior, train = make(at, data)
    generator, curve = networks["generator"], Curve(folder / "curve.json")

    def report(step: int, loss: float) -> None:
        path = folder / "pictures" / f"step-{step:06d}.png"
        figures = _look(generator, prior, path, seed)
        generator.train()
        curve.add(step, loss=loss, **figures)
        say(f"step {step}: loss {loss:.4g}, {in_words(figures)}, {path}")

    train(
        data.sample,
        num_steps=num_steps,
        seed=seed,
        precision=torch.bfloat16,
        checkpoint=folder / "checkpoint.safetensors",
        checkpoint_every=checkpoint_every,
        callback=report,
    )
    if not is_first():
        return  # the first process does the rest
    for network in networks.values():
        round_weights(network.eval())
    figures = _look(generator, prior, folder / "samples.png", seed)
    sample_model = sampler_of(generator, prior)
    real = {"corrector": sampler_of(pair.generator, pair.prior), "fitted": data.sample}
    for number, (role, sample_real) in enumerate(real.items()):
        networks[role], fit = fit_copy(
            pair.discriminator.train(),
            sample_real,
            sample_model,
            num_steps=fit_steps,
            generator=seeded_generator(seed, 3 + number, at),
            say=say,
            role=role,
            checkpoint=folder / f"{role}.checkpoint.safetensors",
        )
        figures |= fit
    pixels = torch.ones(3, 32, 32, device=at)
    along = networks["along"] = copy.deepcopy(networks["fitted"]).train()
    with torch.autocast(at.type, torch.bfloat16):
        figures["along_cross_entropy"] = fit_along_flow(
            along,
            data.sample,
            sample_model,
            along_flow,
            num_steps=ALONG_FIT_STEPS,
            mean_age=ALONG_AGE,
            generator=seeded_generator(seed, 5, at),
            space=Uniform(-pixels, pixels),
            checkpoint=folder / "along.checkpoint.safetensors",
        )
    say(f"along the flow: cross-entropy {figures['along_cross_entropy']:.4f} nats")
    for role in networks.keys() & {"corrector", "fitted", "along", "critic"}:
        settle_norms(networks[role])
        round_weights(networks[role])
    facts = {"data": data.source, "seed": seed, "gan": zoo.gan_of(GAN, "discriminator")}
    training = {"num_steps": num_steps, "fit_steps": fit_steps, "along_steps": ALONG_FIT_STEPS}
    facts |= {"training": training, "figures": figures, "curve": curve.points()}
    zoo.save(folder, networks, prior, **facts, **card)
    for role in (*real, "along"):
        (folder / f"{role}.checkpoint.safetensors").unlink(missing_ok=True)


@torch.no_grad()
def _look(generator: nn.Module, prior: Distribution, picture: Path, seed: int) -> dict[str, float]:
    """Picture 64 latents, always the same, and measure the images of others; leaves eval mode on."""
    generator.eval()
    at = prior.mean.device
    draws = [
        priors.sample(prior, n, seeded_generator(seed, k, at)) for k, n in ((1, 64), (2, 1000))
    ]
    shown, many = (torch.cat([generator(part) for part in z.split(250)]) for z in draws)
    write_atomically(picture, images.png_grid(shown))
    seen = evaluate_images(many)
    return {name: seen[name] for name in ("frechet_distance", "inception_score")}


def _move(networks: dict[str, nn.Module], at: torch.device) -> None:
    for network in networks.values():
        network.to(at).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _standard_normal(at: torch.device, *shape: int) -> Normal:
    return Normal(torch.zeros(shape, device=at), torch.ones(shape, device=at))
