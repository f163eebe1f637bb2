"""What every metric asks of its input, refused by a sentence that says what to do."""

import math

import torch


def samples(x: torch.Tensor, name: str = "x") -> torch.Tensor:
    """Check samples of shape (N, d) and return them detached, in float64.

    Metrics subtract nearly equal averages, so they are all computed in double precision.
    """
    if not isinstance(x, torch.Tensor):
        raise TypeError(
            f"{name} must be a torch.Tensor, not {type(x).__name__}: use torch.as_tensor."
        )
    if not x.is_floating_point():
        raise TypeError(f"{name} must hold floating-point numbers, not {x.dtype}: use .float().")
    if x.ndim != 2:
        raise ValueError(
            f"{name} must have shape (N, d), not {tuple(x.shape)}: "
            "use .flatten(1) on images, [:, None] on scalars."
        )
    if x.numel() == 0:
        raise ValueError(f"{name} is empty, of shape {tuple(x.shape)}: pass at least one sample.")
    bad = int((~x.isfinite()).any(dim=1).sum())
    if bad:
        raise ValueError(
            f"{bad} of {len(x)} rows of {name} hold NaN or infinity: find out why the sampler made "
            "them; to measure the others, keep x[x.isfinite().all(dim=1)] and report how many fell."
        )
    return x.detach().double()


def pair(
    x: torch.Tensor, y: torch.Tensor, names: tuple[str, str] = ("x", "y")
) -> tuple[torch.Tensor, torch.Tensor]:
    """Check two sets of samples of one dimension; the second follows the first's device."""
    x, y = samples(x, names[0]), samples(y, names[1])
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"{names[0]} has {x.shape[1]} columns and {names[1]} has {y.shape[1]}: "
            "compare points of the same space."
        )
    return x, y.to(x.device)


def positive(value: float, name: str) -> float:
    """Check a positive finite number."""
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be positive and finite, not {value}.")
    return float(value)
