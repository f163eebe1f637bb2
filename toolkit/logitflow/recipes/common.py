"""What the recipes of trained pairs share: presets, the curve, and fitting to the finished generator."""

import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from logitflow.data import Sample
from logitflow.files import write_atomically
from logitflow.ratio import fit_log_ratio


class Preset(NamedTuple):
    """What is trained, and how."""

    networks: Callable[[], tuple[nn.Module, nn.Module]]
    loss: str
    num_steps: int
    fit_steps: int
    settings: dict[str, Any]


def find(presets: dict[str, Preset], name: str) -> Preset:
    """A preset by its name.

    Raises:
        ValueError: the name is unknown.
    """
    if name not in presets:
        raise ValueError(f"unknown preset {name!r}: choose {' or '.join(presets)}")
    return presets[name]


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


def fit_copy(
    discriminator: nn.Module,
    sample_real: Sample,
    sample_fake: Sample,
    *,
    num_steps: int,
    generator: torch.Generator,
    say: Callable[[str], None],
) -> tuple[nn.Module, dict[str, float]]:
    """Fit a copy of the trained discriminator to the finished generator, in bfloat16.

    The trained one has met the moving generator but never its average.

    Args:
        discriminator: as trained; it stays as it is.
        sample_real: draws data.
        sample_fake: draws the finished generator's samples.
        num_steps: steps of fitting.
        generator: the source of all randomness, on the networks' device.
        say: is told how well the copy fits.

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
        )
    loss, ratio = record.losses[-1], record.mean_ratio
    say(f"fitted: cross-entropy {loss:.4f} nats, mean of exp(d) {ratio:.3f}")
    return fitted, {"fitted_cross_entropy": loss, "fitted_mean_ratio": ratio}
