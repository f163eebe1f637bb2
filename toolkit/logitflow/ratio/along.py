"""A logit for the whole way: fitted to samples while a flow in data space moves them."""

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from logitflow.data import Sample
from logitflow.files import write_atomically
from logitflow.progress import progress
from logitflow.ratio.fitting import cross_entropy
from logitflow.run import run
from logitflow.samplers import Sampler
from logitflow.target import LatentTarget
from logitflow.training.checkpoints import restore_alone, snapshot


class _Walkers(nn.Module):
    """The samples on their way, as buffers, so that a checkpoint holds them too."""

    x: Tensor

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.register_buffer("x", x)


def fit_along_flow(
    discriminator: nn.Module,
    sample_real: Sample,
    sample_fake: Sample,
    make_sampler: Callable[[LatentTarget], Sampler],
    *,
    num_steps: int,
    mean_age: float,
    generator: torch.Generator,
    space: Distribution | None = None,
    num_walkers: int = 1024,
    batch_size: int = 64,
    learning_rate: float = 2e-4,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 250,
) -> float:
    r"""Train a discriminator, in place, on data and on the samples that its own flow has moved.

    A frozen logit log p/q₀ is right where the flow begins and stale as soon as samples have moved, where the
    drift should be ∇log p/q_t. This one is fitted to all ages at once, log p/q̄ with q̄ the mean of the q_t: the
    idea of flow-guided density ratio learning (Heng, Ansari and Soh 2023). Each step moves a batch of walkers
    by one step of the sampler on the logit as it is, scores them beside data, and sends a few back to the
    start. So the discriminator meets what its own gradients make of a sample, and unlearns the slopes
    that lead nowhere.

    Args:
        discriminator: maps samples to logits, (N,) or (N, 1); one that is fitted already learns faster.
        sample_real: draws data.
        sample_fake: draws the model's samples, where the flow begins.
        make_sampler: from the target in data space, such as
            `lambda target: gradient_flow(target, step_size=0.1, gamma=1e-4)`.
        num_steps: Adam steps; the learning rate falls linearly to zero in their second half.
        mean_age: steps of the sampler that a walker takes before it begins anew, on average. The flow arrives
            at the data after about as many, and goes beyond them after more.
        generator: the source of all randomness, on the networks' device.
        space: a prior on a box keeps walkers inside, as in `LatentTarget`; None for no bounds.
        num_walkers: samples on their way.
        batch_size: walkers and data a step.
        learning_rate: Adam's at the start.
        checkpoint: a safetensors file, with the walkers, written every `checkpoint_every` steps. Where it is
            there already the fit goes on from it, bit for bit on the CPU.
        checkpoint_every: steps between checkpoints.

    Returns:
        The mean cross-entropy over the last tenth of the steps (of those that this call took), nats a sample:
        log 2 ≈ 0.69 where walkers of all ages cannot be told from data.

    Raises:
        ValueError: a number is below 1, a batch larger than the walkers, or the checkpoint of other networks or
            damaged.
        FloatingPointError: the loss is not finite.
    """
    if min(num_steps, mean_age, num_walkers, batch_size, checkpoint_every) < 1:
        raise ValueError(
            "num_steps, mean_age, num_walkers, batch_size and checkpoint_every must be at least 1"
        )
    if batch_size > num_walkers:
        raise ValueError(
            f"a batch of {batch_size} cannot be taken of {num_walkers} walkers: take more of them"
        )
    sampler = make_sampler(LatentTarget(lambda x: x, discriminator, space))
    optimizer = torch.optim.Adam(discriminator.parameters(), learning_rate, (0.0, 0.9))
    with torch.no_grad():
        walkers = _Walkers(sample_fake(num_walkers, generator).clone())
    networks, optimizers = {"fit": discriminator, "walkers": walkers}, {"fit": optimizer}
    done = restore_alone(checkpoint, networks, optimizers, generator)
    losses: list[float] = []
    for k in progress(range(done + 1, num_steps + 1), desc="fit along", unit="step"):
        optimizer.param_groups[0]["lr"] = learning_rate * min(1, 2 * (1 - (k - 1) / num_steps))
        drawn = torch.randperm(num_walkers, generator=generator, device=generator.device)
        chosen = drawn[:batch_size]
        moved = run(sampler, walkers.x[chosen], num_steps=1, generator=generator).z
        loss = cross_entropy(
            discriminator(sample_real(batch_size, generator)), discriminator(moved)
        )
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            raise FloatingPointError(
                f"step {k}: the loss is {losses[-1]}. Try a smaller learning_rate"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        torch.clear_autocast_cache()  # under a caller's autocast: copies of the weights before the step
        walkers.x[chosen] = _some_begin_anew(moved, 1 / mean_age, sample_fake, generator)
        if checkpoint is not None and (k % checkpoint_every == 0 or k == num_steps):
            state = snapshot(k, networks, optimizers, [generator.get_state()])
            write_atomically(checkpoint, state)
    last = losses[-max(1, num_steps // 10) :]
    return sum(last) / len(last) if last else math.nan


@torch.no_grad()
def _some_begin_anew(
    moved: Tensor, chance: float, sample_fake: Sample, generator: torch.Generator
) -> Tensor:
    """Samples of which each, by chance, is exchanged for a new one of the model's."""
    dice = torch.rand(len(moved), generator=generator, device=generator.device)
    again = dice < chance
    if not again.any():
        return moved
    moved = moved.clone()
    moved[again] = sample_fake(int(again.sum()), generator)
    return moved
