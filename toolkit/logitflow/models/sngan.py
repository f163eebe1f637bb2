"""Generators and discriminators for images of 32×32 and 48×48 pixels (Miyato et al. 2018, tables 3 to 5).

A generator maps latents (N, 128) to images (N, 3, size, size) in [−1, 1]; a discriminator maps images to
logits (N,). `width` is the widest layer's number of channels: each class's default is the paper's for CIFAR-10.
What the tables leave open (initial weights, the batch norm after the dense layer, the width inside a
residual block) is as in the authors' code.
"""

import torch
from torch import Tensor, nn

from logitflow.models.residual import DownBlock, UpBlock
from logitflow.models.spectral import normalise


class DCGANGenerator(nn.Module):
    """The generator of SN-DCGAN (Miyato et al. 2018, table 3a).

    Args:
        width: channels of the first, smallest map; each doubling of the size halves them.
        size: height and width of the image: 32, 48 or another multiple of 8.
        latent: the latent's dimension.

    Raises:
        ValueError: `width` or `size` is no multiple of 8.
    """

    def __init__(self, width: int = 512, size: int = 32, latent: int = 128) -> None:
        super().__init__()
        _check(width, size)
        self.settings = {"width": width, "size": size, "latent": latent}
        side = size // 8
        self.dense = nn.Linear(latent, width * side * side)
        self.unflatten = nn.Unflatten(1, (width, side, side))  # (N, width, size/8, size/8)
        self.layers = nn.Sequential(
            nn.BatchNorm2d(width),
            nn.ReLU(),
            *_up(width, width // 2),  # (N, width/2, size/4, size/4)
            *_up(width // 2, width // 4),  # (N, width/4, size/2, size/2)
            *_up(width // 4, width // 8),  # (N, width/8, size, size)
            nn.Conv2d(width // 8, 3, 3, padding=1),  # (N, 3, size, size)
            nn.Tanh(),
        )
        _initialise(self, std=0.02)

    def forward(self, z: Tensor) -> Tensor:
        """(N, latent) → (N, 3, size, size) in [−1, 1]."""
        return self.layers(self.unflatten(self.dense(z)))


class DCGANDiscriminator(nn.Module):
    """The discriminator of SN-DCGAN (Miyato et al. 2018, table 3b); unnormalised, that of WGAN-GP.

    Args:
        width: channels of the last map, an eighth of them after the first layer.
        size: height and width of the image: 32, 48 or another multiple of 8.
        spectral: whether each weight's largest singular value is held at 1. A critic trained with a gradient
            penalty has no normalisation of any kind (Gulrajani et al. 2017, section 4).
        num_features: of a vector-valued critic, such as an MMD-GAN's; 0 for a logit.
        num_classes: of a discriminator that also says which class an image is of (Salimans et al. 2016, section
            5): its last layer gives the evidence of each, l_k = log p_data(x, k)/p_g(x), and their sum's
            logarithm is the logit. That layer is free of the norm, so that classes can be told far apart.

    Raises:
        ValueError: `width` or `size` is no multiple of 8, a number of outputs is negative, or both are given.
    """

    def __init__(
        self,
        width: int = 512,
        size: int = 32,
        spectral: bool = True,
        num_features: int = 0,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        _check(width, size)
        if min(num_features, num_classes) < 0:
            raise ValueError(
                f"num_features must be at least 0, not {num_features}, and num_classes too, not {num_classes}"
            )
        if num_features and num_classes:
            raise ValueError("a critic has features or classes: give num_features or num_classes")
        self.settings = {"width": width, "size": size, "spectral": spectral}
        if num_features:
            self.settings["num_features"] = num_features
        if num_classes:
            self.settings["num_classes"] = num_classes
        side = size // 8
        self.layers = nn.Sequential(
            nn.Conv2d(3, width // 8, 3, padding=1),  # (N, width/8, size, size)
            nn.LeakyReLU(0.1),
            *_down(width // 8, width // 4),  # (N, width/4, size/2, size/2)
            *_down(width // 4, width // 2),  # (N, width/2, size/4, size/4)
            *_down(width // 2, width),  # (N, width, size/8, size/8)
            nn.Flatten(),  # (N, width·size²/64)
            nn.Linear(width * side * side, num_features or num_classes or 1),
        )
        _initialise(self, std=0.02)
        if spectral:
            normalise(self.layers[:-1] if num_classes else self)

    def evidence(self, x: Tensor) -> Tensor:
        """(N, 3, size, size) → what speaks for each class, (N, num_classes)."""
        y = self.layers(x)
        return y.to(torch.promote_types(y.dtype, torch.float32))  # bfloat16 cannot add ten of them

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, size, size) → logits (N,), or features (N, num_features)."""
        if "num_classes" in self.settings:
            return self.evidence(x).logsumexp(1)
        y = self.layers(x)
        return y if "num_features" in self.settings else y.squeeze(1)


class ResNetGenerator(nn.Module):
    """The generator of SN-ResNet (Miyato et al. 2018, tables 4a and 5a).

    At 32 pixels every map has `width` channels; at 48 each doubling of the size halves them, and the paper's
    width is 512.

    Args:
        width: channels of the first, smallest map.
        size: height and width of the image: 32 or 48.
        latent: the latent's dimension.
        narrowest: each doubling of the size halves the channels, but no map has fewer than this: the wide
            maps, where what an image shows is decided, are small and cheap. None for the paper's.

    Raises:
        ValueError: `width` is no multiple of 8, `size` neither 32 nor 48, or `narrowest` not from 1 to `width`.
    """

    def __init__(
        self, width: int = 256, size: int = 32, latent: int = 128, narrowest: int | None = None
    ) -> None:
        super().__init__()
        _check(width, size, among=(32, 48))
        if narrowest is not None and not 1 <= narrowest <= width:
            raise ValueError(f"narrowest must be from 1 to the width, {width}, not {narrowest}")
        self.settings: dict[str, float] = {"width": width, "size": size, "latent": latent}
        if narrowest is None:
            narrowest = width if size == 32 else width // 8
        else:
            self.settings["narrowest"] = narrowest
        side = size // 8
        widths = [max(width >> doublings, narrowest) for doublings in range(4)]
        self.dense = nn.Linear(latent, width * side * side)
        self.unflatten = nn.Unflatten(1, (width, side, side))  # (N, width, size/8, size/8)
        self.layers = nn.Sequential(
            UpBlock(widths[0], widths[1]),  # (N, widths[1], size/4, size/4)
            UpBlock(widths[1], widths[2]),  # (N, widths[2], size/2, size/2)
            UpBlock(widths[2], widths[3]),  # (N, widths[3], size, size)
            nn.BatchNorm2d(widths[3]),
            nn.ReLU(),
            nn.Conv2d(widths[3], 3, 3, padding=1),  # (N, 3, size, size)
            nn.Tanh(),
        )
        _initialise(self)

    def forward(self, z: Tensor) -> Tensor:
        """(N, latent) → (N, 3, size, size) in [−1, 1]."""
        return self.layers(self.unflatten(self.dense(z)))


class ResNetDiscriminator(nn.Module):
    """The discriminator of SN-ResNet (Miyato et al. 2018, tables 4b and 5b).

    At 32 pixels every map has `width` channels; at 48 they double from block to block, `width` at the last,
    and the paper's width is 1024.

    Args:
        width: channels of the last map.
        size: height and width of the image: 32 or 48.
        spectral: whether each weight's largest singular value is held at 1.

    Raises:
        ValueError: `width` is no multiple of 16, or `size` neither 32 nor 48.
    """

    def __init__(self, width: int = 128, size: int = 32, spectral: bool = True) -> None:
        super().__init__()
        _check(width, size, among=(32, 48), multiple=16)
        self.settings = {"width": width, "size": size, "spectral": spectral}
        if size == 32:
            blocks = [
                DownBlock(3, width, first=True),  # (N, width, 16, 16)
                DownBlock(width, width),  # (N, width, 8, 8)
                DownBlock(width, width, halve=False),  # (N, width, 8, 8)
                DownBlock(width, width, halve=False),  # (N, width, 8, 8)
            ]
        else:
            blocks = [
                DownBlock(3, width // 16, first=True),  # (N, width/16, 24, 24)
                DownBlock(width // 16, width // 8),  # (N, width/8, 12, 12)
                DownBlock(width // 8, width // 4),  # (N, width/4, 6, 6)
                DownBlock(width // 4, width // 2),  # (N, width/2, 3, 3)
                DownBlock(width // 2, width, halve=False),  # (N, width, 3, 3)
            ]
        self.layers = nn.Sequential(*blocks, nn.ReLU())
        self.dense = nn.Linear(width, 1)
        _initialise(self)
        if spectral:
            normalise(self)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, size, size) → logits (N,)."""
        return self.dense(self.layers(x).sum((2, 3))).squeeze(1)  # the sum over pixels: (N, width)


def _up(channels_in: int, channels_out: int) -> list[nn.Module]:
    return [
        nn.ConvTranspose2d(channels_in, channels_out, 4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    ]


def _down(channels_in: int, channels_out: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels_in, channels_in, 4, stride=2, padding=1),
        nn.LeakyReLU(0.1),
        nn.Conv2d(channels_in, channels_out, 3, padding=1),
        nn.LeakyReLU(0.1),
    ]


def _check(width: int, size: int, among: tuple[int, ...] = (), multiple: int = 8) -> None:
    if width < multiple or width % multiple:
        raise ValueError(f"width must be a positive multiple of {multiple}, not {width}")
    if size < 8 or size % 8 or (among and size not in among):
        choice = " or ".join(map(str, among)) or "a multiple of 8, such as 32 or 48"
        raise ValueError(f"size must be {choice}, not {size}")


def _initialise(network: nn.Module, std: float | None = None) -> None:
    """Draw the weights: normal with `std` as in DCGAN, or Glorot's uniform as in SN-ResNet."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            if std is None:
                nn.init.xavier_uniform_(module.weight)
            else:
                nn.init.normal_(module.weight, std=std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in network.modules():
        if isinstance(module, UpBlock | DownBlock):  # √2 makes up for the ReLU before a convolution
            for layer in module.layers:
                if isinstance(layer, nn.Conv2d):
                    nn.init.xavier_uniform_(layer.weight, gain=2**0.5)


__all__ = [
    "DCGANDiscriminator",
    "DCGANGenerator",
    "ResNetDiscriminator",
    "ResNetGenerator",
]
