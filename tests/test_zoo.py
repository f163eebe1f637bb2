"""The zoo: what is saved comes back, and what is damaged is refused by a sentence."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load, save
from torch.distributions import Laplace, Normal, Uniform

from logitflow import cards, zoo
from logitflow.models import MLP

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
    z = pair.prior.low + 0.5 * (pair.prior.high - pair.prior.low)
    x = pair.generator(z[None])
    assert x.shape == (1, 2)
    assert pair.discriminator(x).shape == (1, 1)
    assert pair.card["command"].startswith("logitflow train")
    assert {"seed", "figures", "hardware", "data"} <= set(pair.card)


def test_loading_a_copy_elsewhere(tmp_path):
    name = zoo.names()[0]
    shutil.copytree(zoo.FOLDER / name, tmp_path / "a copy")
    assert zoo.load(tmp_path / "a copy").card == zoo.load(name).card
