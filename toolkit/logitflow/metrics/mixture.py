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
from .two_sample import mean_distance, mean_over_pairs


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


def expected_energy_distance(x: torch.Tensor, centers: torch.Tensor, std: float) -> float:
    """The energy distance that x (N, 2) has on average from N fresh samples of the mixture.

    The mean of `energy_distance(x, real)` over the draw of as many real samples, in closed form: with
    P the mixture, 2 E|x−Y| − E|x−x'| − E|Y−Y'| + E|Y−Y'|/N. No luck of a real sample is left in it. For
    real samples it is on average `energy_floor(N, centers, std)`.

    Args:
        x: samples, shape (N, 2).
        centers: the modes' means, shape (K, 2).
        std: standard deviation of a mode.

    Raises:
        ValueError: an input is empty, non-finite or of the wrong shape; the plane is the only
            dimension with this closed form.
    """
    x, centers = _checks.pair(x, centers, ("x", "centers"))
    if x.shape[1] != 2:
        raise ValueError(f"x must have shape (N, 2), not {tuple(x.shape)}: use energy_distance.")
    n = len(x)
    to_mixture = float(_mean_norm(_distances(x, centers), _checks.positive(std, "std")).mean())
    within_mixture = energy_floor(2, centers, std)  # E|Y−Y'|
    return 2 * to_mixture - mean_distance(x, x) - (1 - 1 / n) * within_mixture


def energy_floor(n: int, centers: torch.Tensor, std: float) -> float:
    """The mean energy distance between two sets of n real samples: (2/n) E|Y−Y'|, in closed form.

    Args:
        n: samples in each set.
        centers: the modes' means, shape (K, 2).
        std: standard deviation of a mode.

    Raises:
        ValueError: n is below 1, or centers or std are not as described.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, not {n}.")
    centers = _checks.samples(centers, "centers")
    spread = math.sqrt(2) * _checks.positive(std, "std")  # of a difference of two samples
    return 2 / n * float(_mean_norm(_distances(centers, centers), spread).mean())


def _mean_norm(offset: torch.Tensor, std: float) -> torch.Tensor:
    """E|v + std Z| in the plane for |v| = offset: the mean of Rice's law, by Bessel functions."""
    q = (offset / (2 * std)).square()
    bessel = (1 + 2 * q) * torch.special.i0e(q) + 2 * q * torch.special.i1e(q)
    return std * math.sqrt(math.pi / 2) * bessel


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
