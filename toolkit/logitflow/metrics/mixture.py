"""How near samples are to a mixture of equal Gaussians whose centres are known.

`centers` are the K means, of shape (K, d), and `std` the standard deviation they all share in every
direction. A sample is *high quality* within `num_stds` standard deviations of a centre (4 in the
papers), and a mode is *recovered* if it holds a high-quality sample. Both flatter: they say nothing
of how the samples are shared among the modes or spread within one. `mode_weights`,
`spread_within_modes` and `metrics.two_sample.energy_distance` do.
"""

import math

import torch

from . import _checks
from .two_sample import mean_over_pairs


def high_quality_fraction(
    x: torch.Tensor, centers: torch.Tensor, std: float, num_stds: float = 4.0
) -> float:
    """Share of samples within `num_stds` standard deviations of a centre.

    Real samples of well-separated modes in the plane score 1 − exp(−num_stds²/2): 0.99966 at 4.

    Args:
        x: samples, shape (N, d).
        centers: the modes' means, shape (K, d).
        std: standard deviation of a mode, in units of x.
        num_stds: radius that counts as high quality, in standard deviations.

    Raises:
        ValueError: an input is empty, non-finite or of the wrong shape; std or num_stds not > 0.
    """
    _, _, good = _nearest(x, centers, std, num_stds)
    return good.double().mean().item()


def recovered_modes(
    x: torch.Tensor, centers: torch.Tensor, std: float, num_stds: float = 4.0
) -> int:
    """Number of modes that hold at least one high-quality sample.

    Arguments and refusals as in `high_quality_fraction`.
    """
    _, mode, good = _nearest(x, centers, std, num_stds)
    return len(mode[good].unique())


def mode_weights(x: torch.Tensor, centers: torch.Tensor) -> torch.Tensor:
    """Share of samples nearest each centre, high quality or not: shape (K,), summing to 1.

    Args:
        x: samples, shape (N, d).
        centers: the modes' means, shape (K, d).

    Raises:
        ValueError: an input is empty, non-finite or of the wrong shape.
    """
    x, centers = _checks.pair(x, centers, ("x", "centers"))
    counts = _distances(x, centers).argmin(dim=1).bincount(minlength=len(centers))
    return counts.double() / len(x)


def spread_within_modes(
    x: torch.Tensor, centers: torch.Tensor, std: float, num_stds: float = 4.0
) -> float:
    """Root mean square deviation of high-quality samples from their centre, real samples giving 1.

    The divisor is what N(0, std² I) gives when truncated, as ours are, to a ball of radius c·std
    with c = num_stds: E[r² | r < c·std] = std² d P(χ²_{d+2} < c²) / P(χ²_d < c²).
    Below 1 the samples huddle at the centres; above 1 they are too wide.

    Arguments and refusals as in `high_quality_fraction`.

    Returns:
        The ratio; NaN if no sample is high quality.
    """
    distance, _, good = _nearest(x, centers, std, num_stds)
    half_dim = torch.tensor(x.shape[1] / 2, dtype=torch.float64)
    half_square = torch.tensor(num_stds**2 / 2, dtype=torch.float64)
    ball = torch.special.gammainc(half_dim, half_square)
    expected = x.shape[1] * torch.special.gammainc(half_dim + 1, half_square) / ball
    return math.sqrt(distance[good].square().mean().item() / expected.item()) / std


def log_likelihood(x: torch.Tensor, centers: torch.Tensor, std: float) -> float:
    """Mean exact log density of the samples under the equal-weight mixture, in nats per sample.

    It measures quality, not coverage: samples that huddle at one centre score above real ones.

    Args:
        x: samples, shape (N, d).
        centers: the modes' means, shape (K, d).
        std: standard deviation of a mode, in units of x.

    Raises:
        ValueError: an input is empty, non-finite or of the wrong shape; std is not > 0.
    """
    x, centers = _checks.pair(x, centers, ("x", "centers"))
    std = _checks.positive(std, "std")
    exponent = -_distances(x, centers).square() / (2 * std**2)
    log_normaliser = math.log(len(centers)) + x.shape[1] / 2 * math.log(2 * math.pi * std**2)
    return exponent.logsumexp(dim=1).mean().item() - log_normaliser


def kde_score(x: torch.Tensor, real: torch.Tensor, bandwidth: float) -> float:
    """The KDE score: mean log density of *real* samples under a kernel estimate from `x`, in nats.

    The estimate is the mean of Gaussian kernels of standard deviation `bandwidth` around the
    samples, as scikit-learn's ``KernelDensity(bandwidth=...).fit(x).score_samples(real)``, computed
    exactly. In this direction a mode that the samples miss is punished. Direction and bandwidth
    are our choice: we have not verified which the papers use, so a published figure is no
    yardstick. Compare with the real-versus-real value that `floor` gives at the same n and
    bandwidth. A bandwidth wider than a mode hides that mode's spread.

    Args:
        x: samples to be judged, shape (N, d).
        real: real samples, shape (M, d).
        bandwidth: standard deviation of the kernel, in units of x.

    Raises:
        ValueError: an input is empty, non-finite or of the wrong shape; bandwidth is not > 0.
    """
    x, real = _checks.pair(x, real, ("x", "real"))
    bandwidth = _checks.positive(bandwidth, "bandwidth")

    def log_density(distances: torch.Tensor) -> torch.Tensor:
        return (distances.square() / (-2 * bandwidth**2)).logsumexp(dim=1)

    log_normaliser = math.log(len(x)) + x.shape[1] / 2 * math.log(2 * math.pi * bandwidth**2)
    return mean_over_pairs(log_density, real, x) - log_normaliser


def _nearest(
    x: torch.Tensor, centers: torch.Tensor, std: float, num_stds: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Distance to the nearest centre, that centre's number, and whether it is near enough: (N,)."""
    x, centers = _checks.pair(x, centers, ("x", "centers"))
    radius = _checks.positive(num_stds, "num_stds") * _checks.positive(std, "std")
    distance, mode = _distances(x, centers).min(dim=1)
    return distance, mode, distance < radius


def _distances(x: torch.Tensor, centers: torch.Tensor) -> torch.Tensor:
    # Without matrix products: those lose half the digits of small distances.
    return torch.cdist(x, centers, compute_mode="donot_use_mm_for_euclid_dist")
