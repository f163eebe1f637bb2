"""The zoo: what is saved comes back, and what is damaged is refused by a sentence."""

import json
import math
import os
import shutil

import pytest
import torch
from safetensors.torch import load, save
from torch.distributions import Laplace, Normal, Uniform

from logitflow import cards, metrics, zoo
from logitflow.data.images import Images, cifar10, from_bytes
from logitflow.models import MLP
from logitflow.models.classifier import Classifier
from logitflow.recipes import train_cifar10_classifier
from logitflow.recipes.classifier import calibrate_head
from logitflow.training.classifier import accuracy

LATENTS = torch.linspace(-0.9, 0.9, 8).view(4, 2)


@pytest.fixture
def folder(tmp_path):
    """A small saved pair."""
    rng = torch.Generator().manual_seed(0)
    networks = {
        "generator": MLP([2, 8, 3]),
        "discriminator": MLP([3, 8, 1]),
        "fitted": MLP([3, 4, 1]),
    }
    for network in networks.values():
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, generator=rng)
    prior = Uniform(-torch.ones(2), torch.ones(2))
    zoo.save(tmp_path / "pair", networks, prior, command="none", seed=3, figures={"a": 1.5})
    return tmp_path / "pair"


def rewrite_card(folder, change):
    path = folder / "card.json"
    card = json.loads(path.read_text())
    change(card)
    path.write_text(json.dumps(card))


def test_round_trip(folder, tmp_path):
    pair = zoo.load(folder)
    zoo.save(
        tmp_path / "again",
        {"generator": pair.generator, "discriminator": pair.discriminator},
        pair.prior,
    )
    again = zoo.load(tmp_path / "again")
    assert torch.equal(pair.generator(LATENTS), again.generator(LATENTS))
    assert again.fitted is None
    assert pair.fitted is not None
    assert pair.card["seed"] == 3
    assert pair.card["figures"] == {"a": 1.5}
    assert isinstance(pair.prior, Uniform)
    assert not pair.generator.training
    assert torch.equal(pair.prior.low, -torch.ones(2))


def test_normal_prior_round_trip(folder, tmp_path):
    pair = zoo.load(folder)
    networks = {"generator": pair.generator, "discriminator": pair.discriminator}
    zoo.save(tmp_path / "normal", networks, Normal(torch.zeros(2), 2.0))
    prior = zoo.load(tmp_path / "normal").prior
    assert isinstance(prior, Normal)
    assert torch.equal(prior.scale, torch.full((2,), 2.0))


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_truncated_file(folder, keep):
    path = folder / "generator.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="checksum"):
        zoo.load(folder)


def test_one_flipped_bit(folder):
    path = folder / "fitted.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"fitted\.safetensors does not match its card's checksum"):
        zoo.load(folder)


@pytest.mark.parametrize("damage", ["missing", "misshapen", "not safetensors"])
def test_wrong_tensors_under_a_right_checksum(folder, damage):
    path = folder / "discriminator.safetensors"
    tensors = load(path.read_bytes())
    if damage == "missing":
        del tensors["layers.0.bias"]
    tensors["layers.2.weight"] = torch.zeros(5, 5)
    data = b"nonsense" if damage == "not safetensors" else save(tensors)
    path.write_bytes(data)
    rewrite_card(
        folder, lambda card: card["networks"]["discriminator"].update(sha256=cards.sha256(data))
    )
    with pytest.raises(ValueError, match="does not hold the tensors that its card describes"):
        zoo.load(folder)


def test_missing_file(folder):
    (folder / "generator.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"generator\.safetensors is missing"):
        zoo.load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda card: card.pop("networks"), "is not a card"),
        (lambda card: card.pop("prior"), "is not a card"),
        (lambda card: card["networks"].pop("generator"), "describes no generator"),
        (
            lambda card: card["networks"]["generator"].update(network="os.system"),
            "names a network 'os.system'",
        ),
        (lambda card: card["prior"].update(kind="pickle"), "names a prior 'pickle'"),
        (
            lambda card: card["networks"]["generator"].update(sizes=[2, 9, 3]),
            "does not hold the tensors",
        ),
    ],
)
def test_wrong_card(folder, change, message):
    rewrite_card(folder, change)
    with pytest.raises(ValueError, match=message):
        zoo.load(folder)


def test_card_that_is_no_json(folder):
    (folder / "card.json").write_text("{")
    with pytest.raises(ValueError, match="is not a card"):
        zoo.load(folder)


def test_unknown_name_lists_the_known():
    with pytest.raises(FileNotFoundError, match="25gaussians-wgan-gp"):
        zoo.load("26gaussians")


