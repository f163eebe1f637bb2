"""Generator and critic of short text, character by character (Gulrajani et al. 2017).

A text is a matrix with a row a character: (N, length, num_characters). The generator's rows are softmax
probabilities; real text has one-hot rows. No character is drawn, so the critic's gradient reaches the latent.
Neither network has normalisation. What the paper leaves open is as in its authors' code.
"""

import torch
from torch import Tensor, nn


class TextGenerator(nn.Module):
    """The generator of character-level WGAN-GP (Gulrajani et al. 2017).

    Args:
        width: channels of each map; the paper's is 512.
        depth: residual blocks.
        length: characters of a text.
        num_characters: size of the alphabet.
        latent_size: the latent's dimension.

    Raises:
        ValueError: a size is no whole number above 0.
    """

    def __init__(
        self,
        width: int = 128,
        depth: int = 5,
        length: int = 32,
        num_characters: int = 96,
        latent_size: int = 128,
    ) -> None:
        super().__init__()
        self.settings = {
            "width": width,
            "depth": depth,
            "length": length,
            "num_characters": num_characters,
            "latent_size": latent_size,
        }
        _check(self.settings)
        self.dense = nn.Linear(latent_size, width * length)
        self.layers = nn.Sequential(
            nn.Unflatten(1, (width, length)),  # (N, width, length)
            *(TextBlock(width) for _ in range(depth)),
            nn.Conv1d(width, num_characters, 1),  # (N, num_characters, length)
        )
        _initialise(self)

    def forward(self, z: Tensor) -> Tensor:
        """(N, latent_size) → (N, length, num_characters), each row positive with sum 1."""
        scores = self.layers(self.dense(z)).transpose(1, 2)
        # in the latent's precision: in bfloat16 a row's sum would be off in the third digit
        return torch.softmax(scores.to(z.dtype), 2)


class TextCritic(nn.Module):
    """The critic of character-level WGAN-GP (Gulrajani et al. 2017).

    Args:
        width: channels of each map; the paper's is 512.
        depth: residual blocks.
        length: characters of a text.
        num_characters: size of the alphabet.

    Raises:
        ValueError: a size is no whole number above 0.
    """

    def __init__(
        self, width: int = 128, depth: int = 5, length: int = 32, num_characters: int = 96
    ) -> None:
        super().__init__()
        self.settings = {
            "width": width,
            "depth": depth,
            "length": length,
            "num_characters": num_characters,
        }
        _check(self.settings)
        self.layers = nn.Sequential(
            nn.Conv1d(num_characters, width, 1),  # (N, width, length)
            *(TextBlock(width) for _ in range(depth)),
            nn.Flatten(),  # (N, width·length)
        )
        self.dense = nn.Linear(width * length, 1)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """(N, length, num_characters) → (N,), any real number."""
        h = self.layers(x.transpose(1, 2))
        with torch.autocast(h.device.type, enabled=False):  # a sum over thousands needs its digits
            return self.dense(h.to(self.dense.weight.dtype)).squeeze(1)


class TextBlock(nn.Module):
    """A residual block along a text, x + 0.3·conv(relu(conv(relu(x)))): (N, width, L) → (N, width, L)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(),
            nn.Conv1d(width, width, 5, padding=2),
            nn.ReLU(),
            nn.Conv1d(width, width, 5, padding=2),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, L) → (N, width, L)."""
        return x + 0.3 * self.layers(x)


def _check(settings: dict[str, int]) -> None:
    for name, value in settings.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be a whole number above 0, not {value!r}")


def _initialise(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv1d | nn.Linear):
            # √2 makes up for the ReLU before a convolution
            gain = 2**0.5 if isinstance(module, nn.Conv1d) else 1.0
            nn.init.xavier_uniform_(module.weight, gain)
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]


__all__ = ["TextCritic", "TextGenerator"]
