"""Networks and nothing else.

Each keeps what it was made with as `settings`, so that a card can describe it.
"""

from logitflow.models.mlp import MLP
from logitflow.models.sngan import (
    DCGANDiscriminator,
    DCGANGenerator,
    ResNetDiscriminator,
    ResNetGenerator,
)

__all__ = [
    "MLP",
    "DCGANDiscriminator",
    "DCGANGenerator",
    "ResNetDiscriminator",
    "ResNetGenerator",
]
