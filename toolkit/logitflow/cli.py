"""`logitflow train · refine · evaluate · reproduce`: the toolkit from a shell."""

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from logitflow import __version__, commands, zoo
from logitflow.divergences import DIVERGENCES
from logitflow.recipes import DATA_SETS

METHODS = ("dgflow", "ddls", "mala", "dot", "mh-gan", "mh-gan+mala", "drs")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0 if it did what was asked, 1 if it failed on the way, 2 for a bad request.

    130 says that it was interrupted; the same command then goes on where it stopped.
    """
    options = build_parser().parse_args(arguments)
    try:
        options.command(options)
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


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="logitflow",
        description="Refine a generator's samples with its discriminator.",
        epilog="Begin with: logitflow refine 25gaussians-wgan-gp --out refined",
    )
    parser.add_argument("--version", action="version", version=f"logitflow {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="command")
    _add_train(subparsers)
    _add_refine(subparsers)
    _add_evaluate(subparsers)
    _add_reproduce(subparsers)
    return parser


def _command(
    subparsers: Any, name: str, run: Callable[[argparse.Namespace], None], about: str, example: str
) -> argparse.ArgumentParser:
    parser = subparsers.add_parser(
        name,
        help=about,
        description=about[0].upper() + about[1:] + ".",
        epilog=f"Example: {example}",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.set_defaults(command=run)
    return parser


def _add_train(subparsers: Any) -> None:
    parser = _command(
        subparsers,
        "train",
        commands.train,
        "train a generator and its critic, fit a discriminator to the finished generator, and write the pair",
        "logitflow train 25gaussians --out my-pair",
    )
    parser.add_argument("data", choices=DATA_SETS, help="what to learn")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for the pair; a killed run resumes"
    )
    parser.add_argument("--steps", type=_count, default=15_000, help="generator steps")
    parser.add_argument(
        "--fit-steps",
        type=_count,
        default=20_000,
        help="steps of fitting the discriminator; 0: none",
    )
    parser.add_argument(
        "--seed", type=_count, default=0, help="of the weights, the data and the latents"
    )


def _add_refine(subparsers: Any) -> None:
    parser = _command(
        subparsers,
        "refine",
        commands.refine,
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
        choices=("discriminator", "fitted"),
        default="fitted",
        help="the critic as trained, or the discriminator fitted to the fixed generator",
    )
    parser.add_argument(
        "--space", choices=("latent", "data"), default="latent", help="which points to move"
    )
    parser.add_argument("--divergence", choices=DIVERGENCES, default="kl", help="for dgflow")
    parser.add_argument(
        "--step-size",
        type=_number,
        help="η or ε in squared units of the points; Adam's rate for dot",
    )
    parser.add_argument("--gamma", type=_number, default=0.01, help="entropy weight, for dgflow")
    parser.add_argument("--steps", type=_count, default=100, help="steps of the sampler")
    parser.add_argument("--num-samples", type=_count, default=10_000, help="how many samples")
    parser.add_argument("--batch-size", type=_count, default=2000, help="points moved together")
    parser.add_argument("--seed", type=_count, default=0, help="of latents and noise")


def _add_evaluate(subparsers: Any) -> None:
    parser = _command(
        subparsers,
        "evaluate",
        commands.evaluate,
        "measure samples against a data set whose truth is known, beside what real samples would get",
        "logitflow evaluate refined/samples.safetensors --data 25gaussians --out figures.json",
    )
    parser.add_argument(
        "samples", type=Path, help="a safetensors file with samples x of shape (N, 2)"
    )
    parser.add_argument(
        "--data", choices=DATA_SETS, required=True, help="what they should look like"
    )
    parser.add_argument(
        "--out", type=Path, help="JSON file for the figures; a picture goes beside it"
    )
    parser.add_argument("--seed", type=_count, default=0, help="of the real samples")


def _add_reproduce(subparsers: Any) -> None:
    parser = _command(
        subparsers,
        "reproduce",
        commands.reproduce,
        "run every method on a shipped pair, several seeds, and write the book's table and its picture",
        "logitflow reproduce 25gaussians swissroll --out book/results",
    )
    parser.add_argument(
        "data", nargs="+", choices=(*DATA_SETS, "cifar10"), help="one or more experiments"
    )
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder for JSON and PNG")
    parser.add_argument("--num-samples", type=_count, default=10_000, help="samples a row and seed")
    parser.add_argument("--seeds", type=_count, default=5, help="how many seeds")


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number")
    return value
