"""`logitflow train`: a parser for each thing that can be trained, and what it runs."""

import argparse
from collections.abc import Callable
from typing import Any

from logitflow import recipes
from logitflow.cli_beyond import add_beyond
from logitflow.cli_options import add_command, add_device, add_folder, count
from logitflow.commands import picture_of_toy, typed
from logitflow.device import choose
from logitflow.processes import is_first
from logitflow.recipes.common import Preset, find
from logitflow.reproduce import hardware


def add_train(subparsers: Any) -> None:
    """Add `train` and below it one command a data set, each with its own options."""
    parser = add_command(
        subparsers,
        "train",
        None,
        "train a pair, a generator with its discriminator, or a classifier, and write it with its card",
        "logitflow train 25gaussians --out my-pair",
    )
    below = parser.add_subparsers(dest="data", required=True, metavar="what")
    for name in recipes.DATA_SETS:
        _add_toy(below, name)
    _add_pupil(below)
    _add_cifar10(below)
    _add_text(below)
    _add_classifier(below)
    add_beyond(below)


def _add_toy(subparsers: Any, name: str) -> None:
    parser = add_command(
        subparsers,
        name,
        train_toy,
        "train a WGAN-GP pair on a two-dimensional toy, then fit a discriminator to the finished generator",
        f"logitflow train {name} --out my-pair",
    )
    add_folder(parser, "the pair")
    parser.add_argument("--steps", type=count, default=15_000, help="generator steps")
    parser.add_argument(
        "--fit-steps",
        type=count,
        default=20_000,
        help="steps of fitting the discriminator; 0: none",
    )
    parser.add_argument(
        "--seed", type=count, default=0, help="of the weights, the data and the latents"
    )


def _add_pupil(subparsers: Any) -> None:
    parser = add_command(
        subparsers,
        "pupil",
        train_pupil,
        "teach a narrow generator what a toy pair's generator does, and fit a discriminator to it",
        "logitflow train pupil --out my-small-pair",
    )
    add_folder(parser, "the pair")
    parser.add_argument("--teacher", default="25gaussians-wgan-gp", help="a pair of the zoo")
    parser.add_argument("--width", type=count, default=64, help="of the hidden layers")
    parser.add_argument("--steps", type=count, default=6_000, help="generator steps")
    parser.add_argument("--fit-steps", type=count, default=8_000, help="discriminator steps")
    parser.add_argument(
        "--seed", type=count, default=0, help="of the weights, the data and the latents"
    )


def _add_cifar10(subparsers: Any) -> None:
    parser = add_command(
        subparsers,
        "cifar10",
        train_cifar10,
        "train a pair on CIFAR-10, which LOGITFLOW_DATA or the network must provide; pictures and curve.json "
        "tell how it goes",
        "logitflow train cifar10 --preset small --out my-cifar10",
    )
    add_folder(parser, "the pair, its pictures and its curve")
    _add_preset(parser, recipes.PRESETS)


def _add_text(subparsers: Any) -> None:
    parser = add_command(
        subparsers,
        "text",
        train_text,
        "train a pair on the One Billion Word benchmark, which LOGITFLOW_DATA or the network must provide; "
        "samples.txt and curve.json tell how it goes",
        "logitflow train text --preset small --out my-text",
    )
    add_folder(parser, "the pair, its samples and its curve")
    parser.add_argument(
        "--critic-steps",
        type=count,
        help="critic steps a generator step; not given: the preset's. A run may go on with others than before",
    )
    _add_preset(parser, recipes.TEXT_PRESETS)


