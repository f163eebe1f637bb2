"""Data of the experiments: two-dimensional toys, whose densities are known or nearly so, and images."""

from logitflow.data.images import CIFAR10_CLASSES, Images, cifar10, stl10
from logitflow.data.toys import Mixture, Sample, swiss_roll, twenty_five_gaussians

__all__ = [
    "CIFAR10_CLASSES",
    "Images",
    "Mixture",
    "Sample",
    "cifar10",
    "stl10",
    "swiss_roll",
    "twenty_five_gaussians",
]
