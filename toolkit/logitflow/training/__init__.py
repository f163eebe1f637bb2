"""The few losses and loops that made the checkpoints; a killed run goes on where it stopped."""

from logitflow.training.classifier import accuracy, train_classifier
from logitflow.training.gan import LOSSES, Loss, gradient_penalty, train_gan

__all__ = ["LOSSES", "Loss", "accuracy", "gradient_penalty", "train_classifier", "train_gan"]