def test_what_a_card_cannot_describe(folder, tmp_path):
    pair = zoo.load(folder)
    networks = {"generator": pair.generator, "discriminator": pair.discriminator}
    with pytest.raises(ValueError, match="cannot describe the prior"):
        zoo.save(tmp_path / "new", networks, Laplace(torch.zeros(2), 1.0))
    with pytest.raises(ValueError, match=r"is a Linear: the zoo holds MLP, .* only"):
        zoo.save(tmp_path / "new", {"generator": torch.nn.Linear(2, 2)}, pair.prior)
    assert not (tmp_path / "new" / "card.json").exists()


@pytest.mark.parametrize("name", zoo.names())
def test_shipped_pairs_load_and_match_their_cards(name):
    pair = zoo.load(name)
    x = pair.generator(pair.prior.mean[None])
    assert x.shape in ((1, 2), (1, 3, 32, 32), (1, 32, 96))
    assert pair.discriminator(x).numel() == 1
    assert pair.card["command"].startswith("logitflow train")
    assert {"seed", "figures", "hardware", "data"} <= set(pair.card)


def test_loading_a_copy_elsewhere(tmp_path):
    name = zoo.names()[0]
    shutil.copytree(zoo.FOLDER / name, tmp_path / "a copy")
    assert zoo.load(tmp_path / "a copy").card == zoo.load(name).card


# classifiers


@pytest.fixture
def classifier(tmp_path):
    """A folder with a small saved classifier that has seen some noise."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = Classifier(2)
    x = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    judge = metrics.judge_against(x, metrics.classifier_extractor(network), name="noise")
    zoo.save_classifier(tmp_path / "classifier", network, judge.reference, seed=3)
    return tmp_path / "classifier"


def test_classifier_round_trip(classifier, tmp_path):
    network, reference, card = zoo.load_classifier(classifier)
    assert not network.training
    assert card["seed"] == 3
    assert (reference.name, reference.moments.n) == ("noise", 8)
    assert reference.features.shape == (8, 16)
    assert reference.moments.covariance.dtype == torch.float64
    zoo.save_classifier(tmp_path / "again", network, reference)
    again = zoo.load_classifier(tmp_path / "again")
    x = torch.linspace(-1, 1, 3 * 32 * 32).view(1, 3, 32, 32)
    assert torch.equal(again.network(x), network(x))
    assert torch.equal(again.reference.features, reference.features)
    assert torch.equal(again.reference.moments.mean, reference.moments.mean)
    assert torch.equal(again.reference.moments.covariance, reference.moments.covariance)


@pytest.mark.parametrize("file", ["classifier", "reference"])
def test_damaged_classifier(classifier, file):
    path = classifier / f"{file}.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    with pytest.raises(ValueError, match=f"{file}.safetensors does not match its card's checksum"):
        zoo.load_classifier(classifier)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=rf"{file}\.safetensors is missing"):
        zoo.load_classifier(classifier)


def test_reference_without_a_tensor(classifier):
    path = classifier / "reference.safetensors"
    tensors = load(path.read_bytes())
    del tensors["covariance"]
    path.write_bytes(save(tensors))
    rewrite_card(
        classifier, lambda card: card["reference"].update(sha256=cards.sha256(path.read_bytes()))
    )
    with pytest.raises(ValueError, match=r"does not hold the tensors .*covariance"):
        zoo.load_classifier(classifier)


def test_a_card_without_a_reference(classifier):
    rewrite_card(classifier, lambda card: card.pop("reference"))
    with pytest.raises(ValueError, match="must be JSON with networks and reference"):
        zoo.load_classifier(classifier)


def test_pairs_and_classifiers_are_not_mistaken(classifier, folder):
    with pytest.raises(ValueError, match=r"is a classifier, not a pair: use .*load_classifier"):
        zoo.load(classifier)
    with pytest.raises(ValueError, match=r"is a pair, not a classifier: use logitflow\.zoo\.load"):
        zoo.load_classifier(folder)


def test_weights_that_half_precision_holds_are_stored_in_it(tmp_path):
    network = torch.nn.Sequential(MLP([2, 3]), MLP([2, 3]))
    exact, inexact = network[0].state_dict(), network[1].state_dict()
    for tensor in exact.values():
        tensor.copy_(tensor.half())
    for name, expected in (("exact", exact), ("inexact", inexact)):
        path = tmp_path / f"{name}.safetensors"
        cards.save_checked(path, expected)
        stored = load(path.read_bytes())
        assert (stored["layers.0.weight"].dtype == torch.float16) == (name == "exact")
        assert all(torch.equal(t.float(), expected[key]) for key, t in stored.items())


def test_training_a_classifier_resumes_and_writes_what_loads(tmp_path, monkeypatch):
    """One epoch on 256 made-up images; the second call finds it done and writes the same again."""
    rng = torch.Generator().manual_seed(0)

    def made_up(split):
        n = 256 if split == "train" else 40
        pixels = torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8, generator=rng)
        return Images(pixels, torch.randint(0, 10, (n,), generator=rng), "made up")

    made = {split: made_up(split) for split in ("train", "test")}
    monkeypatch.setattr("logitflow.data.images.cifar10", made.__getitem__)
    said = []
    train_cifar10_classifier(tmp_path, num_epochs=1, seed=1, say=said.append, command="none")
    network, reference, card = zoo.load_classifier(tmp_path)
    assert said[0].startswith("epoch 1/1: loss")
    assert card["figures"]["accuracy"] == accuracy(network, made["test"])
    half, whole = card["figures"]["floor"]
    assert (half["n"], whole["n"]) == (20, 40)
    assert half["reference"] == reference.name
    judge = metrics.Judge(metrics.classifier_extractor(network), reference)
    again = metrics.evaluate_images(from_bytes(made["test"].pixels[20:]), judge)
    # rounded to single precision since, and 20 images' covariance is singular: its root has half the digits
    assert again["frechet_distance"] == pytest.approx(half["frechet_distance"], rel=1e-3)
    assert again["class_counts"] == half["class_counts"]
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.*")}
    train_cifar10_classifier(tmp_path, num_epochs=1, seed=1, say=said.append, command="none")
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.*")} == before
    assert sum(line.startswith("epoch") for line in said) == 1


def test_a_head_is_scaled_until_its_probabilities_are_true():
    """Labels drawn from the probabilities at a known temperature; its estimate's error is from their number."""
    rng, true, n = torch.Generator().manual_seed(0), 0.4, 20_000
    head = torch.nn.Linear(6, 10)
    with torch.no_grad():
        head.weight.copy_(torch.randn(10, 6, generator=rng))
        logits = head(torch.randn(n, 6, generator=rng))
        p = (logits / true).softmax(1)
        labels = torch.multinomial(p, 1, generator=rng).squeeze(1)
        before = head.weight.clone()
        temperature = calibrate_head(head, logits, labels)
        # the Fisher information of 1/temperature is the variance of the label's logit
        variance = ((p * logits**2).sum(1) - (p * logits).sum(1) ** 2).mean()
        assert abs(1 / temperature - 1 / true) < 4 / math.sqrt(n * variance)
    torch.testing.assert_close(head.weight * temperature, before)


