"""Data of the experiments: two-dimensional toys, whose densities are known or nearly so, images and text."""

from logitflow.data.images import CIFAR10_CLASSES, Images, cifar10, stl10
from logitflow.data.text import (
    CHARACTERS,
    Text,
    Windows,
    billion_words,
    decode,
    encode,
    one_hot,
    windows,
)
from logitflow.data.toys import LabelledSample, Mixture, Sample, swiss_roll, twenty_five_gaussians

__all__ = [
    "CHARACTERS",
    "CIFAR10_CLASSES",
    "Images",
    "LabelledSample",
    "Mixture",
    "Sample",
    "Text",
    "Windows",
    "billion_words",
    "cifar10",
    "decode",
    "encode",
    "one_hot",
    "stl10",
    "swiss_roll",
    "twenty_five_gaussians",
    "windows",
]
