"""What the commands of `logitflow.cli` do, each from its parsed options."""

import argparse
import json
import math
import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from logitflow import plots, priors, recipes, zoo
from logitflow.data.images import png_grid
from logitflow.data.text import decode
from logitflow.device import choose
from logitflow.files import write_atomically
from logitflow.inference import fast
from logitflow.metrics import evaluate_images, evaluate_text, label
from logitflow.metrics.text_reference import load_reference
from logitflow.processes import gathered, is_first, share
from logitflow.reproduce import measure, reproduce_beyond, reproduce_images, reproduce_text
from logitflow.reproduce import reproduce as run_reproduce
from logitflow.reproduce.settings import TEXT_EPSILON, TEXT_ETA
from logitflow.reproduce.table import DRS_PERCENTILE
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

REFINE_DEFAULTS = {"steps": (100, 25), "num_samples": (10_000, 1000), "batch_size": (2000, 250)}
"""What `refine` does where it is not told: for points, and for images and text."""
STEP_SIZES = {
    "points": {"dgflow": 1e-3, "ddls": 1e-3, "mala": 1e-3, "mh-gan+mala": 1e-3},
    "images": {"dgflow": 0.1, "ddls": 0.05, "mala": 0.05, "mh-gan+mala": 0.05},
    "text": {
        "dgflow": TEXT_ETA,
        "ddls": TEXT_EPSILON,
        "mala": TEXT_EPSILON,
        "mh-gan+mala": TEXT_EPSILON,
    },
}
"""The samplers' steps; DOT's are its own."""
SHOWN = 5
"""Of refined texts, so many are printed."""


def refine(options: argparse.Namespace) -> None:
    """Refine a pair's samples; a killed run goes on from its shards."""
    pair = zoo.load(options.pair)
    logit = _logit(pair, options)
    target = LatentTarget(pair.generator, logit, pair.prior)
    one = target.generate(priors.sample(pair.prior, 1, seeded_generator(0, 0)))
    kind = {2: "points", 3: "text", 4: "images"}[one.ndim]
    _fill_in(options, kind)
    # drawn on the CPU: the same on every device
    z = priors.sample(pair.prior, options.num_samples, seeded_generator(options.seed, 1))
    at = choose(options.device)
    pair = zoo.to_device(pair, at)
    target = LatentTarget(pair.generator, logit, pair.prior)
    if kind == "images":
        target = LatentTarget(fast(pair.generator), fast(logit), pair.prior)
    parts = share(z.split(options.batch_size))
    before = torch.cat(gathered([target.generate(part.to(at)).cpu() for part in parts]))
    if options.space == "data":
        target, z = LatentTarget(lambda x: x, target.logit, None), before
    if options.method == "drs":
        result = rejection_sample(
            target,
            num_samples=options.num_samples,
            generator=seeded_generator(options.seed, 2, at),
            percentile=None if kind == "points" else DRS_PERCENTILE,
            batch_size=min(1000, options.batch_size),
        )
    else:
        result = run_refine(
            target,
            _sampler(target, options),
            num_samples=options.num_samples,
            num_steps=options.steps,
            batch_size=options.batch_size,
            seed=options.seed,
            z=z,
            device=at,
            folder=options.out / "shards",
        )
    if not is_first():
        return
    samples = options.out / "samples.safetensors"
    kept = {"x": result.x.cpu(), "z": result.z.cpu()}  # in data space the same memory
    write_atomically(samples, save({name: t.contiguous().clone() for name, t in kept.items()}))
    info = {name: float(value) for name, value in result.info._asdict().items()}
    _write_json(options.out / "refine.json", {"options": _plain(options), "info": info})
    _show(pair, before, kept["x"], options.out)
    print(
        f"wrote {samples}: {options.num_samples} samples, acceptance rate {info['acceptance_rate']:.2f}, "
        f"{info['num_nonfinite']:.0f} non-finite moves refused"
    )


