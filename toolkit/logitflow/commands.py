"""What the commands of `logitflow.cli` do, each from its parsed options."""

import argparse
import json
import shlex
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from logitflow import plots, priors, recipes, zoo
from logitflow.files import write_atomically
from logitflow.reproduce import hardware, measure, reproduce_images
from logitflow.reproduce import reproduce as run_reproduce
from logitflow.run import refine as run_refine
from logitflow.run import seeded_generator
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


def train(options: argparse.Namespace) -> None:
    """Train a pair and picture its samples."""
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


def refine(options: argparse.Namespace) -> None:
    """Refine a pair's samples; a killed run goes on from its shards."""
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
        result = run_refine(
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


def evaluate(options: argparse.Namespace) -> None:
    """Measure samples beside real ones."""
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


def reproduce(options: argparse.Namespace) -> None:
    """Run the tables, each into one JSON and one picture."""
    for name in options.data:
        typed = _typed("reproduce", name, num_samples=options.num_samples, seeds=options.seeds)
        path = options.out / f"{name}.json"
        ledger = options.out / f"{name}.unfinished.json"
        run_table = reproduce_images if name == "cifar10" else partial(run_reproduce, name)
        result = run_table(
            num_samples=options.num_samples,
            num_seeds=options.seeds,
            command=typed,
            ledger=ledger,
        )
        _write_json(path, result)
        ledger.unlink()
        plots.save(plots.comparison(result), path.with_suffix(".png"))
        print(f"wrote {path} and {path.with_suffix('.png')}")
        if "curves" in result:
            picture = options.out / f"{name}-curve.png"
            plots.save(plots.quality_curve(result["curves"]), picture)
            print(f"wrote {picture}")


def _toy_of(pair: zoo.Pair) -> recipes.Toy | None:
    return recipes.toy(pair.card["data"]) if pair.card.get("data") in recipes.DATA_SETS else None


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
