"""How the shipped text pair was made, called by `logitflow train text`."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from logitflow import priors, zoo
from logitflow.data import text
from logitflow.device import choose
from logitflow.metrics.text import evaluate_text
from logitflow.models import TextCritic, TextGenerator
from logitflow.processes import is_first
from logitflow.recipes.classifier import round_weights
from logitflow.recipes.common import Curve, Preset, find, fit_copy, sampler_of, weights_from
from logitflow.run import seeded_generator
from logitflow.training import LOSSES, train_gan

PRESETS = {
    # for two cores: a fifth of the paper's width, and fewer steps of the critic so that the generator has more.
    # The shipped pair began with one critic step and went on with three when that taught it no more.
    "small": Preset(
        lambda: (TextGenerator(96), TextCritic(96)),
        "wgan-gp",
        8_000,
        1_000,
        {
            "batch_size": 64,
            "learning_rate": 2e-4,
            "discriminator_learning_rate": 4e-4,
            "betas": (0.5, 0.9),
            "discriminator_steps": 3,
        },
    ),
    # for a GPU: the paper's sizes and its authors' number of steps
    "paper": Preset(
        lambda: (TextGenerator(512), TextCritic(512)),
        "wgan-gp",
        200_000,
        5_000,
        {"batch_size": 64, "learning_rate": 1e-4, "betas": (0.5, 0.9), "discriminator_steps": 5},
    ),
}
"""The sizes that `logitflow train text` knows.

:meta hide-value:
"""


def train_text(
    preset: str,
    folder: str | Path,
    *,
    num_steps: int | None = None,
    fit_steps: int | None = None,
    critic_steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
    say: Callable[[str], None] = lambda line: None,
    **card: Any,
) -> None:
    """Train a pair on the One Billion Word benchmark in bfloat16, fit a critic to the generator, and write all.

    A killed run goes on from the folder's checkpoint.

    The generator that is written is the exponential moving average; matrices are rounded to half precision
    before they are written. At each checkpoint `samples.txt` gets 32 fixed latents' texts, and `curve.json`
    a point: the step, the critic's loss, its estimate of the Wasserstein distance between training windows and
    the moving generator's, JS-4, JS-6 and the share of known words in 1,000 windows of the average, and the
    seconds of training so far.

    The fitted critic begins as a copy of the trained one, which has met the moving generator but never its
    average. It learns to tell training windows from decoded ones: a real row is one-hot and a generated one is
    not, so that between undecoded rows the log density ratio would be infinite.

    Args:
        preset: one of `PRESETS`.
        folder: where the pair goes, as `logitflow.zoo.save` lays it out.
        num_steps: generator steps; None for the preset's.
        fit_steps: steps of fitting the critic, None for the preset's; 0 fits none.
        critic_steps: critic steps a generator step, None for the preset's; an earlier run may have had others.
        seed: of the initial weights, the data and the latents.
        device: "auto" (a GPU where there is one), "cpu" or "cuda".
        say: is told how training goes, with samples, at each checkpoint.
        card: what else the card should say, such as the command.

    Raises:
        ValueError: the preset is unknown, there is no such device, no sentence is long enough, or the
            checkpoint is of other networks.
        FloatingPointError: a loss is not finite.
        FileNotFoundError, ConnectionError: there is no data: `logitflow.data.billion_words` says what to do.
    """
    make, loss, num_steps, fit_steps, settings = find(PRESETS, preset, num_steps, fit_steps)
    if critic_steps is not None:
        settings = settings | {"discriminator_steps": critic_steps}
    folder, at = Path(folder), choose(device)
    sentences, source = text.billion_words("train")
    data = text.Windows(text.windows(sentences).to(at), source)
    with weights_from(seed):
        generator, critic = (network.to(at) for network in make())
    average = copy.deepcopy(generator).requires_grad_(False)
    prior = Normal(torch.zeros(128, device=at), torch.ones(128, device=at))
    curve = Curve(folder / "curve.json")

    @torch.no_grad()
    def report(step: int, loss: float) -> None:
        rng = seeded_generator(seed, 1, at)  # the same latents each time
        z, real = priors.sample(prior, 1000, rng), data.sample(1000, rng)
        distance = float(critic(real).mean() - critic(generator(z)).mean())
        rows = average(z)
        judged = evaluate_text(rows)
        figures = {name: judged[name] for name in ("js_4", "js_6", "word_share")}
        curve.add(step, critic_loss=loss, wasserstein_estimate=distance, **figures)
        lines = text.decode(rows[:32])
        _append(folder / "samples.txt", f"step {step}", lines, anew=len(curve.points()) == 1)
        say(
            f"step {step}: critic's distance {distance:.3f}, JS-4 {figures['js_4']:.4f}, known words "
            f"{figures['word_share']:.1%}; samples:"
        )
        for line in lines[:5]:
            say(f"  |{line}|")

    train_gan(
        generator,
        critic,
        data.sample,
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
    round_weights(average)  # before fitting, which then meets the generator that is written
    pair: dict[str, nn.Module] = {"generator": average, "discriminator": critic}
    training = {"loss": loss, "num_steps": num_steps, "fit_steps": fit_steps, **settings}
    # those of the last checkpoint, of 1,000 windows
    figures = {key: value for key, value in curve.points()[-1].items() if key != "step"}
    if fit_steps:
        draw = sampler_of(average, prior)

        def sample_fake(n: int, rng: torch.Generator) -> Tensor:
            return text.one_hot(draw(n, rng).argmax(2))

        pair["fitted"], fit = fit_copy(
            critic,
            data.sample,
            sample_fake,
            num_steps=fit_steps,
            generator=seeded_generator(seed, 2, at),
            say=say,
        )
        figures |= fit
    for role in set(pair) - {"generator"}:
        round_weights(pair[role])
    facts = {"data": data.source, "seed": seed, "training": training, "figures": figures}
    zoo.save(folder, pair, prior, **facts, curve=curve.points(), **card)


def _append(path: Path, title: str, lines: list[str], *, anew: bool) -> None:
    with path.open("w" if anew else "a", encoding="utf-8") as file:
        file.write("\n".join([title, *lines]) + "\n\n")
