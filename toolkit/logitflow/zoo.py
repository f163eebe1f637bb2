"""Checkpoints, each in a folder with a card that says how it was made.

A pair: `generator.safetensors`, `discriminator.safetensors`, at times `fitted.safetensors` (a discriminator
fitted to the fixed generator), and `card.json` with the networks' sizes, the prior, the command, seed and
figures, and each file's sha256. A model without a discriminator (a VAE, a flow, an MMD-GAN) has a `corrector`
in its place, and the card names the GAN whose logit it corrects. A classifier: `classifier.safetensors`,
`reference.safetensors` (what it saw in real images) and `card.json`.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.distributions import Distribution

from logitflow.cards import (
    describe_prior,
    load_checked,
    load_network,
    make_prior,
    read_card,
    save_checked,
    save_network,
    write_card,
    wrong_tensors,
)
from logitflow.metrics import Moments, Reference
from logitflow.ratio import corrected

FOLDER = Path(__file__).parent / "zoo"
"""Where the shipped checkpoints live.

:meta hide-value:
"""

CLASSIFIER = "cifar10-classifier"
"""The shipped classifier's name."""


class Pair(NamedTuple):
    """A trained generator with its discriminator, in eval mode and on the CPU."""

    generator: nn.Module
    # as trained: a WGAN's critic, or a discriminator before the sigmoid; for a model that has none, a GAN's
    # logit with the model's corrector (`logitflow.ratio.corrected`)
    discriminator: nn.Module
    prior: Distribution
    card: dict[str, Any]
    # a discriminator fitted to the fixed generator, where the card has one
    fitted: nn.Module | None = None
    # every network of the card by its role: also a VAE's encoder, an MMD-GAN's critic, a corrector
    networks: Mapping[str, nn.Module] = MappingProxyType({})


class TrainedClassifier(NamedTuple):
    """A classifier in eval mode and on the CPU, with what it saw in real images."""

    network: nn.Module
    reference: Reference
    card: dict[str, Any]


def names() -> list[str]:
    """The shipped pairs' names."""
    return sorted(path.parent.name for path in FOLDER.glob("*/generator.safetensors"))


def load(pair: str | Path) -> Pair:
    """Load a pair by its name in the zoo or by its folder, after checking every file against its card.

    Args:
        pair: one of `names()`, or the path of a folder that `save` wrote.

    Raises:
        FileNotFoundError: there is no such pair, or one of its files is missing.
        ValueError: a checksum is wrong, a file is truncated, a tensor is missing or misshapen, or the card
            names what it may not, or describes a classifier, or a corrector of another GAN than the zoo's.
    """
    path = _card_path(pair)
    if "classifier" in read_card(path)["networks"]:
        raise ValueError(
            f"{str(pair)!r} is a classifier, not a pair: use logitflow.zoo.load_classifier"
        )
    card = read_card(path, "prior")
    networks = {
        role: load_network(path.parent / f"{role}.safetensors", entry)
        for role, entry in card["networks"].items()
    }
    roles = dict(networks)
    if "corrector" in networks:
        roles["discriminator"] = corrected(_corrected_logit(card, path), networks["corrector"])
    if missing := {"generator", "discriminator"} - set(roles):
        raise ValueError(f"{path} describes no {' and no '.join(sorted(missing))}")
    prior = make_prior(card["prior"], path)
    return Pair(
        roles["generator"], roles["discriminator"], prior, card, networks.get("fitted"), networks
    )


def to_device(pair: Pair, device: torch.device) -> Pair:
    """The pair with its prior on a device, to which its networks are moved in place."""
    for network in (pair.generator, pair.discriminator, *pair.networks.values()):
        network.to(device)
    parameters = {name: getattr(pair.prior, name) for name in pair.prior.arg_constraints}
    moved = {name: value.to(device) for name, value in parameters.items()}
    return pair._replace(prior=type(pair.prior)(**moved))


def gan_of(name: str, logit: str = "fitted") -> dict[str, str]:
    """A card's entry for the GAN whose logit a corrector was made for: its role, and that file's sha256."""
    checksum = read_card(_card_path(name))["networks"][logit]["sha256"]
    return {"name": name, "logit": logit, "sha256": checksum}


