"""How the shipped classifier of CIFAR-10 was made, called by `logitflow train classifier`."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from logitflow import zoo
from logitflow.data import images
from logitflow.metrics import Extractor, Judge, Reference, classifier_extractor, moments
from logitflow.metrics.images import evaluate_features, look
from logitflow.models.classifier import Classifier, whiten
from logitflow.processes import is_first
from logitflow.recipes.common import weights_from
from logitflow.training.classifier import train_classifier


def train_cifar10_classifier(
    folder: str | Path,
    *,
    num_epochs: int = 18,
    seed: int = 0,
    device: str = "cpu",
    say: Callable[[str], None] = lambda line: None,
    **card: Any,
) -> None:
    """Train a classifier on CIFAR-10 and write it with what it sees there; a killed run goes on where it was.

    Training on smoothed labels makes probabilities timid: the last layer is scaled until they are true of the
    test images (`calibrate_head`).

    The reference holds the moments of the training images' features, and the features of the test set's first
    half. The card tells the accuracy on the test set and the floor, the figures of real images: of the test
    set's second half, and of the whole where they need no features of the first.

    Args:
        folder: where the classifier goes, as `logitflow.zoo.save_classifier` lays it out.
        num_epochs: passes through the training images.
        seed: of the initial weights and the images' order.
        device: where to train.
        say: is told how training goes, a line an epoch.
        card: what else the card should say, such as the command.

    Raises:
        ValueError: the checkpoint is of another network.
        FloatingPointError: the loss is not finite.
        FileNotFoundError, ConnectionError: there is no data: `logitflow.data.images.cifar10` says what to do.
    """
    folder = Path(folder)
    train, test = images.cifar10("train"), images.cifar10("test")
    with weights_from(seed):
        network = Classifier(32)
    whiten(network, images.from_bytes(train.pixels[:5000]))
    network = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    train_classifier(
        network,
        train,
        num_epochs=num_epochs,
        seed=seed,
        checkpoint=folder / "checkpoint.safetensors",
        callback=lambda epoch, loss: say(f"epoch {epoch}/{num_epochs}: loss {loss:.3f}"),
    )
    if not is_first():
        return  # the first process does the rest
    _, logits = _look(test, classifier_extractor(network), device)
    temperature = calibrate_head(network.head, logits, test.labels)
    say(f"temperature {temperature:.3f}")
    round_weights(network)

    extractor = classifier_extractor(network)  # of the finished weights
    real = moments(_look(train, extractor, device)[0])
    features, logits = _look(test, extractor, device)
    half = len(features) // 2
    name = f"CIFAR-10: {len(train.pixels)} training images; for neighbours and kernel {half} test images"
    reference = Reference(name, real, features[:half].half().float())
    judge = Judge(extractor, reference)
    second_half = evaluate_features(features[half:], logits[half:], judge)
    whole = evaluate_features(features, logits, judge)
    for figure in ("kernel_distance", "precision", "recall"):
        del whole[figure]
    accuracy = float((logits.argmax(1) == test.labels).double().mean())
    say(
        f"test accuracy {accuracy:.2%}, Fréchet distance floor {second_half['frechet_distance']:.4g}"
    )
    figures = {"accuracy": accuracy, "temperature": temperature, "floor": [second_half, whole]}
    zoo.save_classifier(
        folder, network, reference, data=train.source, seed=seed, figures=figures, **card
    )


@torch.no_grad()
def calibrate_head(head: nn.Linear, logits: Tensor, labels: Tensor) -> float:
    """Scale a classifier's last layer in place until its probabilities fit the labels best (Guo et al. 2017).

    Args:
        head: the layer that makes logits of features.
        logits: what it makes of held-out images, (N, K).
        labels: their classes, (N,).

    Returns:
        The temperature by which the weights and shifts were divided, between 0.05 and 20.
    """
    from scipy.optimize import minimize_scalar  # slow to import, and needed only here

    def cross_entropy(log_temperature: float) -> float:
        return float(F.cross_entropy(logits.double() / math.exp(log_temperature), labels))

    bounds = (math.log(0.05), math.log(20))
    best: float = minimize_scalar(cross_entropy, bounds=bounds, method="bounded").x
    temperature = math.exp(best)
    for parameter in head.parameters():
        parameter.div_(temperature)
    return temperature


@torch.no_grad()
def round_weights(network: nn.Module) -> None:
    """Round matrices and kernels to half precision in place: the file is half as long, and exact."""
    for weight in network.parameters():
        if weight.ndim > 1:
            weight.copy_(weight.half())


def _look(data: images.Images, extractor: Extractor, device: str) -> tuple[Tensor, Tensor]:
    seen = [
        look(images.from_bytes(pixels.to(device)), extractor) for pixels in data.pixels.split(5000)
    ]
    logits = [scores for _, scores in seen if scores is not None]
    return torch.cat([features for features, _ in seen]), torch.cat(logits)
