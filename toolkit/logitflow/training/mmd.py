"""An MMD-GAN: its critic gives a vector, and a kernel compares the vectors of two sets of samples."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from logitflow import priors
from logitflow.data.toys import Sample
from logitflow.progress import progress
from logitflow.target import Network
from logitflow.training.checkpoints import descend, keep, own_batch, own_stream, restore
from logitflow.training.gan import follow


def rational_quadratic(a: Tensor, b: Tensor) -> Tensor:
    """The kernel Σ_α (1 + |a − b|²/2α)^−α for α = ½, 1 and 2, between all rows: (N, D), (M, D) → (N, M).

    A sum of rational quadratic kernels, as Bińkowski et al. (2018) take, of those shapes that need no powers.
    """
    squares = (a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T).clamp_min(0)
    return (1 + squares).rsqrt() + 1 / (1 + squares / 2) + (1 + squares / 4).square().reciprocal()


def mmd_squared(
    a: Tensor, b: Tensor, kernel: Callable[[Tensor, Tensor], Tensor] = rational_quadratic
) -> Tensor:
    """The unbiased estimate of the squared maximum mean discrepancy (Gretton et al. 2012, eq. 3), a scalar.

    mean k(a, a′) + mean k(b, b′) − 2 mean k(a, b), where no row meets itself; its mean is the truth, so that
    between samples of one law it is as often negative as positive.

    Args:
        a: features, (N, D).
        b: features, (M, D).
        kernel: of two sets of rows, (N, D) and (M, D) → (N, M).

    Raises:
        ValueError: a set has fewer than two rows.
    """
    n, m = len(a), len(b)
    if min(n, m) < 2:
        raise ValueError(
            f"an unbiased estimate needs at least two samples of each kind, not {n} and {m}"
        )
    within_a, within_b = kernel(a, a), kernel(b, b)
    return (
        (within_a.sum() - within_a.diagonal().sum()) / (n * (n - 1))
        + (within_b.sum() - within_b.diagonal().sum()) / (m * (m - 1))
        - 2 * kernel(a, b).mean()
    )


def witness_penalty(
    critic: Network, real: Tensor, fake: Tensor, generator: torch.Generator
) -> Tensor:
    """The mean of (‖∇f(x̂)‖ − 1)² at random points between pairs (Bińkowski et al. 2018), a scalar.

    f(x) = mean k(φ(x), φ(real)) − mean k(φ(x), φ(fake)) is the witness: where it is high, real samples
    are denser in the kernel's eyes.
    """
    shape = (len(real), *[1] * (real.ndim - 1))
    share = torch.rand(shape, generator=generator, device=real.device, dtype=real.dtype)
    between = torch.lerp(fake.detach(), real, share).requires_grad_()
    features = critic(between)
    witness = rational_quadratic(features, critic(real)).mean(1)
    witness = witness - rational_quadratic(features, critic(fake.detach())).mean(1)
    (slope,) = torch.autograd.grad(witness.sum(), between, create_graph=True)
    return (slope.flatten(1).norm(dim=1) - 1).square().mean()


def train_mmd_gan(
    generator: nn.Module,
    critic: nn.Module,
    sample_real: Sample,
    prior: Distribution,
    *,
    num_steps: int,
    penalty: float,
    seed: int = 0,
    batch_size: int = 128,
    learning_rate: float = 5e-4,
    critic_steps: int = 5,
    average: nn.Module | None = None,
    average_decay: float = 0.999,
    precision: torch.dtype = torch.float32,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 1000,
    callback: Callable[[int, float], None] | None = None,
) -> None:
    """Train a generator and a vector-valued critic together, in place (Li et al. 2017; Bińkowski et al. 2018).

    The generator minimises `mmd_squared` between the critic's features of real and of generated samples; the
    critic maximises it, less a penalty that keeps the witness's slope near 1. Under `torchrun` each process
    estimates it on its share of the batch.

    Args:
        generator: maps (N, *latent_shape) to samples.
        critic: maps samples to features, (N, D).
        sample_real: draws real samples.
        prior: the distribution of latents.
        num_steps: generator steps in all, those of an earlier, killed run included.
        penalty: the weight of `witness_penalty`; 0 where spectral norms bound the critic's slope.
        seed: of the data, the latents and the penalty's random points.
        batch_size: samples a step, of all processes.
        learning_rate: Adam's, falling linearly to zero.
        critic_steps: critic steps a generator step.
        average: as in `train_gan`, a copy of the generator to be made its weights' moving average.
        average_decay: what the average keeps of itself at each step.
        precision: bfloat16 runs the networks in mixed precision; weights and kernels stay as they are.
        checkpoint: a safetensors file, written every `checkpoint_every` steps; where it is there already,
            training goes on from it, bit for bit on the CPU.
        checkpoint_every: generator steps between checkpoints.
        callback: called as callback(step, mmd_squared) at each checkpoint.

    Raises:
        FloatingPointError: the loss is not finite.
        ValueError: the checkpoint is of other networks, or damaged.
    """
    rng = own_stream(seed, next(generator.parameters()).device)
    batch_size = own_batch(batch_size)
    networks = {"generator": generator, "critic": critic}
    optimizers = {
        name: torch.optim.Adam(network.parameters(), learning_rate, (0.5, 0.9))
        for name, network in networks.items()
    }
    if average is not None:
        networks["average"] = average
    mixed = torch.autocast(rng.device.type, precision, enabled=precision != torch.float32)

    def generate() -> Tensor:
        z = priors.sample(prior, batch_size, rng)
        with mixed:
            return generator(z).to(z.dtype)

    def features(x: Tensor) -> Tensor:
        with mixed:
            return critic(x).to(x.dtype)

    done = restore(checkpoint, networks, optimizers, rng)
    for k in progress(range(done + 1, num_steps + 1), desc="train", unit="step"):
        for optimizer in optimizers.values():
            optimizer.param_groups[0]["lr"] = learning_rate * (1 - (k - 1) / num_steps)
        for _ in range(critic_steps):
            real = sample_real(batch_size, rng)
            with torch.no_grad():
                fake = generate()
            critic_loss = -mmd_squared(features(real), features(fake))
            if penalty:
                critic_loss = critic_loss + penalty * witness_penalty(features, real, fake, rng)
            descend(optimizers["critic"], critic_loss)
        real, fake = sample_real(batch_size, rng), generate()
        discrepancy = mmd_squared(features(real), features(fake))
        descend(optimizers["generator"], discrepancy)
        if average is not None:
            follow(average, generator, min(average_decay, k / (k + 10)))
        if k % checkpoint_every == 0 or k == num_steps:
            keep(k, discrepancy, networks, optimizers, rng, checkpoint, callback)
