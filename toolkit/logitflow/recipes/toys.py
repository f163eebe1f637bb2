"""How the shipped two-dimensional pairs were made, called by `logitflow train 25gaussians` and `swissroll`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.distributions import Distribution, Uniform

from logitflow import data, priors, zoo
from logitflow.metrics import energy_distance, high_quality_fraction, recovered_modes
from logitflow.models import MLP
from logitflow.processes import is_first
from logitflow.ratio import fit_log_ratio
from logitflow.recipes.common import sampler_of, told, weights_from
from logitflow.run import seeded_generator
from logitflow.training import LOSSES, train_gan

DATA_SETS = ("25gaussians", "swissroll")
"""The names that `toy` knows."""


class Toy(NamedTuple):
    """A two-dimensional data set."""

    sample: data.Sample  # (n, generator) → (n, 2)
    mixture: data.Mixture | None  # where the density is known


def toy(name: str) -> Toy:
    """A toy by its name on the command line.

    Raises:
        ValueError: the name is unknown.
    """
    if name == "25gaussians":
        mixture = data.twenty_five_gaussians()
        return Toy(mixture.sample, mixture)
    if name == "swissroll":
        return Toy(data.swiss_roll, None)
    raise ValueError(f"unknown data set {name!r}: choose 25gaussians or swissroll")


def train_toy(
    name: str,
    folder: str | Path,
    *,
    num_steps: int,
    fit_steps: int,
    seed: int,
    say: Callable[[str], None] = lambda line: None,
    **card: Any,
) -> None:
    """Train a WGAN-GP pair on a toy, fit a discriminator to the fixed generator, and write both.

    The generator is 2-128-128-128-2 on U(−1, 1)², the critic 2-128-128-128-1: half and a quarter of the
    papers' widths, so that the base is imperfect on purpose. The gradient penalty's weight is 0.1: the toys'
    structure is a hundredth of their extent, and the usual 10 drowns it. The fitted discriminator is
    2-256-256-256-1. A killed run goes on from the folder's checkpoint, which is removed at the end.

    Args:
        name: "25gaussians" or "swissroll".
        folder: where the pair goes, as `logitflow.zoo.save` lays it out.
        num_steps: generator steps.
        fit_steps: steps of fitting the discriminator; 0 fits none.
        seed: of the initial weights, the data and the latents.
        say: is told how training goes, a line a checkpoint.
        card: what else the card should say, such as the command.

    Raises:
        ValueError: the name is unknown, or the checkpoint is of other networks.
        FloatingPointError: a loss is not finite.
    """
    kind = toy(name)
    folder = Path(folder)
    prior = Uniform(-torch.ones(2), torch.ones(2))
    generator, critic, fitted = networks(
        seed, [2, 128, 128, 128, 2], [2, 128, 128, 128, 1], [2, 256, 256, 256, 1]
    )
    checkpoint = folder / "checkpoint.safetensors"

    def report(step: int, loss: float) -> None:
        figures = figures_of(generator, kind, prior, num_samples=5000)
        say(f"step {step}: critic loss {loss:.3f}, " + in_words(figures))

    train_gan(
        generator,
        critic,
        kind.sample,
        prior,
        loss=LOSSES["wgan-gp"]._replace(gradient_penalty=0.1),
        num_steps=num_steps,
        seed=seed,
        batch_size=128,
        learning_rate=5e-4,
        checkpoint=checkpoint,
        callback=report,
    )
    if not is_first():
        return  # the first process does the rest
    pair: dict[str, nn.Module] = {"generator": generator, "discriminator": critic}
    figures = figures_of(generator, kind, prior, num_samples=10_000)
    if fit_steps:
        record = fit_log_ratio(
            fitted,
            kind.sample,
            sampler_of(generator, prior),
            num_steps=fit_steps,
            generator=seeded_generator(seed, 3),
            learning_rate=2e-3,
        )
        pair["fitted"] = fitted
        figures |= told("fitted", record, say)
    zoo.save(folder, pair, prior, data=name, seed=seed, figures=figures, **card)
    checkpoint.unlink(missing_ok=True)


def networks(seed: int, *sizes: list[int]) -> list[MLP]:
    """MLPs of the given sizes with PyTorch's default weights, drawn from a seed."""
    with weights_from(seed):
        return [MLP(each) for each in sizes]


def figures_of(
    generator: nn.Module, kind: Toy, prior: Distribution, *, num_samples: int
) -> dict[str, float]:
    """A few figures of a generator's samples, for the card and for those who wait."""
    rng = seeded_generator(0, 9)
    with torch.no_grad():
        x = generator(priors.sample(prior, num_samples, rng))
    figures = {"energy_distance": energy_distance(x, kind.sample(num_samples, rng))}
    if kind.mixture is not None:
        figures["high_quality"] = high_quality_fraction(x, *kind.mixture)
        figures["modes"] = recovered_modes(x, *kind.mixture)
    return figures


def in_words(figures: dict[str, float]) -> str:
    """Figures in a line."""
    return ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in figures.items())
