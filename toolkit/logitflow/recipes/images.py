"""How the shipped image pairs were made, called by `logitflow train cifar10`."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributions import Normal

from logitflow import priors, zoo
from logitflow.data import LabelledSample, Sample, images
from logitflow.device import choose
from logitflow.files import write_atomically
from logitflow.metrics import evaluate_images
from logitflow.models import DCGANDiscriminator, ResNetGenerator
from logitflow.models.spectral import settle_norms
from logitflow.processes import is_first
from logitflow.recipes.common import Curve, Preset, find, fit_copy, sampler_of, weights_from
from logitflow.run import seeded_generator
from logitflow.training import LOSSES, train_gan

PRESETS = {
    # for two cores: a quarter of the papers' generator, half of their discriminator. The non-saturating loss
    # makes the logit an estimate of log p_data/p_g, which refinement uses; hinge does not. With more than one
    # discriminator step a generator step, the discriminator wins.
    "small": Preset(
        lambda: (ResNetGenerator(64), DCGANDiscriminator(256)),
        "non-saturating",
        9_000,
        1_000,
        {"batch_size": 64, "learning_rate": 2e-4, "betas": (0.0, 0.9), "discriminator_steps": 1},
    ),
    # for two cores, with the labels: the discriminator also says which class an image is of, so that it sees
    # things where the other sees textures. Its generator is widest where its maps are smallest.
    "labels": Preset(
        lambda: (
            ResNetGenerator(256, narrowest=64),
            DCGANDiscriminator(256, num_classes=len(images.CIFAR10_CLASSES)),
        ),
        "non-saturating",
        5_000,
        1_000,
        {"batch_size": 64, "learning_rate": 2e-4, "betas": (0.0, 0.9), "discriminator_steps": 1},
    ),
    # for a GPU: the networks of DGflow's best row, a residual generator with SN-DCGAN's discriminator (which
    # its authors took from another pair; here the two train together)
    "paper": Preset(
        lambda: (ResNetGenerator(256), DCGANDiscriminator(512)),
        "hinge",
        50_000,
        5_000,
        {"batch_size": 64, "learning_rate": 2e-4, "betas": (0.0, 0.9), "discriminator_steps": 5},
    ),
}
"""The sizes that `logitflow train cifar10` knows.

:meta hide-value:
"""


def train_cifar10(
    preset: str,
    folder: str | Path,
    *,
    num_steps: int | None = None,
    fit_steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
    say: Callable[[str], None] = lambda line: None,
    **card: Any,
) -> None:
    """Train a pair on CIFAR-10 in bfloat16, fit a discriminator to the generator, and write all three.

    A killed run goes on from the folder's checkpoint.

    The generator that is written is the exponential moving average. At each checkpoint the folder gets a
    picture of 64 fixed latents, `pictures/step-….png`, and `curve.json` a point: the step, the discriminator's
    loss, the Fréchet distance of 1,000 images and the seconds of training so far. The fitted discriminator
    begins as a copy of the trained one, which has met the moving generator but never its average. On a GPU
    the images live there and the networks are compiled.

    Args:
        preset: one of `PRESETS`.
        folder: where the pair goes, as `logitflow.zoo.save` lays it out.
        num_steps: generator steps; None for the preset's.
        fit_steps: steps of fitting the discriminator, None for the preset's; 0 fits none.
        seed: of the initial weights, the data and the latents.
        device: "auto" (a GPU where there is one), "cpu" or "cuda".
        say: is told how training goes, a line a checkpoint.
        card: what else the card should say, such as the command.

    Raises:
        ValueError: the preset is unknown, there is no such device, or the checkpoint is of other networks.
        FloatingPointError: a loss is not finite.
        FileNotFoundError, ConnectionError: there is no data: `logitflow.data.cifar10` says what to do.
    """
    make, loss, num_steps, fit_steps, settings = find(PRESETS, preset, num_steps, fit_steps)
    folder, at = Path(folder), choose(device)
    data = images.cifar10("train")
    data = data._replace(pixels=data.pixels.to(at))
    with weights_from(seed):
        new = make()
    generator, discriminator = (
        network.to(at).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for network in new
    )
    named = "num_classes" in discriminator.settings
    draw: Sample | LabelledSample = data.sample_labelled if named else data.sample
    average = copy.deepcopy(generator).requires_grad_(False)
    if at.type == "cuda":
        generator.compile()
        discriminator.compile()
    prior = Normal(torch.zeros(128, device=at), torch.ones(128, device=at))
    z = priors.sample(prior, 64, seeded_generator(seed, 1, at))
    curve = Curve(folder / "curve.json")

    def report(step: int, d_loss: float) -> None:
        average.eval()
        with torch.no_grad():
            x = average(z)
            many = average(priors.sample(prior, 1000, seeded_generator(seed, 2, at)))
        distance = evaluate_images(many)["frechet_distance"]
        path = folder / "pictures" / f"step-{step:06d}.png"
        write_atomically(path, images.png_grid(x))
        curve.add(step, discriminator_loss=d_loss, frechet_distance=distance)
        say(
            f"step {step}: discriminator loss {d_loss:.3f}, "
            f"Fréchet distance (CIFAR classifier) {distance:.2f}, {path}"
        )

    train_gan(
        generator,
        discriminator,
        draw,
        prior,
        loss=LOSSES[loss],
        num_steps=num_steps,
        seed=seed,
        average=average,
        precision=torch.bfloat16,
        checkpoint=folder / "checkpoint.safetensors",
        checkpoint_every=250,
        callback=report,
        **settings,
    )
    if not is_first():
        return  # the first process does the rest
    average.eval()
    pair: dict[str, nn.Module] = {"generator": average, "discriminator": discriminator}
    training = {"loss": loss, "num_steps": num_steps, "fit_steps": fit_steps, **settings}
    # those of the last checkpoint; its Fréchet distance is of 1,000 images by the CIFAR classifier
    figures = {key: value for key, value in curve.points()[-1].items() if key != "step"}
    if fit_steps:
        pair["fitted"], fit = fit_copy(
            discriminator,
            draw,
            sampler_of(average, prior),
            num_steps=fit_steps,
            generator=seeded_generator(seed, 3, at),
            say=say,
        )
        figures |= fit
    for role in set(pair) - {"generator"}:
        settle_norms(pair[role])
    facts = {"data": data.source, "seed": seed, "training": training, "figures": figures}
    zoo.save(folder, pair, prior, **facts, curve=curve.points(), **card)
