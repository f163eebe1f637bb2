"""Measures of images against closed forms, hand counts and loops; what judges state, and what they refuse."""

import json
import math
import sys
import types
from urllib.error import URLError

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn

from logitflow import metrics
from logitflow.data.images import CIFAR10_CLASSES, to_bytes
from logitflow.metrics import images as images_module
from logitflow.models.classifier import Classifier


def normal(n, d, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=rng, dtype=torch.float64)


def pictures(n, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(n, 3, 32, 32, generator=rng) * 2 - 1


@pytest.fixture
def judge():
    """A small classifier with weights from a seed, and what it sees in noise."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = Classifier(4)
    return metrics.judge_against(
        pictures(20), metrics.classifier_extractor(network), name="20 of noise"
    )


# Fréchet distance


def test_frechet_distance_between_gaussians():
    """|μ₁−μ₂|² + tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½), the root by scipy."""
    features = normal(300, 6) @ normal(6, 6, seed=1) + 2
    root = normal(6, 6, seed=2)
    real = metrics.Moments(normal(1, 6, seed=3)[0], root @ root.T, 50_000)
    x = features.numpy()
    covariance = np.cov(x, rowvar=False)
    cross = scipy.linalg.sqrtm(covariance @ real.covariance.numpy()).real
    expected = ((x.mean(0) - real.mean.numpy()) ** 2).sum() + np.trace(
        covariance + real.covariance.numpy() - 2 * cross
    )
    assert metrics.frechet_distance(features, real) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_on_the_line():
    """(μ₁−μ₂)² + (σ₁−σ₂)² for one feature: means 1 and 4, variances 2 and 8."""
    real = metrics.Moments(torch.tensor([4.0]), torch.tensor([[8.0]]), 100)
    value = metrics.frechet_distance(torch.tensor([[0.0], [2.0]]), real)
    assert value == pytest.approx(9 + 2, rel=1e-12)


def test_frechet_distance_of_a_shifted_copy_is_the_shift_squared():
    features = normal(200, 4)
    real = metrics.moments(features)
    assert metrics.frechet_distance(features, real) == pytest.approx(0, abs=1e-9)
    shift = torch.tensor([1.0, 0.0, 2.0, 0.0])
    assert metrics.frechet_distance(features + shift, real) == pytest.approx(5, rel=1e-9)


# kernel distance


def test_kernel_distance_is_the_unbiased_estimate():
    x, y = normal(7, 3), normal(7, 3, seed=1) + 1

    def mean(a, b, same):
        pairs = [(i, j) for i in range(7) for j in range(7) if not (same and i == j)]
        return sum(float(a[i] @ b[j] / 3 + 1) ** 3 for i, j in pairs) / len(pairs)

    expected = mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)
    # one subset of everything; torchmetrics' arithmetic is single precision
    assert metrics.kernel_distance(x, y, num_subsets=1) == pytest.approx(expected, rel=1e-5)


def test_kernel_distance_of_one_law_is_zero_and_of_a_shift_is_not():
    """E = 0 for one law: the mean of 8 stays within 4 of its standard errors."""
    values = [
        metrics.kernel_distance(normal(400, 8, seed=i), normal(400, 8, seed=100 + i), 5, 200)
        for i in range(8)
    ]
    assert abs(np.mean(values)) < 4 * np.std(values, ddof=1) / math.sqrt(8)
    shifted = metrics.kernel_distance(normal(400, 8) + 0.5, normal(400, 8, seed=100), 5, 200)
    assert shifted > 10 * np.abs(values).max()


# inception score and classes


def test_inception_score_by_hand():
    """Means of 0.9·ln(0.9/0.5) + 0.1·ln(0.1/0.5), for two sure the one way and the other."""
    logits = torch.tensor([[0.9, 0.1], [0.1, 0.9]], dtype=torch.float64).log()
    expected = math.exp(0.9 * math.log(1.8) + 0.1 * math.log(0.2))
    assert metrics.inception_score(logits) == pytest.approx(expected, rel=1e-12)


def test_inception_score_lies_between_one_and_the_number_of_classes():
    assert metrics.inception_score(normal(1, 7).expand(50, 7)) == pytest.approx(1, rel=1e-12)
    assert metrics.inception_score(1e4 * torch.eye(7).repeat(3, 1)) == pytest.approx(7, rel=1e-12)
    # all surely of one class: the others' mean probability is zero
    assert metrics.inception_score(1e4 * torch.eye(7)[:1].repeat(5, 1)) == pytest.approx(1)
    assert 1 < metrics.inception_score(normal(50, 7)) < 7


def test_class_histogram_by_hand():
    logits = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.1, 0.7], [0.6, 0.4, 1e-30]]).log()
    probabilities, counts = metrics.class_histogram(logits)
    expected = torch.tensor([1.3, 0.8, 0.9], dtype=torch.float64) / 3
    torch.testing.assert_close(probabilities, expected, rtol=1e-6, atol=1e-6)
    assert counts.tolist() == [2, 0, 1]


# precision and recall


def test_precision_and_recall_by_hand():
    """On the line: real balls are 0±3, 1±2, 2±2 and 3±3 and reach 6; the images' reach everything."""
    real = torch.tensor([0.0, 1.0, 2.0, 3.0])[:, None]
    x = torch.tensor([-3.5, 1.0, 5.5, 10.0])[:, None]
    assert metrics.precision_recall(x, real) == (0.5, 1.0)
    assert metrics.precision_recall(real, x) == (1.0, 0.5)


