"""A small classifier of CIFAR-10, which judges images without any download."""

from torch import Tensor, nn


class Classifier(nn.Module):
    """A residual network of nine layers for images of 32×32 pixels and ten classes.

    Args:
        width: channels of the first layer; the features are 8·width numbers.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.settings = {"width": width}
        self.body = nn.Sequential(
            *_layer(3, width),  # (N, width, 32, 32)
            *_layer(width, 2 * width),
            nn.MaxPool2d(2),  # (N, 2·width, 16, 16)
            Residual(2 * width),
            *_layer(2 * width, 4 * width),
            nn.MaxPool2d(2),  # (N, 4·width, 8, 8)
            *_layer(4 * width, 8 * width),
            nn.MaxPool2d(2),  # (N, 8·width, 4, 4)
            Residual(8 * width),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.head = nn.Linear(8 * width, 10)

    def features(self, x: Tensor) -> Tensor:
        """What the last layer sees: (N, 3, 32, 32) in [−1, 1] → (N, 8·width)."""
        return self.body(x)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 32, 32) in [−1, 1] → the classes' unnormalised log probabilities (N, 10)."""
        return self.head(self.features(x))


class Residual(nn.Module):
    """x + two layers of x: (N, c, s, s) → (N, c, s, s)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*_layer(channels, channels), *_layer(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, c, s, s) → (N, c, s, s)."""
        return x + self.layers(x)


def _layer(channels_in: int, channels_out: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    ]
