"""`logitflow train · refine · evaluate · reproduce · bench`: the toolkit from a shell."""

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from logitflow import __version__, commands, zoo
from logitflow.cli_bench import add_bench
from logitflow.cli_options import add_command, add_device, count, number
from logitflow.cli_train import add_train
from logitflow.commands_refine import REFINE_DEFAULTS, refine
from logitflow.divergences import DIVERGENCES
from logitflow.processes import is_first, process_group
from logitflow.recipes import DATA_SETS

METHODS = ("dgflow", "ddls", "mala", "dot", "mh-gan", "mh-gan+mala", "drs")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0 if it did what was asked, 1 if it failed on the way, 2 for a bad request.

    130 says that it was interrupted; the same command then goes on where it stopped. Under `torchrun` the
    processes share the work (see `logitflow.processes`); the first prints and writes.
    """
    options = build_parser().parse_args(arguments)
    try:
        with process_group():
            _run(options)
    except KeyboardInterrupt:
        print("\nlogitflow: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except (FileNotFoundError, NotADirectoryError, TypeError, ValueError) as error:
        print(f"logitflow: {error}", file=sys.stderr)
        return 2
    except (FloatingPointError, OSError, RuntimeError) as error:
        print(f"logitflow: {error}", file=sys.stderr)
        return 1
    return 0


def _run(options: argparse.Namespace) -> None:
    if is_first():
        options.command(options)
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        options.command(options)


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="logitflow",
        description="Refine a generator's samples with its discriminator.",
        epilog="Begin with: logitflow refine 25gaussians-wgan-gp --out refined. "
        "With two processes: torchrun --standalone --nproc-per-node 2 -m logitflow refine 25gaussians-wgan-gp "
        "--out refined",
    )
    parser.add_argument("--version", action="version", version=f"logitflow {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="command")
    add_train(subparsers)
    _add_refine(subparsers)
    _add_evaluate(subparsers)
    _add_reproduce(subparsers)
    add_bench(subparsers)
    return parser


def _add_refine(subparsers: Any) -> None:
    parser = add_command(
        subparsers,
        "refine",
        refine,
        "draw samples from a pair's generator and refine them with its discriminator",
        "logitflow refine 25gaussians-wgan-gp --method dgflow --divergence kl --steps 100 --out refined",
    )
    parser.add_argument(
        "pair", help=f"a pair of the zoo ({', '.join(zoo.names())}) or a pair's folder"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for shards, samples and picture"
    )
    parser.add_argument(
        "--method", choices=METHODS, default="dgflow", help="how to move the points"
    )
    parser.add_argument(
        "--logit",
        choices=("discriminator", "fitted", "stratified"),
        help="the discriminator as trained; one fitted to the fixed generator; or, of a discriminator that "
        "names classes, what speaks for each sample's own (a class in turn); not given: fitted where the pair "
        "has one",
    )
    parser.add_argument(
        "--space", choices=("latent", "data"), default="latent", help="which points to move"
    )
    parser.add_argument("--divergence", choices=DIVERGENCES, default="kl", help="for dgflow")
    parser.add_argument(
        "--step-size",
        type=number,
        help="η or ε in squared units of the points, Adam's rate for dot; not given: 0.01 for dot, 0.001 for "
        "points, for images 0.1 for dgflow and 0.05 for the others, for text as in the book's table",
    )
    parser.add_argument("--gamma", type=number, default=0.01, help="entropy weight, for dgflow")
    for name, help_text in (
        ("steps", "steps of the sampler"),
        ("num-samples", "how many samples"),
        ("batch-size", "points moved together"),
    ):
        points, others = REFINE_DEFAULTS[name.replace("-", "_")]
        parser.add_argument(
            f"--{name}",
            type=count,
            help=f"{help_text}; not given: {points}, for images and text {others}",
        )
    parser.add_argument("--seed", type=count, default=0, help="of latents and noise")
    add_device(parser)


def _add_evaluate(subparsers: Any) -> None:
    parser = add_command(
        subparsers,
        "evaluate",
        commands.evaluate,
        "measure samples: points beside what real ones would get, images with our classifier of CIFAR-10, text "
        "by its n-grams, words and copies",
        "logitflow evaluate refined/samples.safetensors --data 25gaussians --out figures.json",
    )
    parser.add_argument(
        "samples",
        type=Path,
        help="a safetensors file with samples x of shape (N, 2), images (N, 3, 32, 32) in [−1, 1], or text: "
        "codes (N, 32) or rows of probabilities (N, 32, 96)",
    )
    parser.add_argument(
        "--data",
        choices=(*DATA_SETS, "cifar10", "text"),
        required=True,
        help="what they should look like",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="JSON file for the figures; of points and images a picture goes beside it",
    )
    parser.add_argument("--seed", type=count, default=0, help="of the real samples")
    add_device(parser)


def _add_reproduce(subparsers: Any) -> None:
    parser = add_command(
        subparsers,
        "reproduce",
        commands.reproduce,
        "run every method on a shipped pair, several seeds, and write the book's table and its picture",
        "logitflow reproduce 25gaussians swissroll --out book/results",
    )
    parser.add_argument(
        "data",
        nargs="+",
        choices=(*DATA_SETS, "cifar10", "text", "beyond-gans", "beyond-images"),
        help="one or more experiments; beyond-gans: the toys' VAEs, flows and "
        "MMD-GANs; beyond-images: CIFAR-10's",
    )
    parser.add_argument(
        "--pair",
        help="for cifar10 and text: a pair's name or folder in the place of the shipped one",
    )
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder for JSON and PNG")
    parser.add_argument("--num-samples", type=count, default=10_000, help="samples a row and seed")
    parser.add_argument("--seeds", type=count, default=5, help="how many seeds")
    add_device(parser)
