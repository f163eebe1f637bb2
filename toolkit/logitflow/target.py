"""What a discriminator lets you score: an unnormalised density over a generator's latents."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from logitflow import priors

Network = Callable[[Tensor], Tensor]
"""Any callable on tensors whose first axis is the batch: a module, a method or a function."""


class Scored(NamedTuple):
    """A function's values at N points and its gradients there."""

    value: Tensor  # (N,)
    grad: Tensor  # (N, *latent_shape)


class LatentTarget:
    r"""The density over latents that a generator and a logit define together.

    With prior `p0`, generator `G` and logit `d`, the unnormalised log density is
    `log p0(z) + d(G(z))` (DDLS; Che et al. 2020, eq. 6). If z follows it, then x = G(z) follows
    `p_g(x)·exp(d(x))/Z`, which is the data density when d is the optimal discriminator's logit.
    Data space is the same thing with an identity for a generator:
    `LatentTarget(lambda x: x, logit, None)`.

    The caller's modules stay as they are: each evaluation puts them into eval mode without parameter
    gradients, and puts every flag back afterwards. Modules, and methods of modules, are found by
    themselves; modules that a lambda hides are the caller's to put into eval mode.

    Args:
        generator: maps latents (N, *latent_shape) to samples (N, *sample_shape).
        logit: maps samples to discriminator outputs *before* the sigmoid, of shape (N,), (N, 1) or
            (N, 1, 1, 1).
        prior: the distribution of latents, or None for a flat one. A prior on a box (`Uniform`) bounds
            the latents, and the samplers keep inside.

    Raises:
        TypeError: an argument is not of the kind named above.
    """

    def __init__(self, generator: Network, logit: Network, prior: Distribution | None) -> None:
        for name, function in (("generator", generator), ("logit", logit)):
            if not callable(function):
                raise TypeError(f"{name} must be callable, not {type(function).__name__}")
        if prior is not None and not isinstance(prior, Distribution):
            raise TypeError(
                "prior must be a torch.distributions.Distribution or None (flat), "
                f"not {type(prior).__name__}"
            )
        self.generator = generator
        self.logit = logit
        self.prior = prior
        self.bounds = None if prior is None else priors.box(prior)

    def generate(self, z: Tensor) -> Tensor:
        """The samples G(z), (N, *latent_shape) → (N, *sample_shape), without a gradient.

        Raises:
            TypeError: z is not a floating-point tensor.
            ValueError: z is empty.
        """
        check_latents(z)
        with unchanged(self.generator), torch.no_grad():
            return self.generator(z)

    def logits(self, z: Tensor) -> Tensor:
        """The logit of each generated sample, d(G(z)): (N, *latent_shape) → (N,).

        Raises:
            TypeError: z is not a floating-point tensor.
            ValueError: z is empty, or the logit does not give one number a sample.
        """
        check_latents(z)
        with unchanged(self.generator, self.logit):
            return one_number_a_sample(self.logit(self.generator(z)), z)

    def log_prob(self, z: Tensor) -> Tensor:
        """log p0(z) + d(G(z)), unnormalised: (N, *latent_shape) → (N,). −∞ outside the prior's support.

        Raises:
            TypeError: z is not a floating-point tensor.
            ValueError: z is empty or of another shape than the prior's, or the logit does not give one
                number a sample.
        """
        logits = self.logits(z)
        return logits if self.prior is None else logits + priors.log_prob(self.prior, z).to(logits)

    def energy(self, z: Tensor) -> Tensor:
        """E(z) = −log p0(z) − d(G(z)), (N,): DDLS's latent energy (Che et al. 2020, eq. 6)."""
        return -self.log_prob(z)

    def logits_and_grad(self, z: Tensor) -> Scored:
        """d(G(z)), shape (N,), and its gradient in z, (N, *latent_shape), even under `no_grad`."""
        return _value_and_grad(self.logits, z)

    def log_prob_and_grad(self, z: Tensor) -> Scored:
        """log_prob(z), shape (N,), and its gradient in z, (N, *latent_shape), even under `no_grad`."""
        return _value_and_grad(self.log_prob, z)


def check_latents(z: Tensor) -> None:
    """Refuse what cannot be a batch of latents.

    Raises:
        TypeError: z is not a floating-point tensor.
        ValueError: z is empty, or has no batch axis, or no axis beside it.
    """
    if not isinstance(z, Tensor):
        raise TypeError(f"latents must be a torch.Tensor, not {type(z).__name__}")
    if not z.is_floating_point():
        raise TypeError(f"latents must be floating point, not {z.dtype}: call z.float() first")
    if z.ndim == 1 and len(z):
        raise ValueError(
            f"latents of shape {tuple(z.shape)} have no axis but the batch: pass z[:, None] for "
            "one number a point"
        )
    if z.ndim == 0 or z.numel() == 0:
        raise ValueError(
            f"latents of shape {tuple(z.shape)} hold no point: pass at least one, as (N, *latent_shape)"
        )


def one_number_a_sample(logits: Tensor, z: Tensor) -> Tensor:
    """Flatten a logit's output to (N,), or refuse it.

    Raises:
        ValueError: the output is not of shape (N,), (N, 1) or (N, 1, 1, 1).
    """
    n = z.shape[0]
    if tuple(logits.shape) not in {(n,), (n, 1), (n, 1, 1, 1)}:
        raise ValueError(
            f"the logit returned shape {tuple(logits.shape)} for {n} samples, where one number a sample "
            "is needed: (N,), (N, 1) or (N, 1, 1, 1). For a vector-valued critic, add a corrector to a "
            "GAN's logit with logitflow.ratio.corrected, or fit a logit between data and model with "
            "logitflow.ratio.fit_log_ratio"
        )
    return logits.reshape(n)


def _value_and_grad(function: Callable[[Tensor], Tensor], z: Tensor) -> Scored:
    check_latents(z)
    # inference_mode(False) as well as enable_grad: under the first the second alone does nothing.
    with torch.inference_mode(False), torch.enable_grad():
        z = z.detach().clone().requires_grad_()
        value = function(z)
        if not value.requires_grad:
            raise ValueError(
                "the logit's output does not depend on the latents through autograd: remove no_grad, "
                "detach or NumPy from the generator and the logit"
            )
        (grad,) = torch.autograd.grad(value.sum(), z)
    return Scored(value.detach(), grad)


@contextmanager
def unchanged(*functions: Network) -> Iterator[None]:
    """Run the functions' modules in eval mode and without parameter gradients, then restore every flag.

    Eval mode keeps batch norm's statistics and spectral norm's vectors as they are. Parameters
    that need no gradient save autograd their part of the graph.
    """
    with ExitStack() as restore:
        for function in functions:
            module = getattr(function, "__self__", function)  # a bound method's module
            if not isinstance(module, nn.Module):
                continue
            for child in module.modules():
                if child.training:
                    restore.callback(setattr, child, "training", True)
                    child.training = False
            for parameter in module.parameters():
                if parameter.requires_grad and parameter.is_leaf:
                    restore.callback(parameter.requires_grad_, True)
                    parameter.requires_grad_(False)
        yield
