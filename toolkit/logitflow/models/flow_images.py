"""A normalising flow of images: RealNVP's multi-scale architecture (Dinh et al. 2017, sections 3.4 to 3.6)."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from logitflow.models.flow import log_scale_and_shift
from logitflow.models.residual import DownBlock

# The three ways to halve a square of 2×2 pixels, numbered 0 1 / 2 3, each both ways round: the checkerboard,
# rows and columns. A coupling moves the first two and keeps the last two.
HALVES = ((0, 3, 1, 2), (1, 2, 0, 3), (0, 1, 2, 3), (2, 3, 0, 1), (0, 2, 1, 3), (1, 3, 0, 2))
MARGIN = 0.05  # keeps the logit of black and white finite (Dinh et al. 2017, section 4.1)
RANGE = (
    255 / 256
)  # of dequantised pixels, which reach half a grey level beyond [−1, 1], into [−1, 1]


class ImageFlow(nn.Module):
    r"""A multi-scale flow of affine couplings from standard normal latents to images, of one shape.

    At each scale the image is squeezed, 2×2 pixels into four times the channels; couplings move one half of
    each square by a convolutional network of the other half, after a linear map of the channels; then half
    of the channels is left to the prior, and the next scale has the rest. A coupling that moves a diagonal of
    each square has RealNVP's checkerboard mask, one that moves a row or a column its channel-wise mask.
    The linear maps take the place of its batch norms; `whiten` begins them.

    A pixel of [−1, 1] is modelled through its logit, and the density reaches out to 1.1: `forward` clips its
    images, `generate` does not. Under autocast the networks alone are computed in half precision, so that
    inverses and densities stay exact.

    Args:
        size: height and width of the image, a multiple of 2 to the number of scales.
        width: channels inside the couplings' networks.
        num_couplings: how many at each scale; six go through every half.
        num_scales: how many.

    Raises:
        ValueError: a number is below 1, or the size is no such multiple.
    """

    def __init__(
        self, size: int = 32, width: int = 48, num_couplings: int = 6, num_scales: int = 3
    ) -> None:
        super().__init__()
        if min(width, num_couplings, num_scales) < 1 or size < 1 or size % 2**num_scales:
            raise ValueError(
                "a flow needs at least one channel, coupling and scale, and a size that is a multiple of "
                f"2 to the number of scales, not size {size}, width {width}, {num_couplings} couplings "
                f"and {num_scales} scales"
            )
        self.settings = {
            "size": size,
            "width": width,
            "num_couplings": num_couplings,
            "num_scales": num_scales,
        }
        halves = [HALVES[k % len(HALVES)] for k in range(num_couplings)]
        self.scales = nn.ModuleList(
            nn.ModuleList(Step(12 * 2**scale, width, half) for half in halves)
            for scale in range(num_scales)
        )

    def forward(self, z: Tensor) -> Tensor:
        """The images of latents, clipped to [−1, 1]: (N, 3, size, size) → (N, 3, size, size)."""
        return self.generate(z)[0].clamp(-1, 1)

    def generate(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The images and log |det ∂x/∂z|: (N, 3, size, size) → (N, 3, size, size) and (N,)."""
        y, log_det = self._up(z, 0)
        x = ((torch.sigmoid(y) - MARGIN) / (1 - 2 * MARGIN) * 2 - 1) / RANGE
        return x, log_det - _slope_of_logit(y)

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The latents of images and log |det ∂z/∂x|: (N, 3, size, size) → (N, 3, size, size) and (N,)."""
        y = _logit(x)
        z, log_det = self._down(y, 0)
        return z, log_det + _slope_of_logit(y)

    def log_prob(self, x: Tensor) -> Tensor:
        """The exact log density of images in nats, by change of variables: (N, 3, size, size) → (N,)."""
        z, log_det = self.inverse(x)
        return log_det - z.square().flatten(1).sum(1) / 2 - z[0].numel() / 2 * math.log(2 * math.pi)

    @torch.no_grad()
    def whiten(self, x: Tensor) -> None:
        """Set each linear map such that these images leave it with uncorrelated channels of variance 1.

        To be called before training, with more images than a scale has channels; actnorm's initialisation
        (Kingma & Dhariwal 2018, section 3.1), of whole covariances.

        Args:
            x: images, (N, 3, size, size).
        """
        self._down(_logit(x), 0, whiten=True)

    def _steps(self, scale: int) -> list[Any]:
        return list(self.scales[scale])  # type: ignore[call-overload]

    def _up(self, z: Tensor, scale: int) -> tuple[Tensor, Tensor]:
        z, log_det = _squeeze(z), z.new_zeros(len(z))
        if scale + 1 < len(self.scales):
            coarse, rest = z.chunk(2, 1)
            coarse, log_det = self._up(coarse, scale + 1)
            z = torch.cat([coarse, rest], 1)
        for step in self._steps(scale):
            z, more = step.generate(z)
            log_det = log_det + more
        return _unsqueeze(z), log_det

    def _down(self, y: Tensor, scale: int, whiten: bool = False) -> tuple[Tensor, Tensor]:
        y, log_det = _squeeze(y), y.new_zeros(len(y))
        for step in reversed(self._steps(scale)):
            if whiten:
                step.linear.whiten(y)
            y, more = step.inverse(y)
            log_det = log_det + more
        if scale + 1 < len(self.scales):
            coarse, rest = y.chunk(2, 1)
            coarse, more = self._down(coarse, scale + 1, whiten)
            y, log_det = torch.cat([coarse, rest], 1), log_det + more
        return _unsqueeze(y), log_det


class Step(nn.Module):
    """A coupling and, on the images' side of it, a linear map of the channels."""

    def __init__(self, channels: int, width: int, order: tuple[int, ...]) -> None:
        super().__init__()
        self.order, self.back = order, tuple(order.index(k) for k in range(4))
        self.coupling = nn.Sequential(
            nn.Conv2d(channels // 2, width, 3, padding=1),  # (N, width, s, s)
            DownBlock(width, width, halve=False),  # (N, width, s, s)
            nn.ReLU(),
            nn.Conv2d(width, channels, 3, padding=1),  # (N, channels, s, s): scale and shift
        )
        for parameter in self.coupling[-1].parameters():
            nn.init.zeros_(parameter)  # no scale and no shift to begin with
        self.linear = _Linear(channels)

    def generate(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """(N, channels, s, s) → the same shape, and log |det|, (N,)."""
        moved, kept = _taken(z, self.order).chunk(2, 1)
        log_scale, shift = log_scale_and_shift(self.coupling, kept)
        moved = moved * log_scale.exp() + shift
        y, log_det = self.linear.generate(_taken(torch.cat([moved, kept], 1), self.back))
        return y, log_det + log_scale.flatten(1).sum(1)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """(N, channels, s, s) → the same shape, and log |det|, (N,)."""
        z, log_det = self.linear.inverse(y)
        moved, kept = _taken(z, self.order).chunk(2, 1)
        log_scale, shift = log_scale_and_shift(self.coupling, kept)
        moved = (moved - shift) * (-log_scale).exp()
        z = _taken(torch.cat([moved, kept], 1), self.back)
        return z, log_det - log_scale.flatten(1).sum(1)


class _Linear(nn.Module):
    """z = W(y − b) at each pixel, W lower triangular with the diagonal exp(log_diagonal)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.below = nn.Parameter(torch.zeros(channels, channels))
        self.log_diagonal = nn.Parameter(torch.zeros(channels))
        self.shift = nn.Parameter(torch.zeros(channels))

    def weight(self) -> Tensor:
        """W, (channels, channels)."""
        return self.below.tril(-1) + self.log_diagonal.exp().diag()

    def generate(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """y and log |det ∂y/∂z|, the same for each of N."""
        unit = torch.eye(len(self.shift), dtype=z.dtype, device=z.device)
        inverse = torch.linalg.solve_triangular(self.weight(), unit, upper=False)
        return _at_each_pixel(inverse, z) + self.shift[:, None, None], -self._log_det(z)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """z and log |det ∂z/∂y|, the same for each of N."""
        return _at_each_pixel(self.weight(), y - self.shift[:, None, None]), self._log_det(y)

    def whiten(self, y: Tensor) -> None:
        """Make W the inverse of the covariance's Cholesky root, and b the mean."""
        channels = y.transpose(0, 1).flatten(1).double()
        root = torch.linalg.cholesky(torch.cov(channels))
        unit = torch.eye(len(root), dtype=root.dtype, device=root.device)
        weight = torch.linalg.solve_triangular(root, unit, upper=False)
        self.below.copy_(weight.tril(-1))
        self.log_diagonal.copy_(weight.diagonal().log())
        self.shift.copy_(channels.mean(1))

    def _log_det(self, x: Tensor) -> Tensor:
        return self.log_diagonal.sum() * x[0, 0].numel()


def _at_each_pixel(matrix: Tensor, x: Tensor) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):  # half precision would spoil the inverse
        return F.conv2d(x, matrix[:, :, None, None])


def _squeeze(x: Tensor) -> Tensor:
    """(N, C, 2s, 2s) → (N, 4C, s, s): the upper left pixels' channels, the upper right ones', and so on."""
    return F.pixel_unshuffle(x, 2).unflatten(1, (-1, 4)).transpose(1, 2).flatten(1, 2)


def _unsqueeze(x: Tensor) -> Tensor:
    return F.pixel_shuffle(x.unflatten(1, (4, -1)).transpose(1, 2).flatten(1, 2), 2)


def _taken(x: Tensor, order: tuple[int, ...]) -> Tensor:
    quarters = x.chunk(4, 1)
    return torch.cat([quarters[k] for k in order], 1)


def _logit(x: Tensor) -> Tensor:
    return torch.logit(MARGIN + (1 - 2 * MARGIN) * (x * RANGE + 1) / 2)


def _slope_of_logit(y: Tensor) -> Tensor:
    """log |det ∂y/∂x| of y = `_logit(x)`, whose slope is (1 − 2·MARGIN)·RANGE/2 over σ(y)·σ(−y): (N,)."""
    constant = math.log((1 - 2 * MARGIN) * RANGE / 2)
    return (constant - F.logsigmoid(y) - F.logsigmoid(-y)).flatten(1).sum(1)
