"""How good images are in the eyes of a judge: an extractor of features and classes, and real images' features.

    evaluate_images(x)  # by our classifier; needs no data set
    evaluate_images(x, judge_against(real, "inception", name="…"))  # FID, KID, IS; needs logitflow[fid]

Our classifier's figures are called "Fréchet distance (CIFAR classifier)" and the like: no other judge's compare
with them. The Inception network's alone are called FID, KID and IS.
"""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from logitflow import processes
from logitflow.data.images import CIFAR10_CLASSES, to_bytes
from logitflow.metrics import features as measures
from logitflow.metrics.features import NEIGHBOURS, Moments
from logitflow.progress import progress

BATCH = 250  # images that an extractor sees at once


class Extractor(NamedTuple):
    """What looks at images."""

    name: str  # stated beside every figure
    extract: Callable[
        [Tensor], tuple[Tensor, Tensor | None]
    ]  # images → features (N, d), logits (N, K)
    classes: tuple[str, ...] | None = None  # the logits' names, from a classifier


class Reference(NamedTuple):
    """What real images look like to one extractor."""

    name: str  # stated beside every figure
    moments: Moments  # for the Fréchet distance
    features: Tensor  # (M, d), for kernel distance, precision and recall


class Judge(NamedTuple):
    """An extractor and the real images that it compares with."""

    extractor: Extractor
    reference: Reference


def evaluate_images(x: Tensor, judge: Judge | None = None) -> dict[str, Any]:
    """Every figure of a set of images, from one pass through the judge's extractor.

    Under `torchrun` each process looks at its part of the images, and all return the same figures.

    Args:
        x: images, shape (N, 3, H, W), in [−1, 1]; all of them in every process.
        judge: who looks and compares; None for our CIFAR-10 classifier and CIFAR-10.

    Returns:
        A dict that JSON can hold: "n", "extractor" and "reference", which belong beside every figure;
        "frechet_distance", "kernel_distance", "precision" and "recall"; from a classifier also
        "inception_score", "class_probabilities" (mean of each) and "class_counts" (of the likeliest), by name.

    Raises:
        TypeError, ValueError: x holds no images in [−1, 1], or fewer than four.
    """
    several = processes.world_size()
    check_images(x, least=max(NEIGHBOURS + 1, 2 * several))
    judge = judge or shipped_judge()
    return evaluate_features(*look(processes.part(x), judge.extractor), judge, together=several > 1)


def evaluate_features(
    features: Tensor, logits: Tensor | None, judge: Judge, *, together: bool = False
) -> dict[str, Any]:
    """What `evaluate_images` returns, from what `look` saw: for subsets without another pass.

    With `together`, each of several processes passes what it saw of its part, and all get the figures of all.
    """
    extractor, reference = judge
    seen, scores = features, logits  # by all processes
    if together:
        seen = torch.cat(processes.gathered([features]))
        scores = None if logits is None else torch.cat(processes.gathered([logits]))
    precision, recall = measures.precision_recall(seen, reference.features)
    figures: dict[str, Any] = {
        "n": len(seen),
        "extractor": extractor.name,
        "reference": reference.name,
        "frechet_distance": measures.frechet_distance(
            features, reference.moments, together=together
        ),
        "kernel_distance": measures.kernel_distance(
            features, reference.features, together=together
        ),
        "precision": precision,
        "recall": recall,
    }
    if logits is not None:
        figures["inception_score"] = measures.inception_score(logits, together=together)
    if scores is not None and extractor.classes is not None:
        probabilities, counts = measures.class_histogram(scores)
        figures["class_probabilities"] = dict(
            zip(extractor.classes, probabilities.tolist(), strict=True)
        )
        figures["class_counts"] = dict(zip(extractor.classes, counts.tolist(), strict=True))
    return figures


def label(figure: str, extractor: str) -> str:
    """A figure's name in a table, such as "Fréchet distance (CIFAR classifier)".

    Args:
        figure: a key of `evaluate_images`.
        extractor: its "extractor".
    """
    name = {
        "frechet_distance": "Fréchet distance",
        "kernel_distance": "kernel distance",
        "inception_score": "inception score",
    }.get(figure, figure.replace("_", " "))
    if extractor == "Inception":
        return {"frechet_distance": "FID", "kernel_distance": "KID"}.get(figure, name)
    return f"{name} ({extractor})"


def shipped_judge() -> Judge:
    """Our CIFAR-10 classifier and what it saw in CIFAR-10."""
    from logitflow import zoo  # which knows `Reference`

    classifier = zoo.load_classifier()
    return Judge(classifier_extractor(classifier.network), classifier.reference)


