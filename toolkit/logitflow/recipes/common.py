"""What the recipes share: presets, first weights, the curve, and fitting to the finished generator."""

import copy
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from logitflow import priors
from logitflow.data import LabelledSample, Sample
from logitflow.files import write_atomically
from logitflow.ratio import FitRecord, fit_log_ratio


class Preset(NamedTuple):
    """What is trained, and how."""

    networks: Callable[[], tuple[nn.Module, nn.Module]]
    loss: str
    num_steps: int
    fit_steps: int
    settings: dict[str, Any]


def find(
    presets: dict[str, Preset],
    name: str,
    num_steps: int | None = None,
    fit_steps: int | None = None,
) -> Preset:
    """A preset by its name, with other numbers of steps where they are given.

    Raises:
        ValueError: the name is unknown.
    """
    if name not in presets:
        raise ValueError(f"unknown preset {name!r}: choose {' or '.join(presets)}")
    given: dict[str, Any] = {"num_steps": num_steps, "fit_steps": fit_steps}
    return presets[name]._replace(**{key: n for key, n in given.items() if n is not None})


@contextmanager
def weights_from(seed: int) -> Iterator[None]:
    """Networks made inside draw their weights from the seed.

    Layers draw from the global generator only: it is lent the seed, and gets its state back.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def sampler_of(generator: nn.Module, prior: Distribution) -> Sample:
    """What draws a generator's samples."""

    @torch.no_grad()
    def sample(n: int, rng: torch.Generator) -> Tensor:
        return generator(priors.sample(prior, n, rng))

    return sample


class Curve:
    """How training went, point by point, in a JSON file that a resumed run goes on with."""

    def __init__(self, path: Path) -> None:
        self.path, self.clock = path, time.perf_counter()

    def add(self, step: int, **figures: float) -> None:
        """Add a point, in the place of all that are not before it."""
        points = [point for point in self.points() if point["step"] < step]  # begun anew: none
        now = time.perf_counter()
        seconds = now - self.clock + (points[-1]["seconds"] if points else 0)
        self.clock = now
        points.append({"step": step, **figures, "seconds": round(seconds, 1)})
        write_atomically(self.path, json.dumps(points, indent=1).encode())

    def points(self) -> list[dict[str, float]]:
        """All points so far."""
        return json.loads(self.path.read_text()) if self.path.exists() else []


def told(role: str, record: FitRecord, say: Callable[[str], None]) -> dict[str, float]:
    """Say how well a network was fitted, and return its figures for the card."""
    loss, ratio = record.losses[-1], record.mean_ratio
    say(f"{role}: cross-entropy {loss:.4f} nats, mean of exp(d) {ratio:.3f}")
    return {f"{role}_cross_entropy": loss, f"{role}_mean_ratio": ratio}


def fit_copy(
    discriminator: nn.Module,
    sample_real: Sample | LabelledSample,
    sample_fake: Sample,
    *,
    num_steps: int,
    generator: torch.Generator,
    say: Callable[[str], None],
    role: str = "fitted",
    checkpoint: Path | None = None,
) -> tuple[nn.Module, dict[str, float]]:
    """Fit a copy of the trained discriminator to the finished generator, in bfloat16.

    The trained one has met the moving generator but never its average.

    Args:
        discriminator: as trained; it stays as it is.
        sample_real: draws data, with their classes for a discriminator that names these.
        sample_fake: draws the finished generator's samples.
        num_steps: steps of fitting.
        generator: the source of all randomness, on the networks' device.
        say: is told how well the copy fits.
        role: of the copy, for what is said and the figures' names.
        checkpoint: as in `fit_log_ratio`.

    Returns:
        The copy, and its figures for the card.
    """
    fitted = copy.deepcopy(discriminator)
    with torch.autocast(generator.device.type, torch.bfloat16):
        record = fit_log_ratio(
            fitted,
            sample_real,
            sample_fake,
            num_steps=num_steps,
            generator=generator,
            batch_size=64,
            learning_rate=2e-4,
            num_held_out=1000,
            evaluate_every=250,
            checkpoint=checkpoint,
        )
    return fitted, told(role, record, say)
