"""How the shipped networks were made: one function a family, called by `logitflow train`."""

from logitflow.recipes.beyond import MODELS, train_beyond
from logitflow.recipes.beyond_images import FIT_STEPS, IMAGE_MODELS, train_beyond_images
from logitflow.recipes.classifier import train_cifar10_classifier
from logitflow.recipes.images import PRESETS, train_cifar10
from logitflow.recipes.pupil import train_pupil
from logitflow.recipes.text import PRESETS as TEXT_PRESETS
from logitflow.recipes.text import train_text
from logitflow.recipes.toys import DATA_SETS, Toy, networks, toy, train_toy

__all__ = [
    "DATA_SETS",
    "FIT_STEPS",
    "IMAGE_MODELS",
    "MODELS",
    "PRESETS",
    "TEXT_PRESETS",
    "Toy",
    "networks",
    "toy",
    "train_beyond",
    "train_beyond_images",
    "train_cifar10",
    "train_cifar10_classifier",
    "train_pupil",
    "train_text",
    "train_toy",
]
