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
from safetensors.torch import load

from logitflow import plots, priors, recipes, zoo
from logitflow.data.images import png_grid
from logitflow.device import choose
from logitflow.files import write_atomically
from logitflow.metrics import evaluate_images, evaluate_text, label
from logitflow.metrics.text_reference import load_reference
from logitflow.processes import gathered, is_first, share
from logitflow.reproduce import (
    measure,
    reproduce_beyond,
    reproduce_beyond_images,
    reproduce_images,
    reproduce_text,
)
from logitflow.reproduce import reproduce as run_reproduce
from logitflow.run import seeded_generator
from logitflow.target import LatentTarget


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
            "options": plain(options),
            "num_samples": len(x),
            "figures": figures,
            "real": floors,
        }
        write_json(options.out, record)
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
        write_json(options.out, {"options": plain(options), "figures": figures})
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
        write_json(options.out, {"options": plain(options), "figures": figures, "real": real})
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
    """Run the tables, each into one JSON and one picture; points are moved on the CPU alone."""
    at = choose(options.device)
    own = {} if options.pair is None else {"pair": options.pair}
    if own and (others := set(options.data) - {"cifar10", "text"}):
        raise ValueError(f"--pair is for cifar10 and text, not for {', '.join(sorted(others))}")
    for name in options.data:
        numbers = {"num_samples": options.num_samples, "seeds": options.seeds}
        command = typed("reproduce", name, **own, **numbers)
        path = options.out / f"{name}.json"
        ledger = options.out / f"{name}.unfinished.json"
        tables: dict[str, Callable[..., dict[str, Any]]] = {
            "cifar10": partial(reproduce_images, **own, device=at),
            "text": partial(reproduce_text, **own, device=at),
            "beyond-gans": reproduce_beyond,
            "beyond-images": partial(reproduce_beyond_images, say=print, device=at),
        }
        run_table = tables.get(name, partial(run_reproduce, name))
        result = run_table(
            num_samples=options.num_samples,
            num_seeds=options.seeds,
            command=command,
            ledger=ledger,
        )
        if not is_first():
            continue
        write_json(path, result)
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


def toy_of(pair: zoo.Pair) -> recipes.Toy | None:
    """The toy that a pair was trained on, or None."""
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
    words = [f"--{key.replace('_', '-')} {shlex.quote(str(v))}" for key, v in named.items()]
    return " ".join(["logitflow", command, *map(shlex.quote, positional), *words])


def plain(options: argparse.Namespace) -> dict[str, Any]:
    """Options as JSON can hold them."""
    values = {key: value for key, value in vars(options).items() if key != "command"}
    return {key: str(v) if isinstance(v, Path) else v for key, v in values.items()}


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a file that people can read too."""
    write_atomically(path, json.dumps(content, indent=1, ensure_ascii=False).encode())
