"""Making a logit a log density ratio: calibration, its test, and fitting to a fixed generator."""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import torch
from scipy.stats import norm
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional as F

from logitflow.data.toys import Sample
from logitflow.progress import progress


def calibrate(
    real_logits: Tensor,
    fake_logits: Tensor,
    *,
    method: Literal["logistic", "isotonic"] = "logistic",
) -> Callable[[Tensor], Tensor]:
    r"""Learn a monotone map from a discriminator's logits to log density ratios.

    MH-GAN and DRS accept by the odds that a logit claims, so the claims must be true: among held-out
    samples to which it gives odds o, real ones must be o times as frequent as generated ones (Turner et
    al. 2019, section 3.2). Compose the result with the discriminator:
    `lambda x: calibration(discriminator(x))`.

    Args:
        real_logits: logits of held-out real samples, (N,) or (N, 1).
        fake_logits: logits of generated samples, (M,) or (M, 1); M may differ from N.
        method: "logistic" (an affine map, differentiable, for every sampler) or "isotonic" (any increasing
            step, for MH-GAN and DRS alone: its gradient is zero almost everywhere).

    Returns:
        A function from logits of any shape to log density ratios of the same shape, device and dtype.

    Raises:
        ValueError: the method is unknown, or a set of logits is empty, not finite or not one number a sample.
    """
    real, fake = _flat("real_logits", real_logits), _flat("fake_logits", fake_logits)
    logits = np.concatenate([real, fake])
    is_real = np.concatenate([np.ones(len(real)), np.zeros(len(fake))])
    prior_odds = math.log(len(real) / len(fake))  # what the class sizes alone would say
    if method == "logistic":
        fit = LogisticRegression(C=np.inf).fit(logits[:, None], is_real)
        scale, shift = float(fit.coef_[0, 0]), float(fit.intercept_[0]) - prior_odds
        return lambda d: scale * d + shift
    if method == "isotonic":
        # Half a sample of doubt keeps the odds finite where one class is absent.
        low, high = 0.5 / len(logits), 1 - 0.5 / len(logits)
        iso = IsotonicRegression(y_min=low, y_max=high, out_of_bounds="clip").fit(logits, is_real)
        knots = torch.from_numpy(iso.X_thresholds_)
        values = torch.logit(torch.from_numpy(iso.y_thresholds_)) - prior_odds
        return lambda d: _interpolate(d, knots, values)
    raise ValueError(f"unknown method {method!r}: choose 'logistic' or 'isotonic'")


def _interpolate(d: Tensor, knots: Tensor, values: Tensor) -> Tensor:
    """Piecewise linear between knots, constant beyond them."""
    knots, values = knots.to(d), values.to(d)
    if len(knots) == 1:
        return values.expand_as(d)
    right = torch.searchsorted(knots, d.detach().contiguous()).clamp(1, len(knots) - 1)
    width = (knots[right] - knots[right - 1]).clamp_min(torch.finfo(d.dtype).tiny)
    share = ((d - knots[right - 1]) / width).clamp(0, 1)
    return torch.lerp(values[right - 1], values[right], share)


class ZTest(NamedTuple):
    """A test of calibration: under a calibrated logit the statistic is standard normal."""

    statistic: float
    p_value: float  # two-sided


def z_statistic(real_logits: Tensor, fake_logits: Tensor) -> ZTest:
    r"""MH-GAN's test that logits are calibrated (Turner et al. 2019, eq. 8; Dawid 1997).

    Z = Σ(y − D)/√(ΣD(1 − D)) over equally many held-out real (y = 1) and generated (y = 0) samples, with
    D = σ(d). Large |Z| says that the probabilities are wrong on the whole; a small one proves little, since
    errors of opposite sign cancel.

    Args:
        real_logits: logits of real samples, (N,) or (N, 1), not used in fitting or calibrating.
        fake_logits: logits of as many generated samples.

    Raises:
        ValueError: the sets differ in size, are empty or are not finite.
    """
    real, fake = _flat("real_logits", real_logits), _flat("fake_logits", fake_logits)
    if len(real) != len(fake):
        raise ValueError(
            f"the test needs as many real as generated logits, not {len(real)} and {len(fake)}: "
            "drop some of the larger set"
        )
    probability = torch.sigmoid(torch.from_numpy(np.concatenate([real, fake])))
    variance = float((probability * (1 - probability)).sum())
    excess = len(real) - float(probability.sum())
    if variance == 0:  # every claim is certain: either all true or beyond doubt false
        return ZTest(0.0, 1.0) if excess == 0 else ZTest(math.copysign(math.inf, excess), 0.0)
    statistic = excess / math.sqrt(variance)
    return ZTest(statistic, float(2 * norm.sf(abs(statistic))))


