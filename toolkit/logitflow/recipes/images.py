"""How the shipped image pairs were made, called by `logitflow train cifar10`."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.distributions import Normal

from logitflow import priors, zoo
from logitflow.data import images
from logitflow.files import write_atomically
from logitflow.models import DCGANDiscriminator, DCGANGenerator, ResNetGenerator
from logitflow.run import seeded_generator
from logitflow.training import LOSSES, train_gan


class Preset(NamedTuple):
    """What is trained, and how."""

    networks: Callable[[], tuple[nn.Module, nn.Module]]
    loss: str
    num_steps: int
    settings: dict[str, Any]


PRESETS = {
    # for two cores: SN-DCGAN at half the papers' width. The non-saturating loss makes the logit an estimate of
    # log p_data/p_g, which refinement uses; hinge does not.
    "small": Preset(
        lambda: (DCGANGenerator(256), DCGANDiscriminator(256)),
        "non-saturating",
        15_000,
        {"batch_size": 64, "learning_rate": 2e-4, "betas": (0.5, 0.999), "discriminator_steps": 1},
    ),
    # for a GPU: DGflow's best pair, a residual generator with SN-DCGAN's discriminator
    "paper": Preset(
        lambda: (ResNetGenerator(256), DCGANDiscriminator(512)),
        "hinge",
        50_000,
        {"batch_size": 64, "learning_rate": 2e-4, "betas": (0.0, 0.9), "discriminator_steps": 5},
    ),
}
"""The sizes that `logitflow train cifar10` knows."""


def train_cifar10(
    preset: str,
    folder: str | Path,
    *,
    num_steps: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    say: Callable[[str], None] = lambda line: None,
    **card: Any,
) -> None:
    """Train a pair on CIFAR-10 in bfloat16 and write it; a killed run goes on from the folder's checkpoint.

    The generator that is written is the exponential moving average. At each checkpoint the folder gets
    a picture of 64 fixed latents, `pictures/step-…png`.

    Args:
        preset: one of `PRESETS`.
        folder: where the pair goes, as `logitflow.zoo.save` lays it out.
        num_steps: generator steps; None for the preset's.
        seed: of the initial weights, the data and the latents.
        device: where to train.
        say: is told how training goes, a line a checkpoint.
        card: what else the card should say, such as the command.

    Raises:
        ValueError: the preset is unknown, or the checkpoint is of other networks.
        FloatingPointError: a loss is not finite.
        FileNotFoundError, ConnectionError: there is no data: `logitflow.images.cifar10` says what to do.
    """
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}: choose {' or '.join(PRESETS)}")
    make, loss, default_steps, settings = PRESETS[preset]
    folder = Path(folder)
    data = images.cifar10("train")
    with torch.random.fork_rng(
        devices=[]
    ):  # layers draw their weights from the global generator only
        torch.default_generator.manual_seed(seed)
        pair = make()
    generator, discriminator = (
        network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for network in pair
    )
    average = copy.deepcopy(generator).requires_grad_(False)
    prior = Normal(torch.zeros(128, device=device), torch.ones(128, device=device))
    z = priors.sample(prior, 64, seeded_generator(seed, 1, device))

    def report(step: int, d_loss: float) -> None:
        average.eval()
        with torch.no_grad():
            x = average(z)
        path = folder / "pictures" / f"step-{step:06d}.png"
        write_atomically(path, images.png_grid(x))
        say(f"step {step}: discriminator loss {d_loss:.3f}, {path}")

    train_gan(
        generator,
        discriminator,
        data.sample,
        prior,
        loss=LOSSES[loss],
        num_steps=num_steps or default_steps,
        seed=seed,
        average=average,
        precision=torch.bfloat16,
        checkpoint=folder / "checkpoint.safetensors",
        checkpoint_every=250,
        callback=report,
        **settings,
    )
    networks = {"generator": average, "discriminator": discriminator}
    zoo.save(folder, networks, prior, data=data.source, seed=seed, **card)
