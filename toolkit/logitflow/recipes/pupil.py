"""How the pair that runs in the book's pages was made, called by `logitflow train pupil`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from logitflow import priors, zoo
from logitflow.progress import progress
from logitflow.ratio import fit_log_ratio
from logitflow.recipes.common import sampler_of, told
from logitflow.recipes.toys import figures_of, in_words, networks, toy
from logitflow.run import seeded_generator


def train_pupil(
    teacher: str,
    folder: str | Path,
    *,
    width: int,
    num_steps: int,
    fit_steps: int,
    seed: int,
    say: Callable[[str], None] = lambda line: None,
    **card: Any,
) -> None:
    """Teach a narrow generator what a toy pair's generator does, and fit a discriminator to it.

    A GAN this narrow takes long to find the modes. The pupil, 2-w-w-w-2, is told the sample of each latent
    and learns by squared error, its teacher's faults included. The discriminator, 2-w-w-w-1, is fitted to the
    finished pupil, so that its logit is a log density ratio.

    Args:
        teacher: a pair of the zoo on a toy.
        folder: where the pair goes, as `logitflow.zoo.save` lays it out.
        width: of the hidden layers.
        num_steps: the generator's Adam steps.
        fit_steps: the discriminator's.
        seed: of the weights, the latents and the data.
        say: is told how it goes.
        card: what else the card should say, such as the command.

    Raises:
        ValueError: the teacher is no pair on a toy.
        FileNotFoundError: the zoo has no such pair.
    """
    pair = zoo.load(teacher)
    kind = toy(pair.card.get("data", "of an unknown kind"))
    generator, discriminator = networks(seed, [2, *[width] * 3, 2], [2, *[width] * 3, 1])
    optimizer = torch.optim.Adam(generator.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    rng = seeded_generator(seed, 0)
    for _ in progress(range(num_steps), desc="train", unit="step"):
        z = priors.sample(pair.prior, 512, rng)
        with torch.no_grad():
            x = pair.generator(z)
        loss = (generator(z) - x).square().sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    figures = figures_of(generator, kind, pair.prior, num_samples=10_000)
    say(in_words(figures))
    record = fit_log_ratio(
        discriminator,
        kind.sample,
        sampler_of(generator, pair.prior),
        num_steps=fit_steps,
        generator=seeded_generator(seed, 3),
        learning_rate=2e-3,
        num_held_out=5000,
    )
    figures |= told("discriminator", record, say)
    roles: dict[str, nn.Module] = {"generator": generator, "discriminator": discriminator}
    origin = {"data": pair.card["data"], "teacher": teacher, "seed": seed, "figures": figures}
    zoo.save(folder, roles, pair.prior, **origin, **card)