def test_precision_and_recall_of_a_shifted_copy():
    x = normal(60, 3)
    assert metrics.precision_recall(x, x) == (1.0, 1.0)
    assert metrics.precision_recall(x + 100, x) == (0.0, 0.0)
    near = metrics.precision_recall(x + 1, x)
    assert 0 < near[0] < 1
    assert 0 < near[1] < 1


def test_a_missed_mode_costs_recall_and_no_precision():
    """A second mode, out of reach, changes no ball of the first; its half of the real ones is missed."""
    x, one, other = normal(200, 2), normal(200, 2, seed=1), normal(200, 2, seed=2) + 50
    precision, recall = metrics.precision_recall(x, one)
    assert metrics.precision_recall(x, torch.cat([one, other])) == (precision, recall / 2)


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_precision_and_recall_against_loops_in_any_chunks(rows):
    x, y = normal(30, 2) * 1.3 + 0.4, normal(25, 2, seed=1)

    def share(a, b):
        radii = [sorted((p - q).norm() for q in b)[3] for p in b]  # [0] is p itself
        return sum(
            any((p - q).norm() <= r for q, r in zip(b, radii, strict=True)) for p in a
        ) / len(a)

    expected = share(x, y), share(y, x)
    assert metrics.precision_recall(x, y, rows_per_chunk=rows) == pytest.approx(expected)


# judges


def test_evaluation_is_the_figures_of_one_pass_and_states_its_terms(judge):
    x = pictures(9, seed=1)
    figures = metrics.evaluate_images(x, judge)
    assert (figures["n"], figures["extractor"]) == (9, "CIFAR classifier")
    assert figures["reference"] == "20 of noise"
    features, logits = images_module.look(x, judge.extractor)
    real = judge.reference
    assert figures["frechet_distance"] == metrics.frechet_distance(features, real.moments)
    assert figures["kernel_distance"] == metrics.kernel_distance(features, real.features)
    assert figures["inception_score"] == metrics.inception_score(logits)
    both = (figures["precision"], figures["recall"])
    assert both == metrics.precision_recall(features, real.features)
    assert tuple(figures["class_counts"]) == CIFAR10_CLASSES
    assert sum(figures["class_counts"].values()) == 9
    assert sum(figures["class_probabilities"].values()) == pytest.approx(1)
    assert json.loads(json.dumps(figures)) == figures


def test_one_pass(judge, monkeypatch):
    monkeypatch.setattr(images_module, "BATCH", 4)
    seen = []

    def extract(x):
        seen.append(len(x))
        return judge.extractor.extract(x)

    counted = judge._replace(extractor=judge.extractor._replace(extract=extract))
    x = pictures(10, seed=1)
    figures = metrics.evaluate_images(x, counted)
    assert seen == [4, 4, 2]
    monkeypatch.undo()
    whole = metrics.evaluate_images(x, judge)
    assert figures["frechet_distance"] == pytest.approx(whole["frechet_distance"], rel=1e-3)


def test_labels_never_say_fid_of_another_network():
    assert metrics.label("frechet_distance", "CIFAR classifier") == (
        "Fréchet distance (CIFAR classifier)"
    )
    assert metrics.label("kernel_distance", "Flatten") == "kernel distance (Flatten)"
    assert metrics.label("precision", "CIFAR classifier") == "precision (CIFAR classifier)"
    assert metrics.label("frechet_distance", "Inception") == "FID"
    assert metrics.label("kernel_distance", "Inception") == "KID"
    assert metrics.label("inception_score", "Inception") == "inception score"


