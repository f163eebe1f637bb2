r"""f-divergences and the velocity that each gives a discriminator's logit.

Write `r = exp(−d)` for the density ratio model/data that a logit `d` stands for. The gradient flow of
the f-divergence moves a particle along `−∇f′(r) = r f″(r) ∇d` (DGflow; Ansari et al. 2021, eq. 8), so a
divergence enters a sampler only through the scalar weight `w_f(d) = r f″(r)`.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Weight = Callable[[Tensor], Tensor]
"""A function from logits, shape (N,), to velocity weights, shape (N,)."""

_WEIGHTS: dict[str, Weight] = {
    "kl": torch.ones_like,  # f(r) = r log r
    "js": torch.sigmoid,  # f(r) = r log r − (r+1) log((r+1)/2)
    "logd": lambda d: torch.sigmoid(-d),  # f(r) = (r+1) log(r+1) − 2 log 2
    "reverse_kl": torch.exp,  # f(r) = −log r
    "pearson_chi2": lambda d: 2 * torch.exp(-d),  # f(r) = (r−1)²
    "squared_hellinger": lambda d: torch.exp(d / 2) / 2,  # f(r) = (√r−1)²
}

DIVERGENCES = tuple(_WEIGHTS)
"""The names that `velocity_weight` and `gradient_flow` accept."""


def velocity_weight(divergence: str | Callable[[Tensor], Tensor]) -> Weight:
    r"""The weight `w_f(d) = r f″(r)`, `r = exp(−d)`, by which a divergence scales the drift `∇d`.

    Args:
        divergence: a name from `DIVERGENCES`, or a convex function f of positive ratios, elementwise
            on tensors of shape (N,) and twice differentiable by autograd.

    Returns:
        A function from logits of shape (N,) to weights of shape (N,).

    Raises:
        ValueError: the name is unknown, or f has no second derivative.
        TypeError: `divergence` is neither a name nor a callable.

    Source: DGflow (Ansari et al. 2021), eq. 8 and Table 4.
    """
    if isinstance(divergence, str):
        if divergence not in _WEIGHTS:
            raise ValueError(
                f"unknown divergence {divergence!r}: choose one of {', '.join(DIVERGENCES)}, "
                "or pass f itself, a callable of the ratio model/data"
            )
        return _WEIGHTS[divergence]
    if not callable(divergence):
        raise TypeError(
            f"divergence must be a name or a callable f(r), not {type(divergence).__name__}"
        )
    return lambda logits: _weight_by_autograd(divergence, logits)


def _weight_by_autograd(f: Callable[[Tensor], Tensor], logits: Tensor) -> Tensor:
    with torch.inference_mode(False), torch.enable_grad():
        r = torch.exp(-logits.detach().clone()).requires_grad_()
        value = f(r)
        if not isinstance(value, Tensor) or value.shape != r.shape:
            raise ValueError("f must map a tensor of ratios to a tensor of the same shape")
        try:
            (slope,) = torch.autograd.grad(value.sum(), r, create_graph=True)
            (curvature,) = torch.autograd.grad(slope.sum(), r)
        except RuntimeError as error:
            raise ValueError(
                "f must be twice differentiable in r by autograd (a linear f moves no particle)"
            ) from error
    return (r * curvature).detach()
