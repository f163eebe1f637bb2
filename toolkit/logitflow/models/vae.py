"""The two halves of a variational autoencoder, of points in the plane or of any flat vectors, and of images."""

import math

from torch import Tensor, nn

from logitflow.models.mlp import MLP
from logitflow.models.residual import DownBlock
from logitflow.models.sngan import ResNetGenerator


class GaussianEncoder(nn.Module):
    """A sample's approximate posterior over codes, N(mean(x), diag exp(2·log_std(x))) (Kingma & Welling 2014).

    Args:
        sizes: the width of a sample, of each hidden layer and of a code.

    Raises:
        ValueError: fewer than two sizes, or one that is not positive.
    """

    def __init__(self, sizes: list[int]) -> None:
        super().__init__()
        self.settings = {"sizes": list(sizes)}
        self.network = MLP([*sizes[:-1], 2 * sizes[-1]] if sizes else [])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, sample size) → the posterior's mean and the logarithm of its deviation, each (N, code size)."""
        mean, log_std = self.network(x).chunk(2, dim=1)
        return mean, log_std


class GaussianDecoder(nn.Module):
    """The model of a VAE, x = mean(c) + σ·e for a code c and noise e, both standard normal.

    A latent is the two together, z = (c, e), so that the generator is deterministic and its samples follow
    exactly the density whose bound was trained: the model that is refined is the model that is evaluated.
    The mean alone, which many papers show, is another model: `decoder.mean`, with a prior over codes.

    Args:
        sizes: the width of a code, of each hidden layer and of a sample.
        std: σ, one for all coordinates, in units of the samples; it is not learnt.

    Raises:
        ValueError: fewer than two sizes, or one that is not positive, or σ is not.
    """

    def __init__(self, sizes: list[int], std: float) -> None:
        super().__init__()
        _check(std)
        self.settings = {"sizes": list(sizes), "std": std}
        self.network = MLP(sizes)
        self.code_size, self.latent_size, self.std = sizes[0], sizes[0] + sizes[-1], std

    def mean(self, code: Tensor) -> Tensor:
        """The mean of the samples that share a code: (N, code size) → (N, sample size)."""
        return self.network(code)

    def forward(self, z: Tensor) -> Tensor:
        """(N, code size + sample size) → (N, sample size)."""
        code, noise = z.split([self.code_size, self.latent_size - self.code_size], dim=1)
        return self.mean(code) + self.std * noise


class ImageEncoder(nn.Module):
    """An image's approximate posterior over codes, by residual blocks that halve the size three times.

    Args:
        width: channels of every map.
        latent: the code's dimension.
    """

    def __init__(self, width: int = 64, latent: int = 128) -> None:
        super().__init__()
        self.settings = {"width": width, "latent": latent}
        self.layers = nn.Sequential(
            DownBlock(3, width, first=True),  # (N, width, 16, 16)
            DownBlock(width, width),  # (N, width, 8, 8)
            DownBlock(width, width),  # (N, width, 4, 4)
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(width * 16, 2 * latent),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, 32, 32) → the posterior's mean and the logarithm of its deviation, each (N, latent)."""
        mean, log_std = self.layers(x).to(x.dtype).chunk(2, dim=1)  # autocast gives another dtype
        return mean, log_std


class ImageDecoder(ResNetGenerator):
    """A VAE's decoder of images, of the same layers as SN-ResNet's generator; σ says how it was trained.

    A latent is a code, and the generator gives the mean of the images that share it. Its likelihood was
    trained with noise of deviation σ about that mean, but the images that are shown, corrected and refined
    have none: unlike `GaussianDecoder`'s, their law is not the density whose bound was trained.

    Args:
        width: channels of every map, a multiple of 8.
        latent: the code's dimension.
        std: σ, one for all pixels, in units of [−1, 1]; it is not learnt.

    Raises:
        ValueError: the width is no multiple of 8, or σ is not positive and finite.
    """

    def __init__(self, width: int = 64, latent: int = 128, std: float = 0.15) -> None:
        _check(std)
        super().__init__(width, 32, latent)
        self.settings = {"width": width, "latent": latent, "std": std}
        self.std = std

    def mean(self, code: Tensor) -> Tensor:
        """The mean of the images that share a code: (N, latent) → (N, 3, 32, 32)."""
        return self(code)


def _check(std: float) -> None:
    if not 0 < std < math.inf:
        raise ValueError(f"the decoder's std must be positive and finite, not {std}")
