"""Monotone maps from logits to log density ratios, and the test that they are right."""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor


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
    # scikit-learn takes a while to import, and is needed only here
    from sklearn.isotonic import IsotonicRegression
    from sklearn.linear_model import LogisticRegression

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
    """A test of calibration: under a calibrated logit the statistic is standard normal, or narrower."""

    statistic: float
    p_value: float  # two-sided


def z_statistic(real_logits: Tensor, fake_logits: Tensor) -> ZTest:
    r"""MH-GAN's test that logits are calibrated (Turner et al. 2019, eq. 8; Dawid 1997).

    Z = Σ(y − D)/√(ΣD(1 − D)) over equally many held-out real (y = 1) and generated (y = 0) samples, with
    D = σ(d). Large |Z| says that the probabilities are wrong on the whole; a small one proves little, since
    errors of opposite sign cancel. Of calibrated logits Z is standard normal where each label is drawn with
    probability D; with as many samples of each kind its variance is 4·Var D, at most 1, so that the
    p-value, which takes 1, errs on the side of calibration.

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
    return ZTest(statistic, math.erfc(abs(statistic) / math.sqrt(2)))


def _flat(name: str, logits: Tensor) -> np.ndarray:
    values = logits.detach().double().cpu()
    if values.ndim > 1 and values.shape[1:].numel() != 1:
        raise ValueError(f"{name} must hold one number a sample, not shape {tuple(values.shape)}")
    flat = values.reshape(-1).numpy()
    if not len(flat) or not np.isfinite(flat).all():
        raise ValueError(f"{name} must hold at least one value and only finite ones")
    return flat
