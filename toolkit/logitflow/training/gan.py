"""The losses of GANs and the loop that trains a pair; a killed run goes on where it stopped."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn import functional as F

from logitflow import priors
from logitflow.data.toys import LabelledSample, Sample
from logitflow.progress import progress
from logitflow.training.checkpoints import descend, keep, own_batch, own_stream, restore


class Loss(NamedTuple):
    """A GAN's two losses, each a function of logits, (N,) or (N, 1), with a scalar result."""

    discriminator: Callable[[Tensor, Tensor], Tensor]  # of real and of fake logits
    generator: Callable[[Tensor], Tensor]  # of fake logits
    gradient_penalty: float = 0.0  # weight λ of (‖∇d‖ − 1)² between real and fake samples


LOSSES = {
    # Wasserstein with gradient penalty (Gulrajani et al. 2017, eq. 3)
    "wgan-gp": Loss(lambda real, fake: fake.mean() - real.mean(), lambda fake: -fake.mean(), 10.0),
    # The original GAN with the non-saturating generator loss (Goodfellow et al. 2014, section 3)
    "non-saturating": Loss(
        lambda real, fake: F.softplus(-real).mean() + F.softplus(fake).mean(),
        lambda fake: F.softplus(-fake).mean(),
    ),
    # Hinge (Miyato et al. 2018, eq. 17 and 18)
    "hinge": Loss(
        lambda real, fake: F.relu(1 - real).mean() + F.relu(1 + fake).mean(),
        lambda fake: -fake.mean(),
    ),
}
"""The losses by the names that `logitflow train` takes."""


def gradient_penalty(
    critic: nn.Module, real: Tensor, fake: Tensor, generator: torch.Generator
) -> Tensor:
    """The mean of (‖∇d(x̂)‖ − 1)² at random points between pairs (Gulrajani et al. 2017, eq. 3), a scalar."""
    shape = (len(real), *[1] * (real.ndim - 1))
    share = torch.rand(shape, generator=generator, device=real.device, dtype=real.dtype)
    between = torch.lerp(fake.detach().to(real), real, share).requires_grad_()  # in full precision
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (slope.flatten(1).norm(dim=1) - 1).square().mean()


def score_real(
    discriminator: nn.Module, drawn: Tensor | tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor | float]:
    """The logits of real samples, and the cross-entropy of their classes where they were drawn with them.

    With the loss of a real sample's logit d, softplus(−d), the two make up the loss of one choice among the
    K classes and "generated", −log(exp(l_y)/(1 + Σ exp(l_k))) (Salimans et al. 2016, section 5).

    Args:
        discriminator: maps samples to logits; with classes its `evidence` gives their l_k, (N, K).
        drawn: samples, or samples with their classes, (N,) of int64.
    """
    if isinstance(drawn, Tensor):
        return discriminator(drawn), 0.0
    x, classes = drawn
    evidence = discriminator.evidence(x)  # type: ignore[operator]
    return evidence.logsumexp(1), F.cross_entropy(evidence, classes)


def train_gan(
    generator: nn.Module,
    discriminator: nn.Module,
    sample_real: Sample | LabelledSample,
    prior: Distribution,
    *,
    loss: Loss,
    num_steps: int,
    seed: int = 0,
    batch_size: int = 256,
    learning_rate: float = 1e-4,
    discriminator_learning_rate: float | None = None,
    betas: tuple[float, float] = (0.5, 0.9),
    discriminator_steps: int = 5,
    average: nn.Module | None = None,
    average_decay: float = 0.999,
    precision: torch.dtype = torch.float32,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 1000,
    callback: Callable[[int, float], None] | None = None,
) -> None:
    """Train a generator and a discriminator together, in place.

    Under `torchrun` the processes share each batch: the same number of them gives the same result, another
    number draws other samples. Batch norm sees each process's share by itself; the first one's means are kept.

    Args:
        generator: maps (N, *latent_shape) to samples.
        discriminator: maps samples to logits, (N,) or (N, 1).
        sample_real: draws real samples; samples with their classes for a discriminator that names these.
        prior: the distribution of latents.
        loss: one of `LOSSES`.
        num_steps: generator steps in all, those of an earlier, killed run included.
        seed: of the data, the latents and the penalty's random points.
        batch_size: samples a step, of all processes.
        learning_rate: Adam's, falling linearly to zero.
        discriminator_learning_rate: the discriminator's, where it is another: with a larger one, a single
            discriminator step may do for several (Heusel et al. 2017).
        betas: Adam's.
        discriminator_steps: discriminator steps a generator step.
        average: a copy of the generator, to be made the exponential moving average of its weights; its
            samples are steadier than the last step's (Yazıcı et al. 2019).
        average_decay: what the average keeps of itself at each step.
        precision: bfloat16 runs the networks in mixed precision; their weights stay as they are.
        checkpoint: a safetensors file, written every `checkpoint_every` steps; where it is there already,
            training goes on from it, bit for bit on the CPU.
        checkpoint_every: generator steps between checkpoints.
        callback: called as callback(step, discriminator_loss) at each checkpoint.

    Raises:
        FloatingPointError: a loss is not finite.
        ValueError: the checkpoint is of other networks, or damaged.
    """
    rng = own_stream(seed, next(generator.parameters()).device)
    batch_size = own_batch(batch_size)
    networks = {"generator": generator, "discriminator": discriminator}
    rates = {
        "generator": learning_rate,
        "discriminator": discriminator_learning_rate or learning_rate,
    }
    optimizers = {
        name: torch.optim.Adam(network.parameters(), rates[name], betas)
        for name, network in networks.items()
    }
    if average is not None:
        networks["average"] = average
    mixed = torch.autocast(rng.device.type, precision, enabled=precision != torch.float32)
    done = restore(checkpoint, networks, optimizers, rng)
    for k in progress(range(done + 1, num_steps + 1), desc="train", unit="step"):
        for name, optimizer in optimizers.items():
            optimizer.param_groups[0]["lr"] = rates[name] * (1 - (k - 1) / num_steps)
        for _ in range(discriminator_steps):
            real = sample_real(batch_size, rng)
            with mixed:
                with torch.no_grad():
                    fake = generator(priors.sample(prior, batch_size, rng))
                real_logits, class_loss = score_real(discriminator, real)
                d_loss = loss.discriminator(real_logits, discriminator(fake)) + class_loss
                if loss.gradient_penalty:
                    x = real if isinstance(real, Tensor) else real[0]
                    penalty = gradient_penalty(discriminator, x, fake, rng)
                    d_loss = d_loss + loss.gradient_penalty * penalty
            descend(optimizers["discriminator"], d_loss)
        with mixed:
            g_loss = loss.generator(discriminator(generator(priors.sample(prior, batch_size, rng))))
        descend(optimizers["generator"], g_loss)
        if average is not None:
            follow(average, generator, min(average_decay, k / (k + 10)))
        if k % checkpoint_every == 0 or k == num_steps:
            name = "discriminator's loss"
            keep(k, d_loss, networks, optimizers, rng, checkpoint, callback, name)


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move an exponential moving average of a network's weights one step, in place."""
    for mean, new in zip(average.parameters(), network.parameters(), strict=True):
        mean.lerp_(new, 1 - decay)
    for kept, now in zip(average.buffers(), network.buffers(), strict=True):
        kept.copy_(now)  # a batch norm's moments are averages already
