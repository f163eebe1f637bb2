"""Two-dimensional toys whose densities are known or nearly so."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Sample = Callable[[int, torch.Generator], Tensor]
"""A function of (n, generator) that draws n samples, (n, *sample_shape), with the generator's randomness."""

LabelledSample = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]
"""The same, with the samples' classes, (n,) of int64."""


class Mixture(NamedTuple):
    """An equal-weight mixture of isotropic Gaussians."""

    centers: Tensor  # (K, D)
    std: float

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n points, (n, D), with all randomness from `generator`."""
        at = generator.device
        which = torch.randint(len(self.centers), (n,), generator=generator, device=at)
        noise = torch.randn(n, self.centers.shape[1], generator=generator, device=at)
        return self.centers.to(at)[which] + self.std * noise

    def log_prob(self, x: Tensor) -> Tensor:
        """The exact log density in nats: (N, D) → (N,)."""
        offsets = x[:, None, :] - self.centers.to(x)  # (N, K, D)
        squares = (offsets / self.std).square().sum(2)
        normaliser = math.log(len(self.centers)) + x.shape[1] * math.log(
            self.std * math.sqrt(2 * math.pi)
        )
        return torch.logsumexp(-squares / 2, dim=1) - normaliser


def twenty_five_gaussians() -> Mixture:
    """The papers' 25 Gaussians: centres (2i, 2j)/2.828 for i, j in −2…2, standard deviation 0.05/2.828."""
    ticks = torch.arange(-2.0, 3.0) * 2 / 2.828
    return Mixture(torch.cartesian_prod(ticks, ticks), 0.05 / 2.828)


def swiss_roll(n: int, generator: torch.Generator) -> Tensor:
    """n points of the papers' Swiss roll, (n, 2): scikit-learn's, noise 0.25, axes 0 and 2, divided by 7.5."""
    from sklearn.datasets import make_swiss_roll  # slow to import, and needed only here

    seed = int(torch.randint(2**31, (), generator=generator, device=generator.device))
    points, _ = make_swiss_roll(n, noise=0.25, random_state=seed)
    return torch.as_tensor(points[:, [0, 2]] / 7.5, dtype=torch.float32, device=generator.device)
