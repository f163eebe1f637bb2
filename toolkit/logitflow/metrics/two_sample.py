"""How far apart two sets of samples are, and how far apart two sets of real samples would be.

Every distance here is that of the empirical distributions, so it is never negative, and positive
even between two sets of real samples. `floor` measures that value: a distance means something only
beside its floor at the same n.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch

from . import _checks


class Floor(NamedTuple):
    """What a metric gives real samples: mean and standard error over repeats."""

    mean: float
    standard_error: float


def energy_distance(x: torch.Tensor, y: torch.Tensor) -> float:
    """Squared energy distance 2 E|X−Y| − E|X−X'| − E|Y−Y'| (Székely & Rizzo 2013, eq. 1).

    The V-statistic: every mean runs over all pairs, a point with itself included. It is zero only
    for equal samples; between two sets of n real samples its mean is (2/n) E|X−X'|.
    10,000 against 10,000 points are 3·10⁸ distances, taken in chunks.

    Args:
        x: samples, shape (N, d).
        y: samples, shape (M, d).

    Raises:
        ValueError: an input is empty, non-finite or of the wrong shape.
    """
    x, y = _checks.pair(x, y)
    value = 2 * mean_distance(x, y) - mean_distance(x, x) - mean_distance(y, y)
    return max(value, 0.0)  # rounding may leave −1e-16


def sliced_wasserstein(
    x: torch.Tensor, y: torch.Tensor, *, num_projections: int = 100, generator: torch.Generator
) -> float:
    """Sliced 2-Wasserstein distance, in units of x (Rabin et al. 2011).

    The square root of the mean, over random directions, of the squared 2-Wasserstein distance
    between the projected samples, which sorting gives exactly. Of a shift by v it is |v|/√d.

    Args:
        x: samples, shape (N, d).
        y: samples, shape (M, d); N and M may differ.
        num_projections: directions drawn, uniform on the sphere.
        generator: source of the directions.

    Raises:
        ValueError: an input is empty, non-finite or of the wrong shape; num_projections < 1.
    """
    x, y = _checks.pair(x, y)
    if num_projections < 1:
        raise ValueError(f"num_projections must be at least 1, not {num_projections}.")
    directions = torch.randn(
        x.shape[1],
        num_projections,
        generator=generator,
        device=generator.device,
        dtype=torch.float64,
    ).to(x.device)
    directions /= directions.norm(dim=0)

    # Both quantile functions are steps, at multiples of 1/N and of 1/M; on the merged steps, kept
    # as integers out of N·M, both are constant.
    n, m = len(x), len(y)
    ends = torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]).unique().to(x.device)
    widths = ends.diff(prepend=ends.new_zeros(1)).double() / (n * m)
    quantiles_x = (x @ directions).sort(dim=0).values[(ends - 1) // m]
    quantiles_y = (y @ directions).sort(dim=0).values[(ends - 1) // n]
    squared = (widths[:, None] * (quantiles_x - quantiles_y).square()).sum(dim=0)
    return math.sqrt(squared.mean().item())


def mmd(x: torch.Tensor, y: torch.Tensor, *, bandwidth: float) -> float:
    """Squared maximum mean discrepancy, Gaussian kernel (Gretton et al. 2012, eq. 5).

    The biased estimate, mean k(X,X') + mean k(Y,Y') − 2 mean k(X,Y) over all pairs, with
    k(a, b) = exp(−|a−b|²/(2·bandwidth²)): never negative, so that ratios to its floor make sense.

    Args:
        x: samples, shape (N, d).
        y: samples, shape (M, d).
        bandwidth: standard deviation of the kernel, in units of x.

    Raises:
        ValueError: an input is empty, non-finite or of the wrong shape; bandwidth is not > 0.
    """
    x, y = _checks.pair(x, y)
    bandwidth = _checks.positive(bandwidth, "bandwidth")

    def kernel(distances: torch.Tensor) -> torch.Tensor:
        return distances.square_().div_(-2 * bandwidth**2).exp_().mean(dim=1)

    value = (
        mean_over_pairs(kernel, x, x)
        + mean_over_pairs(kernel, y, y)
        - 2 * mean_over_pairs(kernel, x, y)
    )
    return max(value, 0.0)


def floor(
    metric: Callable[[torch.Tensor, torch.Tensor], float],
    sample_real: Callable[[int, torch.Generator], torch.Tensor],
    n: int,
    *,
    repeats: int = 5,
    generator: torch.Generator,
) -> Floor:
    """The value of a metric between two fresh sets of n real samples, over repeats.

    A metric of one sample ignores the second::

        floor(energy_distance, data.sample, 10_000, generator=rng)
        floor(lambda x, _: high_quality_fraction(x, data.centers, data.std), data.sample, 10_000,
              generator=rng)

    Args:
        metric: function of two sets of samples, (n, d) each, that returns a number.
        sample_real: function of n and a generator that returns n fresh real samples, shape (n, d).
        n: samples in each set: as many as the figure that the floor stands beside was taken on.
        repeats: independent pairs of sets, at least 2.
        generator: passed on to `sample_real`.

    Raises:
        ValueError: repeats < 2 or n < 1.
    """
    if repeats < 2 or n < 1:
        raise ValueError(f"Give n ≥ 1 and repeats ≥ 2 (two make an error bar), not {n}, {repeats}.")
    values = torch.tensor(
        [metric(sample_real(n, generator), sample_real(n, generator)) for _ in range(repeats)],
        dtype=torch.float64,
    )
    return Floor(values.mean().item(), values.std().item() / math.sqrt(repeats))


def mean_over_pairs(
    reduce_row: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    y: torch.Tensor,
    pairs_per_chunk: int = 2_000_000,
) -> float:
    """Mean over the rows of x of `reduce_row`(distances to all of y), in bounded memory."""
    # |a|² + |b|² − 2a·b is the quick way to |a−b|², but loses digits far from the origin.
    origin = y.mean(dim=0)
    x, y = x - origin, y - origin
    total = 0.0
    for rows in x.split(max(1, pairs_per_chunk // len(y))):
        distances = torch.cdist(rows, y, compute_mode="use_mm_for_euclid_dist")
        total += reduce_row(distances).sum().item()
    return total / len(x)


def mean_distance(x: torch.Tensor, y: torch.Tensor) -> float:
    """The mean of |X−Y| over all pairs of x (N, d) and y (M, d)."""
    return mean_over_pairs(lambda distances: distances.mean(dim=1), x, y)
