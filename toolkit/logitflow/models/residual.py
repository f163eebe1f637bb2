"""The residual blocks of SN-ResNet (Miyato et al. 2018, appendix B, figure 8; He et al. 2016b)."""

from torch import Tensor, nn


class UpBlock(nn.Module):
    """A residual block that doubles the size: (N, a, s, s) → (N, b, 2s, 2s)."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm2d(channels_in),
            nn.ReLU(),
            nn.Upsample(scale_factor=2),  # nearest: (N, a, 2s, 2s)
            nn.Conv2d(channels_in, channels_out, 3, padding=1),  # (N, b, 2s, 2s)
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
            nn.Conv2d(channels_out, channels_out, 3, padding=1),
        )
        # A 1×1 convolution commutes with nearest upsampling, and before it has a quarter of the work.
        self.shortcut = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 1), nn.Upsample(scale_factor=2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, a, s, s) → (N, b, 2s, 2s)."""
        return self.layers(x) + self.shortcut(x)


class DownBlock(nn.Module):
    """A residual block that may halve the size: (N, a, s, s) → (N, b, s/2, s/2) or (N, b, s, s).

    Args:
        channels_in: channels of its input.
        channels_out: channels of its output.
        halve: whether it halves the size, by averaging.
        first: whether it takes an image, to which no ReLU is applied.
    """

    def __init__(
        self, channels_in: int, channels_out: int, halve: bool = True, first: bool = False
    ) -> None:
        super().__init__()
        pool: list[nn.Module] = [nn.AvgPool2d(2)] if halve else []
        rectify: list[nn.Module] = [] if first else [nn.ReLU()]
        hidden = channels_out if first else channels_in
        self.layers = nn.Sequential(
            *rectify,
            nn.Conv2d(channels_in, hidden, 3, padding=1),  # (N, hidden, s, s)
            nn.ReLU(),
            nn.Conv2d(hidden, channels_out, 3, padding=1),  # (N, b, s, s)
            *pool,  # (N, b, s/2, s/2)
        )
        straight = channels_in == channels_out and not halve
        # Averaging commutes with a 1×1 convolution, and before it has a quarter of the work.
        self.shortcut = nn.Sequential(
            *pool, *([] if straight else [nn.Conv2d(channels_in, channels_out, 1)])
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, a, s, s) → (N, b, s/2, s/2), or (N, b, s, s) where nothing is halved."""
        return self.layers(x) + self.shortcut(x)
