"""The one loop: `run` moves a batch of points, `refine` many batches, and can be killed at any moment."""

from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from logitflow import priors, shards
from logitflow.processes import gathered, share
from logitflow.progress import progress
from logitflow.samplers.core import Info, Sampler, Samples
from logitflow.target import LatentTarget, check_latents

Callback = Callable[[int, Any, Info], None]
"""Called after each step with the step's number (from 1), the state and the info."""


def run(
    sampler: Sampler,
    z: Tensor,
    *,
    num_steps: int,
    generator: torch.Generator,
    callback: Callback | None = None,
) -> Any:
    """Take `num_steps` steps of a sampler from latents z.

    Args:
        sampler: from `logitflow.samplers`.
        z: where to begin, (N, *latent_shape); it is not changed. Its device and dtype are kept.
        num_steps: how many steps, 0 or more.
        generator: the source of all randomness, on z's device. Same generator state, same result.
        callback: called as callback(step, state, info) after each step, for example to record a path.

    Returns:
        The sampler's state; `.z` are the points, (N, *latent_shape). Runs over two seconds show a progress bar.

    Raises:
        TypeError: z is not floating point, or generator is not a torch.Generator.
        ValueError: z is empty, num_steps is negative, or generator lives on another device.
        FloatingPointError: every point became non-finite in one step; the message says which.
    """
    check_latents(z)
    if not isinstance(generator, torch.Generator):
        raise TypeError(
            "generator must be a torch.Generator: torch.Generator(z.device).manual_seed(0)"
        )
    if generator.device.type != z.device.type:
        raise ValueError(
            f"the generator is on {generator.device} and the latents on {z.device}: make it with "
            f'torch.Generator("{z.device}").manual_seed(0)'
        )
    if num_steps < 0:
        raise ValueError(f"num_steps must be 0 or more, not {num_steps}")
    state = sampler.init(z.detach())
    for k in progress(range(1, num_steps + 1), desc="run", unit="step"):
        state, info = sampler.step(state, generator)
        if int(info.num_nonfinite) == len(z):
            raise FloatingPointError(
                f"step {k} of {sampler.description}: all {len(z)} points became non-finite and none was moved. "
                "Try a smaller step_size, or look for NaN or infinity in logit(generator(z))"
            )
        if callback is not None:
            callback(k, state, info)
    return state


def refine(
    target: LatentTarget,
    sampler: Sampler,
    *,
    num_samples: int,
    num_steps: int,
    batch_size: int = 500,
    seed: int = 0,
    z: Tensor | None = None,
    device: str | torch.device = "cpu",
    folder: str | Path | None = None,
) -> Samples:
    """Draw latents from the prior, refine them batch by batch, and generate the samples.

    Sample i is number i mod batch_size of batch b = i // batch_size, and all that is drawn for a batch depends
    on the seed and on b alone. With a folder, each finished batch is written there as one safetensors shard,
    whole or not at all, and the same call continues a killed run to the very same result.

    Under `torchrun` (see `logitflow.processes`) each process refines its share of the batches, and each
    returns all samples: on the CPU those of one process, bit for bit. Any number of processes continue what
    others have begun in a folder that all of them see.

    Args:
        target: generator, logit and prior.
        sampler: a sampler of that target.
        num_samples: how many samples.
        num_steps: steps for each batch.
        batch_size: points moved together.
        seed: any integer of at least 0.
        z: latents to begin from, (num_samples, *latent_shape), instead of draws from the prior; needed where
            the prior is None (data space).
        device: where latents are drawn and moved; the prior and the networks must be there.
        folder: where to keep shards; None keeps nothing.

    Returns:
        Samples(x, z, info) on the CPU, in the latents' order.

    Raises:
        ValueError: a number is out of range, there is nothing to begin from, or the folder holds a run with
            other settings.
        FloatingPointError: as in `run`; finished shards stay.
    """
    if num_samples < 1 or batch_size < 1 or seed < 0:
        raise ValueError(
            "num_samples and batch_size must be at least 1 and seed at least 0, "
            f"not {num_samples}, {batch_size} and {seed}"
        )
    if z is None and target.prior is None:
        raise ValueError("the target has no prior to draw from: pass z=, the points to begin from")
    if z is not None and len(z) != num_samples:
        raise ValueError(f"z holds {len(z)} points, but num_samples is {num_samples}")
    if folder is not None:
        settings = {
            "sampler": sampler.description,
            "num_samples": num_samples,
            "num_steps": num_steps,
            "batch_size": batch_size,
            "seed": seed,
            "starting points": "prior"
            if z is None
            else sha256(z.detach().cpu().numpy().tobytes()).hexdigest(),
        }
        shards.open_folder(Path(folder), settings, _probe(target, z, seed, device))

    def refine_batch(b: int) -> Samples:
        generator = seeded_generator(seed, b, device)
        size = min(batch_size, num_samples - b * batch_size)
        if z is None:
            assert target.prior is not None
            start = priors.sample(target.prior, size, generator)
        else:
            start = z[b * batch_size :][:size].to(device)
        infos: list[Info] = []
        state = run(
            sampler,
            start,
            num_steps=num_steps,
            generator=generator,
            callback=lambda *step: infos.append(step[2]),
        )
        info = _summary(infos, [1] * len(infos))
        return Samples(target.generate(state.z).cpu(), state.z.cpu(), info)

    batches = []
    num_batches = -(-num_samples // batch_size)
    for b in progress(share(range(num_batches)), desc="refine", unit="batch"):
        path = None if folder is None else Path(folder) / f"shard-{b:05d}.safetensors"
        samples = None if path is None else shards.read(path)
        if samples is None:
            samples = refine_batch(b)
            if path is not None:
                shards.write(path, samples)
        batches.append(samples)
    x, latents, infos = zip(*gathered(batches), strict=True)
    sizes = [len(part) for part in latents]
    return Samples(torch.cat(x), torch.cat(latents), _summary(infos, sizes))


def seeded_generator(seed: int, index: int, device: str | torch.device = "cpu") -> torch.Generator:
    """A generator for the index-th part of a job: independent streams from one seed (NumPy's SeedSequence)."""
    state = np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state) % 2**63)


def _summary(infos: Sequence[Info], sizes: Sequence[int]) -> Info:
    if not infos:  # no step was taken
        return Info(torch.tensor(1.0), torch.tensor(0.0), torch.tensor(0))
    rates, norms, nonfinite = (
        torch.stack([field.cpu() for field in f]) for f in zip(*infos, strict=True)
    )
    weights = torch.tensor(sizes).to(rates) / sum(sizes)
    return Info((weights * rates).sum(), (weights * norms).sum(), nonfinite.sum())


def _probe(
    target: LatentTarget, z: Tensor | None, seed: int, device: str | torch.device
) -> list[float]:
    """A few logits, by which a folder knows whether it belongs to the same generator, logit and start."""
    if z is None:
        assert target.prior is not None
        z = priors.sample(target.prior, 4, seeded_generator(seed, 0, device))
    with torch.no_grad():
        return [float(value) for value in target.logits(z[:4].to(device))]
