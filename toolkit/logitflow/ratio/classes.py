"""Aiming each sample at a class of its own, where a discriminator names classes."""

import torch
from torch import Tensor, nn

from logitflow.target import Network


def names_classes(discriminator: nn.Module) -> bool:
    """Whether a discriminator gives the evidence of each class, as `stratified` needs."""
    evidence = getattr(discriminator, "evidence", None)
    settings = getattr(discriminator, "settings", None)  # None: a network of the caller's own
    return callable(evidence) and (settings is None or "num_classes" in settings)


def stratified(discriminator: nn.Module, calibration: Network | None = None) -> nn.Module:
    r"""The logit whose i-th sample of a batch aims at class i mod K, with K classes.

    A discriminator that names classes gives the evidence l_k(x), at its best log p_data(x, k)/p_g(x)
    (Salimans et al. 2016, section 5). A latent with density p0(z)·exp(l_k(G(z))) is then one whose sample
    follows p_data(x|k); one of each class makes K samples of the data, if these have as many of each.
    With exact evidence the mixture is what the plain logit, log Σ exp(l_k), aims at. Otherwise the classes have
    their right shares, where the plain logit leaves them to its errors; and a chain need not find its way
    from one class to another, which it hardly ever does. This is stratified sampling: the strata are the
    classes.

    It is a logit like any other to a target and to every sampler that keeps points in their places
    (`rejection_sample` does not). Take batches of a multiple of K points.

    Args:
        discriminator: with a method `evidence`, samples (N, *sample_shape) → (N, K), such as
            `DCGANDiscriminator(num_classes=10)`.
        calibration: the map from the plain logit d = log Σ exp(l_k) to a log density ratio, from
            `calibrate`. It takes d's place in l_k = d + log π_k; the classes' probabilities π_k among real
            samples are left as the discriminator has them.

    Returns:
        A module from samples to logits of shape (N,). It holds the discriminator as it is: no mode or flag is
        changed.

    Raises:
        TypeError: the discriminator names no classes.
        ValueError: when called: the evidence is not of shape (N, K).
    """
    if not names_classes(discriminator):
        raise TypeError(
            f"{type(discriminator).__name__} names no classes: take a discriminator with a method `evidence` "
            "from samples to (N, num_classes), such as DCGANDiscriminator(num_classes=10)"
        )
    return _Stratified(discriminator, calibration)


class _Stratified(nn.Module):
    """The evidence of each sample's own class; a module, so that a target finds the one inside it."""

    def __init__(self, discriminator: nn.Module, calibration: Network | None) -> None:
        super().__init__()
        self.discriminator, self.calibration = discriminator, calibration

    def forward(self, x: Tensor) -> Tensor:
        """(N, *sample_shape) → (N,)."""
        evidence = self.discriminator.evidence(x)  # type: ignore[operator]
        if evidence.ndim != 2 or len(evidence) != len(x):
            raise ValueError(
                f"the evidence of {len(x)} samples must be of shape (N, K), not {tuple(evidence.shape)}"
            )
        points = torch.arange(len(x), device=x.device)
        own = evidence[points, points % evidence.shape[1]]
        if self.calibration is None:
            return own
        logits = evidence.logsumexp(1)
        return self.calibration(logits) + own - logits
