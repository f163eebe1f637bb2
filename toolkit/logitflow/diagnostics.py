"""Whether a run can be believed: how well chains mix, what weights are worth, whether logits are log ratios.

The first two are ArviZ's, which comes with the extra `book`: pip install "logitflow[book]".
"""

import math
import warnings
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from logitflow.ratio.calibration import calibrate, z_statistic


def effective_sample_size(traces: Tensor) -> float:
    r"""How many independent draws the traces are worth for their mean (Vehtari et al. 2021).

    T steps of N chains with autocorrelations ρ_k are worth NT/(1 + 2Σρ_k), so NT(1 − ρ)/(1 + ρ) if ρ_k = ρᵏ.
    Chains that disagree are worth less, and chains that swing from side to side may be worth more than NT.

    Args:
        traces: one number a state, T ≥ 4 steps of N chains: (T, N), or (T,) of one chain.

    Returns:
        The number; NaN if nothing in the traces ever changes, because then nothing is known.

    Raises:
        ValueError: a trace is too short, or holds NaN or infinity.
        ImportError: ArviZ is not installed.
    """
    chains = _chains(traces)
    if np.ptp(chains) == 0:
        return math.nan
    return float(_arviz().ess(chains, method="mean"))


def r_hat(traces: Tensor) -> float:
    r"""R-hat: near 1 if chains agree with one another and with their own halves (Vehtari et al. 2021).

    Chains are cut in half, values replaced by their normal scores, and the spread of all compared with the
    spread within halves; the larger of this figure and the same for distances from the median. The authors
    ask for less than 1.01. Chains that all miss the same place agree perfectly.

    Args:
        traces: one number a state, T ≥ 4 steps of N ≥ 2 chains: (T, N).

    Returns:
        The number: enormous or infinite for chains frozen at different values, NaN if nothing ever changes.

    Raises:
        ValueError: there are too few chains or steps, or a trace holds NaN or infinity.
        ImportError: ArviZ is not installed.
    """
    chains = _chains(traces)
    if len(chains) < 2:
        raise ValueError("R-hat compares chains: give the traces of at least two, as (T, N)")
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(_arviz().rhat(chains, method="rank"))


def weight_sample_size(logits: Tensor) -> float:
    r"""How many of N generated samples count when each is weighed by exp(d): (Σw)²/Σw², from 1 to N.

    Args:
        logits: d of generated samples, (N,) or (N, 1); a constant added to them changes nothing.

    Raises:
        ValueError: there is no logit, one is NaN or +∞, or all are −∞.
    """
    d = logits.detach().double().reshape(-1)
    if not len(d) or d.isnan().any() or not torch.isfinite(d.max()):
        raise ValueError("logits must hold numbers below infinity, and not −∞ alone")
    w = torch.exp(d - d.max())
    return float(w.sum() ** 2 / w.square().sum())


class LogitReport(NamedTuple):
    """What held-out logits say about the discriminator; see `inspect_logits` for what each should be."""

    lowest: float
    highest: float
    gap: float
    gain: float
    mean_ratio: float
    slope: float
    z: float
    z_spread: float
    effective_share: float


def inspect_logits(real_logits: Tensor, fake_logits: Tensor) -> LogitReport:
    r"""Figures by which to tell a log density ratio from what is none, from held-out logits alone.

    * ``lowest``, ``highest``: of all. Inside [0, 1]: these are probabilities, not logits.
    * ``gap``: E_real[d] − E_fake[d] > 0, or the sign is wrong.
    * ``gain``: E_real[d] − log E_fake[exp(d)], the nats by which p_g·exp(d)/Z is nearer to the data than p_g.
    * ``mean_ratio``: E_fake[exp(d)], 1 for a log ratio, below 1 where data are out of the generator's reach.
    * ``slope``: what logistic calibration multiplies d by; 1 for a log ratio, ½ for twice a log ratio.
    * ``z``: MH-GAN's statistic, beside its standard deviation ``z_spread`` under calibration, 2√Var(σ(d)).
    * ``effective_share``: `weight_sample_size` of the generated samples, over their number.

    Args:
        real_logits: logits of N real samples that trained nothing, (N,) or (N, 1).
        fake_logits: logits of N generated samples, likewise.

    Raises:
        ValueError: the sets differ in size, are empty, not finite or not one number a sample.
    """
    z = z_statistic(real_logits, fake_logits).statistic  # refuses what cannot be inspected
    real, fake = (d.detach().double().cpu().reshape(-1) for d in (real_logits, fake_logits))
    both = torch.cat([real, fake])
    log_mean_ratio = float(fake.logsumexp(0)) - math.log(len(fake))
    line = calibrate(real, fake)(torch.tensor([0.0, 1.0], dtype=both.dtype))
    return LogitReport(
        lowest=float(both.min()),
        highest=float(both.max()),
        gap=float(real.mean() - fake.mean()),
        gain=float(real.mean()) - log_mean_ratio,
        mean_ratio=math.exp(min(log_mean_ratio, 700.0)),
        slope=float(line[1] - line[0]),
        z=z,
        z_spread=2 * float(torch.sigmoid(both).std(correction=0)),
        effective_share=weight_sample_size(fake) / len(fake),
    )


def _chains(traces: Tensor) -> np.ndarray:
    """ArviZ's order: chains × steps."""
    values = traces.detach().double().cpu()
    if values.ndim not in (1, 2) or len(values) < 4 or not values.numel():
        raise ValueError(
            f"traces must have shape (T, N) or (T,) with at least 4 steps, not {tuple(values.shape)}"
        )
    if not values.isfinite().all():
        raise ValueError("traces hold NaN or infinity: record a function that is finite")
    return np.atleast_2d(values.numpy().T)


def _arviz() -> Any:
    """ArviZ, without the greeting about its next version that it prints once a day."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import arviz
    except ImportError as error:
        raise ImportError('this needs ArviZ: pip install "logitflow[book]"') from error
    return arviz
