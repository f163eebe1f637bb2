"""Networks and nothing else.

Each keeps what it was made with as `settings`, so that a card can describe it.
"""

from logitflow.models.flow import RealNVP
from logitflow.models.flow_images import ImageFlow
from logitflow.models.mlp import MLP
from logitflow.models.sngan import (
    DCGANDiscriminator,
    DCGANGenerator,
    ResNetDiscriminator,
    ResNetGenerator,
)
from logitflow.models.vae import GaussianDecoder, GaussianEncoder, ImageDecoder, ImageEncoder
from logitflow.models.wgan_text import TextCritic, TextGenerator

__all__ = [
    "MLP",
    "DCGANDiscriminator",
    "DCGANGenerator",
    "GaussianDecoder",
    "GaussianEncoder",
    "ImageDecoder",
    "ImageEncoder",
    "ImageFlow",
    "RealNVP",
    "ResNetDiscriminator",
    "ResNetGenerator",
    "TextCritic",
    "TextGenerator",
]
