"""Fully connected networks for the two-dimensional experiments."""

from itertools import pairwise

from torch import Tensor, nn


class MLP(nn.Module):
    """A fully connected network with leaky ReLU 0.2 between its layers (as in DOT's 2-D experiments).

    Serves as generator, `MLP([2, 256, 256, 256, 2])`, and as critic or discriminator,
    `MLP([2, 512, 512, 512, 1])`, whose output (N, 1) is the logit.

    Args:
        sizes: the width of the input, of each hidden layer and of the output.

    Raises:
        ValueError: fewer than two sizes, or one that is not positive.
    """

    def __init__(self, sizes: list[int]) -> None:
        super().__init__()
        if len(sizes) < 2 or min(sizes) < 1:
            raise ValueError(f"sizes must hold at least an input and an output width, not {sizes}")
        self.settings = {"sizes": list(sizes)}
        layers: list[nn.Module] = []
        for width_in, width_out in pairwise(sizes):
            layers += [nn.Linear(width_in, width_out), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers[:-1])  # no activation after the last layer

    def forward(self, x: Tensor) -> Tensor:
        """(N, sizes[0]) → (N, sizes[-1])."""
        return self.layers(x)
