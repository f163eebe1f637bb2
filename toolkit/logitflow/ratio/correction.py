"""A GAN's logit for another model than its own: the chain rule of density ratios."""

from torch import Tensor, nn

from logitflow.target import Network, one_number_a_sample


def corrected(logit: Network, corrector: Network) -> nn.Module:
    r"""Make a GAN's logit one for another model: d(x) = d_φ(x) + d_corr(x) (DGflow; Ansari et al. 2021).

    Density ratios multiply along a chain, p_data/p_model = (p_data/p_gan)·(p_gan/p_model), so their logarithms
    add. The logit gives the first; a corrector gives the second once it is trained to tell the GAN's samples
    from the model's:

    `fit_log_ratio(corrector, sample_gan, sample_model, num_steps=…, generator=rng)`

    The errors of the two add as well, and where the GAN has no mass nothing was learnt of either.

    Args:
        logit: d_φ, an estimate of log p_data/p_gan, with one number a sample: a fitted or calibrated one, since
            a Wasserstein or hinge critic as trained is not that.
        corrector: d_corr, an estimate of log p_gan/p_model, with one number a sample.

    Returns:
        A module from samples to logits of shape (N,), for `LatentTarget`. It holds the two as they are:
        none of their modes or flags are changed.

    Raises:
        TypeError: an argument is not callable.
        ValueError: when called: one of the two does not give one number a sample.
    """
    for name, function in (("logit", logit), ("corrector", corrector)):
        if not callable(function):
            raise TypeError(f"{name} must be callable, not {type(function).__name__}")
    return _Corrected(logit, corrector)


class _Corrected(nn.Module):
    """The sum of two logits; a module, so that a target finds the modules inside it."""

    def __init__(self, logit: Network, corrector: Network) -> None:
        super().__init__()
        self.logit, self.corrector = logit, corrector
        owners = (getattr(function, "__self__", None) for function in (logit, corrector))
        self.owners = nn.ModuleList(owner for owner in owners if isinstance(owner, nn.Module))

    def forward(self, x: Tensor) -> Tensor:
        """(N, *sample_shape) → (N,)."""
        return one_number_a_sample(self.logit(x), x) + one_number_a_sample(self.corrector(x), x)