def test_the_shipped_classifier_and_its_card():
    network, reference, card = zoo.load_classifier()
    assert zoo.CLASSIFIER not in zoo.names()
    with pytest.raises(ValueError, match="is a classifier, not a pair"):
        zoo.load(zoo.CLASSIFIER)
    folder = zoo.FOLDER / zoo.CLASSIFIER
    assert sum(path.stat().st_size for path in folder.iterdir()) < 8e6
    assert card["command"].startswith("logitflow train classifier")
    assert {"seed", "hardware", "data"} <= set(card)
    assert [floor["n"] for floor in card["figures"]["floor"]] == [5000, 10_000]
    assert reference.moments.n == 50_000
    assert reference.features.shape == (5000, network.head.in_features)


def test_the_shipped_classifier_is_right_nine_times_in_ten():
    assert zoo.load_classifier().card["figures"]["accuracy"] >= 0.9


def test_the_shipped_judge_needs_no_data(monkeypatch):
    """Noise is no image of CIFAR-10: its distance is far above that of real images at any n."""
    monkeypatch.delenv("LOGITFLOW_DATA", raising=False)
    floor = zoo.load_classifier().card["figures"]["floor"][0]
    x = torch.rand(50, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    figures = metrics.evaluate_images(x)
    assert (figures["n"], figures["extractor"]) == (50, "CIFAR classifier")
    assert "50000 training images" in figures["reference"]
    assert figures["frechet_distance"] > 20 * floor["frechet_distance"]
    assert figures["precision"] < floor["precision"] / 2


@pytest.mark.skipif("LOGITFLOW_DATA" not in os.environ, reason="LOGITFLOW_DATA names no data")
def test_the_shipped_classifier_is_as_accurate_as_its_card_says():
    """On 500 of the test images, within four standard errors; they are also what it is said to have seen."""
    network, reference, card = zoo.load_classifier()
    test = cifar10("test")
    some = test._replace(pixels=test.pixels[:500], labels=test.labels[:500])
    p = card["figures"]["accuracy"]
    assert abs(accuracy(network, some) - p) < 4 * math.sqrt(p * (1 - p) / 500)
    x = from_bytes(some.pixels[:20])
    features, _ = metrics.classifier_extractor(network).extract(x)
    torch.testing.assert_close(features, reference.features[:20], rtol=2e-2, atol=1e-2)