class FitRecord(NamedTuple):
    """How a fit went, one entry a held-out evaluation."""

    steps: list[int]
    losses: list[
        float
    ]  # held-out cross-entropy, nats a sample; log 2 for a logit that knows nothing
    mean_ratio: float  # held-out mean of exp(d) over generated samples; 1 for a log density ratio


def fit_log_ratio(
    discriminator: nn.Module,
    sample_real: Sample,
    sample_fake: Sample,
    *,
    num_steps: int,
    generator: torch.Generator,
    batch_size: int = 512,
    learning_rate: float = 1e-3,
    num_held_out: int = 20_000,
    evaluate_every: int = 1000,
) -> FitRecord:
    r"""Train a discriminator, in place, against a fixed sampler until its logit is log p_real/p_fake.

    Minimises the cross-entropy, whose minimiser over all functions is the log density ratio (Goodfellow et
    al. 2014, Proposition 1; Sugiyama et al. 2012), by Adam with a learning rate that falls as a cosine. The
    weights returned are the average over the last half of training, which removes most of the noise
    of the last steps, or the last weights where those do better on held-out samples.

    Args:
        discriminator: maps samples to logits, (N,) or (N, 1).
        sample_real: draws data.
        sample_fake: draws the model's samples, for example
            `lambda n, rng: generator(priors.sample(prior, n, rng))`.
        num_steps: Adam steps, each with fresh samples of both kinds.
        generator: the source of all randomness.
        batch_size: samples of each kind a step.
        learning_rate: Adam's at the start.
        num_held_out: samples of each kind to judge by.
        evaluate_every: steps between judgements.

    Returns:
        The record of held-out losses and the final mean of exp(d).

    Raises:
        ValueError: a number is below 1.
        FloatingPointError: the held-out loss is not finite.
    """
    if min(num_steps, batch_size, num_held_out, evaluate_every) < 1:
        raise ValueError(
            "num_steps, batch_size, num_held_out and evaluate_every must be at least 1"
        )
    optimizer = torch.optim.Adam(discriminator.parameters(), learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    average = torch.optim.swa_utils.AveragedModel(discriminator)
    with torch.no_grad():
        held_real, held_fake = (
            sample(num_held_out, generator) for sample in (sample_real, sample_fake)
        )

    @torch.no_grad()
    def held_out_loss(network: nn.Module) -> float:
        value = float(cross_entropy(network(held_real), network(held_fake)))
        if not math.isfinite(value):
            raise FloatingPointError("the held-out loss is not finite: try a smaller learning_rate")
        return value

    record = FitRecord([], [], math.nan)
    for k in progress(range(1, num_steps + 1), desc="fit", unit="step"):
        with torch.no_grad():
            real, fake = sample_real(batch_size, generator), sample_fake(batch_size, generator)
        loss = cross_entropy(discriminator(real), discriminator(fake))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if 2 * k > num_steps:
            average.update_parameters(discriminator)
        if k % evaluate_every == 0 or k == num_steps:
            record.steps.append(k)
            record.losses.append(held_out_loss(discriminator))
    averaged_loss = held_out_loss(average.module)
    if averaged_loss <= record.losses[-1]:
        discriminator.load_state_dict(average.module.state_dict())
        record.losses[-1] = averaged_loss
    with torch.no_grad():
        ratio = discriminator(held_fake).double().exp().mean()
    return record._replace(mean_ratio=float(ratio))


def cross_entropy(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Mean binary cross-entropy of logits over both classes, in nats a sample, a scalar."""
    return (F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()) / 2


def _flat(name: str, logits: Tensor) -> np.ndarray:
    values = logits.detach().double().cpu()
    if values.ndim > 1 and values.shape[1:].numel() != 1:
        raise ValueError(f"{name} must hold one number a sample, not shape {tuple(values.shape)}")
    flat = values.reshape(-1).numpy()
    if not len(flat) or not np.isfinite(flat).all():
        raise ValueError(f"{name} must hold at least one value and only finite ones")
    return flat