def judge_against(real: Tensor, extractor: Extractor | nn.Module | str, *, name: str) -> Judge:
    """A judge of one's own, which compares with the real images given.

    Args:
        real: images, shape (M, 3, H, W), in [−1, 1].
        extractor: any module that maps images to features (N, d), of which a copy in eval mode is kept;
            "inception" for the network of the FID; or an `Extractor`, as `classifier_extractor` makes one.
        name: what the real images are, for `Reference.name`.

    Raises:
        ModuleNotFoundError: "inception" needs the extra `logitflow[fid]`.
        TypeError, ValueError: `real` holds no images in [−1, 1], or fewer than four.
    """
    check_images(real, "real", least=NEIGHBOURS + 1)
    if isinstance(extractor, str):
        if extractor != "inception":
            raise ValueError(f"there is no extractor {extractor!r}: pass 'inception' or a module.")
        extractor = inception_extractor()
    elif isinstance(extractor, nn.Module):
        extractor = module_extractor(extractor)
    features, _ = look(real, extractor)
    return Judge(extractor, Reference(name, measures.moments(features), features))


def classifier_extractor(
    network: nn.Module,
    name: str = "CIFAR classifier",
    classes: tuple[str, ...] | None = CIFAR10_CLASSES,
) -> Extractor:
    """Features and logits from a copy in eval mode of a network with `features` and `head`, as our own."""
    network = _frozen(network)

    def extract(x: Tensor) -> tuple[Tensor, Tensor]:
        if x.shape[2:] != (32, 32):
            raise ValueError(f"the classifier looks at 32×32 pixels, not {tuple(x.shape[2:])}.")
        features = network.to(x.device).features(x)  # type: ignore[operator]
        return features, network.head(features)  # type: ignore[operator]

    return Extractor(name, extract, classes)


def module_extractor(network: nn.Module, name: str | None = None) -> Extractor:
    """Features alone, (N, d), from a copy in eval mode of any module; named by its class if None."""
    network = _frozen(network)
    return Extractor(name or type(network).__name__, lambda x: (network.to(x.device)(x), None))


def inception_extractor() -> Extractor:
    """The Inception network of the FID through torch-fidelity, which fetches its weights on first use.

    Raises:
        ModuleNotFoundError: the extra is not installed.
        ConnectionError: the weights are not here and there is no network.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    try:
        network = FrechetInceptionDistance(2048).inception
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the Inception network needs torch-fidelity: pip install 'logitflow[fid]'."
        ) from error
    except OSError as error:  # urllib's, of no network
        raise ConnectionError(
            "the Inception network's weights cannot be fetched: connect to the network once, or judge by our "
            "classifier."
        ) from error
    network.use_antialias = False  # type: ignore[assignment]  # images resized as the FID's authors do

    def extract(x: Tensor) -> tuple[Tensor, Tensor]:
        features = network.to(x.device)(to_bytes(x))
        return features, features @ network.fc.weight.T  # type: ignore[union-attr]

    return Extractor("Inception", extract)


@torch.no_grad()
def look(x: Tensor, extractor: Extractor) -> tuple[Tensor, Tensor | None]:
    """Features (N, d) and, from a classifier, logits (N, K) of images, on the CPU in float32."""
    seen = []
    with progress(total=len(x), desc="judge images", unit="image") as bar:
        for batch in x.split(BATCH):
            seen.append(extractor.extract(batch.float()))
            bar.update(len(batch))
    features = torch.cat([f.flatten(1).float().cpu() for f, _ in seen])
    logits = [scores.float().cpu() for _, scores in seen if scores is not None]
    return features, torch.cat(logits) if logits else None


def check_images(x: Tensor, name: str = "x", least: int = 1) -> None:
    """Refuse what is not a set of images (N, 3, H, W) in [−1, 1] by a sentence.

    Raises:
        TypeError, ValueError: what is wrong with x and what to do.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(
            f"{name} must be a tensor of floats in [−1, 1], not {kind}: "
            "logitflow.data.images.from_bytes makes them of bytes."
        )
    if x.ndim != 4 or x.shape[1] != 3:
        raise ValueError(f"{name} must have shape (N, 3, H, W), not {tuple(x.shape)}.")
    if len(x) < least:
        raise ValueError(f"{name} holds {len(x)} images: pass at least {least}.")
    low, high = (float(value) for value in x.aminmax())
    if not (low > -1.001 and high < 1.001):  # NaN fails this too
        raise ValueError(
            f"{name} holds values from {low:.4g} to {high:.4g}: images are in [−1, 1]. Scale them by "
            "logitflow.data.images.from_bytes, or clamp what a sampler in pixel space moved outside."
        )
    if low >= 0 and high > 0:
        raise ValueError(
            f"{name} holds no value below 0: images are in [−1, 1], not [0, 1]; use 2 * {name} - 1."
        )


def _frozen(network: nn.Module) -> nn.Module:
    network = copy.deepcopy(network).eval().requires_grad_(False)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