def _add_preset(parser: argparse.ArgumentParser, presets: dict[str, Preset]) -> None:
    labels = "labels: the same, with a discriminator that names the classes; "
    labels = labels if "labels" in presets else ""
    parser.add_argument(
        "--preset",
        choices=tuple(presets),
        default="small",
        help=f"small: an hour or so of two cores; {labels}paper: the papers' size, for a GPU",
    )
    parser.add_argument("--steps", type=count, help="generator steps; not given: the preset's")
    parser.add_argument(
        "--fit-steps",
        type=count,
        help="steps of fitting a copy of the discriminator to the finished generator; not given: the preset's, "
        "0: none",
    )
    parser.add_argument(
        "--seed", type=count, default=0, help="of the weights, the data and the latents"
    )
    add_device(parser)


def _add_classifier(subparsers: Any) -> None:
    parser = add_command(
        subparsers,
        "classifier",
        train_classifier,
        "train the classifier of CIFAR-10 that judges images, and write it with what it sees there",
        "logitflow train classifier --out my-classifier",
    )
    add_folder(parser, "the classifier")
    parser.add_argument("--epochs", type=count, default=18, help="passes through the images")
    parser.add_argument("--seed", type=count, default=0, help="of the weights and the order")
    add_device(parser)


def train_toy(options: argparse.Namespace) -> None:
    """Train a pair on a toy and picture its samples."""
    settings = {"steps": options.steps, "fit_steps": options.fit_steps, "seed": options.seed}
    recipes.train_toy(
        options.data,
        options.out,
        num_steps=options.steps,
        fit_steps=options.fit_steps,
        seed=options.seed,
        say=print,
        command=typed("train", options.data, **settings),
        hardware=hardware(),
    )
    if not is_first():
        return
    picture = picture_of_toy(options.data, options.out)
    print(f"wrote {options.out} (the pair, its card) and {picture}")


def train_pupil(options: argparse.Namespace) -> None:
    """Teach a narrow generator a toy pair's samples."""
    settings = {"width": options.width, "steps": options.steps, "fit_steps": options.fit_steps}
    recipes.train_pupil(
        options.teacher,
        options.out,
        width=options.width,
        num_steps=options.steps,
        fit_steps=options.fit_steps,
        seed=options.seed,
        say=print,
        command=typed("train", "pupil", teacher=options.teacher, **settings, seed=options.seed),
        hardware=hardware(),
    )
    print(f"wrote {options.out} (the pair and its card)")


def train_cifar10(options: argparse.Namespace) -> None:
    """Train a pair on CIFAR-10."""
    _train_preset(options, recipes.PRESETS, recipes.train_cifar10)
    print(f"wrote {options.out} (the pair, its card, pictures of 64 latents and curve.json)")


def train_text(options: argparse.Namespace) -> None:
    """Train a pair on the One Billion Word benchmark."""
    more = {} if options.critic_steps is None else {"critic_steps": options.critic_steps}
    _train_preset(options, recipes.TEXT_PRESETS, recipes.train_text, **more)
    print(f"wrote {options.out} (the pair, its card, samples.txt and curve.json)")


def _train_preset(
    options: argparse.Namespace,
    presets: dict[str, Preset],
    train: Callable[..., None],
    **more: int,
) -> None:
    preset = find(presets, options.preset, options.steps, options.fit_steps)
    settings = {
        "steps": preset.num_steps,
        "fit_steps": preset.fit_steps,
        **more,
        "seed": options.seed,
    }
    train(
        options.preset,
        options.out,
        num_steps=preset.num_steps,
        fit_steps=preset.fit_steps,
        **more,
        seed=options.seed,
        device=options.device,
        say=print,
        command=typed("train", options.data, preset=options.preset, **settings),
        hardware=hardware(choose(options.device)),
    )


def train_classifier(options: argparse.Namespace) -> None:
    """Train the classifier that judges images."""
    recipes.train_cifar10_classifier(
        options.out,
        num_epochs=options.epochs,
        seed=options.seed,
        device=str(choose(options.device)),
        say=print,
        command=typed("train", "classifier", epochs=options.epochs, seed=options.seed),
        hardware=hardware(choose(options.device)),
    )
    print(f"wrote {options.out} (the classifier, its card and its view of CIFAR-10)")
