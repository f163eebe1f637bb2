"""Fitting a discriminator to two fixed samplers, until its logit is their log density ratio."""

import math
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from logitflow.data.toys import LabelledSample, Sample
from logitflow.files import write_atomically
from logitflow.progress import progress
from logitflow.target import unchanged
from logitflow.training.checkpoints import restore_alone, snapshot
from logitflow.training.gan import score_real


class FitRecord(NamedTuple):
    """How a fit went, one entry a held-out evaluation."""

    steps: list[int]
    # held-out cross-entropy, nats a sample; log 2 for a logit that knows nothing
    losses: list[float]
    mean_ratio: float  # held-out mean of exp(d) over generated samples; 1 for a log density ratio


def fit_log_ratio(
    discriminator: nn.Module,
    sample_real: Sample | LabelledSample,
    sample_fake: Sample,
    *,
    num_steps: int,
    generator: torch.Generator,
    batch_size: int = 512,
    learning_rate: float = 1e-3,
    num_held_out: int = 20_000,
    evaluate_every: int = 1000,
    checkpoint: str | Path | None = None,
) -> FitRecord:
    r"""Train a discriminator, in place, against a fixed sampler until its logit is log p_real/p_fake.

    Minimises the cross-entropy, whose minimiser over all functions is the log density ratio (Goodfellow et
    al. 2014, Proposition 1; Sugiyama et al. 2012), by Adam with a learning rate that falls as a cosine. The
    weights returned are the average over the last half of training, which removes most of the noise
    of the last steps, or the last weights where those do better on held-out samples.

    Args:
        discriminator: maps samples to logits, (N,) or (N, 1).
        sample_real: draws data; data with their classes for a discriminator that names these, whose
            cross-entropy is then minimised too.
        sample_fake: draws the model's samples, for example
            `lambda n, rng: generator(priors.sample(prior, n, rng))`.
        num_steps: Adam steps, each with fresh samples of both kinds.
        generator: the source of all randomness.
        batch_size: samples of each kind a step.
        learning_rate: Adam's at the start.
        num_held_out: samples of each kind to judge by.
        evaluate_every: steps between judgements.
        checkpoint: a safetensors file, written at each judgement. Where it is there already, a fit that begins
            with the generator in the same state goes on from it, bit for bit on the CPU; its record tells
            of the judgements since.

    Returns:
        The record of held-out losses and the final mean of exp(d).

    Raises:
        ValueError: a number is below 1, or the checkpoint is of other networks, or damaged.
        FloatingPointError: the held-out loss is not finite.
    """
    if min(num_steps, batch_size, num_held_out, evaluate_every) < 1:
        raise ValueError(
            "num_steps, batch_size, num_held_out and evaluate_every must be at least 1"
        )
    optimizer = torch.optim.Adam(discriminator.parameters(), learning_rate)
    average = torch.optim.swa_utils.AveragedModel(discriminator)
    with torch.no_grad():
        held_real = sample_real(num_held_out, generator)
        held_real = held_real if isinstance(held_real, Tensor) else held_real[0]
        held_fake = sample_fake(num_held_out, generator)

    def held_out_loss(network: nn.Module) -> float:
        with unchanged(network), torch.no_grad():  # spectral norms, too, stay as they are
            value = float(cross_entropy(network(held_real), network(held_fake)))
        if not math.isfinite(value):
            raise FloatingPointError("the held-out loss is not finite: try a smaller learning_rate")
        return value

    record = FitRecord([], [], math.nan)
    networks = {"fit": discriminator, "average": average}
    optimizers = {"fit": optimizer}
    done = restore_alone(checkpoint, networks, optimizers, generator)
    for k in progress(range(done + 1, num_steps + 1), desc="fit", unit="step"):
        falling = (1 + math.cos(math.pi * (k - 1) / num_steps)) / 2
        optimizer.param_groups[0]["lr"] = learning_rate * falling
        with torch.no_grad():
            real, fake = sample_real(batch_size, generator), sample_fake(batch_size, generator)
        real_logits, class_loss = score_real(discriminator, real)
        loss = cross_entropy(real_logits, discriminator(fake)) + class_loss / 2
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        torch.clear_autocast_cache()  # under a caller's autocast: copies of the weights before the step
        if 2 * k > num_steps:
            average.update_parameters(discriminator)
        if k % evaluate_every == 0 or k == num_steps:
            record.steps.append(k)
            record.losses.append(held_out_loss(discriminator))
            if checkpoint is not None:
                state = snapshot(k, networks, optimizers, [generator.get_state()])
                write_atomically(checkpoint, state)
    if not record.losses:  # the checkpoint was of the last step
        record.steps.append(done)
        record.losses.append(held_out_loss(discriminator))
    # what is no weight was not averaged: spectral norms' vectors, batch norms' moments
    for mean, now in zip(average.module.buffers(), discriminator.buffers(), strict=True):
        mean.copy_(now)
    averaged_loss = held_out_loss(average.module)
    if averaged_loss <= record.losses[-1]:
        discriminator.load_state_dict(average.module.state_dict())
        record.losses[-1] = averaged_loss
    with unchanged(discriminator), torch.no_grad():
        ratio = discriminator(held_fake).double().exp().mean()
    return record._replace(mean_ratio=float(ratio))


def cross_entropy(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Mean binary cross-entropy of logits over both classes, in nats a sample, a scalar."""
    return (F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()) / 2
