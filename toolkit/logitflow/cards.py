"""Cards: what a checkpoint's `card.json` says, and files that are checked against it.

Nothing is unpickled and no code comes from a file.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.distributions import Distribution, Normal, Uniform

from logitflow import models
from logitflow.files import write_atomically
from logitflow.models.classifier import Classifier

# what a card may name; a card never names code of its own
NETWORKS: dict[str, type[nn.Module]] = {
    **{name: getattr(models, name) for name in models.__all__},
    "Classifier": Classifier,
}


def read_card(path: Path, *sections: str) -> dict[str, Any]:
    """Read a card.

    Raises:
        ValueError: it is not JSON, or lacks its networks or another of the sections.
    """
    sections = ("networks", *sections)
    try:
        card = json.loads(path.read_text())
        if not all(isinstance(card[section], dict) for section in sections):
            raise TypeError
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not a card: it must be JSON with {' and '.join(sections)}"
        ) from error
    return card


def write_card(path: Path, card: dict[str, Any]) -> None:
    """Write a card, after the files that it vouches for."""
    write_atomically(path, json.dumps(card, indent=1, ensure_ascii=False).encode())


def save_network(path: Path, network: nn.Module) -> dict[str, Any]:
    """Write a network and return its card's entry.

    Raises:
        ValueError: a card cannot name such a network.
    """
    kind = type(network).__name__
    if kind not in NETWORKS:
        raise ValueError(f"the {path.stem} is a {kind}: the zoo holds {', '.join(NETWORKS)} only")
    settings: dict[str, Any] = network.settings  # type: ignore[assignment]
    return {"network": kind, **settings, "sha256": save_checked(path, network.state_dict())}


def load_network(path: Path, entry: dict[str, Any]) -> nn.Module:
    """A network in eval mode from its file and its card's entry.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: the file is not the card's, or the card names what it may not.
    """
    kind = entry.get("network")
    if kind not in NETWORKS:
        raise ValueError(
            f"the card of {path} names a network {kind!r}: known are {', '.join(NETWORKS)}"
        )
    tensors = load_checked(path, entry)
    settings = {key: value for key, value in entry.items() if key not in ("network", "sha256")}
    with torch.random.fork_rng(devices=[]):  # layers draw weights, which the file's replace
        network = NETWORKS[kind](**settings)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise wrong_tensors(path, error) from error
    return network.eval()


def save_checked(path: Path, tensors: dict[str, Tensor]) -> str:
    """Write tensors, in half precision those that it holds exactly, and return the file's sha256."""
    data = save_tensors({k: _smallest(t.detach()).cpu().contiguous() for k, t in tensors.items()})
    write_atomically(path, data)
    return sha256(data)


def load_checked(path: Path, entry: dict[str, Any]) -> dict[str, Tensor]:
    """Tensors from a file that must match its card's entry.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: its checksum is another, or it is no safetensors file.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: copy the folder again, whole")
    data = path.read_bytes()
    if sha256(data) != entry.get("sha256"):
        raise ValueError(
            f"{path} does not match its card's checksum (changed or truncated): fetch it again, or run "
            "`logitflow train` to make your own"
        )
    try:
        return load_tensors(data)
    except SafetensorError as error:
        raise wrong_tensors(path, error) from error


def wrong_tensors(path: Path, error: Exception) -> ValueError:
    """What to raise where a file's tensors are missing or misshapen."""
    return ValueError(f"{path} does not hold the tensors that its card describes: {error}")


def describe_prior(prior: Distribution) -> dict[str, Any]:
    """A prior's entry in a card.

    Raises:
        ValueError: a card cannot describe it.
    """
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


def make_prior(entry: dict[str, Any], path: Path) -> Distribution:
    """The prior that a card's entry describes.

    Raises:
        ValueError: its kind is unknown.
    """
    shape = torch.Size(entry.get("shape", []))
    if entry.get("kind") == "normal":
        return Normal(torch.full(shape, entry["loc"]), torch.full(shape, entry["scale"]))
    if entry.get("kind") == "uniform":
        return Uniform(torch.full(shape, entry["low"]), torch.full(shape, entry["high"]))
    raise ValueError(f"{path} names a prior {entry.get('kind')!r}: known are normal and uniform")


def sha256(data: bytes) -> str:
    """A file's checksum in a card."""
    return hashlib.sha256(data).hexdigest()


def _smallest(tensor: Tensor) -> Tensor:
    if tensor.dtype == torch.float32 and torch.equal(tensor.half().float(), tensor):
        return tensor.half()
    return tensor


def _first(values: Tensor) -> float:
    return float(values.flatten()[0])


def _constant(values: Tensor) -> bool:
    return bool((values == values.flatten()[0]).all())
