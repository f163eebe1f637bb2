"""A normalising flow of points: exact samples, exact inverses and exact densities."""

import math

import torch
from torch import Tensor, nn

from logitflow.models.mlp import MLP


class RealNVP(nn.Module):
    """A flow of affine couplings from standard normal latents to samples (Dinh et al. 2017, section 3).

    Each coupling scales and shifts one half of the coordinates by functions of the other half,
    a′ = a·exp(s(b)) + t(b), and the halves then change places. The logarithm s of the scale is kept
    within ±2 by a tanh.

    Args:
        size: coordinates of a latent and of a sample, an even number.
        num_couplings: how many couplings.
        width: of the two hidden layers in each.

    Raises:
        ValueError: the size is not even, or a number is below 1.
    """

    def __init__(self, size: int = 2, num_couplings: int = 8, width: int = 64) -> None:
        super().__init__()
        if size < 2 or size % 2 or num_couplings < 1:
            raise ValueError(
                "a flow of couplings needs an even size and at least one coupling, "
                f"not size {size} and {num_couplings} couplings"
            )
        self.settings = {"size": size, "num_couplings": num_couplings, "width": width}
        couplings = [MLP([size // 2, width, width, size]) for _ in range(num_couplings)]
        for coupling in couplings:
            for parameter in coupling.layers[-1].parameters():
                nn.init.zeros_(parameter)  # no scale and no shift to begin with
        self.couplings = nn.ModuleList(couplings)

    def forward(self, z: Tensor) -> Tensor:
        """The samples of latents, (N, size) → (N, size)."""
        return self.generate(z)[0]

    def generate(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The samples and log |det ∂x/∂z|: (N, size) → (N, size) and (N,)."""
        moved, kept = z.chunk(2, dim=1)
        log_det = z.new_zeros(len(z))
        for coupling in self.couplings:
            log_scale, shift = log_scale_and_shift(coupling, kept)
            moved, kept = kept, moved * log_scale.exp() + shift
            log_det = log_det + log_scale.sum(1)
        return torch.cat([moved, kept], 1), log_det

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The latents of samples and log |det ∂z/∂x|: (N, size) → (N, size) and (N,)."""
        moved, kept = x.chunk(2, dim=1)
        log_det = x.new_zeros(len(x))
        for coupling in reversed(self.couplings):
            log_scale, shift = log_scale_and_shift(coupling, moved)
            moved, kept = (kept - shift) * (-log_scale).exp(), moved
            log_det = log_det - log_scale.sum(1)
        return torch.cat([moved, kept], 1), log_det

    def log_prob(self, x: Tensor) -> Tensor:
        """The exact log density of samples in nats, by change of variables: (N, size) → (N,)."""
        z, log_det = self.inverse(x)
        return log_det - z.square().sum(1) / 2 - z.shape[1] / 2 * math.log(2 * math.pi)


def log_scale_and_shift(coupling: nn.Module, kept: Tensor) -> tuple[Tensor, Tensor]:
    """The logarithm s(b) of a coupling's scale, within ±2, and its shift t(b), each of b's shape."""
    raw, shift = coupling(kept).to(kept.dtype).chunk(2, dim=1)  # under autocast it is of another
    return 2 * torch.tanh(raw), shift
