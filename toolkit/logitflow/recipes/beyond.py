"""How the shipped models without a discriminator were made: `logitflow train vae`, `flow` and `mmd-gan`."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal

from logitflow import zoo
from logitflow.data import Sample
from logitflow.models import MLP, GaussianDecoder, GaussianEncoder, RealNVP
from logitflow.processes import is_first
from logitflow.ratio import fit_log_ratio
from logitflow.recipes.common import sampler_of, told, weights_from
from logitflow.recipes.toys import figures_of, in_words, toy
from logitflow.run import seeded_generator
from logitflow.training import elbo, train_likelihood, train_mmd_gan


class Model(NamedTuple):
    """The networks of a model, its prior, and what trains them; `generator` is among the networks."""

    networks: dict[str, nn.Module]
    prior: Distribution
    train: Callable[..., None]


def _vae() -> Model:
    encoder = GaussianEncoder([2, 128, 128, 128, 2])
    decoder = GaussianDecoder([2, 128, 128, 128, 2], std=0.05)
    networks: dict[str, nn.Module] = {"generator": decoder, "encoder": encoder}
    log_likelihood = partial(elbo, encoder, decoder)
    train = partial(train_likelihood, log_likelihood, networks, batch_size=128, learning_rate=4e-3)
    return Model(networks, _standard_normal(decoder.latent_size), train)


def _flow() -> Model:
    flow = RealNVP(size=2, num_couplings=8, width=32)
    for coupling in flow.couplings:
        _bend(coupling)
    networks: dict[str, nn.Module] = {"generator": flow}
    train = partial(
        train_likelihood,
        lambda x, rng: flow.log_prob(x),
        networks,
        batch_size=128,
        learning_rate=2e-3,
        longest_gradient=1.0,
    )
    return Model(networks, _standard_normal(2), train)


class _SampleBeside(nn.Module):
    """A critic's features with the sample itself, scaled up, beside them.

    The critic alone turns its features round faster than the generator follows, and the modes' masses never
    settle. What lies in the wrong place is so in the sample's own coordinates, too, and those stand still.
    """

    def __init__(self, critic: nn.Module, scale: float) -> None:
        super().__init__()
        self.critic, self.scale = critic, scale

    def forward(self, x: Tensor) -> Tensor:
        """(N, 2) → (N, D + 2)."""
        return torch.cat([self.critic(x), self.scale * x], 1)


def _mmd_gan() -> Model:
    generator, critic = MLP([2, 128, 128, 128, 2]), MLP([2, 128, 128, 128, 8])
    _bend(generator)
    _bend(critic)
    prior = _standard_normal(2)

    def train(sample_real: Sample, **settings: Any) -> None:
        settings = {"batch_size": 256, "learning_rate": 2e-3, "critic_steps": 1, **settings}
        features = _SampleBeside(critic, 8.0)
        train_mmd_gan(generator, features, sample_real, prior, penalty=0.3, **settings)

    return Model({"generator": generator, "critic": critic}, prior, train)


MODELS: dict[str, Callable[[], Model]] = {"vae": _vae, "flow": _flow, "mmd-gan": _mmd_gan}
"""The models that `train_beyond` knows.

:meta hide-value:
"""


def train_beyond(
    model: str,
    name: str,
    folder: str | Path,
    *,
    num_steps: int,
    fit_steps: int,
    seed: int,
    say: Callable[[str], None] = lambda line: None,
    **card: Any,
) -> None:
    """Train a model without a discriminator on a toy, and both ways to a logit for it.

    The corrector tells the samples of the toy's shipped GAN from the model's, so that it and the GAN's fitted
    logit add up to the model's (`logitflow.ratio.corrected`). The fitted discriminator tells data from the
    model's samples directly. Both are 2-128-128-128-1. A killed run goes on from the folder's checkpoint,
    which is removed at the end; the two fits begin anew.

    Args:
        model: "vae", "flow" or "mmd-gan".
        name: "25gaussians" or "swissroll".
        folder: where the model goes, as `logitflow.zoo.save` lays it out.
        num_steps: training steps.
        fit_steps: steps of fitting each of the two.
        seed: of the initial weights, the data and the latents.
        say: is told how training goes, a line a checkpoint.
        card: what else the card should say, such as the command.

    Raises:
        ValueError: the model or the toy is unknown, or the checkpoint is of other networks.
        FloatingPointError: a loss is not finite.
    """
    if model not in MODELS:
        raise ValueError(f"unknown model {model!r}: choose {', '.join(MODELS)}")
    kind, folder, gan_name = toy(name), Path(folder), f"{name}-wgan-gp"
    gan = zoo.load(gan_name)
    with weights_from(seed):
        networks, prior, train = MODELS[model]()
        fits = {role: MLP([2, 128, 128, 128, 1]) for role in ("corrector", "fitted")}
    checkpoint = folder / "checkpoint.safetensors"

    def report(step: int, loss: float) -> None:
        figures = figures_of(networks["generator"], kind, prior, num_samples=2000)
        say(f"step {step}: loss {loss:.3f}, " + in_words(figures))

    train(kind.sample, num_steps=num_steps, seed=seed, checkpoint=checkpoint, callback=report)
    if not is_first():
        return  # the first process does the rest
    figures = figures_of(networks["generator"], kind, prior, num_samples=10_000)
    sample_model = sampler_of(networks["generator"], prior)
    real = {"corrector": sampler_of(gan.generator, gan.prior), "fitted": kind.sample}
    for number, (role, network) in enumerate(fits.items()):
        record = fit_log_ratio(
            network,
            real[role],
            sample_model,
            num_steps=fit_steps,
            generator=seeded_generator(seed, 3 + number),
            batch_size=256,
            learning_rate=2e-3,
        )
        figures |= told(role, record, say)
    facts = {"data": name, "seed": seed, "gan": zoo.gan_of(gan_name), "figures": figures}
    zoo.save(folder, networks | fits, prior, **facts, **card)
    checkpoint.unlink(missing_ok=True)


@torch.no_grad()
def _bend(network: nn.Module) -> None:
    """Draw the first layer four times as large: functions of many steps are learnt several times faster."""
    for parameter in next(m for m in network.modules() if isinstance(m, nn.Linear)).parameters():
        parameter.mul_(4)


def _standard_normal(size: int) -> Normal:
    return Normal(torch.zeros(size), torch.ones(size))