def _fill_in(options: argparse.Namespace, kind: str) -> None:
    """Put the default where an option was not given, and refuse what cannot be."""
    for name, (of_points, of_others) in REFINE_DEFAULTS.items():
        if getattr(options, name) is None:
            setattr(options, name, of_points if kind == "points" else of_others)
    if options.step_size is None:
        options.step_size = STEP_SIZES[kind].get(options.method)
    if kind == "text" and options.space == "data":
        raise ValueError("characters cannot be moved a little: refine text with --space latent")
    for name in ("num_samples", "batch_size"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1")


def _logit(pair: zoo.Pair, options: argparse.Namespace) -> torch.nn.Module:
    if options.logit is None:
        options.logit = "discriminator" if pair.fitted is None else "fitted"
    if options.logit == "discriminator":
        return pair.discriminator
    if pair.fitted is None:
        raise ValueError(f"{options.pair} has no fitted discriminator: use --logit discriminator")
    return pair.fitted


def _show(pair: zoo.Pair, before: torch.Tensor, after: torch.Tensor, folder: Path) -> None:
    """A picture of what refinement did, or of text a file and its first lines."""
    kind, path = _toy_of(pair), folder / "before-after.png"
    if kind is not None:
        plots.save(plots.before_after(before, after, **truth(kind)), path)
    elif before.ndim == 4:
        plots.save(plots.before_after_images(before[:32], after[:32]), path)
    elif before.ndim == 3:
        texts = plots.before_after_text(decode(before), decode(after))
        write_atomically(path.with_suffix(".txt"), f"{texts}\n".encode())
        print(plots.before_after_text(*(lines[:SHOWN] for lines in texts.frames)))


def _sampler(target: LatentTarget, options: argparse.Namespace) -> Sampler:
    step = {} if options.step_size is None else {"step_size": options.step_size}
    match options.method:
        case "dgflow":
            return gradient_flow(target, divergence=options.divergence, gamma=options.gamma, **step)
        case "dot":
            return optimal_transport(target, **step)
        case "mh-gan":
            return metropolis_hastings(target)
    chain = langevin(target, adjust=options.method != "ddls", **step)
    return cycle(metropolis_hastings(target), chain) if options.method == "mh-gan+mala" else chain


def evaluate(options: argparse.Namespace) -> None:
    """Measure samples beside real ones."""
    x = _read_samples(options.samples)
    if options.data == "cifar10":
        _evaluate_images(x, options)
        return
    if options.data == "text":
        _evaluate_text(x, options)
        return
    kind = recipes.toy(options.data)
    rng = seeded_generator(options.seed, 3)
    real, more_real = kind.sample(len(x), rng), kind.sample(len(x), rng)
    figures, floors = gathered([measure(each, real, kind) for each in share([x, more_real])])
    print(f"{'':20}{'samples':>12}{'real':>12}   (n = {len(x)})")
    for name, value in figures.items():
        print(f"{name.replace('_', ' '):20}{value:12.4g}{floors[name]:12.4g}")
    if options.out is not None and is_first():
        record = {
            "options": _plain(options),
            "num_samples": len(x),
            "figures": figures,
            "real": floors,
        }
        _write_json(options.out, record)
        picture = options.out.with_suffix(".png")
        panels = [(options.samples.name, x), ("real", real)]
        plots.save(plots.grid_of_samples(panels, **truth(kind)), picture)
        print(f"wrote {options.out} and {picture}")


def _evaluate_images(x: torch.Tensor, options: argparse.Namespace) -> None:
    figures = evaluate_images(x.to(choose(options.device)))
    print(f"n = {figures['n']}, against {figures['reference']}")
    for name, value in figures.items():
        if isinstance(value, float):
            print(f"{label(name, figures['extractor']):45}{value:12.4g}")
    print("classes: " + ", ".join(f"{k} {v}" for k, v in figures.get("class_counts", {}).items()))
    if options.out is not None and is_first():
        _write_json(options.out, {"options": _plain(options), "figures": figures})
        picture = options.out.with_suffix(".png")
        write_atomically(picture, png_grid(x[:64]))
        print(f"wrote {options.out} and {picture}")


def _evaluate_text(x: torch.Tensor, options: argparse.Namespace) -> None:
    reference = load_reference()
    figures, real = evaluate_text(x, reference), dict(reference.held_out)
    print(f"n = {figures['n']}, against {figures['reference']}")
    try:
        real |= {name: spread.mean for name, spread in reference.floor(len(x)).items()}
    except ValueError as error:  # the figures stand without it
        print(error)
    print(f"{'':20}{'samples':>12}{'real':>12}")
    for name, value in figures.items():
        if isinstance(value, float):
            print(f"{name.replace('_', ' '):20}{value:12.4g}{real.get(name, math.nan):12.4g}")
    if options.out is not None and is_first():
        _write_json(options.out, {"options": _plain(options), "figures": figures, "real": real})
        print(f"wrote {options.out}")


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
        command = typed("reproduce", name, num_samples=options.num_samples, seeds=options.seeds)
        path = options.out / f"{name}.json"
        ledger = options.out / f"{name}.unfinished.json"
        others: dict[str, Callable[..., dict[str, Any]]] = {
            "cifar10": reproduce_images,
            "text": reproduce_text,
            "beyond-gans": partial(reproduce_beyond, say=print),
        }
        run_table = others.get(name, partial(run_reproduce, name))
        result = run_table(
            num_samples=options.num_samples,
            num_seeds=options.seeds,
            command=command,
            ledger=ledger,
        )
        if not is_first():
            continue
        _write_json(path, result)
        ledger.unlink()
        for table in result.get("tables", [result]):
            picture = options.out / f"{table['experiment']}.png"
            plots.save(plots.comparison(table), picture)
            print(f"wrote {path} and {picture}")
        if "curves" in result:
            picture = options.out / f"{name}-curve.png"
            draw = plots.ngram_curve if name == "text" else plots.quality_curve
            plots.save(draw(result["curves"], real=result["real_of_curves"]), picture)
            print(f"wrote {picture}")


def _toy_of(pair: zoo.Pair) -> recipes.Toy | None:
    return recipes.toy(pair.card["data"]) if pair.card.get("data") in recipes.DATA_SETS else None


def truth(kind: recipes.Toy) -> dict[str, Any]:
    """A toy's centres and spread for its pictures, where it has them."""
    return {} if kind.mixture is None else kind.mixture._asdict()


def picture_of_toy(name: str, folder: Path) -> Path:
    """Picture a trained model's samples beside the toy's, in the model's folder; return the picture's path."""
    kind, pair, rng = recipes.toy(name), zoo.load(folder), seeded_generator(0, 4)
    z = priors.sample(pair.prior, 5000, rng)
    generated = LatentTarget(pair.generator, pair.discriminator, pair.prior).generate(z)
    panels = [("real", kind.sample(5000, rng)), ("generated", generated)]
    picture = folder / "samples.png"
    plots.save(plots.grid_of_samples(panels, **truth(kind)), picture)
    return picture


def typed(command: str, *positional: str, **named: Any) -> str:
    """A command as one would type it."""
    words = [f"--{key.replace('_', '-')} {value}" for key, value in named.items()]
    return " ".join(["logitflow", command, *map(shlex.quote, positional), *words])


def _plain(options: argparse.Namespace) -> dict[str, Any]:
    values = {key: value for key, value in vars(options).items() if key != "command"}
    return {key: str(v) if isinstance(v, Path) else v for key, v in values.items()}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_atomically(path, json.dumps(content, indent=1, ensure_ascii=False).encode())
