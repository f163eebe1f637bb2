"""DRS: discriminator rejection sampling."""

import torch
from torch import Tensor

from logitflow import priors
from logitflow.progress import progress
from logitflow.samplers.core import Info, Samples
from logitflow.target import LatentTarget

_EPSILON = 1e-6  # keeps log(1 − exp(·)) finite at the maximum, as in the paper
_LEAST_RATE = 1e-5  # below this rate the sampler gives up rather than run for hours


def rejection_sample(
    target: LatentTarget,
    *,
    num_samples: int,
    generator: torch.Generator,
    percentile: float | None = None,
    num_pilot: int = 10_000,
    batch_size: int = 1000,
) -> Samples:
    r"""DRS: accept a generated sample with probability σ(F) (Azadi et al. 2019, eq. 8 and Algorithm 1).

    F = d − d_M − log(1 − exp(d − d_M − ε)) − γ, with d_M the largest logit seen so far, first among
    `num_pilot` pilot draws. With γ = 0 the probability is exp(d − d_M): plain rejection sampling, whose law
    is p0(z)·exp(d(G(z)))/Z up to what lies above d_M. A γ at a percentile of the pilot's F trades that
    exactness for a higher acceptance rate; the authors use the 80th for ImageNet.

    Args:
        target: generator, logit (a log density ratio: calibrate it first) and a prior to draw from.
        num_samples: how many accepted samples to return.
        generator: the source of all randomness; its device is where points are drawn.
        percentile: None for γ = 0, else the percentile (0 to 100) of the pilot's F that becomes γ.
        num_pilot: pilot draws for d_M and γ.
        batch_size: draws at a time.

    Returns:
        Samples(x, z, info): x of shape (num_samples, *sample_shape), z their latents, info with the
        acceptance rate.

    Raises:
        ValueError: the prior is None, a number is out of range, or no pilot logit is finite.
        RuntimeError: fewer than one draw in 100,000 is accepted.
    """
    prior = target.prior
    if prior is None:
        raise ValueError(
            "DRS draws from the prior, and this target's is None: give LatentTarget the generator's prior"
        )
    if not isinstance(generator, torch.Generator):
        raise TypeError("generator must be a torch.Generator: torch.Generator().manual_seed(0)")
    for name, value in (
        ("num_samples", num_samples),
        ("num_pilot", num_pilot),
        ("batch_size", batch_size),
    ):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    if percentile is not None and not 0 <= percentile <= 100:
        raise ValueError(f"percentile must lie between 0 and 100, or be None, not {percentile}")

    def draw(n: int) -> tuple[Tensor, Tensor]:
        z = priors.sample(prior, n, generator)
        return z, target.logits(z).nan_to_num(nan=-torch.inf, posinf=-torch.inf)

    with torch.no_grad():
        pilot = torch.cat(
            [draw(min(batch_size, num_pilot - i))[1] for i in range(0, num_pilot, batch_size)]
        )
        maximum = pilot.max()
        if not torch.isfinite(maximum):
            raise ValueError("no pilot draw has a finite logit: look at logit(generator(z)) first")
        shift = pilot.new_zeros(())
        if percentile is not None:
            scores = _score(pilot, maximum)
            shift = torch.quantile(scores[scores.isfinite()], percentile / 100)

        kept, num_kept, num_drawn, num_bad = [], 0, 0, 0
        bar = progress(total=num_samples, desc="rejection sampling", unit="sample")
        with bar:
            while num_kept < num_samples:
                z, logits = draw(batch_size)
                maximum = torch.maximum(maximum, logits.max())
                probability = torch.sigmoid(_score(logits, maximum) - shift)
                share = torch.rand(
                    len(z), generator=generator, device=z.device, dtype=probability.dtype
                )
                accepted = z[share < probability]
                kept.append(accepted)
                num_kept += len(accepted)
                num_drawn += len(z)
                num_bad += int((~logits.isfinite()).sum())
                bar.update(min(len(accepted), num_samples - bar.n))
                if num_drawn > 1 / _LEAST_RATE and num_kept < _LEAST_RATE * num_drawn:
                    raise RuntimeError(
                        f"only {num_kept} of {num_drawn} draws were accepted: the logit's maximum is far above "
                        "its usual values. Calibrate the logit, set percentile (the paper uses 80), "
                        "or use metropolis_hastings"
                    )
        z = torch.cat(kept)[:num_samples]
        rate = torch.tensor(num_kept / num_drawn)
        info = Info(rate, torch.tensor(0.0), torch.tensor(num_bad))
        x = torch.cat([target.generate(part) for part in z.split(batch_size)])
        return Samples(x, z, info)


def _score(logits: Tensor, maximum: Tensor) -> Tensor:
    gap = logits - maximum
    return gap - torch.log1p(-torch.exp(gap - _EPSILON))
