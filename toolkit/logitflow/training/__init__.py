"""The few losses and loops that made the checkpoints; a killed run goes on where it stopped."""

from logitflow.training.classifier import accuracy, train_classifier
from logitflow.training.gan import LOSSES, Loss, gradient_penalty, score_real, train_gan
from logitflow.training.likelihood import dequantised, elbo, gaussian_kl, train_likelihood
from logitflow.training.mmd import mmd_squared, train_mmd_gan, witness_penalty

__all__ = [
    "LOSSES",
    "Loss",
    "accuracy",
    "dequantised",
    "elbo",
    "gaussian_kl",
    "gradient_penalty",
    "mmd_squared",
    "score_real",
    "train_classifier",
    "train_gan",
    "train_likelihood",
    "train_mmd_gan",
    "witness_penalty",
]
