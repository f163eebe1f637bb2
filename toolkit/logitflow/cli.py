"""`logitflow train · refine · evaluate · reproduce`: the toolkit from a shell."""

import argparse
import json
import math
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from logitflow import __version__, plots, priors, recipes, zoo
from logitflow.divergences import DIVERGENCES
from logitflow.files import write_atomically
from logitflow.reproduce import hardware, measure, reproduce
from logitflow.run import refine, seeded_generator
from logitflow.samplers import (
    Sampler,
    cycle,
    gradient_flow,
    langevin,
    metropolis_hastings,
    optimal_transport,
    rejection_sample,
)
from logitflow.target import LatentTarget

DATA_SETS = ("25gaussians", "swissroll")
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
    commands = parser.add_subparsers(required=True, metavar="command")
    _add_train(commands)
    _add_refine(commands)
    _add_evaluate(commands)
    _add_reproduce(commands)
    return parser


def _command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], None], about: str, example: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=about,
        description=about[0].upper() + about[1:] + ".",
        epilog=f"Example: {example}",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.set_defaults(command=run)
    return parser


def _add_train(commands: Any) -> None:
    parser = _command(
        commands,
        "train",
        _train,
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


def _train(options: argparse.Namespace) -> None:
    recipes.train_toy(
        options.data,
        options.out,
        num_steps=options.steps,
        fit_steps=options.fit_steps,
        seed=options.seed,
        say=print,
        command=_typed(
            "train",
            options.data,
            steps=options.steps,
            fit_steps=options.fit_steps,
            seed=options.seed,
        ),
        hardware=hardware(),
    )
    kind, pair, rng = recipes.toy(options.data), zoo.load(options.out), seeded_generator(0, 4)
    z = priors.sample(pair.prior, 5000, rng)
    generated = LatentTarget(pair.generator, pair.discriminator, pair.prior).generate(z)
    panels = [("real", kind.sample(5000, rng)), ("generated", generated)]
    picture = options.out / "samples.png"
    plots.save(plots.grid_of_samples(panels, **_truth(kind)), picture)
    print(f"wrote {options.out} (the pair, its card) and {picture}")


def _add_refine(commands: Any) -> None:
    parser = _command(
        commands,
        "refine",
        _refine,
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


def _refine(options: argparse.Namespace) -> None:
    if options.num_samples < 1:
        raise ValueError("--num-samples must be at least 1")
    pair = zoo.load(options.pair)
    logit = pair.discriminator if options.logit == "discriminator" else pair.fitted
    if logit is None:
        raise ValueError(f"{options.pair} has no fitted discriminator: use --logit discriminator")
    target = LatentTarget(pair.generator, logit, pair.prior)
    z = priors.sample(pair.prior, options.num_samples, seeded_generator(options.seed, 1))
    before = target.generate(z)
    if options.space == "data":
        target, z = LatentTarget(lambda x: x, logit, None), before
    if options.method == "drs":
        rng = seeded_generator(options.seed, 2)
        result = rejection_sample(target, num_samples=options.num_samples, generator=rng)
    else:
        result = refine(
            target,
            _sampler(target, options),
            num_samples=options.num_samples,
            num_steps=options.steps,
            batch_size=options.batch_size,
            seed=options.seed,
            z=z,
            folder=options.out / "shards",
        )
    samples = options.out / "samples.safetensors"
    write_atomically(samples, save({"x": result.x.clone(), "z": result.z.clone()}))
    info = {name: float(value) for name, value in result.info._asdict().items()}
    _write_json(options.out / "refine.json", {"options": _plain(options), "info": info})
    kind = _toy_of(pair)
    if kind is not None:
        plots.save(
            plots.before_after(before, result.x, **_truth(kind)), options.out / "before-after.png"
        )
    print(
        f"wrote {samples}: {options.num_samples} samples, acceptance rate {info['acceptance_rate']:.2f}, "
        f"{info['num_nonfinite']:.0f} non-finite moves refused"
    )


def _sampler(target: LatentTarget, options: argparse.Namespace) -> Sampler:
    step = {} if options.step_size is None else {"step_size": options.step_size}
    match options.method:
        case "dgflow":
            step = step or {"step_size": 1e-3}
            return gradient_flow(target, divergence=options.divergence, gamma=options.gamma, **step)
        case "dot":
            return optimal_transport(target, **step)
        case "mh-gan":
            return metropolis_hastings(target)
    chain = langevin(target, adjust=options.method != "ddls", **(step or {"step_size": 1e-3}))
    return cycle(metropolis_hastings(target), chain) if options.method == "mh-gan+mala" else chain


def _add_evaluate(commands: Any) -> None:
    parser = _command(
        commands,
        "evaluate",
        _evaluate,
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


def _evaluate(options: argparse.Namespace) -> None:
    x = _read_samples(options.samples)
    kind = recipes.toy(options.data)
    rng = seeded_generator(options.seed, 3)
    real, more_real = kind.sample(len(x), rng), kind.sample(len(x), rng)
    figures, floors = measure(x, real, kind), measure(more_real, real, kind)
    print(f"{'':20}{'samples':>12}{'real':>12}   (n = {len(x)})")
    for name, value in figures.items():
        print(f"{name.replace('_', ' '):20}{value:12.4g}{floors[name]:12.4g}")
    if options.out is not None:
        record = {
            "options": _plain(options),
            "num_samples": len(x),
            "figures": figures,
            "real": floors,
        }
        _write_json(options.out, record)
        picture = options.out.with_suffix(".png")
        panels = [(options.samples.name, x), ("real", real)]
        plots.save(plots.grid_of_samples(panels, **_truth(kind)), picture)
        print(f"wrote {options.out} and {picture}")


def _read_samples(path: Path) -> torch.Tensor:
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist: `logitflow refine` writes samples.safetensors"
        )
    try:
        return load(path.read_bytes())["x"]
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{path} is not a safetensors file with a tensor x: {error}") from error


def _add_reproduce(commands: Any) -> None:
    parser = _command(
        commands,
        "reproduce",
        _reproduce,
        "run every method on a shipped pair, several seeds, and write the book's table and its picture",
        "logitflow reproduce 25gaussians swissroll --out book/results",
    )
    parser.add_argument("data", nargs="+", choices=DATA_SETS, help="one or more experiments")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder for JSON and PNG")
    parser.add_argument("--num-samples", type=_count, default=10_000, help="samples a row and seed")
    parser.add_argument("--seeds", type=_count, default=5, help="how many seeds, at least 2")


def _reproduce(options: argparse.Namespace) -> None:
    for name in options.data:
        typed = _typed("reproduce", name, num_samples=options.num_samples, seeds=options.seeds)
        result = reproduce(
            name, num_samples=options.num_samples, num_seeds=options.seeds, command=typed
        )
        path = options.out / f"{name}.json"
        _write_json(path, result)
        plots.save(plots.comparison(result), path.with_suffix(".png"))
        print(f"wrote {path} and {path.with_suffix('.png')}")


def _toy_of(pair: zoo.Pair) -> recipes.Toy | None:
    return recipes.toy(pair.card["data"]) if pair.card.get("data") in DATA_SETS else None


def _truth(kind: recipes.Toy) -> dict[str, Any]:
    return {} if kind.mixture is None else kind.mixture._asdict()


def _typed(command: str, *positional: str, **named: Any) -> str:
    words = [f"--{key.replace('_', '-')} {value}" for key, value in named.items()]
    return " ".join(["logitflow", command, *map(shlex.quote, positional), *words])


def _plain(options: argparse.Namespace) -> dict[str, Any]:
    values = {key: value for key, value in vars(options).items() if key != "command"}
    return {key: str(v) if isinstance(v, Path) else v for key, v in values.items()}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_atomically(path, json.dumps(content, indent=1, ensure_ascii=False).encode())


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