def test_any_module_judges_by_its_features_alone():
    judge = metrics.judge_against(
        pictures(40), nn.Sequential(nn.AvgPool2d(16), nn.Flatten()), name="noise"
    )
    figures = metrics.evaluate_images(pictures(30, seed=1), judge)
    assert figures["extractor"] == "Sequential"
    assert "inception_score" not in figures
    assert "class_counts" not in figures
    assert math.isfinite(figures["frechet_distance"])


def test_the_callers_network_and_generators_are_untouched():
    network = Classifier(4).train()
    before = {name: t.clone() for name, t in network.state_dict().items()}
    torch_state = torch.get_rng_state()
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002
    judge = metrics.judge_against(pictures(8), metrics.classifier_extractor(network), name="noise")
    first = metrics.evaluate_images(pictures(8, seed=1), judge)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    assert network.training
    assert all(p.requires_grad for p in network.parameters())
    assert all(torch.equal(t, before[name]) for name, t in network.state_dict().items())
    nn.init.zeros_(network.head.weight)  # nor does the judge see what becomes of it
    assert metrics.evaluate_images(pictures(8, seed=1), judge) == first


def test_the_inception_network_gets_bytes_and_gives_logits(monkeypatch):
    """A stand-in for torch-fidelity's network, which is not here: 12 features, 5 classes."""

    class Stub(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(12, 5)
            self.use_antialias = True

        def forward(self, x):
            assert x.dtype == torch.uint8
            return nn.functional.adaptive_avg_pool2d(x.float(), 2).flatten(1)

    stub = Stub()
    monkeypatch.setattr(
        "torchmetrics.image.fid.FrechetInceptionDistance",
        lambda feature: types.SimpleNamespace(inception=stub),
    )
    extractor = metrics.inception_extractor()
    assert extractor.name == "Inception"
    assert stub.use_antialias is False
    x = pictures(4)
    features, logits = images_module.look(x, extractor)
    torch.testing.assert_close(features, stub(to_bytes(x)))
    torch.testing.assert_close(logits, stub.fc(features) - stub.fc.bias)


def test_a_missing_inception_network_says_what_to_install(monkeypatch):
    monkeypatch.setattr("torchmetrics.image.fid._TORCH_FIDELITY_AVAILABLE", False)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'logitflow\[fid\]'"):
        metrics.judge_against(pictures(8), "inception", name="noise")
    assert "torch_fidelity" not in sys.modules


def test_an_inception_network_out_of_reach_is_a_sentence(monkeypatch):
    def unreachable(feature):
        raise URLError("no network")

    monkeypatch.setattr("torchmetrics.image.fid.FrechetInceptionDistance", unreachable)
    with pytest.raises(ConnectionError, match="weights cannot be fetched"):
        metrics.inception_extractor()


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (to_bytes(pictures(5)), TypeError, "not torch.uint8: .*from_bytes"),
        (pictures(5).numpy(), TypeError, "not ndarray"),
        (pictures(5)[0], ValueError, r"shape \(N, 3, H, W\), not \(3, 32, 32\)"),
        (pictures(5)[:, :1], ValueError, r"shape \(N, 3, H, W\)"),
        (pictures(5)[:, :, ::2], ValueError, r"32×32 pixels, not \(16, 32\)"),
        (pictures(3), ValueError, "x holds 3 images: pass at least 4"),
        (pictures(0), ValueError, "x holds 0 images"),
        (pictures(5) * 127.5, ValueError, "values from -127.5 to 127.5: images are in"),
        (pictures(5) * math.nan, ValueError, "values from nan to nan"),
        (pictures(5) / 2 + 0.5, ValueError, r"not \[0, 1\]"),
    ],
)
def test_what_is_no_set_of_images_is_refused(judge, x, error, message):
    with pytest.raises(error, match=message):
        metrics.evaluate_images(x, judge)


def test_features_that_do_not_fit_are_refused():
    x = normal(10, 4)
    with pytest.raises(ValueError, match="4 numbers and the reference 3"):
        metrics.frechet_distance(x, metrics.moments(normal(10, 3)))
    with pytest.raises(ValueError, match="holds 1 rows: pass at least 2"):
        metrics.moments(x[:1])
    with pytest.raises(ValueError, match="holds 3 rows: pass at least 4"):
        metrics.precision_recall(x, x[:3])
    with pytest.raises(ValueError, match="compare points of the same space"):
        metrics.kernel_distance(x, normal(10, 5))
    with pytest.raises(ValueError, match="there is no extractor 'resnet'"):
        metrics.judge_against(pictures(8), "resnet", name="noise")
