"""Measures of images by their features, (N, d), and their classes' log probabilities, (N, K).

Fréchet distance, kernel distance and inception score are torchmetrics', fed with what is given; they become
the FID, the KID and the IS only with the Inception network's features. The Fréchet distance falls as N grows:
compare figures of one extractor, one reference and one N.

Those three take `together=True` where each of several processes (see `logitflow.processes`) holds a part of the
images' features, the parts in the order of the processes: torchmetrics then adds up what all of them have.
"""

import contextlib
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from logitflow.processes import gathered, is_first, part

from . import _checks

NEIGHBOURS = 3  # of improved precision and recall, as in Kynkäänniemi et al. 2019


class Moments(NamedTuple):
    """A Gaussian fitted to the features of n images, in double precision."""

    mean: Tensor  # (d,)
    covariance: Tensor  # (d, d), unbiased
    n: int


def moments(features: Tensor) -> Moments:
    """Mean and unbiased covariance of features (N, d).

    Raises:
        ValueError: there are fewer than two, or one is not finite.
    """
    features = _enough(features, "features", 2)
    return Moments(features.mean(dim=0), features.T.cov(), len(features))


def frechet_distance(features: Tensor, real: Moments, *, together: bool = False) -> float:
    """|μ − μ_r|² + tr(Σ + Σ_r − 2 (Σ Σ_r)^½) of Gaussians fitted to both (Heusel et al. 2017, eq. 6).

    Args:
        features: of the images to be judged, shape (N, d).
        real: of the reference images.
        together: whether other processes hold further images' features.

    Raises:
        ValueError: fewer than two features, another d, or NaN.
    """
    # torchmetrics takes a while to import, and the toolkit's other rooms do not need it
    from torchmetrics.image.fid import FrechetInceptionDistance

    features = _enough(features, "features", 2)
    mean, covariance, n = real
    if covariance.shape != (features.shape[1], features.shape[1]):
        raise ValueError(
            f"the features have {features.shape[1]} numbers and the reference {len(mean)}: "
            "both must come from one extractor."
        )
    metric = FrechetInceptionDistance(_Given(features.shape[1]), sync_on_compute=together)
    metric.update(features.cpu(), real=False)
    if is_first() or not together:  # real images count once
        # the reference's sums, as update(…, real=True) would have left them
        mean, covariance = mean.cpu().double(), covariance.cpu().double()
        metric.real_features_sum = n * mean
        metric.real_features_cov_sum = (n - 1) * covariance + n * mean.outer(mean)
        metric.real_features_num_samples = torch.tensor(n)
    return float(metric.compute())


def kernel_distance(
    features: Tensor,
    real: Tensor,
    num_subsets: int = 100,
    subset_size: int = 1000,
    *,
    together: bool = False,
) -> float:
    """Squared maximum mean discrepancy with the kernel (a·b/d + 1)³ (Bińkowski et al. 2018, section 4).

    The mean of unbiased estimates over random subsets, the same at every call; near zero, of either sign, where
    both sets come from one law.

    Args:
        features: of the images to be judged, shape (N, d).
        real: of the reference images, shape (M, d).
        num_subsets: estimates taken.
        subset_size: features of each set an estimate; at most what there are.
        together: whether other processes hold further images' features.

    Raises:
        ValueError: fewer than two features in a set, different d, or NaN.
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    features, real = _checks.pair(features, real, ("features", "real"))
    n = len(_enough(features, "features", 2))
    n = sum(gathered([n])) if together else n
    size = min(subset_size, n, len(_enough(real, "real", 2)))
    with _seeded_and_quiet():
        metric = KernelInceptionDistance(
            _Given(features.shape[1]),
            subsets=num_subsets,
            subset_size=size,
            sync_on_compute=together,
        )
        metric.update(features.cpu().float(), real=False)
        metric.update((part(real) if together else real).cpu().float(), real=True)
        return float(metric.compute()[0])


def inception_score(logits: Tensor, *, together: bool = False) -> float:
    """exp E KL(p(y|x) ‖ p(y)): from 1 to K (Salimans et al. 2016, section 4).

    Over all images in one group, where the papers average ten groups of 5,000.

    Args:
        logits: the classes' unnormalised log probabilities, shape (N, K).
        together: whether other processes hold further images' logits.

    Raises:
        ValueError: there is none, or one is not finite.
    """
    from torchmetrics.image.inception import InceptionScore

    # below e^-700 a mean probability would round to zero, and 0 · log 0 to NaN
    logits = _checks.samples(logits, "logits").log_softmax(dim=1).clamp(min=-700)
    with _seeded_and_quiet():
        metric = InceptionScore(_Given(logits.shape[1]), splits=1, sync_on_compute=together)
        metric.update(logits.cpu())
        return float(metric.compute()[0])


def precision_recall(
    features: Tensor, real: Tensor, rows_per_chunk: int = 1000
) -> tuple[float, float]:
    """Improved precision and recall (Kynkäänniemi et al. 2019, eq. 1–2), with k = 3 neighbours.

    A set's manifold is the union of balls around its features that just reach the third nearest of the others.
    Precision is the share of images in the real manifold, recall the share of real ones in the images'.
    Memory is that of `rows_per_chunk` · max(N, M) distances.

    Args:
        features: of the images to be judged, shape (N, d).
        real: of the reference images, shape (M, d).
        rows_per_chunk: rows of the matrix of distances held at a time.

    Raises:
        ValueError: fewer than four features in a set, different d, or NaN.
    """
    features, real = _checks.pair(features, real, ("features", "real"))
    _enough(features, "features", NEIGHBOURS + 1)
    _enough(real, "real", NEIGHBOURS + 1)
    centre = real.mean(dim=0)  # distances by matrix products lose digits far from the origin
    features, real = features - centre, real - centre

    def share_inside(x: Tensor, y: Tensor) -> float:
        radii = torch.cat(
            # of k + 1 smallest distances, the first is that to itself
            [
                torch.cdist(rows, y).kthvalue(NEIGHBOURS + 1).values
                for rows in y.split(rows_per_chunk)
            ]
        )
        inside = [(torch.cdist(rows, y) <= radii).any(dim=1) for rows in x.split(rows_per_chunk)]
        return float(torch.cat(inside).double().mean())

    return share_inside(features, real), share_inside(real, features)


def class_histogram(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Mean predicted probability of each class and how many images it is the likeliest for: (K,), (K,).

    Args:
        logits: the classes' unnormalised log probabilities, shape (N, K).

    Raises:
        ValueError: there is none, or one is not finite.
    """
    logits = _checks.samples(logits, "logits")
    counts = logits.argmax(dim=1).bincount(minlength=logits.shape[1])
    return logits.softmax(dim=1).mean(dim=0), counts


class _Given(nn.Module):
    """torchmetrics asks for a network that makes features; ours are made already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


@contextlib.contextmanager
def _seeded_and_quiet() -> Iterator[None]:
    """torchmetrics shuffles by the global generator, which is put back, and warns of its memory and splits."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        torch.default_generator.manual_seed(0)
        warnings.simplefilter("ignore", UserWarning)
        yield


def _enough(features: Tensor, name: str, least: int) -> Tensor:
    features = _checks.samples(features, name)
    if len(features) < least:
        raise ValueError(f"{name} holds {len(features)} rows: pass at least {least}.")
    return features
