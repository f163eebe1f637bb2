"""Checkpoints of generators and discriminators, each pair with a card that says how it was made.

A pair lives in a folder: `generator.safetensors`, `discriminator.safetensors`, at times `fitted.safetensors`
(a discriminator fitted to the fixed generator), and `card.json` with the networks' sizes, the prior, the
command, seed and figures, and each file's sha256. Nothing is unpickled and no code comes from a file.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn
from torch.distributions import Distribution, Normal, Uniform

from logitflow import models
from logitflow.files import write_atomically

FOLDER = Path(__file__).parent / "zoo"
"""Where the shipped pairs live."""

# what a card may name; a card never names code of its own
_NETWORKS: dict[str, type[nn.Module]] = {name: getattr(models, name) for name in models.__all__}


class Pair(NamedTuple):
    """A trained generator with its discriminator, in eval mode and on the CPU."""

    generator: nn.Module
    discriminator: nn.Module  # as trained: a WGAN's critic, or a discriminator before the sigmoid
    prior: Distribution
    card: dict[str, Any]
    fitted: nn.Module | None = (
        None  # a discriminator fitted to the fixed generator, where the card has one
    )


def names() -> list[str]:
    """The shipped pairs' names."""
    return sorted(path.parent.name for path in FOLDER.glob("*/card.json"))


def load(pair: str | Path) -> Pair:
    """Load a pair by its name in the zoo or by its folder, after checking every file against its card.

    Args:
        pair: one of `names()`, or the path of a folder that `save` wrote.

    Raises:
        FileNotFoundError: there is no such pair, or one of its files is missing.
        ValueError: a checksum is wrong, a file is truncated, a tensor is missing or misshapen, or the card
            names what it may not.
    """
    folder = FOLDER / pair if (FOLDER / pair / "card.json").exists() else Path(pair)
    path = folder / "card.json"
    if not path.exists():
        raise FileNotFoundError(
            f"there is no pair {str(pair)!r}: choose one of {', '.join(names()) or '(the zoo is empty)'}, "
            "or pass a folder that holds a card.json"
        )
    card = read_card(path)
    networks = {
        role: _load_network(folder / f"{role}.safetensors", entry)
        for role, entry in card["networks"].items()
    }
    if missing := {"generator", "discriminator"} - set(networks):
        raise ValueError(f"{path} describes no {' and no '.join(sorted(missing))}")
    return Pair(
        networks["generator"],
        networks["discriminator"],
        _prior(card["prior"], path),
        card,
        networks.get("fitted"),
    )


def save(
    folder: str | Path, networks: dict[str, nn.Module], prior: Distribution, **card: Any
) -> None:
    """Write a pair: one safetensors file a network, then the card that vouches for them.

    Args:
        folder: made if it is not there; files of the same names are replaced.
        networks: "generator", "discriminator" and at times "fitted", each a network of `logitflow.models`.
        prior: `Normal` or `Uniform` with one latent's shape.
        card: what else the card should say: command, seed, figures, data, hardware.

    Raises:
        ValueError: a network or the prior is of a kind that a card cannot describe.
    """
    folder = Path(folder)
    entries = {}
    for role, network in networks.items():
        kind = type(network).__name__
        if kind not in _NETWORKS:
            raise ValueError(f"the {role} is a {kind}: the zoo holds {', '.join(_NETWORKS)} only")
        data = save_tensors(
            {k: t.detach().cpu().contiguous() for k, t in network.state_dict().items()}
        )
        write_atomically(folder / f"{role}.safetensors", data)
        settings: dict[str, Any] = network.settings  # type: ignore[assignment]
        entries[role] = {"network": kind, **settings, "sha256": _sha256(data)}
    described = {"prior": _describe(prior), "networks": entries, **card}
    write_atomically(
        folder / "card.json", json.dumps(described, indent=1, ensure_ascii=False).encode()
    )


def read_card(path: Path) -> dict[str, Any]:
    """Read a card.

    Raises:
        ValueError: it is not JSON, or lacks its networks or its prior.
    """
    try:
        card = json.loads(path.read_text())
        if not isinstance(card["networks"], dict) or not isinstance(card["prior"], dict):
            raise TypeError
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not a card: it must be JSON with networks and a prior"
        ) from error
    return card


def _load_network(path: Path, entry: dict[str, Any]) -> nn.Module:
    kind = entry.get("network")
    if kind not in _NETWORKS:
        raise ValueError(
            f"the card of {path} names a network {kind!r}: known are {', '.join(_NETWORKS)}"
        )
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: copy the pair's folder again, whole")
    data = path.read_bytes()
    if _sha256(data) != entry.get("sha256"):
        raise ValueError(
            f"{path} does not match its card's checksum (changed or truncated): fetch it again, or run "
            "`logitflow train` to make your own"
        )
    settings = {key: value for key, value in entry.items() if key not in ("network", "sha256")}
    network = _NETWORKS[kind](**settings)
    try:
        network.load_state_dict(load_tensors(data))
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(
            f"{path} does not hold the tensors that its card describes: {error}"
        ) from error
    return network.eval()


def _describe(prior: Distribution) -> dict[str, Any]:
    shape = list(prior.batch_shape)
    if isinstance(prior, Normal) and shape and _constant(prior.loc) and _constant(prior.scale):
        return {
            "kind": "normal",
            "shape": shape,
            "loc": _first(prior.loc),
            "scale": _first(prior.scale),
        }
    if isinstance(prior, Uniform) and shape and _constant(prior.low) and _constant(prior.high):
        return {
            "kind": "uniform",
            "shape": shape,
            "low": _first(prior.low),
            "high": _first(prior.high),
        }
    raise ValueError(
        f"a card cannot describe the prior {prior}: use Normal or Uniform with one latent's shape and the same "
        "parameters for each coordinate"
    )


def _prior(entry: dict[str, Any], path: Path) -> Distribution:
    shape = torch.Size(entry.get("shape", []))
    if entry.get("kind") == "normal":
        return Normal(torch.full(shape, entry["loc"]), torch.full(shape, entry["scale"]))
    if entry.get("kind") == "uniform":
        return Uniform(torch.full(shape, entry["low"]), torch.full(shape, entry["high"]))
    raise ValueError(f"{path} names a prior {entry.get('kind')!r}: known are normal and uniform")


def _first(values: torch.Tensor) -> float:
    return float(values.flatten()[0])


def _constant(values: torch.Tensor) -> bool:
    return bool((values == values.flatten()[0]).all())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