def _corrected_logit(card: dict[str, Any], path: Path) -> nn.Module:
    """The logit of the GAN that the card names; a fitted one where it does not say."""
    entry = card.get("gan")
    if not isinstance(entry, dict) or entry.get("name") not in names():
        raise ValueError(
            f"{path} has a corrector, but names no GAN of the zoo whose logit it corrects"
        )
    entry = {"logit": "fitted", **entry}
    networks, role = load(entry["name"]).networks, entry["logit"]
    known = role in networks and role in ("discriminator", "fitted")
    if not known or gan_of(entry["name"], role) != entry:
        raise ValueError(
            f"{path} corrects another {role} discriminator of {entry['name']} than the zoo's: fit the "
            "corrector anew with `logitflow train`"
        )
    return networks[role]


def save(
    folder: str | Path, networks: dict[str, nn.Module], prior: Distribution, **card: Any
) -> None:
    """Write a pair: one safetensors file a network, then the card that vouches for them.

    Args:
        folder: made if it is not there; files of the same names are replaced.
        networks: "generator", "discriminator" or "corrector", and at times "fitted" and others, each a network
            of `logitflow.models`. A corrector needs `gan=gan_of(name)` among what the card says.
        prior: `Normal` or `Uniform` with one latent's shape.
        card: what else the card should say: command, seed, figures, data, hardware.

    Raises:
        ValueError: a network or the prior is of a kind that a card cannot describe.
    """
    folder = Path(folder)
    entries = {
        role: save_network(folder / f"{role}.safetensors", network)
        for role, network in networks.items()
    }
    write_card(folder / "card.json", {"prior": describe_prior(prior), "networks": entries, **card})


def load_classifier(classifier: str | Path = CLASSIFIER) -> TrainedClassifier:
    """Load the shipped classifier or a folder's, after checking every file against its card.

    Raises:
        FileNotFoundError: there is no such classifier, or one of its files is missing.
        ValueError: as `load`; or the card describes a pair.
    """
    path = _card_path(classifier)
    if "classifier" not in read_card(path)["networks"]:
        raise ValueError(f"{str(classifier)!r} is a pair, not a classifier: use logitflow.zoo.load")
    card = read_card(path, "reference")
    entry, file = card["reference"], path.parent / "reference.safetensors"
    network = load_network(path.parent / "classifier.safetensors", card["networks"]["classifier"])
    tensors = load_checked(file, entry)
    try:
        moments = Moments(tensors["mean"].double(), tensors["covariance"].double(), entry["n"])
        reference = Reference(entry["name"], moments, tensors["features"].float())
    except KeyError as error:
        raise wrong_tensors(file, error) from error
    return TrainedClassifier(network, reference, card)


def save_classifier(
    folder: str | Path, network: nn.Module, reference: Reference, **card: Any
) -> None:
    """Write a classifier and what it saw in real images; weights that are so rounded in half precision.

    The covariance is stored in single precision, the features in half.

    Args:
        folder: made if it is not there; files of the same names are replaced.
        network: a `logitflow.models.classifier.Classifier`.
        reference: by the extractor that `metrics.classifier_extractor` makes of it.
        card: what else the card should say: command, seed, figures, data, hardware.

    Raises:
        ValueError: a card cannot name the network.
    """
    folder = Path(folder)
    entry = save_network(folder / "classifier.safetensors", network)
    tensors = {
        "mean": reference.moments.mean,
        "covariance": reference.moments.covariance.float(),
        "features": reference.features.half(),
    }
    described = {
        "name": reference.name,
        "n": reference.moments.n,
        "sha256": save_checked(folder / "reference.safetensors", tensors),
    }
    write_card(
        folder / "card.json", {"networks": {"classifier": entry}, "reference": described, **card}
    )


def _card_path(name: str | Path) -> Path:
    folder = FOLDER / name if (FOLDER / name / "card.json").exists() else Path(name)
    path = folder / "card.json"
    if not path.exists():
        raise FileNotFoundError(
            f"the zoo has no {str(name)!r}: choose one of {', '.join(names()) or '(the zoo is empty)'}, "
            "or pass a folder that holds a card.json"
        )
    return path
