"""Training by likelihood or a bound of it: VAEs and flows; a killed run goes on where it stopped."""

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from logitflow.data.toys import Sample
from logitflow.models.vae import GaussianDecoder, ImageDecoder
from logitflow.progress import progress
from logitflow.training.checkpoints import descend, keep, own_batch, own_stream, restore


def gaussian_kl(mean: Tensor, log_std: Tensor) -> Tensor:
    """KL(N(mean, diag exp(2·log_std)) ‖ N(0, I)) in nats (Kingma & Welling 2014, appendix B): (N, D) → (N,)."""
    return ((2 * log_std).exp() + mean.square() - 1 - 2 * log_std).sum(1) / 2


def elbo(
    encoder: nn.Module,
    decoder: GaussianDecoder | ImageDecoder,
    x: Tensor,
    generator: torch.Generator,
) -> Tensor:
    r"""The evidence lower bound of log p(x) in nats, with one code drawn a sample: (N, …) → (N,).

    log p(x | c) − KL(q(c | x) ‖ N(0, I)), with c drawn from q and the KL in closed form (Kingma & Welling 2014,
    eq. 10). Its mean over codes is below log p(x) by KL(q(c | x) ‖ p(c | x)).

    Args:
        encoder: maps samples to a posterior's mean and log deviation, each (N, code size).
        decoder: gives the model's mean, and its deviation as `std`.
        x: samples.
        generator: the source of the codes.
    """
    mean, log_std = encoder(x)
    noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
    error = (x - decoder.mean(mean + log_std.exp() * noise)) / decoder.std
    normaliser = math.log(decoder.std * math.sqrt(2 * math.pi))
    log_likelihood = -(error.square() / 2 + normaliser).flatten(1).sum(1)
    return log_likelihood - gaussian_kl(mean, log_std)


def dequantised(x: Tensor, generator: torch.Generator) -> Tensor:
    """Images of whole grey levels in [−1, 1], each value moved by half a level at most: of the same shape.

    A density fitted to whole levels would grow without bound there (Theis et al. 2016, section 3.1).
    """
    noise = torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    return x + (noise - 0.5) / 127.5


def train_likelihood(
    log_likelihood: Callable[[Tensor, torch.Generator], Tensor],
    networks: dict[str, nn.Module],
    sample_real: Sample,
    *,
    num_steps: int,
    seed: int = 0,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    longest_gradient: float = math.inf,
    precision: torch.dtype = torch.float32,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 1000,
    callback: Callable[[int, float], None] | None = None,
) -> None:
    """Train networks in place by maximum likelihood or a bound of it, by Adam.

    A flow: `train_likelihood(lambda x, rng: flow.log_prob(x), {"flow": flow}, sample, num_steps=…)`; a VAE:
    `train_likelihood(partial(elbo, encoder, decoder), {"encoder": encoder, "decoder": decoder}, …)`.

    Args:
        log_likelihood: of samples and a generator, in nats: (N, …) → (N,).
        networks: whose weights are trained, by their names in the checkpoint.
        sample_real: draws real samples.
        num_steps: steps in all, those of an earlier, killed run included.
        seed: of all that is drawn.
        batch_size: samples a step, of all processes.
        learning_rate: Adam's at the start; it falls to zero as a cosine.
        longest_gradient: a longer one is shortened to this; a flow's likelihood has cliffs.
        precision: bfloat16 runs the networks in mixed precision; their weights stay as they are.
        checkpoint: a safetensors file, written every `checkpoint_every` steps; where it is there already,
            training goes on from it, bit for bit on the CPU.
        checkpoint_every: steps between checkpoints.
        callback: called as callback(step, loss) at each checkpoint, the loss in nats a sample.

    Raises:
        FloatingPointError: the loss is not finite.
        ValueError: the checkpoint is of other networks, or damaged.
    """
    parameters = [p for network in networks.values() for p in network.parameters()]
    rng = own_stream(seed, parameters[0].device)
    batch_size = own_batch(batch_size)
    optimizer = torch.optim.Adam(parameters, learning_rate)
    optimizers = {"all": optimizer}
    mixed = torch.autocast(rng.device.type, precision, enabled=precision != torch.float32)
    done = restore(checkpoint, networks, optimizers, rng)
    for k in progress(range(done + 1, num_steps + 1), desc="train", unit="step"):
        falling = (1 + math.cos(math.pi * (k - 1) / num_steps)) / 2
        optimizer.param_groups[0]["lr"] = learning_rate * falling
        real = sample_real(batch_size, rng)
        with mixed:
            loss = -log_likelihood(real, rng).mean()
        descend(optimizer, loss, longest_gradient)
        if k % checkpoint_every == 0 or k == num_steps:
            keep(k, loss, networks, optimizers, rng, checkpoint, callback)
